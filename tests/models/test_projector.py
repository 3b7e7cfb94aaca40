"""Projectors: the order of pixel shuffle, and the whole module against loops."""

import internvl_reference
import jax
import jax.numpy as jnp
import model_reference as reference
import numpy as np

from facejax.models.projector import PROJECTORS, pixel_shuffle


def test_pixel_shuffle_order():
  # Kills: version 1 (cells transposed), columns first, patches of other cells joined.
  patches = jnp.arange(2 * 3 * 16.0).reshape(2, 3, 16, 1)
  got = pixel_shuffle(patches)
  assert got.shape == (2, 3, 4, 4)
  cells = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
  np.testing.assert_array_equal(got[0, 0], cells)
  np.testing.assert_array_equal(got[1, 2], np.array(cells) + 5 * 16)


def test_pixel_shuffle_equals_the_official_views():
  # Kills: a misreading of the order in the drawing above, from which both are written. InternVL's
  # version 2 in its own four steps, on a [n W H C] grid.
  side, width = 6, 5
  x = np.random.default_rng(0).normal(size=(2, side, side, width)).astype(np.float32)
  y = x.reshape(2, side, side // 2, 2 * width).transpose(0, 2, 1, 3)
  y = y.reshape(2, side // 2, side // 2, 4 * width).transpose(0, 2, 1, 3)
  got = pixel_shuffle(jnp.asarray(x.reshape(2, 1, side**2, width)))
  np.testing.assert_array_equal(got[:, 0], y.reshape(2, -1, 4 * width))


def test_projector_equals_a_loop(randomise):
  # Kills: the norm left out, before the shuffle, or with another eps; tanh GELU; one linear layer.
  x = jnp.asarray(np.random.default_rng(1).normal(0, 3e-3, (2, 3, 16, 5)), jnp.float32)
  module = PROJECTORS["pixel_shuffle"](7)
  p = randomise(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
  got = module.apply({"params": p}, x)
  assert got.shape == (2, 3, 4, 7)
  for b, t in np.ndindex(2, 3):
    y = internvl_reference.shuffled_and_normed(p["norm"], x[b, t])
    want = reference.linear(p["fc2"], reference.gelu(reference.linear(p["fc1"], y)))
    np.testing.assert_allclose(got[b, t], want, atol=1e-5)
