"""Reference values, ours -> the largest error of each, its tolerance, and what was not compared."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

# One of each array's numbers may be off by so much. float32 noise of the references is 1e-5.
ABSOLUTE = 1e-4
RELATIVE = 1e-4  # of sums, largest values and gradients


@dataclasses.dataclass
class Report:
  """What has been compared so far.

  Attributes:
    errors: largest error by name; of a value with `tolerances` of 0, how many entries differ.
    tolerances: the largest error allowed, by the same names.
    not_compared: why, by name.
    inputs: references that the comparison starts from.
    differs_by_design: where the library does something else on purpose, and that it did.
    notes: what a reader should know besides.
  """

  errors: dict[str, float] = dataclasses.field(default_factory=dict)
  tolerances: dict[str, float] = dataclasses.field(default_factory=dict)
  not_compared: dict[str, str] = dataclasses.field(default_factory=dict)
  inputs: set[str] = dataclasses.field(default_factory=set)
  differs_by_design: dict[str, str] = dataclasses.field(default_factory=dict)
  notes: dict[str, str] = dataclasses.field(default_factory=dict)

  def add(self, name: str, error: float, tolerance: float) -> None:
    """Records an error; one that is no number fails."""
    self.errors[name] = float(error) if np.isfinite(error) else float("inf")
    self.tolerances[name] = tolerance

  def close(self, name: str, got: Any, want: Any, tolerance: float = ABSOLUTE) -> None:
    """Largest absolute difference; infinite if shapes differ or a number is not finite."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    same = got.shape == want.shape
    self.add(name, np.abs(got - want).max(initial=0) if same else np.inf, tolerance)

  def equal(self, name: str, got: Any, want: Any) -> None:
    """How many entries differ; infinite if shapes differ."""
    got, want = np.asarray(got), np.asarray(want)
    self.add(name, np.sum(got != want) if got.shape == want.shape else np.inf, 0.0)

  def stats(self, name: str, got: Any, want: Any) -> None:
    """[sum, sum of squares, largest], each relative to itself.

    A sum may cancel out: it is relative to the root of the sum of squares where that is larger.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    scale = np.abs(want)
    scale[0] = max(scale[0], np.sqrt(want[1]))
    self.add(name, (np.abs(got - want) / scale).max(), RELATIVE)

  def compare(self, references: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
    """Every reference that has a value: integers exactly, `.stats` relatively, others closely."""
    for name in references.keys() & values.keys():
      want, got = references[name], values[name]
      if want.dtype.kind in "iub":
        self.equal(name, got, want)
      elif name.endswith(".stats"):
        self.stats(name, got, want)
      else:
        self.close(name, got, want)

  @contextlib.contextmanager
  def attempt(self, name: str) -> Iterator[None]:
    """A case that cannot be built fails under its name, and says why; others go on."""
    try:
      yield
    except ValueError as error:
      self.add(name, np.inf, 0.0)
      self.notes[name] = str(error)

  def leave(self, names: Iterable[str], why: str) -> None:
    """Says why references were not compared."""
    self.not_compared |= dict.fromkeys(names, why)

  def rest(self, names: Iterable[str]) -> None:
    """Lists what nothing has been said about."""
    said = self.errors.keys() | self.not_compared.keys() | self.differs_by_design.keys()
    said |= self.inputs
    self.leave([name for name in names if name not in said], "no comparison is written for it")

  @property
  def failed(self) -> list[str]:
    """Names beyond their tolerance."""
    return sorted(n for n, error in self.errors.items() if not error <= self.tolerances[n])

  def json(self) -> dict[str, Any]:
    """{name: largest error, ...} and, with a "_" in front, what else there is to say.

    An error that is no number (shapes differ, a NaN) is null.
    """
    errors = {n: e if math.isfinite(e) else None for n, e in sorted(self.errors.items())}
    return errors | {
      "_tolerances": dict(sorted(self.tolerances.items())),
      "_failed": self.failed,
      "_not_compared": dict(sorted(self.not_compared.items())),
      "_inputs": sorted(self.inputs),
      "_differs_by_design": dict(sorted(self.differs_by_design.items())),
      "_notes": dict(sorted(self.notes.items())),
    }


def statistics(x: Any) -> np.ndarray:
  """[sum, sum of squares, largest absolute value] in float64."""
  x = np.asarray(x, np.float64)
  return np.array([x.sum(), (x**2).sum(), np.abs(x).max()])
