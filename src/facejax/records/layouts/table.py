"""A table of labels -> questions and answers about each medium.

What is released are the media and the labels. Ours: that every sample is one question and its
answer, their wording, and the seeds. Questions are those about drawn faces (faces/questions.py). An
answer opens with the label and says no more than the label does: reasons would be made up.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facejax.data import files
from facejax.data.media import MediaError
from facejax.faces.action_units import ACTION_UNITS
from facejax.faces.questions import question
from facejax.records.raw import Encoded, RawMedium, RawSample
from facejax.types import Kind, Turn

SPLITS = ("train", "validation", "test")

_TAILS: dict[str, tuple[str, ...]] = {
  "expression": (
    "",
    " That is the expression of this face.",
    " The face shows {label}.",
    " It is {label} that this face shows.",
  ),
  "action_units": ("", " That is: {label}.", " In words: {label}.", " Active here: {label}."),
  "attributes": (
    "",
    " These are the attributes of this person.",
    " That is what one can see.",
    " Those are the visible attributes.",
  ),
  "age": (
    "",
    " That is the age of this person.",
    " So old is the person in view.",
    " The face is that of a person of this age.",
  ),
  "deepfake": (
    "",
    " The face is {label}.",
    " What you see is {label}.",
    " This recording is {label}.",
  ),
}


class Row(NamedTuple):
  """A sample of a table.

  Attributes:
    id: unique in the table.
    path: of its medium, relative to the folder.
    answer: label in the first words, without the closing full stop; see `said`.
    label: as a clause of a sentence may repeat it.
    labels: all that the table says of it, as JSON values.
    error: why there is none: what the table says cannot be read.
  """

  id: str
  path: str
  answer: str
  label: str
  labels: Mapping[str, Any]
  error: str = ""


class Table:
  """The samples of a table: one question each, another wording for each id and seed."""

  def __init__(self, folder: str, rows: Sequence[Row], task: str, kind: Kind, seed: int):
    """Opens a table.

    Args:
      folder: of the media.
      rows: its samples.
      task: which of faces/questions.py.
      kind: of the media.
      seed: of the wording.
    """
    self._folder, self._rows, self._task, self._kind = folder, rows, task, kind
    self._seed = seed

  @property
  def rows(self) -> Sequence[Row]:
    """What the table says, without its files; `medium` reads a row's."""
    return self._rows

  def __len__(self) -> int:
    return len(self._rows)

  def id(self, index: int) -> str:
    """As the dataset calls the sample."""
    return self._rows[index].id

  def labels(self, index: int) -> Mapping[str, Any] | None:
    """What the table says of the sample, None where that cannot be read; reads no file."""
    row = self._rows[index]
    return None if row.error else row.labels

  def digest(self) -> str:
    """Of ids, paths and labels; the files are not looked at."""
    told = [[row.id, row.path, dict(row.labels), row.error] for row in self._rows]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

  def __getitem__(self, index: int) -> RawSample:
    """Reads a sample's file. Raises ValueError or MediaError, naming sample and file."""
    row = self._rows[index]
    if row.error:
      raise ValueError(f"sample {row.id!r}: {row.error}")
    try:
      medium = RawMedium(self._kind, self.medium(row))
    except MediaError as error:
      raise MediaError(f"sample {row.id!r}: {error}") from error
    rng = np.random.default_rng((self._seed, zlib.crc32(row.id.encode())))
    asked = f"<{self._kind}>\n{question(self._task, rng)}"
    tails = _TAILS[self._task]
    tail = tails[int(rng.integers(len(tails)))].format(label=row.label) if row.label else ""
    turns = (Turn("human", asked), Turn("gpt", f"{row.answer}.{tail}"))
    return RawSample(row.id, turns, (medium,), row.labels)

  def medium(self, row: Row) -> Encoded:
    """Reads the file of a row."""
    return Encoded(row.path, files.read(files.inside(self._folder, row.path, row.id)))


def said(task: str, label: Any) -> tuple[str, str]:
  """A label -> how an answer opens, and how a sentence repeats it.

  Args:
    task: "expression" (a name), "action_units" (numbers of the active ones), "attributes" (nouns),
      "age" (years) or "deepfake" (manipulated or not).
    label: the label.

  Returns:
    The answer without its full stop, and "" for the second where nothing is to be repeated.
  """
  if task == "age":
    return f"{label} years old", f"{label}"
  if task == "deepfake":
    return ("Fake", "manipulated") if label else ("Real", "real")
  if task == "action_units":
    units = sorted(label)
    if not units:
      return "No action unit", ""
    return ", ".join(f"AU{n}" for n in units), listing([ACTION_UNITS[n] for n in units])
  text = listing(list(label)) if task == "attributes" else str(label)
  return (text[:1].upper() + text[1:], text) if text else ("None of the attributes", "")


def listing(items: Sequence[str]) -> str:
  """a, b and c."""
  return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)


def lines(path: pathlib.Path, setting: str) -> list[str]:
  """The lines of a label file, without their ends.

  Raises:
    FileNotFoundError: there is none; with the setting that names its folder.
    ValueError: it is no text.
  """
  if not path.is_file():
    raise FileNotFoundError(f"no label file {path} - check {setting!r} of the source")
  try:
    return path.read_text(encoding="utf-8-sig").splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{path}: byte {error.start} is not UTF-8 - expected a label file - check the file"
    ) from error


def bad_line(path: pathlib.Path, number: int, line: str, expected: str) -> ValueError:
  """What to raise for a line that cannot be read; numbers start at 1."""
  return ValueError(
    f"{path}, line {number}: {line[:80]!r} - expected {expected} - is it the released file?"
  )


def columns(path: pathlib.Path, header: str, needed: Sequence[str]) -> list[int]:
  """Places of the needed columns in a CSV header. Raises ValueError, naming those that lack."""
  names = [name.strip() for name in header.split(",")]
  missing = [name for name in needed if name not in names]
  if missing:
    raise ValueError(
      f"{path}: no column {', '.join(missing)} among {', '.join(names)} - expected "
      f"{', '.join(needed)} - is it the released file?"
    )
  return [names.index(name) for name in needed]
