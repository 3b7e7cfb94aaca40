"""Labels of n faces, true and predicted -> a figure with its 95 % interval.

The interval is a percentile bootstrap over faces. A resample is a row of counts, how often it holds
each face, so every metric here is a ratio of products with the matrix of counts: no Python loop.

  faces          0  1  2  3
  the data       1  1  1  1     gives the value
  resample 0     0  2  1  1     gives one of the figures whose percentiles are the interval
  resample 1     1  0  3  0

A face whose answer states no label must be scored as wrong by the caller, at worst: `worst_set` and
`age_error` say how. All choices are ours where no source is named; the paper does not say.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

AGE_RANGE = (5.0, 80.0)  # years that faces are drawn with


class Interval(NamedTuple):
  """A figure with its 95 % interval, over n faces. NaN where the figure is not defined."""

  value: float
  low: float
  high: float
  n: int


def resamples(n: int, count: int, seed: int = 0) -> np.ndarray:
  """How often each of `count` draws of n faces, with replacement, holds each face.

  Args:
    n: faces.
    count: draws.
    seed: of the draws; metrics of the same faces may share one matrix.

  Returns:
    [count n] float64 of whole numbers; each row sums to n.

  Raises:
    ValueError: n or count below 1.
  """
  if n < 1 or count < 1:
    raise ValueError(f"bootstrap of n={n} faces in count={count} resamples: expected at least 1")
  drawn = np.random.default_rng(seed).integers(n, size=(count, n))
  drawn += np.arange(count)[:, None] * n
  return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], draws: np.ndarray) -> Interval:
  """The 2.5th and 97.5th percentile of a statistic over the draws that it is defined on.

  Where every face scores the same, so does every draw, and the interval has no width.

  Args:
    statistic: counts [r n] -> [r]; NaN where a draw leaves it undefined.
    draws: [r n] of `resamples`.
  """
  n = draws.shape[1]
  value = float(statistic(np.ones((1, n)))[0])
  values = statistic(draws)
  values = values[~np.isnan(values)]
  if np.isnan(value) or not values.size:
    return Interval(np.nan, np.nan, np.nan, n)
  low, high = np.percentile(values, (2.5, 97.5))
  return Interval(value, float(low), float(high), n)


def mean(scores: np.ndarray, draws: np.ndarray) -> Interval:
  """Mean of a score a face [n]: accuracy if it is 0 or 1, MAE if it is an absolute error."""
  scores = np.asarray(scores, np.float64)
  return bootstrap(lambda counts: counts @ scores / counts.sum(1), draws)


def uar(truth: np.ndarray, predicted: np.ndarray, draws: np.ndarray) -> Interval:
  """Unweighted average recall: the mean of the recall of each class that occurs in the truth.

  A draw is averaged over the classes that occur in it.

  Args:
    truth: [n] class indices.
    predicted: [n] class indices; any other number, such as -1, is a wrong answer.
    draws: [r n] of `resamples`.
  """
  members = (truth[:, None] == np.unique(truth)).astype(np.float64)
  hits = members * (truth == predicted)[:, None]
  return bootstrap(lambda counts: _row_mean(_ratio(counts @ hits, counts @ members)), draws)


def f1(truth: np.ndarray, predicted: np.ndarray, draws: np.ndarray) -> Interval:
  """F1 of one unit, 2 TP / (2 TP + FP + FN), over draws where the truth has it; [n] bool each."""
  return macro_f1(truth[:, None], predicted[:, None], draws)


def macro_f1(truth: np.ndarray, predicted: np.ndarray, draws: np.ndarray) -> Interval:
  """Mean over units of the F1 of each, [n units] bool, as in the action unit benchmarks.

  Only units that occur in the truth are averaged, in a draw those that occur in the draw: without
  a face that has it a unit's F1 is 0 or undefined, whatever the model. A unit that is predicted but
  occurs in no face does not count. NaN if no unit occurs.
  """
  both = (truth & predicted).astype(np.float64)
  wrong = (truth ^ predicted).astype(np.float64)
  has = truth.astype(np.float64)

  def statistic(counts: np.ndarray) -> np.ndarray:
    twice = 2 * (counts @ both)
    each = _ratio(twice, twice + counts @ wrong)
    return _row_mean(np.where(counts @ has > 0, each, np.nan))

  return bootstrap(statistic, draws)


def attribute_accuracy(truth: np.ndarray, predicted: np.ndarray, draws: np.ndarray) -> Interval:
  """Mean over attributes of the accuracy of each as a yes/no question; [n attributes] bool."""
  return mean((truth == predicted).mean(1), draws)


def age_error(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Absolute error of each age in years [n]; NaN in `predicted` is an answer without an age.

  Such an answer counts as the end of 5..80 years that is farther from the truth. No answer counts
  as worse than that ("999 years old" would otherwise decide the mean), so failing never helps.
  """
  low, high = AGE_RANGE
  worst = np.maximum(np.abs(truth - low), np.abs(high - truth))
  return np.fmin(np.abs(truth - predicted), worst)


def worst_set(truth: np.ndarray) -> np.ndarray:
  """What an answer that states no set counts as, for action units and attributes: all wrong.

  An empty set would do well on what is rare, so such an answer counts as the complement.
  """
  return ~truth


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
  """Faces of each true class (row) by predicted class (column); the last column: no label (-1)."""
  table = np.zeros((classes, classes + 1), np.int64)
  np.add.at(table, (truth, predicted), 1)  # column -1 is the last
  return table


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
  """top / bottom, NaN where bottom is 0."""
  return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _row_mean(values: np.ndarray) -> np.ndarray:
  """Mean of each row over what is not NaN; NaN for a row of NaN."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
    return np.nanmean(values, axis=1)
