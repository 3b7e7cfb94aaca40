"""Second visual stream. class maps [B T y x] -> tokens [B T Q D], one a cell of a grid.

FaceInsight feeds a segmentation map next to the picture; how it is encoded is our choice, the
paper does not say: the share of each class in a cell, embedded, plus a position, through an MLP.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros
from jaxtyping import Array, Bool, Float, UInt8

from facejax.config import SegmentationConfig
from facejax.models.layers import ACTIVATIONS, INIT, Dense
from facejax.sharding import AxisRules, constrain
from facejax.types import typed


@typed
def class_shares(maps: UInt8[Array, "B T y x"], grid: int, classes: int) -> Float[Array, "B T Q C"]:
  """The share of every class in each cell of a grid, cells row by row; float32.

  Ids of `classes` or more count nowhere. One class at a time: a pass holds one byte a pixel, where
  a one-hot map would hold 4 * classes (224 x 224 pixels, 19 classes, 256 maps: 0.98 GB).
  """
  B, T, Y, X = maps.shape
  y, x = Y // grid, X // grid
  cells = maps.reshape(B * T, grid, y, grid, x)
  count = lambda c: jnp.sum(cells == c, axis=(2, 4), dtype=jnp.int32)
  counts = jax.lax.map(count, jnp.arange(classes, dtype=jnp.uint8))
  shares = jnp.moveaxis(counts, 0, -1).astype(jnp.float32) / (y * x)
  return shares.reshape(B, T, grid * grid, classes)


class SegmentationEncoder(nn.Module):
  """Tokens of class maps. With mode "add" a fresh module returns zeros, so it changes nothing."""

  config: SegmentationConfig
  width: int  # D
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(self, maps: UInt8[Array, "B T y x"]) -> Float[Array, "B T Q D"]:
    """Raises ValueError if the maps are not config.size pixels a side."""
    cfg = self.config
    if maps.shape[2:] != (cfg.size, cfg.size):
      raise ValueError(
        f"SegmentationEncoder: maps of {maps.shape[2]}x{maps.shape[3]} pixels, expected "
        f"{cfg.size}x{cfg.size}; resize them (nearest) or change SegmentationConfig.size"
      )
    classes = self.param("classes", INIT, (cfg.classes, cfg.width))
    positions = self.param("positions", INIT, (cfg.grid**2, cfg.width))
    x = class_shares(maps, cfg.grid, cfg.classes) @ classes + positions[None, None]
    x = ACTIVATIONS["gelu"](Dense(cfg.width, dtype=self.dtype, name="fc1")(x))
    x = constrain(x, self.rules, "batch", None, None, "mlp")
    last = zeros if cfg.mode == "add" else INIT
    return Dense(self.width, dtype=self.dtype, kernel_init=last, name="fc2")(x)


@typed
def add_maps(
  tokens: Float[Array, "B T P D"], maps: Float[Array, "B T Q D"], present: Bool[Array, "B T"]
) -> Float[Array, "B T P D"]:
  """Adds map tokens to a picture's patch tokens; a class token in front gets nothing.

  Frames without a map come back bit for bit.
  """
  front = tokens.shape[2] - maps.shape[2]
  patches = tokens[:, :, front:]
  patches = jnp.where(present[:, :, None, None], patches + maps, patches)
  return jnp.concatenate([tokens[:, :, :front], patches], axis=2)
