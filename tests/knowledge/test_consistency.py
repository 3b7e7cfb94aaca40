"""Metrics about rules, rare labels and calibration, against loops over resamples."""

import numpy as np
import pytest
from rule_sets import made

from facejax.evaluate.metrics import bootstrap
from facejax.knowledge import consistency

RULES = made(4, ("implies", "ab"), ("exactly_one", "cd"))
LABELS = RULES.labels
RNG = np.random.default_rng(0)
TRUTH = RNG.choice(np.array([-1, 0, 1], np.int8), (13, 4), p=(0.2, 0.4, 0.4))
SCORES = RNG.random((13, 4))
VALUES = consistency.decided(SCORES, LABELS)


def drawn():
  """Weights of three resamples, and the rows that each holds."""
  rows = RNG.integers(13, size=(3, 13))
  return np.stack([np.bincount(r, minlength=13) for r in rows]).astype(float), rows


def test_decisions_and_statements():
  """Kills: a group decided label by label, no answer read as nothing present."""
  for row, s in zip(VALUES, SCORES, strict=True):
    assert row[:2].tolist() == [int(s[0] >= 0.5), int(s[1] >= 0.5)]
    assert row[2:].tolist() == ([1, 0] if s[2] >= s[3] else [0, 1])
  got = consistency.stated([frozenset("ac"), None, frozenset("xb"), frozenset()], LABELS)
  assert got.tolist() == [[1, 0, 1, 0], [-1] * 4, [0, 1, 0, 0], [0] * 4] and got.dtype == np.int8


def test_metrics_equal_loops():
  """Kills: a mean of rows for one of labels, unknown truths counted, an absent truth for an unknown
  one, bins by count, a signed gap summed over bins."""
  weights, resamples = drawn()
  accuracy = consistency.accuracy(TRUTH, VALUES)(weights)
  broken = consistency.violation_rate(VALUES, RULES)(weights)
  false = consistency.hallucination(TRUTH, VALUES)(weights)
  ece = consistency.calibration_error(TRUTH, SCORES, 5)(weights)
  for k, rows in enumerate(resamples):
    known = [(i, n) for i in rows for n in range(4) if TRUTH[i, n] >= 0]
    np.testing.assert_allclose(accuracy[k], np.mean([TRUTH[x] == VALUES[x] for x in known]))
    breaks = [VALUES[i, 0] > VALUES[i, 1] or VALUES[i, 2] == VALUES[i, 3] for i in rows]
    np.testing.assert_allclose(broken[k], np.mean(breaks))
    wrong = [any(VALUES[i, n] == 1 and TRUTH[i, n] == 0 for n in range(4)) for i in rows]
    np.testing.assert_allclose(false[k], np.mean(wrong))
    total = 0.0
    for b in range(5):
      own = [x for x in known if b / 5 <= SCORES[x] < (b + 1) / 5]
      if own:
        gap = np.mean([SCORES[x] for x in own]) - np.mean([TRUTH[x] == 1 for x in own])
        total += abs(gap) * len(own) / len(known)
    np.testing.assert_allclose(ece[k], total)
  found = bootstrap(consistency.calibration_error(TRUTH, SCORES), 13, 50, 0)
  assert 0 < found.low < found.high < 1 and found.n == 13


def test_a_score_of_one_has_a_bin():
  # Kills: the last bin without its end.
  metric = consistency.calibration_error(np.array([[0]], np.int8), np.array([[1.0]]))
  assert metric(np.ones((1, 1)))[0] == 1


def test_rates_of_rules():
  """Kills: a rule judged by rows that do not say enough, rates of another rule."""
  values = np.array([[1, 0, 1, 0], [1, -1, 1, 1], [0, 0, 0, 0], [1, 1, -1, 0]], np.int8)
  got = consistency.rule_rates(values, RULES)
  assert got == {"a implies b": 1 / 3, "exactly one of c, d": 2 / 3}


def test_rare_labels():
  """Kills: labels that nobody has, the frequent ones, or all of them averaged."""
  prevalence = np.array([0.3, 0.1, 0.0, 0.05])
  places = consistency.rare(prevalence, 0.1)
  assert places.tolist() == [1, 3]
  got = consistency.rare_f1(TRUTH, VALUES, places)(np.ones((1, 13)))[0]
  each = []
  for n in (1, 3):
    hit = sum(t == 1 and v == 1 for t, v in zip(TRUTH[:, n], VALUES[:, n], strict=True))
    each.append(2 * hit / ((TRUTH[:, n] == 1).sum() + (VALUES[:, n] == 1).sum()))
  np.testing.assert_allclose(got, np.mean(each))
  with pytest.raises(
    ValueError, match=r"up to 0\.01 - expected one or more, the rarest has 0\.050"
  ):
    consistency.rare(prevalence, 0.01)
