"""AffectNet: expression, valence and arousal of pictures, as arrays or as lists.

    form "arrays"  train_set/images/0.jpg             287,651 pictures; val_set 3,999 or 4,000
                   train_set/annotations/0_exp.npy    0 to 7, a number or its text
                                         0_val.npy    -1 to 1
                                         0_aro.npy    -1 to 1; 0_lnd.npy is not read
    form "lists"   Manually_Annotated_file_lists/training.csv, validation.csv
                     subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,
                     expression,valence,arousal
                   Manually_Annotated_Images/689/....jpg
    0 neutral, 1 happiness, 2 sadness, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt; in lists
    also 8 none, 9 uncertain, 10 no face, which are left out

Verified in public readers of both forms: files, columns, numbers, that valence and arousal are -2
where there are none, that a cell may be NULL, and that validation.csv has no header in some copies.
General knowledge: that training.csv names a picture once; one that stands again with other labels
is refused. Ours: the wording; that pictures of the lists are taken whole, not cut to their box.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.config_checks import one_of, within
from facejax.records.layouts import path
from facejax.records.layouts.table import Row, Table, bad_line, columns, lines, said

EXPRESSIONS = (
  *("neutral", "happiness", "sadness", "surprise"),
  *("fear", "disgust", "anger", "contempt"),
)
_FOLDERS = {"train": "train_set", "validation": "val_set"}
_LISTS = {"train": "training.csv", "validation": "validation.csv"}
_COLUMNS = (
  *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
  *("facial_landmarks", "expression", "valence", "arousal"),
)
_READ = ("subDirectory_filePath", "expression", "valence", "arousal")
_NONE = -2.0  # of valence and arousal where nobody said


@dataclasses.dataclass(frozen=True)
class AffectNet:
  """Settings of AffectNet.

  Attributes:
    folder: holds train_set and val_set, or Manually_Annotated_file_lists and
      Manually_Annotated_Images.
    form: "arrays" or "lists".
    split: "train" or "validation"; the test set is not released.
    classes: 8, or 7 without contempt.
    seed: of the wording.
  """

  folder: str = path(...)
  form: str = "arrays"
  split: str = "train"
  classes: int = 8
  seed: int = 0

  def __post_init__(self):
    one_of("AffectNet.form", self.form, ("arrays", "lists"))
    one_of("AffectNet.split", self.split, tuple(_FOLDERS))
    within(self, "classes", 7, 8)

  def open(self) -> Table:
    """Reads a list, or all annotations of a folder (three small files a picture)."""
    rows = self._arrays() if self.form == "arrays" else self._listed()
    names = EXPRESSIONS[: self.classes]
    kept = [row for row in rows if row.error or row.labels["expression"] in names]
    return Table(self.folder, kept, "expression", "image", self.seed)

  def _arrays(self) -> list[Row]:
    name = _FOLDERS[self.split]
    root = pathlib.Path(self.folder) / name
    pictures = {p.stem for p in (root / "images").glob("*.jpg")}
    marks = {p.name.removesuffix("_exp.npy") for p in (root / "annotations").glob("*_exp.npy")}
    if not pictures and not marks:
      raise FileNotFoundError(
        f"no pictures in {root / 'images'} - expected AffectNet's {name} - check 'folder'"
      )
    order = sorted(pictures | marks, key=lambda stem: (len(stem), stem))
    return [_annotated(root / "annotations", stem, f"{name}/images/{stem}.jpg") for stem in order]

  def _listed(self) -> list[Row]:
    root = pathlib.Path(self.folder)
    source = root / "Manually_Annotated_file_lists" / _LISTS[self.split]
    told = lines(source, "folder")
    headed = bool(told) and "subDirectory_filePath" in told[0]
    places = columns(source, told[0], _READ) if headed else [_COLUMNS.index(n) for n in _READ]
    rows: dict[str, Row] = {}
    for number, cells in enumerate(csv.reader(told[headed:]), 1 + headed):
      row = _line(source, number, cells, places) if cells else None
      if row is not None and rows.setdefault(row.id, row) != row:
        raise bad_line(source, number, row.id, "a picture once, or again with the same labels")
    return list(rows.values())


def _annotated(folder: pathlib.Path, stem: str, place: str) -> Row:
  """A picture of the form "arrays"; one whose annotation cannot be read says why."""
  try:
    number = _number(folder / f"{stem}_exp.npy")
    if number not in {str(n) for n in range(8)}:
      raise ValueError(f"{folder / f'{stem}_exp.npy'} holds {number!r} - expected 0 to 7")
    found = {
      name: _measure(_number(file), str(file))
      for name in ("valence", "arousal")
      if (file := folder / f"{stem}_{name[:3]}.npy").is_file()
    }
  except ValueError as error:
    return Row(stem, place, "", "", {}, str(error))
  return _row(stem, place, int(number), found)


def _number(path: pathlib.Path) -> str:
  if not path.is_file():
    raise ValueError(f"{path}: no such annotation")
  try:
    return str(np.load(path, allow_pickle=False).item())
  except (ValueError, OSError, EOFError) as error:
    raise ValueError(f"{path} is no array of one number ({error})") from error


def _measure(text: str, where: str) -> float | None:
  """Valence or arousal; None where nobody said."""
  try:
    value = _NONE if text == "NULL" else float(text)
  except ValueError:
    value = np.nan
  if value != _NONE and not -1 <= value <= 1:
    raise ValueError(f"{where} holds {text!r} - expected -1 to 1, or -2 for none")
  return None if value == _NONE else value


def _line(
  source: pathlib.Path, number: int, cells: Sequence[str], places: Sequence[int]
) -> Row | None:
  """A line of the form "lists"; None for one without an expression."""
  if len(cells) <= max(places):
    raise bad_line(source, number, ",".join(cells), f"{len(_COLUMNS)} cells")
  name, expression, *rest = (cells[place].strip() for place in places)
  if expression not in {str(n) for n in range(11)}:
    raise bad_line(source, number, f"{name}: {expression}", "an expression 0 to 10")
  if int(expression) >= len(EXPRESSIONS):
    return None
  where = f"{source}, line {number}:"
  found = {key: _measure(x, where) for key, x in zip(("valence", "arousal"), rest, strict=True)}
  return _row(name, f"Manually_Annotated_Images/{name}", int(expression), found)


def _row(key: str, place: str, number: int, found: dict[str, Any]) -> Row:
  name = EXPRESSIONS[number]
  known = {key: value for key, value in found.items() if value is not None}
  return Row(key, place, *said("expression", name), {"expression": name, **known})
