"""Which samples stand in which row. sizes, weights, capacity, seed, row -> samples.

A row that many samples share has to be planned from their sizes, and how many rows come out of a
stretch of samples depends on all of them: to know row 1,000,000 one would plan all before it. Here
one plan serves for the whole run (ours):

  strata  each source is sorted by size and cut into as many strata as a window draws from it
  window  takes one sample of each stratum, so all windows have nearly the same sizes
  plan    the largest of each stratum, packed best fit: fits whichever samples a window takes
  row     window = row // rows of the plan; stratum s gives sample permutation_s(window)

  sizes 3 9 4 8 5 4 | strata (3 4 4) (5 8 9) | largest 4, 9 | window 0: 4 8, window 1: 3 9, ...

What a sample leaves free of its stratum's largest is lost: with 1024 strata some 0.1 % of a row. A
sample comes again only when all of its stratum have come; each pass has another permutation.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

WINDOW = 1024  # samples that are planned together


class Placed(NamedTuple):
  """A sample in a row."""

  source: int
  number: int  # of the sample in its source


class _Stratum(NamedTuple):
  source: int
  members: np.ndarray  # indices of samples
  largest: np.ndarray  # in each dimension


class Order:
  """The rows of a run. `rows` of them make a window; row r is the same wherever it is asked for.

  Attributes:
    rows: of a window.
    samples: of a window.
  """

  def __init__(
    self,
    sizes: Sequence[Int[np.ndarray, "n dims"]],
    weights: Sequence[float],
    capacity: Sequence[int],
    seed: int | tuple[int, ...],
    window: int = WINDOW,
  ):
    """Plans a window; the time is that of sorting the sizes.

    Args:
      sizes: of each source, what each of its samples takes of a row in every dimension (tokens,
        pictures, clips, ...).
      weights: share of the samples that come from each source; need not sum to 1.
      capacity: of a row in every dimension.
      seed: of all permutations.
      window: samples that are planned together, or fewer: those of the longest pass over a source.
        Sources get a whole number of them, at least one.

    Raises:
      ValueError: an empty source, a weight that is not positive, or a sample above the capacity.
    """
    if len(sizes) != len(weights) or not sizes:
      raise ValueError(f"{len(weights)} weights for {len(sizes)} sources - expected one a source")
    for k, weight in enumerate(weights):
      if not weight > 0 or not np.isfinite(weight):
        raise ValueError(f"source {k}: weight {weight} - expected above 0; drop a source instead")
    shares = np.asarray(weights, float) / np.sum(weights)
    passes = [len(size) / share for size, share in zip(sizes, shares, strict=True)]
    window = min(window, math.ceil(max(passes)))
    strata: list[_Stratum] = []
    for k, (size, count) in enumerate(zip(sizes, apportion(weights, window), strict=True)):
      _check(k, np.asarray(size), capacity)
      strata += _cut(k, np.asarray(size), count)
    self._plan = pack(np.stack([s.largest for s in strata]), capacity)
    self.rows, self.samples = len(self._plan), len(strata)
    self._strata = strata
    self._seed = seed

  def row(self, row: int) -> list[Placed]:
    """The samples of a row in the order in which they stand."""
    window, place = divmod(row, self.rows)
    place = permuted(place, self.rows, (self._seed, "rows", window))
    return [self._drawn(stratum, window) for stratum in self._plan[place]]

  def _drawn(self, stratum: int, window: int) -> Placed:
    source, members, _ = self._strata[stratum]
    epoch, place = divmod(window, len(members))
    place = permuted(place, len(members), (self._seed, stratum, epoch))
    return Placed(source, int(members[place]))


def apportion(weights: Sequence[float], total: int) -> list[int]:
  """Whole numbers in proportion to `weights`, at least 1 each, by largest remainder."""
  exact = np.asarray(weights, float) / np.sum(weights) * total
  counts = np.maximum(np.floor(exact), 1).astype(int)
  short = max(total - int(counts.sum()), 0)
  counts[np.argsort(np.floor(exact) - exact, kind="stable")[:short]] += 1
  return counts.tolist()


def pack(sizes: Int[np.ndarray, "n dims"], capacity: Sequence[int]) -> list[list[int]]:
  """Best fit, largest first: each item goes to the fullest row (by the first dimension) it fits in.

  Returns the items of each row, in the order of `sizes`.
  """
  rows: list[list[int]] = []
  free = np.empty((len(sizes), len(capacity)), np.int64)
  for item in np.lexsort(-sizes.T[::-1]):
    fits = (free[: len(rows)] >= sizes[item]).all(1)
    if fits.any():
      row = int(np.where(fits, free[: len(rows), 0], np.iinfo(np.int64).max).argmin())
    else:
      row = len(rows)
      rows.append([])
      free[row] = capacity
    rows[row].append(int(item))
    free[row] -= sizes[item]
  return [sorted(items) for items in rows]


def _check(source: int, sizes: np.ndarray, capacity: Sequence[int]) -> None:
  if not len(sizes):
    raise ValueError(f"source {source} has no usable sample (0)")
  above = (sizes > np.asarray(capacity)).any(1)
  if above.any():
    first = int(above.argmax())
    raise ValueError(
      f"source {source}, sample {first} takes {sizes[first].tolist()} of a row's {list(capacity)} "
      f"({int(above.sum())} such samples) - quarantine them or enlarge the row"
    )


def _cut(source: int, sizes: np.ndarray, count: int) -> list[_Stratum]:
  """`count` strata of as equal a number of members as possible, by size.

  A source with fewer samples than strata has some in several of them.
  """
  order = np.lexsort(sizes.T)  # the last dimension first: clips apart from pictures
  edges = np.arange(count + 1) * len(order) // count
  strata = []
  for start, stop in itertools.pairwise(edges):
    members = order[start : max(stop, start + 1)]
    strata.append(_Stratum(source, members, sizes[members].max(0)))
  return strata


# Six rounds on halves of three bits at least: then even the 2, 24 and 120 permutations of 2, 4 and
# 5 come equally often (chi-square 0.8 to 2.9 a degree of freedom over 12,000 keys). With four
# rounds on two bits it is 40 to 170.
_ROUNDS = 6
_LEAST = 3
_WORD = (1 << 64) - 1


def permuted(place: int, n: int, key: object) -> int:
  """Where a pseudorandom permutation of range(n) sends `place`; another one for every key.

  A Feistel network on the next power of four, walked until it is inside (ours): O(1) in n, where
  drawing the permutation is O(n). Grain's shuffle works on blocks of 16 bits at least, which takes
  milliseconds for the few members of a stratum.
  """
  if n == 1:
    return 0
  half = max(((n - 1).bit_length() + 1) // 2, _LEAST)
  mask = (1 << half) - 1
  digest = hashlib.sha512(repr(key).encode()).digest()
  keys = [int.from_bytes(digest[8 * r : 8 * r + 8], "little") for r in range(_ROUNDS)]
  while True:
    left, right = place >> half, place & mask
    for word in keys:
      mixed = ((right ^ word) * 0x9E3779B97F4A7C15) & _WORD
      mixed = ((mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93) & _WORD
      left, right = right, left ^ ((mixed >> 32) & mask)
    place = left << half | right
    if place < n:
      return place
