"""Random parameters that hide nothing: no zero bias, no unit norm."""

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def randomise():
  """Fills a tree of shapes with numbers of useful size: N(0, 1/fan_in) kernels, norms near 1."""

  def fill(shapes, seed=0):
    draw = np.random.default_rng(seed)

    def leaf(path, x):
      name = path[-1].key
      if name == "kernel":
        return draw.normal(0, 1.2 / np.sqrt(x.shape[-2]), x.shape).astype(np.float32)
      return (draw.normal(0, 0.3, x.shape) + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)

  return fill
