"""Requests as a job of annotate/campaign.py: asked, journaled, capped, resumed like any other."""

import asyncio
import dataclasses
import functools
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from facejax.annotate import output, pictures
from facejax.annotate.asking import Asker, Call
from facejax.annotate.campaign import Pace
from facejax.annotate.endpoint import Endpoint, Service
from facejax.annotate.unit import Result
from facejax.data.media import MediaError
from facejax.evaluate.judge import requests, results, tables
from facejax.evaluate.judge.items import Item
from facejax.evaluate.judge.requests import Form, Request


@dataclasses.dataclass(frozen=True)
class Terms:
  """What is asked, and how it is counted.

  Attributes:
    repeats: of every rating.
    seed: of orders and resamples.
    each: one answer a request.
    media: the judge is shown the pictures and clips.
    frames: of a clip.
    hidden: words that are replaced in answers.
    resamples: behind a 95 % interval.
  """

  repeats: int = 2
  seed: int = 0
  each: bool = False
  media: bool = True
  frames: int = 4
  hidden: tuple[str, ...] = ()
  resamples: int = 1000

  @property
  def form(self) -> Form:
    """The prompt."""
    return requests.form(self.media)


class Judging:
  """The job.

  Attributes:
    name: of the job.
    units: requests.
  """

  name = "judge"

  def __init__(self, items: Sequence[Item], terms: Terms, settings: Mapping[str, Any]):
    """`settings` say where answers and judge come from, for the results."""
    self._items, self._terms, self._settings = items, terms, settings
    self.units: Sequence[Request] = [
      *requests.requests(items, terms.repeats, terms.seed, terms.each)
    ]

  def settler(
    self, asker: Asker, ends: Sequence[Endpoint]
  ) -> Callable[[Request], Awaitable[Result]]:
    """See campaign.Job."""
    (judge,) = ends

    async def settle(request: Request) -> Result:
      try:
        files = [path for _, path in request.item.media]
        digests = [await asyncio.to_thread(pictures.sha256, path) for path in files]
        asked = await asker.ask(self._call(request, digests, judge))
      except MediaError as error:
        return Result("rejected", "media", str(error))
      told = functools.partial(Result, asked.state, asked.reason, asked.detail, written=asked)
      if asked.state != "kept" or asked.answer is None:
        return told()
      found = requests.ratings(asked.answer.text, request, self._terms.form.criteria)
      assert not isinstance(found, str)  # why_not has let it pass
      return told(rating=found)

    return settle

  def _call(self, request: Request, digests: list[str], judge: Endpoint) -> Call:
    prompt, criteria = self._terms.form
    text = requests.filled(request, prompt, self._terms.hidden)
    service, frames = judge.service, self._terms.frames
    asks = [digests, prompt.id, prompt.sha256, text, service.settings(), frames, request.repeat]
    return Call(
      key=hashlib.sha256(json.dumps(asks, sort_keys=True).encode()).hexdigest(),
      endpoint=judge,
      texts=(prompt.system, text),
      pictures=functools.partial(self._pictures, request, service.detail),
      count=self._shown(request),
      judge=functools.partial(requests.why_not, request=request, criteria=criteria),
    )

  def _pictures(self, request: Request, detail: str) -> list[dict[str, Any]]:
    found = (pictures.parts(p, k, self._terms.frames, detail) for k, p in request.item.media)
    return [part for parts in found for part in parts]

  def _shown(self, request: Request) -> int:
    """How many pictures go with a request."""
    return sum(1 if kind == "image" else self._terms.frames for kind, _ in request.item.media)

  def bound(self, service: Service, pace: Pace) -> str:
    """What the job can cost at most, by the bounds that the budget works with."""
    prompt, _ = self._terms.form
    once = sum(
      service.bound(
        (prompt.system, requests.filled(request, prompt, self._terms.hidden)), self._shown(request)
      )
      for request in self.units
    )
    times = pace.patience.refusals + 1
    return (
      f"{len(self._items)} items, {len(self.units)} requests: at most {once:.2f} {pace.currency}; "
      f"{times * once:.2f} if each were asked for {times} times"
    )

  def write(self, out: Path, found: list[Result]) -> None:
    """Writes ratings.jsonl, failed.jsonl, prompts.json, results.json and results.md."""
    terms = self._terms
    told = [_record(r, result) for r, result in zip(self.units, found, strict=True)]
    output.lines(out / "ratings.jsonl", told)
    failed = [record for record in told if record["state"] in ("rejected", "unanswered")]
    silent = [
      {"id": item.id, "system": name, "state": "no_answer", "reason": "the system gave no answer"}
      for item in self._items
      for name, text in item.answers.items()
      if not text
    ]
    output.lines(out / "failed.jsonl", [*silent, *failed])
    prompt, criteria = terms.form
    texts = {prompt.sha256: {"id": prompt.id, "system": prompt.system, "text": prompt.text}}
    output.replace(out / "prompts.json", [json.dumps(texts, indent=1) + "\n"])
    settings = {
      **self._settings,
      "prompt": {"id": prompt.id, "sha256": prompt.sha256},
      "criteria": list(criteria),
      **{f.name: getattr(terms, f.name) for f in dataclasses.fields(terms)},
    }
    summary = results.summarise(self._items, told, settings)
    output.replace(out / "results.json", [json.dumps(summary, indent=1) + "\n"])
    output.replace(out / "results.md", [tables.markdown(summary)])


def _record(request: Request, result: Result) -> dict[str, Any]:
  """A line of ratings.jsonl."""
  return {
    "id": request.item.id,
    "task": request.item.task,
    "repeat": request.repeat,
    "order": list(request.order),
    "state": result.state,
    "reason": result.reason,
    "detail": result.detail,
    "ratings": result.rating,
    "asked": output.asked(result.written),
  }
