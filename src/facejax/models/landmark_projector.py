"""Landmark projector. landmarks [B T 68 2] -> region tokens [B T R D], nine a face.

Face-LLaVA's FRLP: one linear layer a face region plus a global one, which is added to all nine.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.faces.landmarks import REGIONS
from facejax.models.layers import Dense
from facejax.sharding import AxisRules, constrain
from facejax.types import typed


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
    flat = lambda points: points.reshape(*points.shape[:2], -1)
    linear = lambda name, points: Dense(self.width, name=name)(flat(points))
    parts = [linear(r.name, landmarks[:, :, r.start : r.stop]) for r in REGIONS]
    everywhere = linear("global", landmarks)[:, :, None]
    tokens = (jnp.stack(parts, axis=2) + everywhere).astype(self.dtype)
    return constrain(tokens, self.rules, "batch", None, None, None)
