"""Second visual stream. class maps [B T y x] -> tokens [B T Q D], one a cell of a grid.

FaceInsight feeds a segmentation map next to the picture, through a pretrained ViT that is frozen
(known from reviews of the paper; which ViT, which colours and how its features reach the language
model are ours). Form "vit" paints the map and gives it to a ViT of its own, "image" to the
picture's; either is followed by a projector, its own or the picture's. Form "shares" is light, and
ours: the share of each class in a cell, embedded, plus a position, through the projector.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros
from jaxtyping import Array, Bool, Float, UInt8

from facejax.config import SegmentationConfig
from facejax.faces.segmentation import PALETTE
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


@typed
def painted(maps: UInt8[Array, "B T y x"]) -> UInt8[Array, "B T y x 3"]:
  """Maps in the colours of faces.segmentation.PALETTE; ids beyond it in those of the background."""
  return jnp.take(jnp.asarray(PALETTE), jnp.where(maps < len(PALETTE), maps, 0), axis=0)


class MapProjector(nn.Module):
  """Features of painted maps -> tokens: LLaVA's two layers.

  With mode "add" a fresh module returns zeros, so it changes nothing.
  """

  config: SegmentationConfig
  width: int  # D
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "B T Q E"]) -> Float[Array, "B T Q D"]:
    """One token a feature."""
    cfg = self.config
    x = ACTIVATIONS["gelu"](Dense(cfg.width, dtype=self.dtype, name="fc1")(x))
    x = constrain(x, self.rules, "batch", None, None, "mlp")
    last = zeros if cfg.mode == "add" else INIT
    return Dense(self.width, dtype=self.dtype, kernel_init=last, name="fc2")(x)


class SegmentationEncoder(MapProjector):
  """Class shares -> tokens."""

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
    return super().__call__(x)


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
