"""Landmark projector. landmarks [B T 68 2] -> region tokens [B T R D], nine a face.

Face-LLaVA's FRLP: one linear layer a face region plus a global one, which is added to all nine.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facejax.faces.landmarks import REGIONS, shapes
from facejax.models.layers import Dense
from facejax.sharding import AxisRules, constrain
from facejax.types import LANDMARKS, typed

NOISE = 0.003  # of a located point, of the crop's side: a third of a pixel at 112


def whitened(points: slice) -> Callable:
  """Kernels that map the mean face to 0, and every way in which faces vary to about 1 (ours).

  Where the head is moves all points by a quarter of the crop; what tells an age moves them by 1 to
  3 pixels of 300. The released N(0, 0.02) passes the first on and loses the second. Ways smaller
  than NOISE stay small.
  """
  coordinates = slice(2 * points.start, 2 * points.stop)
  mean = jnp.asarray(shapes().mean[coordinates])
  values, vectors = np.linalg.eigh(shapes().covariance[coordinates, coordinates].astype(float))
  gains = 1 / np.sqrt(np.maximum(values, 0) + NOISE**2)
  heard = math.sqrt((values * gains**2).sum())  # deviation of the sum over all ways
  whiten = jnp.asarray((vectors * gains) @ vectors.T / heard, jnp.float32)

  def initialise(key, shape, dtype=jnp.float32):
    kernel = whiten @ jax.random.normal(key, shape, dtype)
    return kernel - jnp.outer(mean, mean @ kernel) / (mean @ mean)

  return initialise


class LandmarkProjector(nn.Module):
  """Region r: W_r (x0, y0, x1, y1, ...) + b_r, plus the same of all 68 points.

  The nine lie in the order of faces.landmarks.REGIONS. Sums are float32 whatever the `dtype` of the
  result: bfloat16 would keep 8 bits of a coordinate, a step of 0.9 pixels at 224.
  """

  width: int  # D
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(self, landmarks: Float[Array, "B T 68 2"]) -> Float[Array, "B T R D"]:
    """landmarks are (x, y) in [0, 1] of the face crop."""

    def linear(name: str, points: slice):
      flat = landmarks[:, :, points].reshape(*landmarks.shape[:2], -1)
      return Dense(self.width, kernel_init=whitened(points), name=name)(flat)

    parts = [linear(r.name, slice(r.start, r.stop)) for r in REGIONS]
    everywhere = linear("global", slice(0, LANDMARKS))[:, :, None]
    tokens = (jnp.stack(parts, axis=2) + everywhere).astype(self.dtype)
    return constrain(tokens, self.rules, "batch", None, None, None)
