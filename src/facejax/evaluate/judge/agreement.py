"""Krippendorff's alpha for interval data: how far repeated ratings of one answer agree.

    alpha = 1 - D_o / D_e

D_o is the mean squared difference of ratings of one answer, D_e that of any two ratings; 1 is
perfect agreement, 0 what ratings drawn at random would have (K. Krippendorff, Content Analysis,
2004, chapter 11). Ratings may be missing; an answer rated once says nothing and is left out.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from facejax.evaluate.metrics import Metric


def alpha(ratings: Float[np.ndarray, "n repeats"]) -> float:
  """Of n answers; NaN for a missing rating. NaN where nothing could differ."""
  return float(weighted(ratings)(np.ones((1, len(ratings))))[0])


def weighted(ratings: Float[np.ndarray, "n repeats"]) -> Metric:
  """Weights [R n] of answers -> alpha [R], for a bootstrap over answers."""
  present = ~np.isnan(ratings)
  values = np.where(present, ratings, 0.0)
  count = present.sum(1)
  use = count > 1
  size = np.where(use, count, 0).astype(float)
  first, second = values.sum(1) * use, (values**2).sum(1) * use
  # All ordered pairs of an answer's m ratings: sum (a - b)^2 = 2 m sum a^2 - 2 (sum a)^2.
  within = (2 * size * second - 2 * first**2) / np.maximum(count - 1, 1)

  def metric(weights: Any) -> Any:
    n, one, two = weights @ size, weights @ first, weights @ second
    observed = _ratio(weights @ within, n)
    expected = _ratio(2 * n * two - 2 * one**2, n * (n - 1))
    return 1 - _ratio(observed, expected)

  return metric


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a / b, NaN where b is 0, or as good as: differences of equal numbers leave dust."""
  return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 1e-9)
