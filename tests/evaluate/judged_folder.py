"""A folder of answers with known qualities, a simulated judge, and a campaign in one call."""

import asyncio
import dataclasses
import json
from pathlib import Path

import numpy as np
from fake_endpoint import FakeEndpoint
from PIL import Image
from simulated_judge import SimulatedJudge

from facejax.annotate import campaign
from facejax.annotate.asking import Patience
from facejax.annotate.endpoint import Service
from facejax.evaluate.judge.items import Source, load
from facejax.evaluate.judge.judging import Judging, Terms

PRICE = (3.0, 12.0)


class JudgedFolder:
  """Answers of systems with known qualities.

  Attributes:
    endpoint: to be planned before, and asked after a run.
    qualities: by system, of each item.
    done: what the last run gave.
    results: that it wrote.
  """

  def __init__(self, path: Path, qualities: dict[str, list[float]]):
    """Writes NAME.jsonl for each system, and one picture; an answer is missing where NaN."""
    self.path, self.out, self.qualities = path, path / "out", qualities
    self.endpoint = FakeEndpoint()
    self.endpoint.reply = SimulatedJudge()
    self.terms = Terms(resamples=20)
    self.pace = campaign.Pace(patience=Patience(first_wait=0.01), idempotent=True)
    Image.fromarray(np.full((8, 10, 3), 90, np.uint8)).save(path / "face.png")
    for name, each in qualities.items():
      lines = [json.dumps(self.line(name, i, quality)) for i, quality in enumerate(each)]
      (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

  def line(self, name: str, place: int, quality: float) -> dict:
    answer = "" if np.isnan(quality) else f"Happy, because of the cheeks: quality {quality:.3f}"
    return {
      "id": f"i{place}",
      "question": f"What does face {place} show?",
      "truth": "happy",
      "answer": answer,
      "image": "face.png",
    }

  @property
  def sources(self) -> list[Source]:
    return [Source(name, self.path / f"{name}.jsonl") for name in self.qualities]

  def run(self, **changes) -> dict:
    """Runs once more on the same output, with some terms or paces changed."""
    paces = {k: v for k, v in changes.items() if k in campaign.Pace.__dataclass_fields__}
    own = {k: v for k, v in changes.items() if k not in paces}
    terms, pace = dataclasses.replace(self.terms, **own), dataclasses.replace(self.pace, **paces)
    items = load(self.sources, {"": self.path} if terms.media else None)
    job = Judging(items, terms, {"model": "fake"})

    async def session():
      url = await self.endpoint.start()
      service = Service(model="fake", base_url=url, key_env="", price=PRICE, timeout=5.0)
      try:
        return await campaign.conduct(job, [service], self.out, pace)
      finally:
        await self.endpoint.stop()

    self.done = asyncio.run(session())
    self.results = json.loads((self.out / "results.json").read_text())
    return self.results

  def lines(self, name: str) -> list[dict]:
    return [json.loads(line) for line in (self.out / name).read_text().splitlines()]

  def scores(self, criterion: str = "mean") -> dict[str, float]:
    systems = self.results["systems"].items()
    return {name: system["scores"][criterion]["value"] for name, system in systems}
