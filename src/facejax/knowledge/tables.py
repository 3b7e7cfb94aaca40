"""Label tables from files. a released layout, or CSV -> LabelTable.

Released tables are read by records/layouts and annotate/fairface.py; here their labels become
columns. What a table cannot tell apart stays unknown: UTKFace's "Asian" is East or Southeast Asian
in FairFace's terms, so those two are unknown and the other races are 0.
"""

import csv
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from facejax.annotate import fairface
from facejax.knowledge.labels import UNKNOWN, LabelSet, LabelTable
from facejax.records.layouts.table import Table

_CELLS = {"1": 1, "0": 0, "": UNKNOWN}

# A word of a released table -> the labels of which it is one. UTKFace describes its class "others"
# as "like Hispanic, Latino, Middle Eastern".
_ONE_OF: dict[str, tuple[str, ...]] = {
  "Asian": ("East_Asian", "Southeast_Asian"),
  "others": ("Middle_Eastern", "Latino_Hispanic"),
  "male": ("Male",),
  "female": ("Female",),
}


def from_layout(table: Table, labels: LabelSet, source: str) -> LabelTable:
  """The labels of an opened released table; rows that cannot be read are left out.

  Args:
    table: such as CelebA(...).open().
    labels: what to keep; what the table does not say is unknown.
    source: for messages.

  Raises:
    ValueError: an id twice, or a row that says nothing about any of the labels.
  """
  said = ((table.id(i), table.labels(i)) for i in range(len(table)))
  return _table(((key, row) for key, row in said if row is not None), labels, source)


def from_fairface(path: pathlib.Path, labels: LabelSet) -> LabelTable:
  """FairFace's CSV: age bin, gender and race of each file. Raises ValueError, naming the line."""
  rows = fairface.read(path)
  said = ((row.file, {"age": row.age, "gender": row.gender, "race": row.race}) for row in rows)
  return _table(said, labels, str(path))


def encode(said: Mapping[str, Any], labels: LabelSet, where: str) -> np.ndarray:
  """What a table says of a sample -> int8 [N].

  Known keys: "attributes" {name: bool}, "intensities" {"AU1": FACS grade 0 to 5; present from B,
  which is 2}, "age" (years, or a bin's name), "expression", "gender" and "race". A word that names
  a label of a group settles the whole group.

  Raises:
    ValueError: it says nothing about any of the labels.
  """
  values = known(said, labels)
  if (values == UNKNOWN).all():
    raise ValueError(
      f"{where} says {dict(said)!r:.80}, nothing about the labels of {labels.name!r} - expected at "
      "least one of them - choose the label set that fits the table"
    )
  return values


def known(said: Mapping[str, Any], labels: LabelSet) -> np.ndarray:
  """encode() of a sample that may say nothing, as one of a table about something else.

  null says nothing. Raises ValueError for a value of another kind, naming it.
  """
  if not isinstance(said, Mapping):
    raise ValueError(f"labels are {said!r:.80} - expected an object of names and values")
  values = np.full(len(labels), UNKNOWN, np.int8)
  place = {label: i for i, label in enumerate(labels.labels)}
  for name, has in _items(said, "attributes"):
    if has is not None and has not in (0, 1):
      raise ValueError(f"attribute {name} is {has!r} - expected true, false or null")
    if name in place and has is not None:
      values[place[name]] = has
  for unit, grade in _items(said, "intensities"):
    if grade is not None and not (_is_number(grade) and grade <= 5):
      raise ValueError(f"intensity {unit} is {grade!r} - expected a grade of 0 to 5, or null")
    if unit in place and grade is not None:
      values[place[unit]] = grade >= 2
  for key in ("expression", "age", "gender", "race"):
    if said.get(key) is not None:
      word = age_bin(said[key]) if key == "age" else said[key]
      if not isinstance(word, str):
        raise ValueError(f"{key} is {word!r} - expected a word or null")
      _choose(values, labels, _ONE_OF.get(word, (word.replace(" ", "_"),)))
  return values


def _items(said: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
  found = said.get(key)
  if found is None:
    return ()
  if not isinstance(found, Mapping):
    raise ValueError(f"{key} are {found!r:.80} - expected an object of names and values")
  return found.items()


def _is_number(value: Any) -> bool:
  """Of a kind that is counted, from 0 on; NaN is none, which comparisons would call absent."""
  kind = isinstance(value, int | float | np.number) and not isinstance(value, bool)
  return kind and 0 <= value < np.inf


def _choose(values: np.ndarray, labels: LabelSet, options: tuple[str, ...]) -> None:
  """One of the options is true: all else of their group is false."""
  for names, group in zip(labels.groups, labels.group_indices, strict=True):
    if set(options) <= set(names):
      values[list(group)] = 0
      values[[group[names.index(o)] for o in options]] = UNKNOWN if len(options) > 1 else 1


def age_bin(age: int | str) -> str:
  """Years, or FairFace's name of a bin -> the label of the bin: 26 or "20-29" -> "Age_20-29"."""
  if isinstance(age, str):
    return "Age_70+" if age == "more than 70" else f"Age_{age}"
  if not _is_number(age):
    raise ValueError(f"age is {age!r} - expected years, or the name of a bin")
  ends = [int(name.split("-")[1]) for name in fairface.AGES[:-1]]
  return next(
    (age_bin(n) for n, end in zip(fairface.AGES, ends, strict=False) if age <= end), "Age_70+"
  )


def _table(said: Iterable[tuple[str, Mapping]], labels: LabelSet, source: str) -> LabelTable:
  rows = [(key, encode(row, labels, f"{source}, {key!r}")) for key, row in said]
  values = np.stack([row for _, row in rows]) if rows else np.zeros((0, len(labels)), np.int8)
  return LabelTable(labels, tuple(key for key, _ in rows), values, source)


def read_csv(path: pathlib.Path, labels: LabelSet) -> LabelTable:
  """Reads `id,label,label,...`: 1 present, 0 absent, nothing for unknown; columns in any order.

  A label without a column is unknown throughout. -1 is refused: CelebA means "absent" by it and
  others "unknown".

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: an unknown column, a wrong value, a short row, or an id twice; with the line.
  """
  if not path.is_file():
    raise FileNotFoundError(
      f"no label table {path} - expected CSV: id,{','.join(labels.labels[:2])}"
    )
  ids: dict[str, int] = {}
  rows = []
  with path.open(newline="", encoding="utf-8-sig") as file:
    lines = csv.reader(file)
    header = next(lines, [])
    if not header or header[0] != "id" or len(set(header)) < len(header):
      raise ValueError(f"{path}, line 1: {header[:4]} - expected id and labels, each once")
    places = [labels.index(name, f"{path}, line 1") for name in header[1:]]
    for cells in filter(None, lines):
      where = f"{path}, line {lines.line_num}, id {cells[0]!r}"
      if len(cells) != len(header):
        raise ValueError(f"{where}: {len(cells)} cells - expected {len(header)}, as in line 1")
      wrong = [
        (n, c) for n, c in zip(header[1:], cells[1:], strict=True) if c.strip() not in _CELLS
      ]
      if wrong:
        raise ValueError(f"{where}: {wrong[0][0]} is {wrong[0][1]!r} - expected 1, 0 or nothing")
      if cells[0] in ids:
        raise ValueError(f"{where} stands twice, first in line {ids[cells[0]]} - remove one")
      ids[cells[0]] = lines.line_num
      row = np.full(len(labels), UNKNOWN, np.int8)
      row[places] = [_CELLS[cell.strip()] for cell in cells[1:]]
      rows.append(row)
  values = np.stack(rows) if rows else np.zeros((0, len(labels)), np.int8)
  return LabelTable(labels, tuple(ids), values, str(path))
