"""Units -> results, some at a time, until all are settled or the run stops."""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from facejax.annotate import filters, pictures, prompts
from facejax.annotate.asking import Asker, Call, Stopped
from facejax.annotate.endpoint import Endpoint
from facejax.annotate.prompts import Prompt
from facejax.annotate.unit import Answer, Asked, Recipe, Result, Unit
from facejax.data.media import MediaError


@dataclasses.dataclass(frozen=True)
class Rules:
  """What is sent of media, and what is kept of answers.

  Attributes:
    frames: of a clip that are sent, evenly spread. Ours: the paper does not say how its writer
      and rater saw clips.
    threshold: the least overall rating that is kept. Ours: the paper gives none.
    limits: of answers.
  """

  frames: int = 4
  threshold: float = 7.0
  limits: filters.Limits = dataclasses.field(default_factory=filters.Limits)


class Runner:
  """Works through a recipe.

  Attributes:
    error: what stopped the run, if that was a failure of this machine.
  """

  def __init__(
    self, recipe: Recipe, asker: Asker, writer: Endpoint, rater: Endpoint | None, rules: Rules
  ):
    """Without a `rater` answers are kept unrated."""
    self._recipe, self._asker, self._rules = recipe, asker, rules
    self._writer, self._rater = writer, rater
    self.error: Exception | None = None

  async def run(self, concurrency: int, done: Callable[[], Any]) -> list[Result]:
    """Results in the order of the units; what would need another request is pending.

    Sends no more after a first SIGINT or SIGTERM, but completes what is under way; a second one
    raises KeyboardInterrupt.

    Args:
      concurrency: units under way at a time.
      done: called after each.
    """
    results = [Result("pending")] * len(self._recipe.units)
    places = iter(range(len(results)))

    async def work() -> None:
      # After a stop, too: what the journal has is settled without a request.
      for place in places:
        results[place] = await self._safely(place)
        done()

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(results)))]
    with self._signals(workers):
      try:
        await asyncio.gather(*workers)
      except asyncio.CancelledError as error:
        raise KeyboardInterrupt("a second signal") from error
    return results

  async def _safely(self, place: int) -> Result:
    """A failure of ours stops the run, but not before the paid answers under way are stored."""
    try:
      return await self._settle(self._recipe.units[place])
    except Stopped as stopped:
      return Result("pending", detail=str(stopped))
    except Exception as error:
      self.error = self.error or error
      self._asker.stop(f"{type(error).__name__}: {error}")
      return Result("pending", detail=str(error))

  async def _settle(self, unit: Unit) -> Result:
    if label := filters.question_leak(unit.question, unit.labels):
      return Result("rejected", "question_leak", f"the question names the label {label!r}")
    try:
      digest = await asyncio.to_thread(pictures.sha256, unit.path)
      judge = functools.partial(filters.judge, limits=self._rules.limits)
      written = await self._asker.ask(
        self._call(unit, digest, self._writer, (unit.prompt, unit.facts), judge)
      )
      if written.state != "kept" or written.answer is None:
        return Result(written.state, written.reason, written.detail, digest, written)
      if self._rater is None:
        return Result("kept", "", "", digest, written)
      return await self._rate(unit, digest, self._rater, written)
    except MediaError as error:
      return Result("rejected", "media", str(error))

  async def _rate(self, unit: Unit, digest: str, rater: Endpoint, written: Asked) -> Result:
    answer = written.answer.text if written.answer else ""
    facts = {**unit.facts, "question": unit.question, "answer": answer}
    rated = await self._asker.ask(
      self._call(unit, digest, rater, (prompts.RATER, facts), filters.judge_rating)
    )
    found = filters.rating(rated.answer.text) if rated.answer else None
    result = functools.partial(Result, sha256=digest, written=written, rated=rated, rating=found)
    if rated.state != "kept" or found is None:
      return result(rated.state, f"rater: {rated.reason}", rated.detail)
    if found["overall"] < self._rules.threshold:
      detail = f"overall {found['overall']:g} is below {self._rules.threshold:g}"
      return result("rejected", "low_rating", detail)
    return result("kept")

  def _call(
    self,
    unit: Unit,
    digest: str,
    endpoint: Endpoint,
    said: tuple[Prompt, Mapping[str, str]],
    judge: Callable[[Answer], str],
  ) -> Call:
    prompt, facts = said
    frames = 1 if unit.kind == "image" else self._rules.frames
    text = prompt.filled(facts)
    depends = [digest, prompt.id, prompt.sha256, text, endpoint.service.settings(), frames]
    return Call(
      key=hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest(),
      endpoint=endpoint,
      texts=(prompt.system, text),
      pictures=functools.partial(
        pictures.parts, unit.path, unit.kind, frames, endpoint.service.detail
      ),
      count=frames,
      judge=judge,
    )

  @contextlib.contextmanager
  def _signals(self, workers: list[asyncio.Task]) -> Iterator[None]:
    """A first signal asks for an end, a second one enforces it."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def handle(number: signal.Signals) -> None:
      if self._asker.stopped:
        for worker in workers:
          worker.cancel()
      self._asker.stop(f"signal {number.name}; once more to leave at once")

    installed = []
    for number in numbers:
      # Outside the main thread Python allows no handlers.
      with contextlib.suppress(ValueError, RuntimeError):
        loop.add_signal_handler(number, handle, number)
        installed.append(number)
    try:
      yield
    finally:
      for number in installed:
        loop.remove_signal_handler(number)
