"""RAF-DB, basic emotions: 15,339 pictures.

    EmoLabel/list_patition_label.txt    train_00001.jpg 5     (spelt so in the release)
    Image/aligned/train_00001_aligned.jpg                     100 x 100 pixels
    1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral

Released: names, numbers, and the split that names begin with. There is no validation split.
"""

import dataclasses
import pathlib

from facejax.config_checks import one_of
from facejax.records.layouts import path
from facejax.records.layouts.table import Row, Table, bad_line, lines, said

EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")


@dataclasses.dataclass(frozen=True)
class RafDb:
  """Settings of RAF-DB.

  Attributes:
    folder: "basic", which holds EmoLabel and Image.
    split: "train" or "test".
    images: folder of the pictures below Image: "aligned" or "original".
    seed: of the wording.
  """

  folder: str = path(...)
  split: str = "train"
  images: str = "aligned"
  seed: int = 0

  def __post_init__(self):
    one_of("RafDb.split", self.split, ("train", "test"))
    one_of("RafDb.images", self.images, ("aligned", "original"))

  def open(self) -> Table:
    """Reads the list."""
    source = pathlib.Path(self.folder) / "EmoLabel" / "list_patition_label.txt"
    rows = []
    for number, line in enumerate(lines(source, "folder"), 1):
      name, *rest = line.split() or [""]
      if not name:
        continue
      if len(rest) != 1 or rest[0] not in "1234567" or not name.startswith(("train_", "test_")):
        raise bad_line(source, number, line, "train_NNNNN.jpg or test_NNNN.jpg and 1 to 7")
      if not name.startswith(f"{self.split}_"):
        continue
      stem, suffix = name.rsplit(".", 1)
      file = f"{stem}_aligned.{suffix}" if self.images == "aligned" else name
      label = EXPRESSIONS[int(rest[0]) - 1]
      place = f"Image/{self.images}/{file}"
      rows.append(Row(name, place, *said("expression", label), {"expression": label}))
    return Table(self.folder, rows, "expression", "image", self.seed)
