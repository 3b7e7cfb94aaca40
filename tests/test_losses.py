"""Cross-entropy as a sum and a weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax import losses

B, L, V = 3, 5, 7
DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(size=(B, L, V)).astype(np.float32) * 4
TARGETS = DRAW.integers(0, V, (B, L))
WEIGHTS = (DRAW.random((B, L)) < 0.5).astype(np.float32)


def reference(logits, targets, weights) -> tuple[float, float]:
  total = 0.0
  for b in range(logits.shape[0]):
    for i in range(logits.shape[1]):
      exps = np.exp(logits[b, i].astype(np.float64))
      total -= weights[b, i] * np.log(exps[targets[b, i]] / exps.sum())
  return total, float(weights.sum())


def test_equals_a_slow_reference():
  """Kills: a shifted target, a mean for a sum, weights left out."""
  got = losses.next_token(jnp.asarray(LOGITS), jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
  np.testing.assert_allclose(got, reference(LOGITS, TARGETS, WEIGHTS), rtol=1e-5)


def test_bfloat16_logits_are_summed_in_float32():
  """Kills: the softmax in the compute dtype (2 digits)."""
  rounded = jnp.asarray(LOGITS, jnp.bfloat16)
  got, weight = losses.next_token(rounded, jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))
  assert got.dtype == weight.dtype == jnp.float32
  want = reference(np.asarray(rounded, np.float32), TARGETS, WEIGHTS)
  np.testing.assert_allclose((got, weight), want, rtol=1e-5)


def test_micro_batches_of_different_weight_add_up():
  """Kills: averaging means, which weighs a row with one answer token like a row with five."""
  parts = [
    losses.next_token(*(jnp.asarray(x[rows]) for x in (LOGITS, TARGETS, WEIGHTS)))
    for rows in (slice(0, 1), slice(1, B))
  ]
  total, weight = jax.tree.map(lambda *x: sum(x), *parts)
  want, want_weight = reference(LOGITS, TARGETS, WEIGHTS)
  assert float(weight) == want_weight
  assert float(parts[0][1]) != float(parts[1][1])
  np.testing.assert_allclose(losses.per_weight(total, weight), want / want_weight, rtol=1e-5)


@pytest.mark.parametrize(("weight", "want"), [(0.0, 0.0), (0.25, 12.0), (4.0, 0.75)])
def test_division_by_the_weight(weight, want):
  """Kills: 0/0 = nan, and a floor of 1 that would shrink the loss of fractional weights."""
  assert float(losses.per_weight(jnp.float32(3.0 if weight else 0.0), jnp.float32(weight))) == want


def test_positions_without_weight_have_no_gradient():
  """Kills: multiplying by the weight too late (nan * 0), or padding that pulls on the logits."""
  f = lambda logits: losses.next_token(logits, jnp.asarray(TARGETS), jnp.asarray(WEIGHTS))[0]
  grad = np.asarray(jax.grad(f)(jnp.asarray(LOGITS)))
  assert (grad[WEIGHTS == 0] == 0).all()
  assert (np.abs(grad[WEIGHTS > 0]).max(-1) > 1e-3).all()
