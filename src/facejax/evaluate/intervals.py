"""Many metrics over the same resamples, by blocks: 130,000 frames of DISFA fit in memory, too.

Metrics are those of metrics.py: weights [R n] -> scores [R]. Items of a cluster (frames of one
person) come and go together, as they are no independent samples: resampling them one by one would
give intervals many times too narrow.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from facejax.evaluate.metrics import Interval, Metric

_BLOCK = 2_000_000  # weights at a time, 16 MB
LEVEL = (0.025, 0.975)
Name = TypeVar("Name", bound=Hashable)


def intervals(
  metrics: Mapping[Name, Metric],
  n: int,
  resamples: int,
  seed: int,
  clusters: Sequence[Hashable] | None = None,
) -> dict[Name, Interval]:
  """Value and 95 % percentile interval of each metric; those that are undefined are left out.

  Args:
    metrics: by name.
    n: items.
    resamples: of the items, or of the clusters.
    seed: of the draws.
    clusters: of each item; None resamples items.

  Raises ValueError unless there are items and resamples.
  """
  if n < 1 or resamples < 1:
    raise ValueError(
      f"intervals of n={n} items with {resamples} resamples: expected at least 1 of each"
    )
  values = {name: float(metric(np.ones((1, n)))[0]) for name, metric in metrics.items()}
  drawn: dict[Name, list[np.ndarray]] = {name: [] for name in metrics}
  for weights in resampled(n, resamples, seed, clusters):
    for name, metric in metrics.items():
      drawn[name].append(metric(weights))
  return {
    name: Interval(value, *_ends(np.concatenate(drawn[name]), value), n)
    for name, value in values.items()
    if np.isfinite(value)
  }


def _ends(scores: np.ndarray, value: float) -> tuple[float, float]:
  known = scores[np.isfinite(scores)]
  if not len(known):
    return value, value
  low, high = np.quantile(known, LEVEL)
  return float(low), float(high)


def resampled(
  n: int, resamples: int, seed: int, clusters: Sequence[Hashable] | None = None
) -> Iterator[Float[np.ndarray, "R n"]]:
  """How often each resample holds each item, in blocks of resamples."""
  rng = np.random.default_rng(seed)
  member = None
  count = n
  if clusters is not None:
    places = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    member = np.array([places[name] for name in clusters])
    count = len(places)
  block = max(1, _BLOCK // max(n, count))
  for start in range(0, resamples, block):
    rows = min(block, resamples - start)
    drawn = rng.integers(count, size=(rows, count))
    drawn += count * np.arange(rows)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
    counts = counts.astype(np.float64)
    yield counts if member is None else counts[:, member]
