"""A fake endpoint in this process, FairFace folders of noise, and a campaign in one call."""

import asyncio
import dataclasses
import json
import pathlib

import numpy as np
from fake_endpoint import FakeEndpoint
from PIL import Image

from facejax.annotate import campaign
from facejax.annotate.asking import Patience
from facejax.annotate.endpoint import Service
from facejax.annotate.fairface import FairFace
from facejax.annotate.filters import Limits
from facejax.annotate.runner import Rules

PRICE = (3.0, 12.0)  # a million tokens


def write_picture(path: pathlib.Path, seed: int) -> pathlib.Path:
  """16 x 12 pixels of noise."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


class Workplace:
  """A folder with FairFace items and an output, and an endpoint.

  Attributes:
    endpoint: to be planned before, and asked after a run.
    done: what the last run gave.
  """

  def __init__(self, path: pathlib.Path):
    self.path, self.out = path, path / "out"
    self.endpoint = FakeEndpoint()
    self.terms = campaign.Terms(
      patience=Patience(first_wait=0.01), rules=Rules(limits=Limits()), idempotent=True
    )
    self.service = {"model": "fake", "key_env": "", "price": PRICE, "timeout": 5.0}

  def items(self, count: int, row: str = "20-29,Female,Black") -> None:
    """`count` pictures, and their label table."""
    lines = ["file,age,gender,race,service_test"]
    for i in range(count):
      write_picture(self.path / "val" / f"{i}.jpg", i)
      lines.append(f"val/{i}.jpg,{row},True")
    (self.path / "labels.csv").write_text("\n".join(lines) + "\n")

  def recipe(self) -> FairFace:
    return FairFace(self.path / "labels.csv", self.path)

  def run(self, recipe=None, raters: int = 0, **changes):
    """Runs once more on the same output, with some terms changed. Gives the results."""
    recipe = recipe or self.recipe()
    terms = dataclasses.replace(self.terms, **changes)

    async def session():
      url = await self.endpoint.start()
      services = [Service(base_url=url, **self.service) for _ in range(1 + raters)]
      try:
        return await campaign.annotate(recipe, services, self.out, terms)
      finally:
        await self.endpoint.stop()

    self.done = asyncio.run(session())
    return self.done.results

  def states(self) -> list[str]:
    return [result.state for result in self.done.results]

  def lines(self, name: str) -> list[dict]:
    return [json.loads(line) for line in (self.out / name).read_text().splitlines()]
