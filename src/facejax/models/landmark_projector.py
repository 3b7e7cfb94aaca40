"""Landmark projector. landmarks [B T 68 2] -> region tokens [B T R D], nine a face.

Face-LLaVA's FRLP: one linear layer a face region plus a global one, which is added to all nine.
Fresh kernels see how a face departs from the mean face, in units of SPREAD (ours): with the
released N(0, 0.02) the 3 % by which an expression moves a point are lost behind where it lies.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.faces.landmarks import MEAN_FACE, REGIONS
from facejax.models.layers import Dense
from facejax.sharding import AxisRules, constrain
from facejax.types import LANDMARKS, typed

SPREAD = 0.03  # deviation of a point over faces, of the crop's side


def centred(points: slice) -> Callable:
  """Kernels that map the mean face to 0 and a face that departs by SPREAD to about 1."""
  mean = jnp.asarray(MEAN_FACE, jnp.float32)[points].ravel()

  def initialise(key, shape, dtype=jnp.float32):
    kernel = jax.random.normal(key, shape, dtype) / (SPREAD * math.sqrt(shape[0]))
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
      return Dense(self.width, kernel_init=centred(points), name=name)(flat)

    parts = [linear(r.name, slice(r.start, r.stop)) for r in REGIONS]
    everywhere = linear("global", slice(0, LANDMARKS))[:, :, None]
    tokens = (jnp.stack(parts, axis=2) + everywhere).astype(self.dtype)
    return constrain(tokens, self.rules, "batch", None, None, None)
