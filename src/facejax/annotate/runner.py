"""A recipe's unit -> its result: written and, where there is a rater, rated."""

import asyncio
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping

from facejax.annotate import filters, pictures, prompts
from facejax.annotate.asking import Asker, Call
from facejax.annotate.endpoint import Endpoint
from facejax.annotate.prompts import Prompt
from facejax.annotate.unit import Answer, Asked, Result, Unit
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
  """Settles a recipe's units."""

  def __init__(self, asker: Asker, writer: Endpoint, rater: Endpoint | None, rules: Rules):
    """Without a `rater` answers are kept unrated."""
    self._asker, self._rules = asker, rules
    self._writer, self._rater = writer, rater

  async def settle(self, unit: Unit) -> Result:
    """Asks for an answer and, with a rater, for its rating. Raises Stopped."""
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
