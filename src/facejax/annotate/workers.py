"""Units -> results, some at a time, until all are settled or the run stops."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from facejax.annotate.asking import Asker, Stopped
from facejax.annotate.unit import Result

U = TypeVar("U")


class Workers(Generic[U]):
  """Works through units of any kind.

  Attributes:
    error: what stopped the run, if that was a failure of this machine.
  """

  def __init__(self, asker: Asker, settle: Callable[[U], Awaitable[Result]]):
    """`settle` asks for a unit through the asker; Stopped leaves it pending."""
    self._asker, self._settle = asker, settle
    self.error: Exception | None = None

  async def run(
    self, units: Sequence[U], concurrency: int, done: Callable[[], Any]
  ) -> list[Result]:
    """Results in the order of the units; what would need another request is pending.

    Sends no more after a first SIGINT or SIGTERM, but completes what is under way; a second one
    raises KeyboardInterrupt.

    Args:
      units: to be settled.
      concurrency: units under way at a time.
      done: called after each.
    """
    results = [Result("pending")] * len(units)
    places = iter(range(len(results)))

    async def work() -> None:
      # After a stop, too: what the journal has is settled without a request.
      for place in places:
        results[place] = await self._safely(units[place])
        done()

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(results)))]
    with self._signals(workers):
      try:
        await asyncio.gather(*workers)
      except asyncio.CancelledError as error:
        raise KeyboardInterrupt("a second signal") from error
    return results

  async def _safely(self, unit: U) -> Result:
    """A failure of ours stops the run, but not before the paid answers under way are stored."""
    try:
      return await self._settle(unit)
    except Stopped as stopped:
      return Result("pending", detail=str(stopped))
    except Exception as error:
      self.error = self.error or error
      self._asker.stop(f"{type(error).__name__}: {error}")
      return Result("pending", detail=str(error))

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
