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
sample comes again only when all of its stratum have come; each pass has another permutation. Strata
are of one length, or samples of a short one would come more often (of 1500 in 1024 strata every
third twice as often): the rest sits a pass out, another rest in each.
"""

import hashlib
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


class _Strata(NamedTuple):
  """Of a source, whose samples have a rank by size.

  With at least as many samples as strata, each has `members` samples in a pass of as many windows,
  and `rest` samples, evenly spread, sit it out. With fewer, a sample stands in several strata.
  """

  samples: np.ndarray  # by rank
  number: int  # of strata

  @property
  def members(self) -> int:
    return len(self.samples) // self.number

  @property
  def rest(self) -> int:
    return len(self.samples) % self.number

  def rank(self, stratum: int, member: int, shift: int) -> int:
    """Of a member of a stratum. As `shift` takes all values below n, all ranks come equally often.

    Sample floor((j n + shift) / rest) sits out, for each j below rest; those of them that stand
    before a member are counted by solving that for j.
    """
    n = len(self.samples)
    if not self.members:
      return (stratum * n + shift) // self.number
    place = stratum * self.members + member
    before = -((shift - self.rest * (place + 1)) // (n - self.rest))
    return place + max(before, 0)

  def largest(self, sizes: np.ndarray) -> np.ndarray:
    """Of the samples that each stratum may have, in each dimension."""
    last, top = max(self.members, 1) - 1, len(self.samples) - 1
    if not self.members:
      spans = [(self.rank(s, 0, 0), self.rank(s, 0, top)) for s in range(self.number)]
    else:  # the more ranks are sitting out before a member, the smaller the shift
      spans = [(self.rank(s, 0, top), self.rank(s, last, 0)) for s in range(self.number)]
    return np.stack([sizes[self.samples[a : b + 1]].max(0) for a, b in spans])


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
    longest = max(len(size) / share for size, share in zip(sizes, shares, strict=True))
    window = min(window, math.ceil(longest * (1 - 1e-9)))  # 4 / (4 / 15) is 15.000000000000002
    self._strata: list[_Strata] = []
    largest = []
    for k, (size, count) in enumerate(zip(sizes, apportion(weights, window), strict=True)):
      _check(k, np.asarray(size), capacity)
      # The last dimension first: clips apart from pictures.
      self._strata.append(_Strata(np.lexsort(np.asarray(size).T), count))
      largest.append(self._strata[k].largest(np.asarray(size)))
    self._places = [(k, s) for k, strata in enumerate(self._strata) for s in range(strata.number)]
    self._plan = pack(np.concatenate(largest), capacity)
    self.rows, self.samples = len(self._plan), len(self._places)
    self._seed = seed

  def row(self, row: int) -> list[Placed]:
    """The samples of a row in the order in which they stand."""
    window, place = divmod(int(row), self.rows)
    place = permuted(place, self.rows, (self._seed, "rows", window))
    return [self._drawn(stratum, window) for stratum in self._plan[place]]

  def _drawn(self, place: int, window: int) -> Placed:
    source, stratum = self._places[place]
    strata = self._strata[source]
    n, members = len(strata.samples), strata.members
    if members:
      epoch, turn = divmod(window, members)
      member = permuted(turn, members, (self._seed, place, epoch))
      shift = epoch * strata.rest % n  # one rank on: all have sat out before one does again
    else:
      epoch, turn = divmod(window, n)
      member, shift = 0, permuted(turn, n, (self._seed, "shift", source, epoch))
    return Placed(source, int(strata.samples[strata.rank(stratum, member, shift)]))


def apportion(weights: Sequence[float], total: int) -> list[int]:
  """Whole numbers in proportion to `weights`, at least 1 each, by largest remainder."""
  exact = np.asarray(weights, float) / np.sum(weights) * total
  counts = np.maximum(np.floor(exact), 1).astype(int)
  short = max(total - int(counts.sum()), 0)
  counts[np.argsort(counts - exact, kind="stable")[:short]] += 1
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
