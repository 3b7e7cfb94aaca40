"""A benchmark is data: items, how their answers are read, and what they are counted by.

    Benchmark.items   id, prompt, media, truth, groups       what is asked
    Benchmark.parse   answer -> label                        named and versioned
    Benchmark.task    a row of evaluate/scores.py            labels -> metrics

Running it is suite.py's business, storing predictions.py's. Nothing here is computed on a device.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from facejax.data.files import Encoded, MediaError, inside, read
from facejax.records.raw import RawMedium
from facejax.types import Kind, Refusal

# Groups that are people: every benchmark that knows them is reported by them.
PEOPLE = ("age", "gender", "race")


class MediaFile(NamedTuple):
  """A picture or clip of an item."""

  kind: Kind
  path: str  # relative to the benchmark's folder


@dataclasses.dataclass(frozen=True)
class Item:
  """A question and its truth.

  Attributes:
    id: unique in the benchmark.
    prompt: the human turn, with a placeholder for each medium.
    media: in the order of the placeholders.
    truth: a JSON value, as the benchmark's parser gives: a letter, a name, years, or a sorted list.
    choices: options of the question, where it has some.
    groups: what the item belongs to, by kind: {"sub-task": "age", "gender": "Female"}.
    error: why it cannot be asked although it has a truth; it then counts as not answered.
  """

  id: str
  prompt: str
  media: tuple[MediaFile, ...]
  truth: Any
  choices: tuple[str, ...] = ()
  groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
  error: str = ""


def from_files(folder: Path) -> "Callable[[Item], tuple[RawMedium, ...]]":
  """Reads an item's media from their files; raises MediaError, naming item and file."""

  def load(item: Item) -> tuple[RawMedium, ...]:
    return tuple(
      RawMedium(m.kind, Encoded(m.path, read(inside(folder, m.path, item.id)))) for m in item.media
    )

  return load


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What is asked and how it is counted.

  Attributes:
    name: of the suite.
    items: with a truth each; they are the denominator, whatever becomes of them.
    task: of evaluate/scores.py.
    classes: names of the classes, units or attributes, in the order of tables; () for others.
    parse: (answer, item) -> label as in Item.truth, None where it states none.
    parser: name and version of `parse`.
    folder: of the media.
    load: reads an item's media.
    settings: that the items depend on: split, fold, setting, prompt.
    breakdowns: kinds of groups that have a table of their own, besides PEOPLE.
    cluster: kind of group whose members are resampled together, "" for items by themselves.
    new_tokens: an answer is cut after so many.
    left_out: rows of the release without a truth, which therefore are no items.
    notes: what is odd in an item that counts as any other.
  """

  name: str
  items: Sequence[Item]
  task: str
  classes: tuple[Any, ...]
  parse: Callable[[str, Item], Any]
  parser: str
  folder: Path
  load: Callable[[Item], tuple[RawMedium, ...]]
  settings: Mapping[str, Any]
  breakdowns: tuple[str, ...] = ()
  cluster: str = ""
  new_tokens: int = 64
  left_out: tuple[Refusal, ...] = ()
  notes: tuple[Refusal, ...] = ()

  def __post_init__(self):
    ids = [item.id for item in self.items]
    if len(set(ids)) < len(ids):
      twice = sorted(i for i in set(ids) if ids.count(i) > 1)[:3]
      raise ValueError(
        f"{self.name}: {len(ids) - len(set(ids))} ids come twice, such as {', '.join(twice)} - "
        "expected each item once - remove the copies"
      )
    if not ids:
      raise ValueError(f"{self.name}: no items in {self.folder} - check the folder and the split")

  def digest(self) -> str:
    """Of what is asked and what is true: equal where two runs asked the same."""
    told = [[i.id, i.prompt, [tuple(m) for m in i.media], i.truth, i.choices] for i in self.items]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

  def people(self) -> tuple[str, ...]:
    """The kinds of PEOPLE that any item says."""
    return tuple(kind for kind in PEOPLE if any(kind in item.groups for item in self.items))

  def limited(self, limit: int | None) -> "Benchmark":
    """A subset of `limit` items spread evenly over all; itself without a limit, or below it."""
    count = len(self.items)
    if limit is None or limit >= count:
      return self
    if limit < 1:
      raise ValueError(f"limit={limit} - expected at least 1")
    return dataclasses.replace(self, items=[self.items[i * count // limit] for i in range(limit)])


def missing(benchmark: Benchmark) -> list[Refusal]:
  """Items with a file that is not there or not inside the folder; looks, and reads nothing."""
  found: list[Refusal] = []
  known: dict[str, str] = {}
  for item in benchmark.items:
    for medium in item.media if not item.error else ():
      if medium.path not in known:
        known[medium.path] = _problem(benchmark.folder, medium.path, item.id)
      if known[medium.path]:
        found.append(Refusal(item.id, known[medium.path]))
        break
  return found


def _problem(folder: Path, path: str, item: str) -> str:
  try:
    place = inside(folder, path, item)
  except MediaError as error:
    return str(error)
  if not os.path.isfile(place):
    return f"{place}: no such file"
  return "" if os.path.getsize(place) else f"{place}: empty file"
