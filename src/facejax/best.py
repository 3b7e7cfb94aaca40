"""The best checkpoint of a stage: kept beside the newest ones, and found as STAGE/best.

STAGE/checkpoints/{700,800,900}   the newest, of which a resume takes the last; and the best, 700
STAGE/best -> checkpoints/700     a link, for --checkpoint, --workdir of chat, and convert
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

NAME = "best"
FOLDER = "checkpoints"


class Newest:
  """Which checkpoints stay, as Orbax asks: the `keep` newest (None: all), and the best.

  Attributes:
    best: its step; None if there is none.
    linked: the step of STAGE/best, which stays until the link has left it; None without one.
  """

  def __init__(self, keep: int | None):
    self._keep = keep
    self.best: int | None = None
    self.linked: int | None = None

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Whether each stays; they come oldest first."""
    del context
    newest = len(checkpoints) - (self._keep or len(checkpoints))
    return [i >= newest or c.step in (self.best, self.linked) for i, c in enumerate(checkpoints)]


def link(stage_dir: Path, step: int | None) -> int | None:
  """Points STAGE/best at a checkpoint that is complete on disk, or leaves it where it points.

  Returns the step that it points at, None if there is no link.
  """
  target = Path(FOLDER) / str(step)
  if step is not None and not jax.process_index() and (stage_dir / target).is_dir():
    partial = stage_dir / f".{NAME}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(target, target_is_directory=True)
    os.replace(partial, stage_dir / NAME)
  return located(stage_dir / NAME)[1]


def located(folder: Path) -> tuple[Path, int | None]:
  """STAGE/best or STAGE/checkpoints/STEP -> STAGE and STEP; any other folder -> itself and None."""
  place = folder.resolve()
  # With parameters in it: a workdir may be called checkpoints/1, too.
  if place.parent.name == FOLDER and place.name.isdigit() and (place / "params").is_dir():
    return place.parents[1], int(place.name)
  return folder, None
