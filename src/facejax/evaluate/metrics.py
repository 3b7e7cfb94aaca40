"""Truths and predictions -> scores with 95 % bootstrap intervals. NumPy; n samples, R resamples.

A metric is a function of weights [R n] -> scores [R]. Ones give its value; the counts of a resample
give its value there, so a whole bootstrap is a few matrix products.

What counts for an answer that states no label (our choice; the paper's code for this is not
published): the worst that an answer could have done, so that not answering never helps.

  expression, deepfake   wrong
  action units           every unit wrong: present ones missed, absent ones claimed
  attributes             every attribute wrong
  age                    as far off as an age of 5 to 80 years, the renderer's range, can be
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from facejax.faces.scene import AGES

UNPARSED = -1  # the class of an answer that states none

Metric = Callable[[Float[np.ndarray, "R n"]], Float[np.ndarray, "R"]]


class Interval(NamedTuple):
  """A score, its 95 % interval over samples, and how many samples there are."""

  value: float
  low: float
  high: float
  n: int


def bootstrap(metric: Metric, n: int, resamples: int, seed: int) -> Interval:
  """The percentile bootstrap over n samples. A pure function of its arguments.

  A resample in which the metric is undefined (no sample of any class it averages) is left out.
  Raises ValueError unless there are samples and resamples.
  """
  if n < 1 or resamples < 1:
    raise ValueError(
      f"bootstrap of n={n} samples with {resamples} resamples: expected at least 1 of each - raise "
      "evaluate.faces or evaluate.bootstrap"
    )
  value = metric(np.ones((1, n)))[0]
  scores = metric(_counts(n, resamples, seed))
  scores = scores[np.isfinite(scores)]
  low, high = np.quantile(scores, (0.025, 0.975)) if len(scores) else (value, value)
  return Interval(float(value), float(low), float(high), n)


@functools.lru_cache(maxsize=1)  # the metrics of an evaluation, about 30, share their resamples
def _counts(n: int, resamples: int, seed: int) -> Float[np.ndarray, "R n"]:
  """How often each resample holds each sample."""
  drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
  drawn += n * np.arange(resamples)[:, None]
  counts = np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
  counts = counts.astype(np.float64)
  counts.flags.writeable = False
  return counts


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a / b, NaN where b is 0."""
  return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _mean(x: Float[np.ndarray, "R k"]) -> Float[np.ndarray, "R"]:
  """The mean over the last axis of what is not NaN, NaN where nothing is left."""
  known = np.isfinite(x)
  return _ratio(np.where(known, x, 0).sum(-1), known.sum(-1))


def accuracy(truth: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"]) -> Metric:
  """Share of right classes (WAR)."""
  return mean(truth == predicted)


def mean(values: Float[np.ndarray, "n"] | Bool[np.ndarray, "n"]) -> Metric:
  """The mean of a number a sample: of absolute errors it is the MAE."""
  return lambda weights: _ratio(weights @ values.astype(np.float64), weights.sum(-1))


def uar(truth: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"]) -> Metric:
  """Mean recall of the classes that occur in the truth."""
  member = truth[:, None] == np.unique(truth)[None]
  right = member & (truth == predicted)[:, None]
  return lambda weights: _mean(_ratio(weights @ right, weights @ member.astype(np.float64)))


def f1(truth: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]) -> Metric:
  """Mean over k labels of the binary F1 = 2 TP / (2 TP + FP + FN).

  A label that no sample has, in the data or in a resample, is left out of the mean, whether it was
  predicted or not: its F1 is 0 or undefined for any model.
  """
  both = (truth & predicted).astype(np.float64)
  has = truth.astype(np.float64)
  either = has + predicted

  def metric(weights):
    scores = _ratio(2 * (weights @ both), weights @ either)
    return _mean(np.where(weights @ has > 0, scores, np.nan))

  return metric


def label_accuracy(truth: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]) -> Metric:
  """Mean over k labels of the share of right yes-or-no decisions (CelebA's mAcc)."""
  return mean((truth == predicted).mean(-1))


def confusion(
  truth: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], classes: int
) -> Int[np.ndarray, "classes columns"]:
  """Counts [true class, predicted class]; the last of classes + 1 columns is UNPARSED."""
  counts = np.zeros((classes, classes + 1), int)
  np.add.at(counts, (truth, np.where(predicted == UNPARSED, classes, predicted)), 1)
  return counts


def class_ids(labels: Sequence[object | None], classes: Sequence[object]) -> Int[np.ndarray, "n"]:
  """The place of each label among the classes, UNPARSED for None."""
  return np.array([UNPARSED if x is None else classes.index(x) for x in labels], int)


def memberships(labels: Sequence[frozenset], names: Sequence) -> Bool[np.ndarray, "n k"]:
  """Which of the k names each set holds; other members are ignored."""
  return np.array([[name in x for name in names] for x in labels], bool).reshape(-1, len(names))


def predicted_memberships(
  labels: Sequence[frozenset | None], truth: Bool[np.ndarray, "n k"], names: Sequence
) -> Bool[np.ndarray, "n k"]:
  """As memberships; where there is no label, the opposite of the truth: every decision wrong."""
  given = memberships([frozenset() if x is None else x for x in labels], names)
  failed = np.array([x is None for x in labels], bool)
  return np.where(failed[:, None], ~truth, given)


def age_errors(
  truth: Float[np.ndarray, "n"], predicted: Sequence[float | None]
) -> Float[np.ndarray, "n"]:
  """Absolute errors in years; where there is no age, the distance to the farther end of AGES.

  No age counts as worse than none: 110 said of a child of 5 years is 75 years off.
  """
  worst = np.maximum(np.abs(truth - AGES[0]), np.abs(truth - AGES[1]))
  given = np.array([np.nan if x is None else x for x in predicted], float)
  return np.fmin(worst, np.abs(truth - given))
