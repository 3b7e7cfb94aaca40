"""Region-guided cross-attention. patches [B T P D], regions [B T R D] -> patches [B T P D].

Each patch looks at the nine face regions (Face-LLaVA's FRGCA). Three forms, by name in FUSIONS:
what the released scripts train, the released code's masked class, what the paper's figure draws. A
frame without landmarks comes back bit for bit, and nothing of it reaches a gradient.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from facejax.config import FusionConfig
from facejax.faces.landmarks import REGIONS
from facejax.models.attention import Attention
from facejax.models.layers import Dense, LayerNorm
from facejax.sharding import AxisRules
from facejax.types import typed

EPS = 1e-5  # of both layer norms; torch's default, which the released code keeps


# N(0, 0.02) at the released width of 4096, and as strong a branch at any other (ours): at width 128
# a flat 0.02 would make the branch six times weaker.
RELEASED_INIT = jax.nn.initializers.variance_scaling(0.02**2 * 4096, "fan_in", "normal")


def stacked_xavier(key, shape, dtype=jnp.float32):
  """Uniform, as torch draws the stacked [3D D] matrix of q, k and v."""
  bound = math.sqrt(6 / (shape[0] + 3 * shape[1]))
  return jax.random.uniform(key, shape, dtype, -bound, bound)


@typed
def proximity(
  landmarks: Float[Array, "B T 68 2"], patches: int, order: str = "xy"
) -> Float[Array, "B T P R"]:
  """Minus the distance from each patch's centre to each region's centroid, on the unit square.

  Centroids are (x, y); so are the centres of the patches, which go row by row, unless `order` is
  "yx". A class token in front (257 tokens) gets 0. Raises ValueError if the tokens are no square
  grid.
  """
  grid = math.isqrt(patches)
  front = patches - grid**2
  if front not in (0, 1):
    raise ValueError(f"fusion: {patches} tokens a frame, expected a square grid or one more")
  centre = (jnp.arange(grid) + 0.5) / grid
  column, row = jnp.tile(centre, grid), jnp.repeat(centre, grid)
  centres = jnp.stack([column, row] if order == "xy" else [row, column], axis=-1)
  centroids = jnp.stack([landmarks[:, :, r.start : r.stop].mean(2) for r in REGIONS], axis=2)
  square = jnp.sum((centres[None, None, :, None] - centroids[:, :, None]) ** 2, axis=-1)
  # The root has no slope at 0, where a centroid lies on a centre.
  distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
  return jnp.pad(-distance, ((0, 0), (0, 0), (front, 0), (0, 0)))


def _fold(x: jax.Array) -> jax.Array:
  return x.reshape(-1, *x.shape[2:])


def _branch(
  config: FusionConfig, dtype: Any, patches: jax.Array, mixed: jax.Array, present: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """patches + scale * Linear(LayerNorm(patches + mixed)) where present, and the norm's result.

  Its parameters are those of the module that calls it. The released checkpoint has a second layer
  norm that nothing reads: its parameters are made here.
  """
  width = patches.shape[-1]
  inner = LayerNorm(EPS, dtype, name="norm")(patches + mixed.reshape(patches.shape))
  branch = Dense(width, dtype=dtype, kernel_init=RELEASED_INIT, name="linear")(inner)
  LayerNorm(EPS, dtype, name="outer_norm")(jnp.zeros((1, width)))
  return jnp.where(present, patches + config.branch_scale * branch, patches), inner


class ReleasedFusion(nn.Module):
  """patches + scale * Linear(LayerNorm(patches + MHA(patches, regions))), as released."""

  config: FusionConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(
    self,
    patches: Float[Array, "B T P D"],
    regions: Float[Array, "B T R D"],
    landmarks: Float[Array, "B T 68 2"],
    present: Bool[Array, "B T"],
  ) -> tuple[Float[Array, "B T P D"], dict[str, Any]]:
    """Returns the fused patches and {"weights": [B T N P R], "inner": [B T P D]}.

    Does not read `landmarks`; "inner" is the result of the norm.
    """
    del landmarks  # the form without the proximity mask
    present = present[:, :, None, None]
    memory = _fold(jnp.where(present, regions, 0))
    attention = Attention(
      self.config.heads, stacked_xavier, RELEASED_INIT, self.dtype, self.rules, name="attention"
    )
    mixed, weights = attention(_fold(patches), memory)
    fused, inner = _branch(self.config, self.dtype, patches, mixed, present)
    weights = weights.reshape(*patches.shape[:2], *weights.shape[1:])
    return fused, {"weights": weights, "inner": inner}


class MaskedFusion(nn.Module):
  """patches + scale * Linear(LayerNorm(patches + softmax(q k / sqrt(H) + mask) v)).

  The released code's `cross_attn_type masked`, for which no training script exists. Its mask is a
  softmax over the regions of minus the distance: 0.08 to 0.15, so nearly none. It takes clips
  only; here the 256 tokens of a picture work too.
  """

  config: FusionConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(
    self,
    patches: Float[Array, "B T P D"],
    regions: Float[Array, "B T R D"],
    landmarks: Float[Array, "B T 68 2"],
    present: Bool[Array, "B T"],
  ) -> tuple[Float[Array, "B T P D"], dict[str, Any]]:
    """Returns the fused patches and {"weights": [B T N P R], "mask", "inner"} by name."""
    cfg, shape = self.config, patches.shape
    present = present[:, :, None, None]
    memory = _fold(jnp.where(present, regions, 0))
    mask = jax.nn.softmax(proximity(jnp.where(present, landmarks, 0), shape[2], cfg.grid))
    attention = Attention(cfg.heads, RELEASED_INIT, None, self.dtype, self.rules, name="attention")
    mixed, weights = attention(_fold(patches), memory, _fold(mask))
    fused, inner = _branch(cfg, self.dtype, patches, mixed, present)
    weights = weights.reshape(*shape[:2], *weights.shape[1:])
    return fused, {"weights": weights, "mask": mask, "inner": inner}


class PaperFusion(nn.Module):
  """patches + Linear(softmax(q k / sqrt(H) + proximity) v), as the paper's figure draws it.

  That the mask is minus the Euclidean distance, and the number of heads, is our choice: the paper's
  text was not available to us.
  """

  config: FusionConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(
    self,
    patches: Float[Array, "B T P D"],
    regions: Float[Array, "B T R D"],
    landmarks: Float[Array, "B T 68 2"],
    present: Bool[Array, "B T"],
  ) -> tuple[Float[Array, "B T P D"], dict[str, Any]]:
    """Returns the fused patches and {"weights": [B T N P R]}."""
    present = present[:, :, None, None]
    memory = _fold(jnp.where(present, regions, 0))
    mask = _fold(proximity(jnp.where(present, landmarks, 0), patches.shape[2]))
    attention = Attention(
      self.config.heads, stacked_xavier, RELEASED_INIT, self.dtype, self.rules, name="attention"
    )
    mixed, weights = attention(_fold(patches), memory, mask)
    fused = jnp.where(present, patches + mixed.reshape(patches.shape), patches)
    return fused, {"weights": weights.reshape(*patches.shape[:2], *weights.shape[1:])}


FUSIONS = {"released": ReleasedFusion, "masked": MaskedFusion, "paper": PaperFusion}
