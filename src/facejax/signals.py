"""SIGTERM and Ctrl-C as a request: finish the step, save, leave. signal -> requested(step)."""

import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

from facejax import distributed


class StopRequest:
  """Within its `with` statement a first SIGTERM or SIGINT only sets a flag.

  A second one raises KeyboardInterrupt. With several processes one signal to any of them is enough,
  and all agree on the same step: through their keepers, or, without keepers, through JAX's own
  preemption service. Outside the main thread Python allows no handlers, and none is installed.
  """

  def __init__(self):
    self._asked = False
    self._previous: dict = {}

  def __enter__(self) -> "StopRequest":
    alone = jax.process_count() == 1 or distributed.kept()
    if alone and threading.current_thread() is threading.main_thread():
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
    distributed.ask_to_stop()

  def requested(self, step: int) -> bool:
    """Whether to save and stop after `step`. Every process calls it once a step."""
    if distributed.kept():
      return distributed.stop_agreed()
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
