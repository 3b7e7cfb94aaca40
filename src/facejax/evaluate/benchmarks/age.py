"""Ages: UTKFace and MORPH II. MAE in years.

    UTKFace   26_0_2_20170104183621.jpg(.chip.jpg) anywhere below the folder; no official split:
              ours by a hash of the name, of which "test" is asked, or "all"
    MORPH II  Album2/009055_1M54.JPG: person, number of the picture, M or F, age; and, where it is
              there, a .csv with the columns id_num, picture_num, race and age. No official split:
              ours is a tenth of the persons, by a hash of their number, or "all"

File names of both say the age, so the models never see them: they are in no prompt.
"""

import csv
import dataclasses
import re
import zlib
from pathlib import Path

from facejax.config_checks import one_of
from facejax.evaluate.benchmarks.labelled import Form, Labelled, benchmark, of_table
from facejax.evaluate.fairness import age_band
from facejax.evaluate.protocol import Benchmark
from facejax.records.layouts.table import Row
from facejax.records.layouts.utkface import UtkFace

_SPLITS = ("test", "all")


@dataclasses.dataclass(frozen=True)
class UtkFaceBenchmark:
  """Settings of UTKFace.

  Attributes:
    folder: of the pictures.
    split: "test" (ours) or "all".
    prompt: see prompts.py.
  """

  folder: str
  split: str = "test"
  prompt: str = "official"

  def __post_init__(self):
    one_of("UtkFaceBenchmark.split", self.split, _SPLITS)

  def open(self) -> Benchmark:
    """Lists the folder."""
    table = UtkFace(self.folder, self.split).open()
    return benchmark(
      Form(
        "utkface",
        task="age",
        subject="age",
        classes=(),
        kind="image",
        wording=self.prompt,
      ),
      of_table(table, lambda labels: float(labels["age"]), _people),
      self.folder,
      {"split": self.split},
    )


def _people(row: Row) -> dict[str, str]:
  if not row.labels:
    return {}
  labels = row.labels
  return {"age": age_band(labels["age"]), "gender": labels["gender"], "race": labels["race"]}


_NAME = re.compile(r"(\d+)_(\d+)([MF])(\d{1,3})\.jpe?g", re.IGNORECASE)
_RACES = {"W": "White", "B": "Black", "A": "Asian", "H": "Hispanic", "I": "Indian", "O": "Other"}
_GENDERS = {"M": "Male", "F": "Female"}


@dataclasses.dataclass(frozen=True)
class MorphBenchmark:
  """Settings of MORPH II.

  Attributes:
    folder: of the pictures, with or without the folder Album2, and of the table.
    split: "test" (ours) or "all".
    prompt: see prompts.py.
  """

  folder: str
  split: str = "test"
  prompt: str = "official"

  def __post_init__(self):
    one_of("MorphBenchmark.split", self.split, _SPLITS)

  def open(self) -> Benchmark:
    """Lists the pictures, and reads the table."""
    root = Path(self.folder)
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
      raise FileNotFoundError(f"no pictures in {root} - expected MORPH II's Album2 - check --data")
    races = _races(sorted(root.glob("*.csv")))
    rows = []
    for path in found:
      place, match = path.relative_to(root).as_posix(), _NAME.fullmatch(path.name)
      if match is None:
        error = f"file name {path.name!r} - expected 009055_1M54.JPG"
        rows.append(Labelled(place, place, None, {}, error))
        continue
      person, number, gender, years = match[1], match[2], match[3].upper(), int(match[4])
      if self.split == "test" and zlib.crc32(person.lstrip("0").encode()) % 10 != 1:
        continue
      groups = {"age": age_band(years), "gender": _GENDERS[gender], "person": person}
      race = races.get((person.lstrip("0"), number.lstrip("0")))
      rows.append(Labelled(place, place, float(years), groups | ({"race": race} if race else {})))
    return benchmark(
      Form(
        "morph",
        task="age",
        subject="age",
        classes=(),
        kind="image",
        wording=self.prompt,
        cluster="person",
      ),
      rows,
      root,
      {"split": self.split},
    )


def _races(tables: list[Path]) -> dict[tuple[str, str], str]:
  """Race by (person, picture), of the tables that have it."""
  races: dict[tuple[str, str], str] = {}
  needed = {"id_num", "picture_num", "race"}
  for path in tables:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.DictReader(file)
      if not needed <= set(reader.fieldnames or ()):
        continue
      for row in reader:
        key = row["id_num"].strip().lstrip("0"), row["picture_num"].strip().lstrip("0")
        races[key] = _RACES.get(row["race"].strip(), row["race"].strip())
  return races
