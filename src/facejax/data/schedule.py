"""(step, row) -> samples: sources, their mixture at that step, and the order of each mixture.

  step 0 ------------ 500 ----------------> steps of a stage
  sources A, B  3 : 1   A, B, C  1 : 1 : 2
  order of 3 : 1        another order, which starts with its own row 0 at step 500

A mixture that starts at a later step leaves all rows before it as they were, so that a run may
change its mixture without a new start; what it changed, and when, is part of the fingerprint.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from facejax.config import Mixture
from facejax.data.order import Order, Placed
from facejax.data.sources import Source
from facejax.types import Sample


class Schedule:
  """The samples of every row of a stage, by numbers that count through all its sources.

  Attributes:
    sources: every source of any mixture, by name, in the order of its first mention.
  """

  def __init__(
    self,
    mixtures: Sequence[Mixture],
    open_source: Callable[[str], Source],
    capacity: tuple[int, int, int],
    seed: int,
    rows: int,
  ):
    """Opens the sources and plans each mixture.

    Args:
      mixtures: the first starts at step 0, each later one at a later step.
      open_source: of its name.
      capacity: tokens, pictures and clips of a row.
      seed: of all permutations.
      rows: of a step.

    Raises:
      ValueError: a source without a usable sample, and what opening raises.
    """
    names = dict.fromkeys(itertools.chain.from_iterable(m.sources for m in mixtures))
    self.sources = {name: open_source(name) for name in names}
    sizes = {name: source.sizes() for name, source in self.sources.items()}
    for name, source in self.sources.items():
      if not len(source):
        raise ValueError(f"source '{name}' has no usable sample (0) - check data.sources")
    self._mixtures = [_weighed(mixture, self.sources) for mixture in mixtures]
    self._orders = [
      Order([sizes[n] for n in m.sources], m.weights, capacity, (seed, m.start))
      for m in self._mixtures
    ]
    self._firsts = np.cumsum([0, *(len(source) for source in self.sources.values())]).tolist()
    places = {name: place for place, name in enumerate(self.sources)}
    self._places = [[places[name] for name in m.sources] for m in mixtures]
    self._starts = [m.start for m in mixtures]
    self._rows = rows

  def __len__(self) -> int:
    """Usable samples of all sources."""
    return self._firsts[-1]

  def drawn(self, step: int) -> float:
    """Samples in all rows before a step, at the mean of each mixture's rows."""
    ends = [*self._starts[1:], step]
    steps = [max(min(end, step) - start, 0) for start, end in zip(self._starts, ends, strict=True)]
    means = [order.samples / order.rows for order in self._orders]
    return self._rows * float(np.dot(steps, means))

  def row(self, step: int, row: int) -> list[int]:
    """Numbers of the samples in a row of a step, in the order in which they stand.

    No other row is looked at: 10 to 50 microseconds a sample, at any step.
    """
    current = int(np.searchsorted(self._starts, step, "right")) - 1
    placed = self._orders[current].row((step - self._starts[current]) * self._rows + row)
    return [self._firsts[self._places[current][p.source]] + p.number for p in placed]

  def sample(self, number: int) -> Sample:
    """Decodes a sample. Raises MediaError, naming it."""
    place = self._find(number)
    return self._source(place)[place.number]

  def size(self, number: int) -> tuple[int, ...]:
    """Tokens, pictures and clips that the sample was planned with."""
    place = self._find(number)
    return tuple(self._source(place).sizes()[place.number].tolist())

  def name(self, number: int) -> str:
    """What people call the sample."""
    place = self._find(number)
    return self._source(place).name(place.number)

  def _find(self, number: int) -> Placed:
    if not 0 <= number < len(self):
      raise IndexError(f"sample {number} of {len(self)}")
    source = int(np.searchsorted(self._firsts, number, "right")) - 1
    return Placed(source, number - self._firsts[source])

  def _source(self, place: Placed) -> Source:
    return list(self.sources.values())[place.source]

  def fingerprint(self) -> list[dict]:
    """What each mixture draws from and how often, as JSON values; no paths."""
    return [
      {
        "start": m.start,
        "weights": list(m.weights),
        "samples": [self.sources[name].fingerprint() for name in m.sources],
      }
      for m in self._mixtures
    ]


def _weighed(mixture: Mixture, sources: dict[str, Source]) -> Mixture:
  """The mixture with weights: by default each source's number of samples."""
  weights = mixture.weights or tuple(float(len(sources[name])) for name in mixture.sources)
  return Mixture(mixture.sources, weights, mixture.start)
