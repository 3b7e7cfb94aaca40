"""Cross-entropy as a sum and a weight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax import losses
from facejax.config import MeshConfig
from facejax.sharding import AxisRules, make_mesh

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


DRAWN = np.random.default_rng(3)
HIDDEN, KERNEL = (DRAWN.normal(size=s).astype(np.float32) for s in ((4, 6, 8), (8, 14)))
WANTED = DRAWN.integers(0, 14, (4, 6))
SHARES = (DRAWN.random((4, 6)) < 0.6) * DRAWN.random((4, 6)).astype(np.float32)


of_hidden = functools.partial(losses.of_hidden, rules=AxisRules())


def by_logits(hidden, kernel):
  """The plain way: all logits, JAX's own gradient."""
  total, weight = losses.next_token(hidden @ kernel, jnp.asarray(WANTED), jnp.asarray(SHARES))
  return total / weight


def by_chunks(hidden, kernel):
  total, weight = of_hidden(hidden, kernel, jnp.asarray(WANTED), jnp.asarray(SHARES))
  return total / weight


close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("logits", [14 * 24, 14 * 7, 14])
def test_in_pieces_it_is_the_same(logits, monkeypatch):
  """Kills: a piece left out or counted twice, padding that counts, a gradient of another scale."""
  monkeypatch.setattr(losses, "_LOGITS", logits)
  monkeypatch.setattr(losses, "_POSITIONS", 1)
  inputs = jnp.asarray(HIDDEN), jnp.asarray(KERNEL)
  slopes = lambda f: jax.value_and_grad(f, argnums=(0, 1))(*inputs)
  jax.tree.map(close, slopes(by_chunks), slopes(by_logits))


@pytest.mark.parametrize("sizes", [(8, 1, 1, 1), (1, 2, 2, 2), (2, 2, 1, 2), (1, 1, 2, 1)])
def test_on_a_mesh_it_is_the_same(sizes, monkeypatch):
  """Kills: a softmax over a part of the vocabulary, a target looked up in another's part, sums or
  gradients of one device's rows, a kernel gradient that is laid out unlike the kernel."""
  monkeypatch.setattr(losses, "_LOGITS", 14 * 2)
  monkeypatch.setattr(losses, "_POSITIONS", 1)
  grow = lambda x: jnp.asarray(np.concatenate([x, x[::-1]]))
  arrays = grow(HIDDEN), jnp.asarray(KERNEL), grow(WANTED), grow(SHARES)

  def slopes(f):
    def loss(hidden, kernel):
      total, weight = f(hidden, kernel, *arrays[2:])
      return total / weight

    return jax.value_and_grad(loss, argnums=(0, 1))(*arrays[:2])

  want = slopes(lambda h, k, t, w: losses.next_token(h @ k, t, w))
  devices = jax.devices()[: int(np.prod(sizes))]
  with jax.set_mesh(make_mesh(MeshConfig(*sizes), devices)):
    got = jax.jit(lambda: slopes(of_hidden))()
  jax.tree.map(close, got, want)


def test_a_frozen_kernel_costs_no_product():
  """Kills: the gradient of a kernel that nobody asked for; logits computed twice."""
  count = lambda argnums: str(
    jax.make_jaxpr(jax.grad(by_chunks, argnums))(jnp.asarray(HIDDEN), jnp.asarray(KERNEL))
  ).count("dot_general")
  assert (count(0), count((0, 1))) == (2, 3)
