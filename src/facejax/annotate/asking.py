"""A call -> how it ended: an answer is paid for once, whatever happens on the way.

the journal has an answer that passes the filters -> kept, nothing is sent
an answer does not pass                           -> the same prompt again, a few times
a fault that may pass                             -> the same request again, later, same name
a fault that will not                             -> rejected
a fault that all requests would meet, or no money -> the run stops
"""

import asyncio
import contextlib
import dataclasses
import random
import time
import weakref
from collections.abc import Callable
from typing import Any

from facejax.annotate import filters
from facejax.annotate.endpoint import Endpoint, Fault
from facejax.annotate.journal import Journal
from facejax.annotate.ledger import Ledger, OverBudget
from facejax.annotate.unit import Answer, Asked, State

# So many questions without an answer, and it is the settings or the network, not the questions.
_ALIKE = 10


class Stopped(RuntimeError):
  """The run ends: this call was not sent, or not again."""


@dataclasses.dataclass(frozen=True)
class Patience:
  """How often and how long (our choice; the released code never repeats a request).

  Attributes:
    retries: times that a failed request is sent again. Rate limits do not count: they say nothing
      of the request.
    refusals: times that an unusable answer is asked for again, each one paid for.
    first_wait: seconds before the first retry; doubled for each, up to half of it random.
    longest_wait: where the doubling ends.
    total: seconds that a question may take with all of this.
    asked: the longest Retry-After that is waited for; a longer one stops the run.
  """

  retries: int = 8
  refusals: int = 2
  first_wait: float = 1.0
  longest_wait: float = 60.0
  total: float = 1800.0
  asked: float = 600.0


@dataclasses.dataclass(frozen=True)
class Call:
  """A request to be settled.

  Attributes:
    key: content hash of all that the answer depends on.
    endpoint: who is asked.
    texts: system and user turn.
    pictures: reads and encodes what goes with them; called only if something is sent.
    count: how many those are.
    judge: why an answer cannot be used, "" if it can.
  """

  key: str
  endpoint: Endpoint
  texts: tuple[str, str]
  pictures: Callable[[], list[dict[str, Any]]]
  count: int
  judge: Callable[[Answer], str]


class Asker:
  """Sends calls, several at a time; two of one key one after the other.

  Attributes:
    stopped: why no more requests are sent; "" while they are.
  """

  def __init__(self, journal: Journal, ledger: Ledger, patience: Patience = Patience()):
    """The journal has been replayed into the ledger."""
    self._journal, self._ledger, self._patience = journal, ledger, patience
    self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
    self._stop = asyncio.Event()
    self._not_before = 0.0
    self._wrong, self._given_up = 0, 0
    self.stopped = ""

  def stop(self, reason: str) -> None:
    """Sends nothing more; requests under way are waited for."""
    self.stopped = self.stopped or reason
    self._stop.set()

  async def ask(self, call: Call) -> Asked:
    """Settles a call. Raises Stopped, and MediaError where the pictures cannot be read."""
    lock = self._locks.get(call.key)
    if lock is None:
      lock = self._locks[call.key] = asyncio.Lock()
    async with lock:
      return await self._settle(call)

  async def _settle(self, call: Call) -> Asked:
    answers = self._journal.answers(call.key)
    reasons = [call.judge(answer) for answer in answers]
    while not reasons or (
      all(reasons) and reasons[-1] not in filters.FINAL and len(answers) <= self._patience.refusals
    ):
      try:
        answers.append(await self._insist(call, len(answers)))
      except Fault as fault:
        last = answers[-1] if answers else None
        self._blame(fault)
        state: State = "unanswered" if fault.retry else "rejected"
        return Asked(state, fault.cause, last, tuple(reasons), call.key, str(fault))
      reasons.append(call.judge(answers[-1]))
    if "" in reasons:
      return Asked("kept", "", answers[reasons.index("")], tuple(reasons), call.key)
    return Asked("rejected", reasons[-1], answers[-1], tuple(reasons), call.key)

  async def _insist(self, call: Call, attempt: int) -> Answer:
    """Sends a request until it is answered. Raises Fault, Stopped or MediaError."""
    name = f"{call.key[:40]}-{attempt}"
    self._check()
    messages = await asyncio.to_thread(_messages, call)
    try:
      return await self._again(call, name, messages)
    finally:
      self._ledger.give_up(name)

  async def _again(self, call: Call, name: str, messages: list[dict[str, Any]]) -> Answer:
    began, failed = time.monotonic(), 0
    while True:
      try:
        return await self._once(call, name, messages)
      except Fault as fault:
        failed += fault.cause != "rate_limit"
        wait = self._wait(failed, fault)
        late = time.monotonic() - began + wait > self._patience.total
        if not fault.retry or failed > self._patience.retries or late:
          raise
        await self._sleep(wait)

  async def _once(self, call: Call, name: str, messages: list[dict[str, Any]]) -> Answer:
    """One request, in the journal and the ledger. Raises Fault or Stopped."""
    await self._sleep(self._not_before - time.monotonic())
    bound = call.endpoint.service.bound(call.texts, call.count)
    worst = bound * call.endpoint.excess
    try:
      await self._ledger.room(name, worst)
    except OverBudget as error:
      self.stop(f"budget: {error}")
    self._check()
    self._ledger.take(name, worst)
    self._journal.start(name, worst)
    try:
      answer = await call.endpoint.send(messages, name, bound)
    except Fault as fault:
      self._journal.fault(name, fault.cause, fault.paid)
      self._ledger.fault(name, fault.cause, fault.paid)
      self._consider(fault)
      raise
    self._journal.answer(name, call.key, answer)
    self._ledger.answer(name, answer.cost, answer.tokens, answer.counted)
    self._given_up = 0
    return answer

  def _consider(self, fault: Fault) -> None:
    """What a fault means for the other calls."""
    if fault.stops:
      self.stop(str(fault))
      self._check()
    elif fault.wait > self._patience.asked:
      self.stop(f"the endpoint asks to wait {fault.wait:.0f} s: {fault}")
      self._check()
    if fault.cause == "rate_limit":
      # The limit is the account's: whoever else asks now is refused, too.
      self._not_before = max(self._not_before, time.monotonic() + fault.wait)

  def _blame(self, fault: Fault) -> None:
    """A call has failed for good: is it the call's fault, or that of all?"""
    if fault.retry:
      self._given_up += 1
    elif fault.cause != "content_filter":
      self._wrong += 1
    if self._given_up >= _ALIKE:
      self.stop(f"{self._given_up} questions in a row got no answer, the last for {fault}")
    elif self._wrong >= _ALIKE and not self._ledger.answers:
      self.stop(f"{self._wrong} requests were refused and none was answered: {fault}")

  def _wait(self, failed: int, fault: Fault) -> float:
    patience = self._patience
    doubled = patience.first_wait * 2.0 ** max(failed - 1, 0)
    backoff = min(doubled, patience.longest_wait) * random.uniform(0.5, 1)
    return max(backoff, fault.wait * random.uniform(1, 1.1))

  async def _sleep(self, seconds: float) -> None:
    """Waits, unless the run stops meanwhile: then raises Stopped."""
    if seconds > 0:
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self._stop.wait(), seconds)
    self._check()

  def _check(self) -> None:
    if self.stopped:
      raise Stopped(self.stopped)


def _messages(call: Call) -> list[dict[str, Any]]:
  system, text = call.texts
  content = [{"type": "text", "text": text}, *call.pictures()]
  return [{"role": "system", "content": system}, {"role": "user", "content": content}]
