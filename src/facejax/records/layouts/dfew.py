"""DFEW: expressions of 11,697 clips of films with one label each, in five folds.

    EmoLabel_DataSplit/train(single-labeled)/set_1.csv    video_name,label
                                                          1,3
    EmoLabel_DataSplit/test(single-labeled)/set_1.csv
    Clip/original/.../1.mp4                               or 00001.mp4
    1 happiness, 2 sadness, 3 neutral, 4 anger, 5 surprise, 6 disgust, 7 fear

Released: the tables and the clips. Ours: that clips are looked for by number in all folders below
`clips`, as the parts that they come in are unpacked in different ways.
"""

import dataclasses
import pathlib

from facejax.config_checks import one_of, within
from facejax.records.layouts import path
from facejax.records.layouts.table import Row, Table, bad_line, columns, lines, said

EXPRESSIONS = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")


@dataclasses.dataclass(frozen=True)
class Dfew:
  """Settings of DFEW.

  Attributes:
    folder: holds EmoLabel_DataSplit.
    clips: folder of the clips, with folders in it or without.
    split: "train" or "test" of the fold.
    fold: 1 to 5.
    seed: of the wording.
  """

  folder: str = path(...)
  clips: str = path(...)
  split: str = "train"
  fold: int = 1
  seed: int = 0

  def __post_init__(self):
    one_of("Dfew.split", self.split, ("train", "test"))
    within(self, "fold", 1, 5)

  def open(self) -> Table:
    """Reads the fold's table and lists the clips."""
    name = f"{self.split}(single-labeled)"
    source = pathlib.Path(self.folder) / "EmoLabel_DataSplit" / name / f"set_{self.fold}.csv"
    header, *rest = [*lines(source, "folder"), ""]
    video, label = columns(source, header, ("video_name", "label"))
    places = self._places()
    rows = []
    for number, line in enumerate(rest, 2):
      fields = [field.strip() for field in line.split(",")]
      if not line.strip():
        continue
      good = len(fields) > max(video, label) and fields[label] in set("1234567")
      stem = fields[video].removesuffix(".mp4") if good else ""
      if not stem.isdigit():
        raise bad_line(source, number, line, "the number of a clip and a label 1 to 7")
      expression = EXPRESSIONS[int(fields[label]) - 1]
      rows.append(_row(int(stem), expression, places, self.clips))
    return Table(self.clips, rows, "expression", "video", self.seed)

  def _places(self) -> dict[int, str]:
    root = pathlib.Path(self.clips)
    if not root.is_dir():
      raise FileNotFoundError(f"no folder {root} - expected DFEW's clips - check 'clips'")
    found = (p for p in sorted(root.rglob("*")) if p.suffix in _SUFFIXES and p.stem.isdigit())
    return {int(p.stem): p.relative_to(root).as_posix() for p in found}


def _row(number: int, expression: str, places: dict[int, str], clips: str) -> Row:
  labels, name = {"expression": expression}, f"{number:05d}"
  if number not in places:
    error = f"no clip {number}.mp4 or {name}.mp4 below {clips} - unpack it, or remove the line"
    return Row(name, "", "", "", labels, error)
  return Row(name, places[number], *said("expression", expression), labels)
