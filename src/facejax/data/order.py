"""Which samples stand in which row. sizes, weights, capacity, seed, row -> samples.

A row that many samples share has to be planned from their sizes, and how many rows come out of a
stretch of samples depends on all of them: to know row 1,000,000 one would plan all before it. Here
one plan serves for the whole run (ours):

  draw    draw t of a source is sample permutation_epoch(t); an epoch is as many draws as samples
  window  so many draws of each source, in proportion to the weights
  slot    a place in the window, always filled from the same narrow band of the source's sizes
  plan    the slots, each as large as its band's largest, packed best fit; it fits every window
  row     window = row // rows of the plan

  sizes 3 4 4 5 8 9, two draws a window | slots of 3 to 4 and of 5 to 9 | planned as 4 and 9
  window 0: 4 8, window 1: 3 9, window 2: 4 5, and the six samples were drawn

What a sample leaves free of its band's largest is lost: with 1024 slots some 0.1 % of a row.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

WINDOW = 1024  # samples that are planned together
VERSION = 1  # of the order: another one gives other rows for the same settings
# Samples that can stand in a slot, at least; a small source would else have the same neighbours in
# a row in every epoch. 16 of the nearest sizes are exchanged, but no more than an eighth of all: a
# few samples of very different sizes would fill their rows badly.
_BAND = 16
_PART = 8


class Placed(NamedTuple):
  """A sample in a row."""

  source: int
  number: int  # of the sample in its source


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
      window: samples that are planned together, or fewer: those of the longest epoch of a source.
        Sources get a whole number of them, at least one, so shares are exact to 1 / window.

    Raises:
      ValueError: an empty source, a weight that is not positive, or a sample above the capacity.
    """
    if len(sizes) != len(weights) or not sizes:
      raise ValueError(f"{len(weights)} weights for {len(sizes)} sources - expected one a source")
    for k, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
      if not weight > 0 or not np.isfinite(weight):
        raise ValueError(f"source {k}: weight {weight} - expected above 0; drop a source instead")
      _check(k, np.asarray(size), capacity)
    shares = np.asarray(weights, float) / np.sum(weights)
    longest = max(len(size) / share for size, share in zip(sizes, shares, strict=True))
    window = min(window, math.ceil(longest * (1 - 1e-9)))  # 4 / (4 / 15) is 15.000000000000002
    draws = apportion(weights, window)
    self._streams = [
      _Stream(np.asarray(size), count, (seed, k))
      for k, (size, count) in enumerate(zip(sizes, draws, strict=True))
    ]
    self._slots = [(k, slot) for k, count in enumerate(draws) for slot in range(count)]
    self._plan = pack(np.concatenate([stream.largest for stream in self._streams]), capacity)
    self._seed = seed
    self.rows, self.samples = len(self._plan), len(self._slots)

  def row(self, row: int) -> list[Placed]:
    """The samples of a row in the order in which they stand."""
    window, place = divmod(int(row), self.rows)
    place = permuted(place, self.rows, (self._seed, "rows", window))
    return [self._drawn(*self._slots[item], window) for item in self._plan[place]]

  def _drawn(self, source: int, slot: int, window: int) -> Placed:
    stream = self._streams[source]
    return Placed(source, stream.sample(window * stream.draws + slot))


class _Stream:
  """The draws of a source: every sample once in an epoch, each slot of a window in its band.

  Attributes:
    draws: of a window.
    largest: [draws dims], what the samples of each slot take at most.
  """

  def __init__(self, sizes: np.ndarray, draws: int, key: object):
    self.draws, self._key = draws, key
    # The last dimension first: clips apart from pictures.
    self._sorted = np.lexsort(sizes.T).astype(np.int32)
    least = min(_BAND, max(len(sizes) // _PART, 1))
    self._exchange = 1 if len(sizes) // draws >= least else least
    low, high = self._reach()
    ordered = sizes[self._sorted]
    self.largest = np.stack([ordered[a:b].max(0) for a, b in zip(low, high, strict=True)])

  def sample(self, draw: int) -> int:
    """The sample of a draw. Each of an epoch's draws of a slot takes another rank of its band."""
    n, count = len(self._sorted), self.draws
    epoch, place = divmod(draw, n)
    offset, slot = epoch * n % count, draw % count
    starts, members = _bands(n, count, offset)
    # A slot's draws are `count` apart, so this is its (place // count)-th of the epoch.
    nth = permuted(place // count, int(members[slot]), (self._key, epoch, slot))
    rank = int(starts[slot]) + nth
    if self._exchange > 1:
      first = rank - rank % self._exchange
      size = min(self._exchange, n - first)
      rank = first + permuted(rank - first, size, (self._key, epoch, "exchange", first))
    return int(self._sorted[rank])

  def _reach(self) -> tuple[np.ndarray, np.ndarray]:
    """Each slot's ranks in all epochs: from, and to below."""
    n, count = len(self._sorted), self.draws
    low, high = np.full(count, n - 1), np.zeros(count, int)
    for offset in range(0, count, math.gcd(n, count)):
      starts, members = _bands(n, count, offset)
      taken = members > 0
      low = np.where(taken, np.minimum(low, starts), low)
      high = np.where(taken, np.maximum(high, starts + members), high)
    low -= low % self._exchange
    return low, np.minimum(-(-high // self._exchange) * self._exchange, n)


@functools.lru_cache(maxsize=256)
def _bands(n: int, draws: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
  """First rank and number of ranks of each slot, in an epoch of n draws that starts at a slot.

  The n ranks are shared out so that each slot has one for each of its draws. Where n is no
  multiple, some slots have a draw more than others; which have, is spread evenly over the sizes by
  steps of the golden section, so that a band moves by a few ranks only from epoch to epoch.
  """
  step = max(round(draws * 0.6180339887), 1)
  while math.gcd(step, draws) > 1:
    step += 1
  at = np.arange(draws) * step % draws  # a slot's place by size
  members = np.full(draws, n // draws)
  members[(offset + np.arange(n % draws)) % draws] += 1
  by_size = np.empty_like(members)
  by_size[at] = members
  starts = np.cumsum(by_size) - by_size
  return starts[at], members


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
  milliseconds for the few members of a band.
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
