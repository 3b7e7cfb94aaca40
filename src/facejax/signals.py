"""SIGTERM and Ctrl-C as a request: finish the step, save, leave. signal -> requested(step)."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
  """Within its `with` statement a first SIGTERM or SIGINT only sets a flag.

  A second one raises KeyboardInterrupt. With several processes nothing is installed: there JAX's
  own notice of a preemption counts, on which all processes agree at the same step. Outside the
  main thread Python allows no handlers, and nothing is installed either.
  """

  def __init__(self):
    self._asked = False
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

  def requested(self, step: int) -> bool:
    """Whether to save and stop after `step`."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
