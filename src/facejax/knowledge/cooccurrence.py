"""Which labels come together. label tables, one pass -> exact counts -> P(j | i) -> a graph [N N].

Of the paper: m_ij counts training samples with labels i and j, p_ij = m_ij / n_i, a threshold tau
makes a sparse matrix, a re-weighting omega goes against over-smoothing. The formulas of the last
two are not in it; they are those of ML-GCN (Chen et al., CVPR 2019), which its wording follows.

Unknown labels are ours: p_ij is over samples that have i and where j is known.
"""

import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

from facejax.config_checks import one_of
from facejax.knowledge.labels import LabelSet, check_values

REWEIGHTS = ("paper", "code")
ROWS = 8192  # rows at a time: 1.3 MB as float32 for 40 labels; sums below 2^24 are exact


@dataclasses.dataclass(frozen=True)
class Cooccurrence:
  """Counts over the samples seen so far; adding two of different samples adds them up.

  Attributes:
    labels: names.
    together: [N N] int64, samples with i and j; the diagonal is n_i.
    known: [N N] int64, samples with i in which j is known.
    both_known: [N N] int64, samples in which i and j are known.
    rows: samples seen, which is where a stopped count goes on.
    source: which table; counts of another are not continued.
  """

  labels: tuple[str, ...]
  together: Int[np.ndarray, "N N"]
  known: Int[np.ndarray, "N N"]
  both_known: Int[np.ndarray, "N N"]
  rows: int = 0
  source: str = ""

  def __add__(self, other: "Cooccurrence") -> "Cooccurrence":
    """Counts of both. Raises ValueError if their labels differ, in names or order."""
    if self.labels != other.labels:
      raise ValueError(
        f"counts of {self.source!r} are of labels {', '.join(self.labels)}, those of "
        f"{other.source!r} of {', '.join(other.labels)} - expected the same in the same order"
      )
    return Cooccurrence(
      self.labels,
      self.together + other.together,
      self.known + other.known,
      self.both_known + other.both_known,
      self.rows + other.rows,
      self.source if self.source == other.source else f"{self.source} + {other.source}",
    )

  @property
  def prevalence(self) -> Float[np.ndarray, "N"]:
    """The share of samples with each label among those where it is known; 0 without any."""
    return np.diag(self.together) / np.maximum(np.diag(self.both_known), 1)


def empty(labels: LabelSet, source: str = "") -> Cooccurrence:
  """No samples yet."""
  zero = np.zeros((len(labels), len(labels)), np.int64)
  return Cooccurrence(labels.labels, zero, zero, zero, 0, source)


def add(counts: Cooccurrence, values: Int8[np.ndarray, "S N"], labels: LabelSet) -> Cooccurrence:
  """Counts with more samples. Raises ValueError for values other than 1, 0 and -1."""
  if values.ndim != 2 or values.shape[1] != len(counts.labels):
    raise ValueError(
      f"{counts.source}: rows of shape {list(values.shape)} - expected [S, {len(counts.labels)}], "
      "a column for each label"
    )
  together, known, both = (x.copy() for x in (counts.together, counts.known, counts.both_known))
  for start in range(0, len(values), ROWS):
    part = values[start : start + ROWS]
    check_values(part, labels, f"{counts.source} from row {counts.rows + start + 1}")
    has, said = (part == 1).astype(np.float32), (part >= 0).astype(np.float32)
    together += (has.T @ has).astype(np.int64)
    known += (has.T @ said).astype(np.int64)
    both += (said.T @ said).astype(np.int64)
  rows = counts.rows + len(values)
  return Cooccurrence(counts.labels, together, known, both, rows, counts.source)


def count(
  parts: Iterable[Int8[np.ndarray, "S N"]],
  labels: LabelSet,
  source: str = "",
  state: pathlib.Path | None = None,
) -> Cooccurrence:
  """Counts a table in one pass. Started again with the same `state`, it goes on where it stopped.

  Args:
    parts: the table's rows in order, some at a time; the cuts may differ between runs.
    labels: the columns.
    source: a fingerprint of the table, such as Layout.digest().
    state: file that holds the counts after each part, replaced in one piece.

  Raises:
    ValueError: a wrong value; or `state` is of another table or of other labels, or holds more rows
      than there are.
  """
  counts = empty(labels, source)
  if state is not None and state.exists():
    counts = load(state)
    if (counts.labels, counts.source) != (labels.labels, source):
      raise ValueError(
        f"{state} holds counts of {counts.source!r} with {len(counts.labels)} labels - expected "
        f"{source!r} with the {len(labels)} of {labels.name!r} - remove it, or give another file"
      )
  seen = 0
  for part in parts:
    new = part[max(0, counts.rows - seen) :] if seen < counts.rows else part
    seen += len(part)
    if len(new):
      counts = add(counts, new, labels)
      if state is not None:
        save(counts, state)
  if counts.rows > seen:
    raise ValueError(
      f"{state} holds counts of {counts.rows} rows, the table {source!r} has {seen} - expected the "
      "same table - remove the file, or give the table it was made of"
    )
  return counts


def save(counts: Cooccurrence, path: pathlib.Path) -> None:
  """Writes the counts; a process that dies meanwhile leaves the file as it was."""
  partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  arrays: dict[str, Any] = {f.name: getattr(counts, f.name) for f in dataclasses.fields(counts)}
  with partial.open("wb") as file:
    np.savez(file, **arrays)
  os.replace(partial, path)


def load(path: pathlib.Path) -> Cooccurrence:
  """Reads what save() wrote. Raises ValueError if it is no such file."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {f.name: file[f.name] for f in dataclasses.fields(Cooccurrence)}
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(f"{path} holds no counts of labels ({error}) - remove it") from error
  names = tuple(str(name) for name in arrays.pop("labels"))
  rows, source = int(arrays.pop("rows")), str(arrays.pop("source"))
  return Cooccurrence(names, **arrays, rows=rows, source=source)


def conditional(counts: Cooccurrence) -> Float[np.ndarray, "N N"]:
  """p_ij = P(j | i); a row of zeros for a label that no sample has."""
  return counts.together / np.maximum(counts.known, 1)


def graph(
  p: Float[np.ndarray, "N N"], tau: float = 0.4, omega: float = 0.2, reweight: str = "paper"
) -> Float[np.ndarray, "N N"]:
  """P(j | i) -> the matrix by which a label takes up its neighbours; float32.

  Args:
    p: of conditional().
    tau: from this probability on j is a neighbour of i; 0.4 in ML-GCN.
    omega: weight of the neighbours, 1 - omega of the label itself ("paper"); 0.2 in ML-GCN.
    reweight: "paper": omega / (number of neighbours) each; 1 on the diagonal without any. "code":
      as ML-GCN's released code, which differs from its paper: edges weigh 0.25 over the number of
      labels that have this neighbour, the diagonal 1, all scaled by D^-1/2 A^T D^-1/2 with D the
      row sums. It is transposed there: a label takes up those that imply it. `omega` is not read.

  Raises:
    ValueError: tau or omega outside 0..1, or an unknown re-weighting.
  """
  one_of("reweight", reweight, REWEIGHTS)
  for name, value in (("tau", tau), ("omega", omega)):
    if not 0 <= value <= 1:
      raise ValueError(f"{name}={value}: expected 0 to 1")
  edges = (p >= tau).astype(np.float64)
  np.fill_diagonal(edges, 0)
  if reweight == "paper":
    neighbours = edges.sum(1, keepdims=True)
    weights = omega * edges / np.maximum(neighbours, 1)
    np.fill_diagonal(weights, np.where(neighbours[:, 0] > 0, 1 - omega, 1))
    return weights.astype(np.float32)
  weights = 0.25 * edges / (edges.sum(0, keepdims=True) + 1e-6) + np.eye(len(p))
  scale = weights.sum(1) ** -0.5
  return (scale[:, None] * weights.T * scale[None]).astype(np.float32)
