"""AdamW against NumPy, and the learning rate against its formula."""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from facejax import optim
from facejax.config import OptimConfig

PEAK = 2e-3


@pytest.mark.parametrize(("steps", "warmup", "W"), [(100, 0.03, 3), (101, 0.03, 4), (7, 0.0, 0)])
def test_rate_is_the_released_schedule(steps, warmup, W):
  """Kills: W rounded down, warm-up that starts at 1/W, a cosine over S instead of S - W."""
  rate = optim.learning_rate(OptimConfig(PEAK, warmup), steps)
  for s in range(steps):
    half = 0.5 * (1 + math.cos(math.pi * (s - W) / (steps - W)))
    want = PEAK * (s / W if s < W else half)
    # Float32 cosine near pi: 1 + cos loses digits of 1, so the error is relative to the peak.
    np.testing.assert_allclose(rate(s), want, atol=2e-7 * PEAK, rtol=1e-6)


def test_constant_schedule_and_a_run_of_warm_up_alone():
  """Kills: a cosine whatever the schedule says; division by S - W = 0."""
  constant = optim.learning_rate(OptimConfig(PEAK, 0.5, "constant"), 8)
  np.testing.assert_allclose([constant(s) for s in (0, 2, 4, 7)], [0, PEAK / 2, PEAK, PEAK])
  whole = optim.learning_rate(OptimConfig(PEAK, 1.0), 4)
  np.testing.assert_allclose([whole(s) for s in range(4)], [0, PEAK / 4, PEAK / 2, 3 * PEAK / 4])


def reference(config, steps, params, grads):
  """Loshchilov and Hutter's algorithm 2, with the norm clipped first."""
  m = {k: np.zeros_like(v) for k, v in params.items()}
  v = {k: np.zeros_like(x) for k, x in params.items()}
  for t, grad in enumerate(grads):
    norm = math.sqrt(sum((g**2).sum() for g in grad.values()))
    scale = 1 if config.clip_norm is None else min(1, config.clip_norm / norm)
    rate = float(optim.learning_rate(config, steps)(t))
    for k in params:
      g = grad[k] * scale
      m[k] = config.b1 * m[k] + (1 - config.b1) * g
      v[k] = config.b2 * v[k] + (1 - config.b2) * g**2
      m_hat, v_hat = m[k] / (1 - config.b1 ** (t + 1)), v[k] / (1 - config.b2 ** (t + 1))
      decay = config.weight_decay if k.endswith("kernel") else 0
      params[k] = params[k] - rate * (m_hat / (np.sqrt(v_hat) + config.eps) + decay * params[k])
  return params


@pytest.mark.parametrize("clip", [None, 0.5])
def test_updates_equal_a_slow_reference(clip):
  """Kills: swapped betas, decay on norms and biases, clipping that is off, or on by default."""
  config = OptimConfig(0.1, 0.2, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.3, clip_norm=clip)
  draw = np.random.default_rng(1)
  shapes = {"a/kernel": (2, 3), "a/bias": (3,), "norm/scale": (5,)}
  make = lambda: {k: draw.normal(size=s) for k, s in shapes.items()}
  start, grads = make(), [make() for _ in range(6)]
  tree = lambda flat: flax.traverse_util.unflatten_dict(
    {k: jnp.asarray(v, jnp.float32) for k, v in flat.items()}, sep="/"
  )
  optimizer = optim.make_optimizer(config, 6)
  params = tree(start)
  state = optimizer.init(params)
  for t, grad in enumerate(grads):
    updates, state = optimizer.update(tree(grad), state, params)
    if t == 0:
      assert all((u == 0).all() for u in jax.tree.leaves(updates))  # the first rate is 0
    params = optax.apply_updates(params, updates)
  want = reference(config, 6, dict(start), grads)
  for k, x in want.items():
    part, leaf = k.split("/")
    np.testing.assert_allclose(params[part][leaf], x, rtol=2e-5, atol=1e-6)


def test_clipping_does_not_change_the_structure_of_the_state():
  """Kills: a state that a run with another clip_norm cannot restore."""
  params = {"x": {"kernel": jnp.zeros(3)}}
  structures = [
    jax.tree.structure(optim.make_optimizer(OptimConfig(PEAK, clip_norm=c), 5).init(params))
    for c in (None, 1.0)
  ]
  assert structures[0] == structures[1]


def test_global_norm_is_taken_in_float32():
  """Kills: a sum of bfloat16 squares, which stops growing at 256 terms of one."""
  ones = {"a": jnp.ones(1000, jnp.bfloat16), "b": jnp.ones(24, jnp.bfloat16)}
  assert float(optim.global_norm(ones)) == 32.0
