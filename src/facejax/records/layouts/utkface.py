"""UTKFace: age, gender and ethnicity in the file name.

    26_0_2_20170104183621.jpg(.chip.jpg)    [age]_[gender]_[race]_[date and time]
    age 0 to 116; gender 0 male, 1 female; race 0 White, 1 Black, 2 Asian, 3 Indian, 4 others

Released: the names. There is no official split; ours takes a tenth of the pictures for
"validation" and a tenth for "test", by a hash of the name. A few released names lack a field: those
samples are refused.
"""

import dataclasses
import pathlib
import re
import zlib

from facejax.config_checks import one_of
from facejax.records.layouts import path
from facejax.records.layouts.table import SPLITS, Row, Table, said

_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+\.(jpg|jpeg|png)(\.chip\.jpg)?", re.IGNORECASE)
_SUFFIXES = (".jpg", ".jpeg", ".png")
GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "others")


@dataclasses.dataclass(frozen=True)
class UtkFace:
  """Settings of UTKFace.

  Attributes:
    folder: of the pictures; folders in it are looked through.
    split: "all", or "train", "validation" or "test", which are ours.
    seed: of the wording.
  """

  folder: str = path(...)
  split: str = "all"
  seed: int = 0

  def __post_init__(self):
    one_of("UtkFace.split", self.split, ("all", *SPLITS))

  def open(self) -> Table:
    """Lists the folder."""
    root = pathlib.Path(self.folder)
    if not root.is_dir():
      raise FileNotFoundError(f"no folder {root} - expected UTKFace's pictures - check 'folder'")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    rows = [_row(file.relative_to(root).as_posix(), file.name) for file in found]
    wanted = [row for row in rows if self.split in ("all", _split(row.id))]
    return Table(self.folder, wanted, "age", "image", self.seed)


def _split(name: str) -> str:
  """By the file name alone, so that it stays where the folders are named otherwise."""
  tenth = zlib.crc32(pathlib.PurePosixPath(name).name.encode()) % 10
  return {0: "validation", 1: "test"}.get(tenth, "train")


def _row(relative: str, name: str) -> Row:
  match = _NAME.fullmatch(name)
  if match is None:
    error = f"file name {name!r} - expected [age]_[gender]_[race]_[date].jpg - rename or remove it"
    return Row(relative, relative, "", "", {}, error)
  age, gender, race = (int(match[i]) for i in (1, 2, 3))
  labels = {"age": age, "gender": GENDERS[gender], "race": RACES[race]}
  return Row(relative, relative, *said("age", age), labels)
