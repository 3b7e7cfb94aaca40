"""Visual projector. encoder features [... E] -> decoder width [... D]."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.models.layers import ACTIVATIONS, Dense
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
