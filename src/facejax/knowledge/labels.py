"""Labels that a face has or lacks. names -> LabelSet; values [S N] -> LabelTable.

A value is 1 (present), 0 (absent) or -1 (nobody said). Labels of one group are answers to one
question (an age bin, an expression): exactly one of them is true of a face.
"""

import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int8

UNKNOWN = -1
_RESERVED = "<>{}\n\r\t,"  # a name stands in prompts, templates and CSV files


@dataclasses.dataclass(frozen=True)
class LabelSet:
  """Which labels there are.

  Attributes:
    name: of the set, for messages.
    labels: names, in the order of every array's last axis.
    groups: names of labels of which exactly one is true; no label is in two.
    words: how prose says a label; one that is missing here is its name with spaces.
  """

  name: str
  labels: tuple[str, ...]
  groups: tuple[tuple[str, ...], ...] = ()
  words: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

  def __post_init__(self):
    if not self.labels:
      raise ValueError(f"label set {self.name!r} has 0 labels - expected at least one")
    for label in self.labels:
      if not label or any(c in _RESERVED for c in label):
        raise ValueError(
          f"label set {self.name!r}: label {label!r} - expected a name without any of "
          f"{_RESERVED!r} - rename it"
        )
      if self.labels.count(label) > 1:
        raise ValueError(f"label set {self.name!r}: label {label!r} is named twice - remove one")
    grouped = [label for group in self.groups for label in group]
    for label in grouped:
      self.index(label, f"a group of label set {self.name!r}")
      if grouped.count(label) > 1:
        raise ValueError(
          f"label set {self.name!r}: {label!r} is in two groups or twice in one - expected groups "
          "that share no label, as exactly one of each is true - leave it in one"
        )
    if small := next((group for group in self.groups if len(group) < 2), None):
      raise ValueError(
        f"label set {self.name!r}: group {list(small)} - expected two labels or more"
      )

  def __len__(self) -> int:
    return len(self.labels)

  @functools.cached_property
  def _places(self) -> dict[str, int]:
    return {label: place for place, label in enumerate(self.labels)}

  def index(self, label: str, where: str) -> int:
    """The place of a label. Raises ValueError naming `where` and the nearest label."""
    if label not in self._places:
      near = difflib.get_close_matches(label, self.labels, 1)
      hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.labels[:8])}, ..."
      raise ValueError(
        f"unknown label {label!r} in {where} - expected one of the {len(self)} labels of "
        f"{self.name!r} - {hint}"
      )
    return self._places[label]

  @functools.cached_property
  def group_indices(self) -> tuple[tuple[int, ...], ...]:
    """The groups as places of their labels."""
    return tuple(tuple(self._places[label] for label in group) for group in self.groups)

  def say(self, label: str) -> str:
    """A label in words: those given, else its name with spaces, in lower case."""
    return self.words.get(label) or label.replace("_", " ").lower()

  def row(self, present: Sequence[str], where: str) -> Int8[np.ndarray, "N"]:
    """1 for the labels that are present, 0 for all others. Raises ValueError for unknown ones."""
    values = np.zeros(len(self), np.int8)
    values[[self.index(label, where) for label in present]] = 1
    return values


@dataclasses.dataclass(frozen=True)
class LabelTable:
  """What is known of each sample.

  Attributes:
    labels: the columns.
    ids: of the samples, each once.
    values: [S N] int8 of 1, 0 and UNKNOWN.
    source: where it came from, for messages and fingerprints.
  """

  labels: LabelSet
  ids: tuple[str, ...]
  values: Int8[np.ndarray, "S N"]
  source: str = "a table in memory"

  def __post_init__(self):
    expected = (len(self.ids), len(self.labels))
    if self.values.shape != expected or self.values.dtype != np.int8:
      raise ValueError(
        f"{self.source}: values are {self.values.dtype} {list(self.values.shape)} - expected int8 "
        f"{list(expected)}, a row for each id and a column for each label"
      )
    check_values(self.values, self.labels, self.source, self.ids)
    if len(set(self.ids)) < len(self.ids):
      first = {x: i for i, x in reversed(list(enumerate(self.ids)))}
      twice, row = next((x, i) for i, x in enumerate(self.ids) if first[x] < i)
      raise ValueError(
        f"{self.source}: id {twice!r} stands twice, in rows {first[twice] + 1} and {row + 1} - "
        "expected each sample once, else it would be counted twice - remove one"
      )

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def known(self) -> Bool[np.ndarray, "S N"]:
    """Where there is a value."""
    return self.values != UNKNOWN


def check_values(
  values: np.ndarray, labels: LabelSet, source: str, ids: Sequence[str] | None = None
) -> None:
  """Raises ValueError naming the first value that is not 1, 0 or -1, with its row and label."""
  wrong = (values < UNKNOWN) | (values > 1)
  if wrong.any():
    row, column = (int(i) for i in np.argwhere(wrong)[0])
    sample = f" (id {ids[row]!r})" if ids is not None else ""
    raise ValueError(
      f"{source}, row {row + 1}{sample}: {labels.labels[column]} is {values[row, column]} - "
      f"expected 1, 0 or {UNKNOWN} for unknown; {int(wrong.sum())} such values in all"
    )
