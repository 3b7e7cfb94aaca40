"""SIGTERM and Ctrl-C as a request: finish the step, save, leave. signal -> requested()."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
  """Within its `with` statement a first SIGTERM or SIGINT only sets a flag.

  A second one raises KeyboardInterrupt. With several processes nothing is installed: there JAX's
  own notice of a preemption counts, a SIGTERM to any process, on which all processes agree at the
  same call. Outside the main thread Python allows no handlers, and nothing is installed either.
  """

  def __init__(self):
    self._asked = False
    self._calls = 0
    self._previous: dict = {}

  def __enter__(self) -> "StopRequest":
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _handle(self, number: int, _: FrameType | None) -> None:
    if self._asked:
      raise KeyboardInterrupt(f"signal {number}, a second time")
    self._asked = True

  def requested(self) -> bool:
    """Whether to save and stop now. Every process calls it once a step."""
    # A count of its own: the steps of the next stage start at 1 again, but what the processes agree
    # on is the highest number that any of them has reached.
    self._calls += 1
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(self._calls)
    return self._asked
