"""What was paid, what may have been, and whether one more request may be sent.

spent      answers that arrived, at their own cost
possible   requests of which nobody knows: the connection broke, or the run was killed
reserved   requests under way, at the most that they can cost
spent + possible + reserved never exceeds the cap
"""

import asyncio
import collections
import dataclasses
import math
from collections.abc import Mapping


class OverBudget(RuntimeError):
  """The next request could exceed the cap, and none is under way that could free some of it."""


@dataclasses.dataclass(frozen=True)
class Cap:
  """What all runs on one output may use together.

  Attributes:
    cost: in the currency of the prices.
    requests: sent, whatever came back.
  """

  cost: float = math.inf
  requests: float = math.inf


class Ledger:
  """Counts requests by their idempotency key, the name under which an endpoint would bill them.

  Attributes:
    spent: cost of the answers that arrived.
    tokens: that they took: [read, written].
    answers: that arrived.
    requests: sent, in all runs.
    orphans: requests that were under way when a run was killed.
    uncounted: answers without usage, which count with their worst case.
  """

  def __init__(self, cap: Cap, idempotent: bool):
    """With `idempotent`, the endpoint bills requests of one key once: sent again, they are one."""
    self._cap, self._idempotent = cap, idempotent
    self._possible: dict[str, list[float]] = {}
    self._possible_cost = 0.0  # the sum of it, which would take long with thousands in it
    self._reserved: dict[str, float] = {}
    self._hoped: set[str] = set()  # unknown, and about to be sent again: the answer frees them
    self._changed = asyncio.Event()
    self.spent, self.tokens, self.answers, self.requests = 0.0, [0, 0], 0, 0
    self.orphans, self.uncounted = 0, 0
    self.faults: collections.Counter[str] = collections.Counter()

  @property
  def possible(self) -> tuple[int, float]:
    """Requests that may have been paid for without an answer, and what they cost at most."""
    return sum(map(len, self._possible.values())), self._possible_cost

  async def room(self, name: str, worst: float) -> None:
    """Returns once a request may be sent, waiting for others to end where that may help.

    Raises OverBudget.
    """
    # Whoever waits here frees nothing: two that hoped for each other would wait for ever.
    self.give_up(name)
    while True:
      if self.requests >= self._cap.requests:
        raise OverBudget(f"{self.requests} requests were sent, of {self._cap.requests:g} allowed")
      again = sum(self._possible.get(name, [])) if self._idempotent else 0.0
      held = self.spent + self._possible_cost - again + sum(self._reserved.values())
      if held + worst <= self._cap.cost:
        return
      if not self._reserved and not self._hoped:
        self._changed.set()
        raise OverBudget(
          f"{held:.4f} are spent or may be, the next request may cost {worst:.4f}, and "
          f"{self._cap.cost:g} are allowed"
        )
      self._changed.clear()
      await self._changed.wait()

  def take(self, name: str, worst: float) -> None:
    """A request is under way, of which `worst` is taken aside."""
    self.requests += 1
    self._reserved[name] = worst
    if self._idempotent:
      known = sum(self._possible.pop(name, []))
      # Exactly nothing where nothing is left: sums of floats leave dust.
      self._possible_cost = self._possible_cost - known if self._possible else 0.0

  def fault(self, name: str, cause: str, paid: bool) -> None:
    """It came back without an answer; `paid`: it may have been billed."""
    worst = self._reserved.pop(name)
    self.faults[cause] += 1
    if paid:
      self._unknown(name, worst)
      if self._idempotent:
        self._hoped.add(name)
    self._changed.set()

  def give_up(self, name: str) -> None:
    """The request is not about to be sent again."""
    self._hoped.discard(name)
    self._changed.set()

  def answer(self, name: str, cost: float, tokens: tuple[int, int], counted: bool) -> None:
    """It came back with an answer."""
    self._reserved.pop(name)
    self.spent += cost
    self.tokens = [a + b for a, b in zip(self.tokens, tokens, strict=True)]
    self.answers += 1
    self.uncounted += not counted
    self._changed.set()

  def replay(self, line: Mapping) -> None:
    """A line of the journal, as it happened in an earlier run."""
    if line["kind"] == "run":
      self._bury()
    elif line["kind"] == "start":
      self.take(line["name"], line["worst"])
    elif line["kind"] == "fault":
      self.fault(line["name"], line["cause"], line["paid"])
    else:
      self.answer(line["name"], line["cost"], tuple(line["tokens"]), line["counted"])

  def _bury(self) -> None:
    """A new run began: whatever was under way was killed with the old one."""
    for name, worst in self._reserved.items():
      self._unknown(name, worst)
      self.orphans += 1
    self._reserved.clear()
    self._hoped.clear()

  def _unknown(self, name: str, worst: float) -> None:
    self._possible.setdefault(name, []).append(worst)
    self._possible_cost += worst
