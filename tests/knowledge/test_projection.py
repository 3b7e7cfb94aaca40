"""Projection onto rules, against listing every assignment."""

import numpy as np
import pytest
from rule_sets import assignments, drawn, holds, made

from facejax.knowledge import rules
from facejax.knowledge.projection import Projection


def listed(rule_set, scores):
  """(most probable assignment, its log-probability, probabilities) by enumeration."""
  rows = assignments(scores.shape[1])
  rows = rows[[all(holds(rule, row) for rule in rule_set.rules) for row in rows]]
  p = np.clip(scores, 1e-6, 1 - 1e-6)[:, None]
  log = np.where(rows[None], np.log(p), np.log(1 - p)).sum(-1)
  weight = np.exp(log - log.max(1, keepdims=True))
  weight /= weight.sum(1, keepdims=True)
  return rows[log.argmax(1)] == 1, log.max(1), weight @ rows


def log_probability(scores, chosen):
  p = np.clip(scores, 1e-6, 1 - 1e-6)
  return np.where(chosen, np.log(p), np.log(1 - p)).sum(-1)


def test_random_rules_equal_a_listing():
  """Kills: an edge forgotten or turned around, a cut state not tried, messages counted twice, a
  group's empty state left out or let in, a belief without its case's weight."""
  tried = cut = 0
  for seed in range(120):
    rule_set = drawn(seed)
    if rule_set is None:
      continue
    scores = np.random.default_rng(seed).random((11, 7))
    scores[0, :3] = 0, 1, 0.97
    projection = Projection(rule_set)
    best, value, p = listed(rule_set, scores)
    np.testing.assert_array_equal(projection.most_probable(scores), best)
    np.testing.assert_allclose(log_probability(scores, best), value)
    ruled = sorted(sum(rule_set.components, ()))
    got = projection.probabilities(scores)
    np.testing.assert_allclose(got[:, ruled], p[:, ruled], atol=1e-12)
    free = [i for i in range(7) if i not in ruled]
    np.testing.assert_array_equal(got[:, free], scores[:, free])
    assert projection.approximate == ()
    tried, cut = tried + 1, cut + any(part.cut for part in projection._components)
  assert tried > 30 and cut > 15


def test_too_many_cases_are_said_to_be_approximate():
  """Kills: an approximate result that breaks rules, is called exact, or names other labels."""
  ring = made(6, ("excludes", "ab"), ("excludes", "bc"), ("excludes", "ca"), ("implies", "de"))
  projection = Projection(ring, limit=1)
  assert projection.approximate == ("a", "b", "c")
  scores = np.random.default_rng(0).random((50, 6))
  got = projection.most_probable(scores)
  assert not ring.broken(got.astype(np.int8)).any()
  best, value, _ = listed(ring, scores)
  np.testing.assert_array_equal(got[:, 3:], best[:, 3:])
  assert (log_probability(scores, got) <= value + 1e-12).all()
  # One by one, a would be taken first and b and c lost.
  star = made(3, ("excludes", "ab"), ("excludes", "ac"))
  np.testing.assert_array_equal(
    Projection(star).most_probable(np.array([[0.7, 0.69, 0.69]])), [[False, True, True]]
  )


@pytest.mark.parametrize("name", rules.names())
def test_files_are_exact_and_kept(name):
  """Kills: a rule file whose projection is approximate without its page saying so."""
  rule_set = rules.load(name)
  projection = Projection(rule_set)
  assert projection.approximate == ()
  scores = np.random.default_rng(1).random((200, len(rule_set.labels)))
  got = projection.most_probable(scores)
  assert not rule_set.broken(got.astype(np.int8)).any()
  p = projection.probabilities(scores)
  for group in rule_set.labels.group_indices:
    np.testing.assert_allclose(p[:, list(group)].sum(1), 1)


def test_kept_rules_change_nothing():
  """Kills: a projection that moves what already keeps the rules."""
  rule_set = rules.load("celeba40")
  scores = np.where(np.random.default_rng(2).random((300, 40)) < 0.12, 0.9, 0.1)
  fine = ~rule_set.broken((scores > 0.5).astype(np.int8)).any(1)
  assert fine.sum() > 50
  got = Projection(rule_set).most_probable(scores)
  np.testing.assert_array_equal(got[fine], scores[fine] > 0.5)


def test_scores_that_are_none():
  # Kills: logits taken for probabilities.
  with pytest.raises(ValueError, match=r"score 1\.5 of label 1 in row 0 - expected probabilities"):
    Projection(made(3, ("implies", "ab"))).most_probable(np.array([[0.2, 1.5, 0.1]]))
