"""Scores without training: closed forms, limits, and planted couplings."""

import numpy as np
import pytest

from facejax.knowledge.cooccurrence import count
from facejax.knowledge.labels import LabelSet
from facejax.knowledge.training_free import match_prevalence, refine, statistics

LABELS = LabelSet("made", tuple("abcde"), (("d", "e"),))


def pulled(seed=0, size=4000):
  """a and b together, c apart from b, a and c thus apart through b alone; d or e by chance."""
  rng = np.random.default_rng(seed)
  b = rng.random(size) < 0.4
  a, c = rng.random(size) < np.where(b, 0.8, 0.2), rng.random(size) < np.where(b, 0.1, 0.6)
  d = rng.random(size) < 0.5
  return np.stack([a, b, c, d, ~d], 1).astype(np.int8)


ROWS = pulled()
KNOWN = statistics(count([ROWS], LABELS), LABELS)


def test_couplings_are_those_of_the_inverse():
  """Kills: a sign turned, the covariance for its inverse (which couples a and c), labels of a group
  coupled beside their rule."""
  c = np.corrcoef(ROWS[:, :4].T) * 0.9 + np.eye(4) * 0.1
  spread = ROWS[:, :4].std(0)
  expected = -np.linalg.inv(c) / spread[:, None] / spread[None]
  np.fill_diagonal(expected, 0)
  four = LabelSet("made", tuple("abcd"))
  alone = statistics(count([ROWS[:, :4]], four), four)
  np.testing.assert_allclose(alone.couplings, expected, atol=1e-9)
  j = KNOWN.couplings
  assert j[0, 1] > 1 and j[1, 2] < -1 and abs(j[0, 2]) < 0.2 * j[0, 1]
  assert j[3, 4] == j[4, 3] == 0 and (j == j.T).all() and (np.diag(j) == 0).all()
  np.testing.assert_allclose(KNOWN.prevalence, ROWS.mean(0))


def test_scores_are_where_the_field_says():
  """Kills: a fixed point of other equations; rounds too few to get there."""
  answers = np.random.default_rng(1).random((6, 5))
  s = refine(answers, KNOWN, strength=0.5, rounds=80)
  for row, a in zip(s, answers, strict=True):
    for i in range(5):
      pull = sum(KNOWN.couplings[i, j] * (row[j] - KNOWN.prevalence[j]) for j in range(5))
      odds = np.log(a[i] / (1 - a[i])) + 0.5 * pull
      np.testing.assert_allclose(row[i], 1 / (1 + np.exp(-odds)), atol=1e-6)


def test_what_must_not_move():
  # Kills: a pull that is not relative to the prevalence, or does not end at strength 0.
  same = np.tile(KNOWN.prevalence, (3, 1))
  np.testing.assert_allclose(refine(same, KNOWN), same, atol=1e-12)
  answers = np.random.default_rng(2).random((4, 5))
  np.testing.assert_allclose(refine(answers, KNOWN, strength=0.0), answers, atol=1e-6)


def test_couplings_help_weak_answers():
  """Kills: couplings between the wrong labels, or of the wrong sign: accuracy would fall."""
  rows = pulled(seed=5)
  noise = np.random.default_rng(3).normal(size=rows.shape)
  answers = 1 / (1 + np.exp(-(1.2 * (2 * rows - 1) + 1.5 * noise)))
  right = lambda s: ((s > 0.5) == rows)[:, :3].mean()
  assert right(refine(answers, KNOWN, 0.5)) > right(answers) + 0.02


def test_unknown_labels_and_pairs():
  """Kills: unknown labels counted as absent, NaN from a pair that is never known together."""
  rows = ROWS.copy()
  rows[::2, 0], rows[1::2, 1] = -1, -1
  known = statistics(count([rows], LABELS), LABELS)
  assert np.isfinite(known.couplings).all()
  np.testing.assert_allclose(known.prevalence[0], ROWS[1::2, 0].mean())
  assert abs(known.couplings[0, 1]) < 0.3 * KNOWN.couplings[0, 1]
  some = ROWS.copy()
  some[np.random.default_rng(4).random(some.shape) < 0.3] = -1
  np.testing.assert_allclose(
    statistics(count([some], LABELS), LABELS).couplings, KNOWN.couplings, atol=0.5
  )


def test_prevalences_are_met():
  """Kills: a scaled probability (which can pass 1), the order of pictures changed, a label's shift
  used for all."""
  answers = np.random.default_rng(5).beta(4, 2, (300, 5))
  target = np.array([0.05, 0.3, 0.5, 0.9, 0.0])
  got = match_prevalence(answers, target)
  np.testing.assert_allclose(got.mean(0)[:4], target[:4], atol=1e-9)
  assert got[:, 4].max() < 1e-4 and (got >= 0).all() and (got <= 1).all()
  np.testing.assert_array_equal(got.argsort(0), answers.argsort(0))
  odds = lambda p: np.log(p / (1 - p))
  shift = odds(got[:, :4]) - odds(answers[:, :4])
  np.testing.assert_allclose(shift, np.tile(shift[:1], (300, 1)), atol=1e-6)


def test_what_is_refused():
  # Kills: counts of other labels taken column by column.
  with pytest.raises(ValueError, match="shrink=0: expected above 0"):
    statistics(count([ROWS], LABELS), LABELS, 0)
  other = LabelSet("other", tuple("bacde"))
  with pytest.raises(ValueError, match="5 labels from 'a' on - expected the 5 of 'other'"):
    statistics(count([ROWS], LABELS), other)
