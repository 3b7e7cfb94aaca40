"""refused.jsonl and the limit on its length. Refusal -> a line, or the end of the run.

Each process writes the refusals of the rows that it reads: process 0 to refused.jsonl, process p to
refused.p.jsonl. A run that goes on with fewer processes counts the files of the others as well.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from facejax import logs
from facejax.data.refused import TooManyRefused
from facejax.types import Refusal

# Below this, one bad file is not yet a share: 1 of the first 8 samples would be 12 %.
_JUDGED_FROM = 1000  # samples


class Refusals:
  """What one process has refused in one stage."""

  def __init__(
    self,
    folder: Path,
    start: int,
    early: Sequence[Refusal],
    drawn: Callable[[int], float],
    limit: float,
  ):
    """Opens the stage's files; records behind step `start`, of a run that was killed, are removed.

    Args:
      folder: of the stage.
      start: steps that are done.
      early: found before the first step; not counted, the source judged them.
      drawn: samples in this process's rows before a step.
      limit: data.max_refused.
    """
    process, processes = jax.process_index(), jax.process_count()
    self._path = folder / (f"refused.{process}.jsonl" if process else "refused.jsonl")
    self._drawn, self._limit, self._count = drawn, limit, 0
    for path in folder.glob("refused*.jsonl"):
      found = re.fullmatch(r"refused(?:\.(\d+))?\.jsonl", path.name)
      if found and int(found[1] or 0) % processes == process:
        if start:
          self._count += sum(1 for record in logs.rewind(path, start) if record["step"])
        else:
          path.unlink()
    if not start:
      self._append(0, early)

  def _append(self, step: int, refused: Sequence[Refusal]) -> None:
    for refusal in refused:
      logs.append(self._path, {"step": step, "id": refusal.id, "reason": refusal.reason})

  def add(self, step: int, refused: Sequence[Refusal]) -> None:
    """Records what step's batch lacks. Raises TooManyRefused above data.max_refused."""
    self._append(step, refused)
    self._count += len(refused)
    drawn = self._drawn(step)
    if refused and self._count > self._limit * max(drawn, _JUDGED_FROM):
      latest = "; ".join(f"{refusal.id}: {refusal.reason}" for refusal in refused[:3])
      raise TooManyRefused(
        f"{self._count} of {drawn:.0f} samples refused by step {step} - expected at most "
        f"data.max_refused={self._limit} of {max(drawn, _JUDGED_FROM):.0f} - latest: {latest} - "
        f"all are in {self._path}; repair or remove them, or raise data.max_refused"
      )
