"""Action units: DISFA and BP4D. F1 of each unit, and their mean.

    DISFA  ActionUnit_Labels/SN001/SN001_au1.txt, Videos_LeftCamera/LeftVideoSN001_comp.avi;
           active from intensity 2; eight units as usual, or all twelve
    BP4D   AUCoding/AU_OCC/F001_T1.csv (first row: numbers of units; first column: the frame; 0, 1,
           9 not known), Sequences/F001/T1/0001.jpg; F and M open the names of women and men

Customary, not published for Face-LLaVA: the sets of eight and twelve units, and intensity 2. Ours:
that a frame of BP4D with an unknown unit of the set is left out, and that intervals resample people
rather than frames, of which those of one person are much alike.
"""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from facejax.config_checks import within
from facejax.evaluate import answers
from facejax.evaluate.benchmarks.labelled import Form, Labelled, benchmark, of_table, table_media
from facejax.evaluate.protocol import Benchmark
from facejax.faces.action_units import ACTION_UNITS
from facejax.records.layouts import disfa

DISFA_8 = (1, 2, 4, 6, 9, 12, 25, 26)
BP4D_12 = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
_UNKNOWN = "9"


def _names(units: tuple[int, ...]) -> list[str]:
  return [f"AU{unit} ({ACTION_UNITS[unit]})" for unit in units]


@dataclasses.dataclass(frozen=True)
class DisfaBenchmark:
  """Settings of DISFA.

  Attributes:
    folder: holds ActionUnit_Labels and the clips.
    videos: folder of one camera's clips in it; or "".
    frames: folder with a folder of pictures for each subject in it, instead of clips.
    subjects: such as SN001+SN002; (): all. The usual three folds are of subjects.
    units: 8 or 12.
    every: a frame of so many is asked.
    prompt: see prompts.py.
  """

  folder: str
  videos: str = "Videos_LeftCamera"
  frames: str = ""
  subjects: tuple[str, ...] = ()
  units: int = 8
  every: int = 1
  prompt: str = "official"

  def __post_init__(self):
    within(self, "every", 1)
    if self.units not in (8, 12):
      raise ValueError(f"DisfaBenchmark.units={self.units}: expected 8 or 12")

  def open(self) -> Benchmark:
    """Reads the labels and lists the clips or pictures."""
    root = Path(self.folder)
    table = disfa.Disfa(
      labels=str(root / "ActionUnit_Labels"),
      videos="" if self.frames else str(root / self.videos),
      frames=str(root / self.frames) if self.frames else "",
      subjects=self.subjects,
      every=self.every,
    ).open()
    units = DISFA_8 if self.units == 8 else disfa.ACTION_UNITS
    active = lambda labels: _active(labels["intensities"], units)
    subject = lambda row: {"subject": str(row.labels["subject"])}
    return benchmark(
      Form(
        "disfa",
        task="units",
        subject="action_units",
        classes=units,
        kind="image",
        wording=self.prompt,
        parse=lambda text: answers.action_units(text, units),
        names=tuple(_names(units)),
        cluster="subject",
      ),
      of_table(table, active, subject),
      root / (self.frames or self.videos),
      {"units": self.units, "every": self.every, "subjects": list(self.subjects)},
      load=table_media(table, "image"),
    )


def _active(intensities: dict[str, int | None], units: tuple[int, ...]) -> list[int] | None:
  """Units from intensity 2 on; None where one of the set has no label."""
  graded = [(unit, intensities[f"AU{unit}"]) for unit in units]
  if any(value is None for _, value in graded):
    return None
  return [unit for unit, value in graded if value is not None and value >= 2]


@dataclasses.dataclass(frozen=True)
class Bp4dBenchmark:
  """Settings of BP4D.

  Attributes:
    folder: holds the codes and the pictures.
    codes: folder of the tables in it.
    frames: folder of the pictures in it: SUBJECT/TASK/FRAME.jpg.
    subjects: such as F001+M003; (): all. The usual three folds are of subjects.
    every: a coded frame of so many is asked.
    prompt: see prompts.py.
  """

  folder: str
  codes: str = "AUCoding/AU_OCC"
  frames: str = "Sequences"
  subjects: tuple[str, ...] = ()
  every: int = 1
  prompt: str = "official"

  def __post_init__(self):
    within(self, "every", 1)

  def open(self) -> Benchmark:
    """Reads the tables and lists the pictures."""
    root = Path(self.folder)
    tables = sorted((root / self.codes).glob("*_T*.csv"))
    if not tables:
      raise FileNotFoundError(
        f"no tables F001_T1.csv in {root / self.codes} - expected BP4D's AU_OCC - check --data, or "
        "--set bp4d.codes"
      )
    known = {path.name.split("_")[0] for path in tables}
    for subject in self.subjects:
      if subject not in known:
        raise ValueError(f"--set bp4d.subjects: no {subject!r} - expected some of {sorted(known)}")
    wanted = [p for p in tables if not self.subjects or p.name.split("_")[0] in self.subjects]
    rows = [row for path in wanted for row in _coded(path, root / self.frames, self.every)]
    return benchmark(
      Form(
        "bp4d",
        task="units",
        subject="action_units",
        classes=BP4D_12,
        kind="image",
        wording=self.prompt,
        parse=lambda text: answers.action_units(text, BP4D_12),
        names=tuple(_names(BP4D_12)),
        cluster="subject",
      ),
      rows,
      root / self.frames,
      {"every": self.every, "subjects": list(self.subjects)},
    )


def _coded(path: Path, frames: Path, every: int) -> Iterator[Labelled]:
  """The frames of one table."""
  subject, task = path.stem.split("_")[:2]
  found = {p.stem.lstrip("0") or "0": p.name for p in (frames / subject / task).glob("*.jpg")}
  gender = {"F": "Female", "M": "Male"}.get(subject[0])
  groups = {"subject": subject, "task": task, **({"gender": gender} if gender else {})}
  with path.open(newline="", encoding="utf-8-sig") as file:
    header, *lines = [*csv.reader(file)] or [[]]
  columns = {name.strip(): i for i, name in enumerate(header) if i}
  lacks = [str(unit) for unit in BP4D_12 if str(unit) not in columns]
  if lacks:
    raise ValueError(
      f"{path}: no column of unit {', '.join(lacks)} - expected a first row of numbers of units - "
      "is it of AU_OCC?"
    )
  for number, line in enumerate(lines[::every], 0):
    where = f"{path}, line {2 + number * every}"
    codes = {unit: line[i].strip() for unit in BP4D_12 if (i := columns[str(unit)]) < len(line)}
    if len(codes) < len(BP4D_12) or not set(codes.values()) <= {"0", "1", _UNKNOWN}:
      raise ValueError(f"{where}: {line[:6]} - expected a frame, and 0, 1 or 9 of each unit")
    frame = line[0].strip().lstrip("0") or "0"
    name = f"{subject}_{task}/{frame}"
    unknown = [unit for unit, code in codes.items() if code == _UNKNOWN]
    if unknown:
      yield Labelled(name, "", None, groups, f"AU{unknown[0]} is not known")
      continue
    truth = [unit for unit, code in codes.items() if code == "1"]
    place = f"{subject}/{task}/{found.get(frame, frame + '.jpg')}"
    yield Labelled(name, place, truth, groups)
