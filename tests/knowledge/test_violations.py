"""Violations: formulas against loops, every assignment of every file, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rule_sets import FILES, assignments, drawn, holds, made

from facejax.knowledge import rules, violations
from facejax.knowledge.rules import RuleSet
from facejax.knowledge.violations import FORMS, compiled, order, rule_loss


def by_hand(rule_set, scores, form):
  """[B R] with a loop over rows and rules, from the table of formulas."""
  columns = []
  for place in order(rule_set):
    rule = rule_set.rules[place]
    column = []
    for row in scores.astype(np.float64):
      s = [row[i] for i in rule.labels]
      if rule.kind == "implies":
        value = s[0] * (1 - s[1]) if form == "product" else max(s[0] - s[1], 0)
      elif rule.kind == "excludes":
        value = s[0] * s[1] if form == "product" else max(s[0] + s[1] - 1, 0)
      elif rule.kind == "exactly_one":
        value = (sum(s) - 1) ** 2 if form == "product" else abs(sum(s) - 1)
      elif form == "product":
        value = sum(s[i] * s[j] for i in range(len(s)) for j in range(i))
      else:
        value = max(sum(s) - 1, 0)
      column.append(value)
    columns.append(column)
  return np.array(columns).T


MIXED = made(
  6, ("implies", "ab"), ("excludes", "bc"), ("exactly_one", "cde"), ("at_most_one", "aef")
)


@pytest.mark.parametrize("form", FORMS)
def test_formulas_equal_a_loop(form):
  """Kills: s_b for 1 - s_b, pairs counted twice or a label with itself, columns in another order,
  a mean for a sum in a group."""
  scores = np.random.default_rng(0).random((5, 6)).astype(np.float32)
  judge = jax.jit(violations.violations, static_argnums=2)
  got = judge(jnp.asarray(scores), compiled(MIXED), form)
  assert got.shape == (5, 4) and got.dtype == jnp.float32
  np.testing.assert_allclose(got, by_hand(MIXED, scores, form), atol=3e-7)


def whole(rule_set):
  """0/1 rows: all assignments of each component of up to 12 labels (others absent), 4,000 sampled
  ones of larger ones, so that broken and kept rules of every kind occur."""
  n = len(rule_set.labels)
  rng = np.random.default_rng(0)
  rows = []
  for part in rule_set.components:
    share = rng.uniform(0.02, 0.6, (4000, 1))
    small = len(part) <= 12
    own = assignments(len(part)) if small else (rng.random((4000, len(part))) < share)
    block = np.zeros((len(own), n), np.int8)
    block[:, part] = own
    rows.append(block)
  return np.concatenate(rows)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FILES)
def test_zero_exactly_where_a_rule_is_kept(name, form):
  """Kills: a relaxation that a 0/1 assignment can break at no cost, or keep at some."""
  rule_set = rules.load(name)
  rows = whole(rule_set)
  judge = jax.jit(violations.violations, static_argnums=2)
  got = np.asarray(judge(jnp.asarray(rows, jnp.float32), compiled(rule_set), form))
  for column, place in enumerate(order(rule_set)):
    rule = rule_set.rules[place]
    kept = np.array([holds(rule, row) for row in rows])
    assert kept.any() and not kept.all()
    assert (got[kept, column] == 0).all() and (got[~kept, column] >= 1).all()
  assert sorted(order(rule_set)) == list(range(len(rule_set)))
  np.testing.assert_array_equal((got > 0)[:, np.argsort(order(rule_set))], rule_set.broken(rows))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form):
  """Kills: a stopped gradient, a wrong slope; slopes that are not finite at 0, 1 or a kink."""
  arrays = compiled(MIXED)
  slopes = jax.jit(jax.grad(lambda s: rule_loss(s, arrays, form)[0]))
  scores = np.random.default_rng(3).uniform(0.05, 0.95, (4, 6)).astype(np.float32)
  got = np.asarray(slopes(jnp.asarray(scores)))
  step = 1e-5
  for place in np.ndindex(scores.shape):
    moved = [scores.astype(np.float64) for _ in range(2)]
    moved[0][place] += step
    moved[1][place] -= step
    above, below = (by_hand(MIXED, s, form).sum() for s in moved)
    slope = (above - below) / (2 * step)
    np.testing.assert_allclose(got[place], slope, atol=1e-4)
  for corner in (0.0, 0.5, 1.0):
    assert np.isfinite(slopes(jnp.full((4, 6), corner))).all()


def test_loss_is_a_sum_and_a_number():
  """Kills: a mean, which micro-batches could not add; labels that do not count let in, or rules
  without them left out."""
  scores = jnp.asarray(np.random.default_rng(1).random((3, 6)), jnp.float32)
  judged = np.ones((3, 6), bool)
  judged[1, 5] = False  # f: only the at-most-one rule of row 1
  judged[2, 1] = False  # b: implies and excludes of row 2
  each = by_hand(MIXED, np.asarray(scores), "product")
  loss = jax.jit(rule_loss, static_argnums=2)
  total, number = loss(scores, compiled(MIXED))
  np.testing.assert_allclose(total, each.sum(), rtol=1e-6)
  assert number == 12
  keep = np.ones((3, 4))
  keep[1, 3] = keep[2, 0] = keep[2, 1] = 0
  total, number = loss(scores, compiled(MIXED), "product", jnp.asarray(judged))
  np.testing.assert_allclose(total, (each * keep).sum(), rtol=1e-6)
  assert number == 9


def test_no_rules_no_loss():
  # Kills: an array without rows that cannot be indexed.
  empty = compiled(RuleSet(MIXED.labels, ()))
  assert empty.exactly_one.shape == (0, 6)
  total, number = jax.jit(rule_loss)(jnp.ones((2, 6)), empty)
  assert total == 0 and number == 0


def test_form_that_is_none():
  # Kills: another name taken for hinge.
  with pytest.raises(ValueError, match="form of violations is 'hinges', expected one of product"):
    violations.violations(jnp.ones((2, 6)), compiled(MIXED), "hinges")


def test_broken_rows_with_unknown_values():
  """Kills: an unknown value taken for absent or present; a rule judged without its labels."""
  for seed in range(40):
    rule_set = drawn(seed)
    if rule_set is None:
      continue
    rows = np.random.default_rng(seed).integers(-1, 2, (60, 7)).astype(np.int8)
    got, judged = rule_set.broken(rows), rule_set.judged(rows)
    for column, rule in enumerate(rule_set.rules):
      for row, broken, known in zip(rows, got[:, column], judged[:, column], strict=True):
        values = [row[i] for i in rule.labels]
        options = assignments(sum(v < 0 for v in values))
        filled = [row.copy() for _ in options]
        unknown = [i for i in rule.labels if row[i] < 0]
        for copy, option in zip(filled, options, strict=True):
          copy[unknown] = option
        assert broken == (not any(holds(rule, copy) for copy in filled))
        assert known == (not unknown)
