"""Visual projectors. encoder features [B T P E] -> visual tokens of the decoder's width [B T P' D].

By the name in PROJECTORS. ModelConfig.tokens says how many come out.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.models.layers import ACTIVATIONS, Dense, LayerNorm
from facejax.sharding import AxisRules, constrain
from facejax.types import typed


class Projector(nn.Module):
  """LLaVA's mlp2x_gelu: linear, exact GELU, linear. Pictures and clips share it."""

  width: int  # D
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(self, features: Float[Array, "B T P E"]) -> Float[Array, "B T P D"]:
    """Returns one token of the decoder's width for each feature."""
    hidden = ACTIVATIONS["gelu"](Dense(self.width, dtype=self.dtype, name="fc1")(features))
    hidden = constrain(hidden, self.rules, "batch", None, None, "mlp")
    return Dense(self.width, dtype=self.dtype, name="fc2")(hidden)


@typed
def pixel_shuffle(features: Float[Array, "B T P E"]) -> Float[Array, "B T quarter 4*E"]:
  """Joins each square of four patches into one feature, four times as wide.

  Patches and cells go row by row; a cell's channels are those of its upper left, upper right, lower
  left and lower right patch. InternVL calls this version 2 (version 1 has the cells transposed).

  patches  0  1  2  3   cells  [0 1 4 5]    [2 3 6 7]
           4  5  6  7          [8 9 12 13]  [10 11 14 15]
           8  9 10 11
          12 13 14 15

  The patches are a square of even side: ModelConfig refuses others.
  """
  B, T, P, E = features.shape
  half = math.isqrt(P) // 2
  cells = features.reshape(B * T, half, 2, half, 2, E).swapaxes(2, 3)
  return cells.reshape(B, T, half**2, 4 * E)


class PixelShuffleProjector(Projector):
  """InternVL's: pixel shuffle and a layer norm, then as LLaVA's."""

  @nn.compact
  @typed
  def __call__(self, features: Float[Array, "B T P E"]) -> Float[Array, "B T quarter D"]:
    """Returns one token of the decoder's width for every four features."""
    norm = LayerNorm(1e-5, self.dtype, name="norm")  # torch's default eps
    return super().__call__(norm(pixel_shuffle(features)))


PROJECTORS = {"mlp": Projector, "pixel_shuffle": PixelShuffleProjector}
