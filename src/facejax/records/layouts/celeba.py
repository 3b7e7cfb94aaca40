"""CelebA: 40 attributes of 202,599 pictures.

    Anno/list_attr_celeba.txt      202599
                                   5_o_Clock_Shadow Arched_Eyebrows ... Young
                                   000001.jpg -1  1  1 -1 ...
    Eval/list_eval_partition.txt   000001.jpg 0        0 train, 1 validation, 2 test
    Img/img_align_celeba/000001.jpg                    178 x 218 pixels

Released: names, values, partition. Ours: nouns for the attributes, and that an answer lists those
that are present; No_Beard = -1 is said as "beard".
"""

import dataclasses
import pathlib
from collections.abc import Mapping

from facejax.config_checks import one_of
from facejax.records.layouts import path
from facejax.records.layouts.table import SPLITS, Row, Table, bad_line, lines, said

# "": not said where present.
NOUNS: dict[str, str] = {
  "5_o_Clock_Shadow": "a five o'clock shadow",
  "Arched_Eyebrows": "arched eyebrows",
  "Attractive": "",  # an opinion of the annotators
  "Bags_Under_Eyes": "bags under the eyes",
  "Bald": "bald",
  "Bangs": "bangs",
  "Big_Lips": "big lips",
  "Big_Nose": "a big nose",
  "Black_Hair": "black hair",
  "Blond_Hair": "blond hair",
  "Blurry": "a blurry picture",
  "Brown_Hair": "brown hair",
  "Bushy_Eyebrows": "bushy eyebrows",
  "Chubby": "chubby",
  "Double_Chin": "a double chin",
  "Eyeglasses": "eyeglasses",
  "Goatee": "a goatee",
  "Gray_Hair": "gray hair",
  "Heavy_Makeup": "heavy makeup",
  "High_Cheekbones": "high cheekbones",
  "Male": "a man",
  "Mouth_Slightly_Open": "the mouth slightly open",
  "Mustache": "a mustache",
  "Narrow_Eyes": "narrow eyes",
  "No_Beard": "",
  "Oval_Face": "an oval face",
  "Pale_Skin": "pale skin",
  "Pointy_Nose": "a pointy nose",
  "Receding_Hairline": "a receding hairline",
  "Rosy_Cheeks": "rosy cheeks",
  "Sideburns": "sideburns",
  "Smiling": "smiling",
  "Straight_Hair": "straight hair",
  "Wavy_Hair": "wavy hair",
  "Wearing_Earrings": "earrings",
  "Wearing_Hat": "a hat",
  "Wearing_Lipstick": "lipstick",
  "Wearing_Necklace": "a necklace",
  "Wearing_Necktie": "a necktie",
  "Young": "young",
}


@dataclasses.dataclass(frozen=True)
class CelebA:
  """Settings of CelebA.

  Attributes:
    attributes: list_attr_celeba.txt.
    partition: list_eval_partition.txt.
    images: folder of the pictures.
    split: "train", "validation" or "test".
    seed: of the wording.
  """

  attributes: str = path(...)
  partition: str = path(...)
  images: str = path(...)
  split: str = "train"
  seed: int = 0

  def __post_init__(self):
    one_of("CelebA.split", self.split, SPLITS)

  def open(self) -> Table:
    """Reads both lists."""
    wanted = str(SPLITS.index(self.split))
    parts = _pairs(pathlib.Path(self.partition))
    source = pathlib.Path(self.attributes)
    count, header, *rest = [*lines(source, "attributes"), "", ""]
    names = header.split()
    unknown = [name for name in names if name not in NOUNS]
    if not count.strip().isdigit() or unknown or not names:
      raise bad_line(source, 2 if unknown else 1, header if unknown else count, "CelebA's header")
    rows = []
    for number, line in enumerate(rest, 3):
      if not line.strip():
        continue
      name, *values = line.split()
      if len(values) != len(names) or set(values) - {"1", "-1"}:
        raise bad_line(source, number, line, f"a file name and {len(names)} times 1 or -1")
      if name not in parts:
        raise bad_line(source, number, line, f"a picture of {self.partition}")
      if parts[name] == wanted:
        rows.append(
          _row(name, {key: value == "1" for key, value in zip(names, values, strict=True)})
        )
    return Table(self.images, rows, "attributes", "image", self.seed)


def _pairs(path: pathlib.Path) -> dict[str, str]:
  parts = {}
  for number, line in enumerate(lines(path, "partition"), 1):
    fields = line.split()
    if fields and (len(fields) != 2 or fields[1] not in ("0", "1", "2")):
      raise bad_line(path, number, line, "a file name and 0, 1 or 2")
    if fields:
      parts[fields[0]] = fields[1]
  return parts


def _row(name: str, attributes: dict[str, bool]) -> Row:
  return Row(name, name, *described(attributes), {"attributes": attributes})


def described(attributes: Mapping[str, bool]) -> tuple[str, str]:
  """What an answer says of attributes, as table.said gives it; names that have no noun are not."""
  nouns = [NOUNS[key] for key, has in attributes.items() if has and NOUNS.get(key)]
  if attributes.get("No_Beard") is False and "a goatee" not in nouns:
    nouns.append("a beard")
  return said("attributes", nouns)
