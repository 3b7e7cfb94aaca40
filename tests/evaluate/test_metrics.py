"""Metrics against loops, the bootstrap against closed forms, and answers without a label."""

import numpy as np
import pytest

from facejax.evaluate import metrics

N, K, CLASSES = 41, 5, 4


def draws(seed=0):
  draw = np.random.default_rng(seed)
  truth = draw.integers(0, CLASSES, N)
  predicted = np.where(draw.random(N) < 0.5, truth, draw.integers(-1, CLASSES, N))
  sets = draw.random((N, K)) < 0.4
  claimed = np.where(draw.random((N, K)) < 0.7, sets, ~sets)
  return truth, predicted, sets, claimed


def resamples(seed=1, count=6):
  """Samples drawn with repetition, and the same as counts."""
  chosen = np.random.default_rng(seed).integers(0, N, (count, N))
  return chosen, np.stack([np.bincount(row, minlength=N) for row in chosen]).astype(float)


def slow_uar(truth, predicted):
  recalls = []
  for c in sorted(set(truth.tolist())):
    of_class = [p for t, p in zip(truth, predicted, strict=True) if t == c]
    recalls.append(sum(p == c for p in of_class) / len(of_class))
  return sum(recalls) / len(recalls)


def slow_f1(truth, predicted):
  scores = []
  for k in range(truth.shape[1]):
    pairs = list(zip(truth[:, k], predicted[:, k], strict=True))
    tp = sum(bool(t and p) for t, p in pairs)
    fp = sum(bool(p and not t) for t, p in pairs)
    fn = sum(bool(t and not p) for t, p in pairs)
    if tp + fp + fn:
      precision = tp / (tp + fp) if tp + fp else 0.0
      recall = tp / (tp + fn) if tp + fn else 0.0
      scores.append(2 * precision * recall / (precision + recall) if tp else 0.0)
  return sum(scores) / len(scores)


def slow_accuracy(truth, predicted):
  return sum(bool(t == p) for t, p in zip(truth, predicted, strict=True)) / len(truth)


def slow_label_accuracy(truth, predicted):
  columns = [slow_accuracy(truth[:, k], predicted[:, k]) for k in range(truth.shape[1])]
  return sum(columns) / len(columns)


@pytest.mark.parametrize(
  "metric, slow, sets",
  [
    (metrics.accuracy, slow_accuracy, False),
    (metrics.uar, slow_uar, False),
    (metrics.f1, slow_f1, True),
    (metrics.label_accuracy, slow_label_accuracy, True),
  ],
)
def test_metric_against_loops(metric, slow, sets):
  """Kills: recall per prediction, F1 pooled over labels, weights on one side of a ratio only."""
  truth, predicted = draws()[2:] if sets else draws()[:2]
  chosen, counts = resamples()
  got = metric(truth, predicted)(counts)
  want = [slow(truth[rows], predicted[rows]) for rows in chosen]
  np.testing.assert_allclose(got, want, rtol=1e-12)
  assert metric(truth, predicted)(np.ones((1, N)))[0] == pytest.approx(slow(truth, predicted))


def test_uar_skips_a_class_that_a_resample_lacks():
  """Kills: a recall of 0 for a class without samples."""
  metric = metrics.uar(np.array([0, 0, 1]), np.array([0, 1, 1]))
  np.testing.assert_allclose(metric(np.array([[1.0, 2, 0], [1, 1, 1]])), [1 / 3, 0.75])


def test_f1_leaves_out_a_label_that_nobody_has_or_claims():
  """Kills: 0 / 0 as 0 or 1."""
  truth = np.array([[True, False], [False, False]])
  assert metrics.f1(truth, truth)(np.ones((1, 2)))[0] == 1
  assert np.isnan(metrics.f1(truth[:, 1:], truth[:, 1:])(np.ones((1, 2)))[0])


def test_f1_leaves_out_a_label_that_nobody_has():
  """Kills: a label that is only claimed, in the data or in a resample, as 0 in the mean."""
  truth = np.array([[True, False], [True, True], [False, False]])
  claimed = np.array([[True, True], [False, True], [True, False]])
  got = metrics.f1(truth, claimed)(np.array([[2.0, 0, 1], [1, 1, 1]]))
  np.testing.assert_allclose(got, [4 / 5, (2 / 4 + 2 / 3) / 2])


def test_mae_against_a_loop():
  """Kills: signed or squared errors."""
  truth, ages = np.array([30.0, 61.0, 7.0]), [33.5, 50.0, 7.0]
  errors = metrics.age_errors(truth, ages)
  chosen = np.array([0, 0, 1])
  want = sum(abs(truth[i] - ages[i]) for i in chosen) / 3
  assert metrics.mean(errors)(np.array([[2.0, 1.0, 0.0]]))[0] == pytest.approx(want)


def test_interval_covers_as_often_as_it_says():
  """Kills: a 90 % interval, a bootstrap of another size, one draw shared by all resamples.

  400 Bernoulli samples of size 150: the share of covering intervals is 0.95 within 0.035, three
  standard deviations and the small bias of the percentile interval.
  """
  p, n = 0.7, 150
  draw = np.random.default_rng(3)
  covered = 0
  for seed in range(400):
    hits = draw.random(n) < p
    interval = metrics.bootstrap(metrics.mean(hits), n, 300, seed)
    covered += interval.low <= p <= interval.high
  assert abs(covered / 400 - 0.95) < 0.035


def test_interval_has_the_width_of_the_closed_form():
  """Kills: resampling fewer than n; the normal interval of a mean of 1,000 hits, within 5 %."""
  hits = np.arange(1000) < 300
  interval = metrics.bootstrap(metrics.mean(hits), 1000, 8000, 0)
  half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
  assert interval.value == pytest.approx(0.3) and interval.n == 1000
  np.testing.assert_allclose(
    [interval.low, interval.high], [0.3 - half, 0.3 + half], atol=half / 20
  )


def test_bootstrap_is_a_function_of_its_seed():
  """Kills: an ignored seed, a global generator."""
  values = np.random.default_rng(0).random(37)
  made = [metrics.bootstrap(metrics.mean(values), 37, 50, seed) for seed in (5, 5, 6)]
  assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("n, resamples_", [(0, 10), (5, 0)])
def test_empty_bootstrap_is_refused(n, resamples_):
  """Kills: NaN instead of an error."""
  with pytest.raises(ValueError, match=rf"n={n} samples with {resamples_} resamples"):
    metrics.bootstrap(metrics.mean(np.ones(n)), n, resamples_, 0)


def test_confusion_against_a_loop():
  """Kills: a transposed matrix, failures counted as the last class."""
  truth, predicted = draws()[:2]
  want = np.zeros((CLASSES, CLASSES + 1), int)
  for t, p in zip(truth, predicted, strict=True):
    want[t, CLASSES if p == metrics.UNPARSED else p] += 1
  np.testing.assert_array_equal(metrics.confusion(truth, predicted, CLASSES), want)
  assert want[:, -1].sum() > 0


def test_class_ids():
  """Kills: None as class 0."""
  assert metrics.class_ids(["b", None, "a"], ("a", "b")).tolist() == [1, -1, 0]


def test_memberships_ignore_other_names():
  """Kills: an unknown unit that moves the others."""
  got = metrics.memberships([frozenset({12, 99}), frozenset()], (6, 12))
  assert got.tolist() == [[False, True], [False, False]]


def test_failed_sets_are_wrong_everywhere():
  """Kills: a failure as the empty set, which is right about absent units."""
  truth = np.array([[True, False, False], [False, True, True]])
  got = metrics.predicted_memberships([None, frozenset({"b"})], truth, ("a", "b", "c"))
  assert got.tolist() == [[False, True, True], [False, True, False]]
  for claim in range(8):  # no answer does worse than none
    answer = np.array([[bool(claim >> k & 1) for k in range(3)]])
    none = metrics.predicted_memberships([None], truth[:1], ("a", "b", "c"))
    one = np.ones((1, 1))
    assert metrics.f1(truth[:1], answer)(one) >= metrics.f1(truth[:1], none)(one)


def test_no_age_is_worse_than_none():
  """Kills: an error without a bound, so that saying nothing helps."""
  assert metrics.age_errors(np.array([5.0, 60.0]), [110.0, 0.0]).tolist() == [75.0, 55.0]


def test_failed_ages_are_as_far_off_as_can_be():
  """Kills: failures dropped from the mean, the prior's mean, the nearer end of the range."""
  errors = metrics.age_errors(np.array([10.0, 70.0, 42.0]), [None, None, 40.0])
  assert errors.tolist() == [70.0, 65.0, 2.0]
