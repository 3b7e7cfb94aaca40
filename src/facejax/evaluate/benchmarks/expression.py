"""Expressions: RAF-DB and AffectNet (pictures), DFEW and CREMA-D (clips). Accuracy (WAR), UAR.

    RAF-DB     basic/EmoLabel, basic/Image/aligned; split test, 3,068 pictures. Age, gender and race
               are read from basic/Annotation/manual/test_0001_manu_attri.txt where it is there:
               five lines of points, then gender (0 male, 1 female, 2 unsure), race (0 Caucasian,
               1 African-American, 2 Asian) and age (0 0-3, 1 4-19, 2 20-39, 3 40-69, 4 70 or more)
    AffectNet  val_set/images/0.jpg, val_set/annotations/0_exp.npy (0 neutral, 1 happiness, 2
               sadness, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt); 4,000 pictures
    DFEW       EmoLabel_DataSplit/test(single-labeled)/set_1.csv, Clip/original; one of five folds,
               or all of them: every clip once
    CREMA-D    VideoFlash/1001_DFA_ANG_XX.flv, VideoDemographics.csv (ActorID, Age, Sex, Race,
               Ethnicity); 7,442 clips, the truth is the emotion that was acted

Ours: that CREMA-D is asked whole (there is no official split), and by which words an answer states
an expression (answers.py).
"""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from facejax.config_checks import one_of, within
from facejax.evaluate.benchmarks.labelled import Form, Labelled, benchmark, of_table
from facejax.evaluate.fairness import age_band
from facejax.evaluate.protocol import Benchmark
from facejax.faces.action_units import EXPRESSIONS
from facejax.records.layouts.affectnet import AffectNet
from facejax.records.layouts.dfew import Dfew
from facejax.records.layouts.raf_db import RafDb

_CONTEMPT = (*EXPRESSIONS, "contempt")


@dataclasses.dataclass(frozen=True)
class RafDbBenchmark:
  """Settings of RAF-DB.

  Attributes:
    folder: "basic".
    split: "test" or "train".
    images: "aligned" or "original".
    prompt: see prompts.py.
  """

  folder: str
  split: str = "test"
  images: str = "aligned"
  prompt: str = "official"

  def open(self) -> Benchmark:
    """Reads the list, and who is shown where that is released."""
    table = RafDb(self.folder, self.split, self.images).open()
    manual = Path(self.folder) / "Annotation" / "manual"
    people = {p.name.removesuffix("_manu_attri.txt"): p for p in manual.glob("*_manu_attri.txt")}
    groups = lambda row: _raf_people(people.get(row.id.rsplit(".", 1)[0]))
    return benchmark(
      Form(
        "rafdb",
        task="class",
        subject="expression",
        classes=EXPRESSIONS,
        kind="image",
        wording=self.prompt,
      ),
      of_table(table, lambda labels: labels["expression"], groups),
      self.folder,
      {"split": self.split, "images": self.images, "people": bool(people)},
    )


_RAF_GENDER = ("Male", "Female", "unsure")
_RAF_RACE = ("Caucasian", "African-American", "Asian")
_RAF_AGE = ("0-3", "4-19", "20-39", "40-69", "70 or more")


def _raf_people(path: Path | None) -> Mapping[str, str]:
  """Gender, race and age of a manual annotation; raises ValueError where it is another file."""
  if path is None:
    return {}
  last = path.read_text().split("\n")
  numbers = [line.strip() for line in last if line.strip()][-3:]
  kinds = (("gender", _RAF_GENDER), ("race", _RAF_RACE), ("age", _RAF_AGE))
  if len(numbers) != 3 or any(
    not n.isdecimal() or int(n) >= len(names) for n, (_, names) in zip(numbers, kinds, strict=True)
  ):
    raise ValueError(
      f"{path}: the last lines are {numbers} - expected gender 0 to 2, race 0 to 2, age 0 to 4 - "
      "is it RAF-DB's?"
    )
  return {kind: names[int(n)] for n, (kind, names) in zip(numbers, kinds, strict=True)}


@dataclasses.dataclass(frozen=True)
class AffectNetBenchmark:
  """Settings of AffectNet.

  Attributes:
    folder: that holds val_set.
    classes: 8, or 7 without contempt.
    prompt: see prompts.py.
  """

  folder: str
  classes: int = 8
  prompt: str = "official"

  def __post_init__(self):
    within(self, "classes", 7, 8)

  def open(self) -> Benchmark:
    """Lists the pictures and reads their annotations."""
    names = _CONTEMPT[: self.classes]
    table = AffectNet(self.folder, "arrays", "validation", self.classes).open()
    return benchmark(
      Form(
        "affectnet",
        task="class",
        subject="expression",
        classes=names,
        kind="image",
        wording=self.prompt,
      ),
      of_table(table, lambda labels: labels["expression"]),
      self.folder,
      {"classes": self.classes},
    )


@dataclasses.dataclass(frozen=True)
class DfewBenchmark:
  """Settings of DFEW.

  Attributes:
    folder: holds EmoLabel_DataSplit and Clip/original.
    fold: 1 to 5, whose test clips are asked; 0: those of all folds.
    prompt: see prompts.py.
  """

  folder: str
  fold: int = 0
  prompt: str = "official"

  def __post_init__(self):
    within(self, "fold", 0, 5)

  def open(self) -> Benchmark:
    """Reads the tables of the folds."""
    clips = Path(self.folder) / "Clip" / "original"
    rows: dict[str, Labelled] = {}
    for fold in (self.fold,) if self.fold else range(1, 6):
      table = Dfew(self.folder, str(clips), "test", fold).open()
      fold_of = lambda row, fold=fold: {"fold": str(fold)}
      own = of_table(table, lambda labels: labels["expression"], fold_of)
      rows |= {row.id: row for row in own}
    made = benchmark(
      Form(
        "dfew",
        task="class",
        subject="expression",
        classes=EXPRESSIONS,
        kind="video",
        wording=self.prompt,
      ),
      rows.values(),
      clips,
      {"fold": self.fold},
    )
    return dataclasses.replace(made, breakdowns=() if self.fold else ("fold",))


_CREMAD = {
  "ANG": "anger",
  "DIS": "disgust",
  "FEA": "fear",
  "HAP": "happiness",
  "NEU": "neutral",
  "SAD": "sadness",
}
_CLIPS = (".flv", ".mp4", ".avi")


@dataclasses.dataclass(frozen=True)
class CremaDBenchmark:
  """Settings of CREMA-D.

  Attributes:
    folder: holds the clips and VideoDemographics.csv.
    clips: folder of the clips in it.
    actors: the last so many actors by number; 0: all 91.
    prompt: see prompts.py.
  """

  folder: str
  clips: str = "VideoFlash"
  actors: int = 0
  prompt: str = "official"

  def __post_init__(self):
    within(self, "actors", 0)

  def open(self) -> Benchmark:
    """Lists the clips and reads who acts in them."""
    root = Path(self.folder)
    found = sorted(p for p in (root / self.clips).glob("*") if p.suffix.lower() in _CLIPS)
    if not found:
      raise FileNotFoundError(
        f"no clips in {root / self.clips} - expected CREMA-D's 1001_DFA_ANG_XX.flv, ... - check "
        "--data, or --set cremad.clips"
      )
    people = _actors(root / "VideoDemographics.csv")
    rows = [_acted(p, f"{self.clips}/{p.name}", people) for p in found]
    kept = sorted({r.groups["actor"] for r in rows if r.truth})[-self.actors :]
    return benchmark(
      Form(
        "cremad",
        task="class",
        subject="expression",
        classes=tuple(x for x in EXPRESSIONS if x in _CREMAD.values()),
        kind="video",
        wording=self.prompt,
        cluster="actor",
      ),
      [row for row in rows if row.truth is None or row.groups["actor"] in kept],
      root,
      {"actors": self.actors, "clips": self.clips},
    )


def _acted(path: Path, place: str, people: Mapping[str, Mapping[str, str]]) -> Labelled:
  parts = path.stem.split("_")
  if len(parts) != 4 or parts[2] not in _CREMAD:
    return Labelled(
      path.stem, place, None, {}, f"file name {path.name!r} - expected 1001_DFA_ANG_XX.flv"
    )
  actor, _, emotion, _ = parts
  return Labelled(path.stem, place, _CREMAD[emotion], {"actor": actor, **people.get(actor, {})})


def _actors(path: Path) -> dict[str, dict[str, str]]:
  """Age band, gender and race of the actors; {} without the table."""
  if not path.is_file():
    return {}
  with path.open(newline="", encoding="utf-8-sig") as file:
    reader = csv.DictReader(file)
    needed = ("ActorID", "Age", "Sex", "Race")
    lacks = [name for name in needed if name not in (reader.fieldnames or ())]
    if lacks:
      raise ValueError(f"{path}: no column {', '.join(lacks)} - expected {', '.join(needed)}")
    rows = list(reader)
  for row in rows:
    one_of(f"{path}: Sex of actor {row['ActorID']}", row["Sex"], ("Male", "Female"))
    if not row["Age"].strip().isdecimal():
      raise ValueError(f"{path}: Age {row['Age']!r} of actor {row['ActorID']} - expected years")
  return {
    row["ActorID"]: {"age": age_band(int(row["Age"])), "gender": row["Sex"], "race": row["Race"]}
    for row in rows
  }
