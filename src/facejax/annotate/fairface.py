"""FairFaceGPT: FairFace's label table and pictures -> eight questions a picture (FaceLLM).

The table is FairFace's: a header, then file, age, gender, race and whatever follows. Of each
picture's eight units the facts are in the prompt that is sent, not in the question that is stored.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, overload

from facejax.annotate import prompts
from facejax.annotate.unit import Unit
from facejax.data.files import inside

AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
GENDERS = ("Male", "Female")
RACES = (
  "White",
  "Black",
  "Indian",
  "East Asian",
  "Southeast Asian",
  "Middle Eastern",
  "Latino_Hispanic",
)
QUESTIONS = len(prompts.FAIRFACE_QUESTIONS)


class Row(NamedTuple):
  """A line of the label table."""

  file: str
  age: str
  gender: str
  race: str


class FairFace:
  """The recipe: unit `8 n + i` is question i about the n-th picture."""

  name = "fairface"

  def __init__(self, labels: pathlib.Path, images: pathlib.Path, limit: int | None = None):
    """Reads the table's first `limit` rows.

    Raises:
      FileNotFoundError: the table or the folder.
      ValueError: a row that is not FairFace's, a file named twice, or outside the folder.
    """
    if not labels.is_file():
      raise FileNotFoundError(f"no label table {labels} - expected FairFace's CSV - check --labels")
    if not images.is_dir():
      raise FileNotFoundError(f"no folder {images} - expected FairFace's pictures - check --images")
    rows = read(labels)[:limit]
    for row in rows:
      inside(images, row.file, row.file)
    self.units: Sequence[Unit] = _Units(rows, images)


def read(labels: pathlib.Path) -> list[Row]:
  """The table's rows. Raises ValueError, naming the line."""
  rows: list[Row] = []
  seen: dict[str, int] = {}
  with labels.open(newline="", encoding="utf-8-sig") as file:
    for number, cells in enumerate(csv.reader(file), 1):
      if number == 1:
        continue
      where = f"{labels}, line {number}"
      if len(cells) < len(Row._fields):
        raise ValueError(
          f"{where}: {len(cells)} columns - expected file, age, gender, race - repair the table"
        )
      row = Row(*cells[: len(Row._fields)])
      for name, values in (("age", AGES), ("gender", GENDERS), ("race", RACES)):
        if getattr(row, name) not in values:
          raise ValueError(
            f"{where}: {name} {getattr(row, name)!r} - expected one of {', '.join(values)} - "
            "repair the table"
          )
      if row.file in seen:
        raise ValueError(
          f"{where}: {row.file!r} stands in line {seen[row.file]}, too - expected each file once - "
          "remove one"
        )
      seen[row.file] = number
      rows.append(row)
  return rows


def person(row: Row) -> str:
  """The released code's word: boy and girl only at "3-9"; at "0-2" it says man and woman."""
  if row.age == "3-9":
    return "boy" if row.gender == "Male" else "girl"
  return "man" if row.gender == "Male" else "woman"


class _Units(Sequence[Unit]):
  def __init__(self, rows: list[Row], images: pathlib.Path):
    self._rows, self._images = rows, images

  def __len__(self) -> int:
    return QUESTIONS * len(self._rows)

  @overload
  def __getitem__(self, index: int) -> Unit: ...
  @overload
  def __getitem__(self, index: slice) -> Sequence[Unit]: ...
  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    place, question = divmod(range(len(self))[index], QUESTIONS)
    row = self._rows[place]
    facts = {
      "person": person(row),
      "ethnicity": row.race.replace("_", " or "),
      "age": row.age if row.age.startswith("more") else f"{row.age} years",
    }
    prompt = prompts.FAIRFACE_IMAGE
    if question < len(prompts.ATTRIBUTES):
      prompt = prompts.FAIRFACE_ATTRIBUTE
      facts["attribute"] = prompts.ATTRIBUTES[question]
    return Unit(
      id=f"{row.file}#{question}",
      media=row.file,
      path=self._images / row.file,
      kind="image",
      prompt=prompt,
      facts=facts,
      question=prompts.FAIRFACE_QUESTIONS[question],
      labels={"age": row.age, "gender": row.gender, "race": row.race},
    )
