"""Vision encoder. pixels [B T Y X 3] -> features [B T P E]. A picture has T = 1.

CLIP's transformer (ViT-L/14 for Face-LLaVA), with LanguageBind's attention over frames in the
video encoder. The features are hidden_states[select_layer]. Blocks behind the selected one, and
the last norm, exist because published checkpoints and counts have them; their work only reaches
out["final"], so that a compiled program without "final" does not do it.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from facejax.config import VitConfig
from facejax.models.attention import Attention
from facejax.models.layers import ACTIVATIONS, INIT, Dense, LayerNorm, unroll
from facejax.sharding import AxisRules, constrain
from facejax.types import typed

# Of red, green and blue in [0, 1]: the statistics that CLIP was trained with.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@typed
def normalise(pixels: UInt8[Array, "*rows 3"]) -> Float[Array, "*rows 3"]:
  """uint8 RGB -> float32 with CLIP's mean and deviation removed."""
  row = (1,) * (pixels.ndim - 1) + (3,)
  return (pixels.astype(jnp.float32) / 255 - MEAN.reshape(row)) / STD.reshape(row)


@typed
def patchify(
  pixels: UInt8[Array, "B T Y X 3"] | Float[Array, "B T Y X 3"], patch: int
) -> UInt8[Array, "B T P n 3"] | Float[Array, "B T P n 3"]:
  """Cuts pictures into patches, row by row; n pixels of a patch, row by row.

  With the channel last, a torch convolution's weight [E 3 p p] becomes the kernel of this order by
  weight.transpose(2, 3, 1, 0).reshape(-1, E).
  """
  B, T, Y, X, _ = pixels.shape
  cut = pixels.reshape(B * T, Y // patch, patch, X // patch, patch * 3).swapaxes(2, 3)
  return cut.reshape(B, T, -1, patch * patch, 3)


class Block(nn.Module):
  """A pre-norm transformer block over the tokens of each frame."""

  config: VitConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "B T P E"]) -> tuple[Float[Array, "B T P E"], None]:
    """Returns (x, None): the carry of a scan and no output."""
    cfg = self.config
    B, T, P, E = x.shape
    norm = lambda name: LayerNorm(cfg.eps, self.dtype, name=name)
    attention = lambda name: Attention(cfg.heads, dtype=self.dtype, rules=self.rules, name=name)
    if cfg.frames:
      # The embedding enters the residual stream in every block, as in LanguageBind's video encoder.
      when = self.param("temporal_embedding", INIT, (cfg.frames, E)).astype(self.dtype)
      x += when[None, :, None]
      y = norm("temporal_norm")(x).swapaxes(1, 2).reshape(B * P, T, E)
      y, _ = attention("temporal_attention")(y, y)
      x += y.reshape(B, P, T, E).swapaxes(1, 2)
    y = norm("attention_norm")(x).reshape(B * T, P, E)
    y, _ = attention("attention")(y, y)
    x += y.reshape(x.shape)
    y = norm("mlp_norm")(x)
    y = ACTIVATIONS[cfg.activation](Dense(cfg.mlp, dtype=self.dtype, name="fc1")(y))
    y = constrain(y, self.rules, "batch", None, None, "mlp")
    x += Dense(E, dtype=self.dtype, name="fc2")(y)
    return constrain(x, self.rules, "batch", None, None, None), None


class Vit(nn.Module):
  """The whole encoder."""

  config: VitConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(
    self, pixels: UInt8[Array, "B T Y X 3"] | Float[Array, "B T Y X 3"]
  ) -> tuple[Float[Array, "B T P E"], dict[str, Any]]:
    """Returns the features and the intermediates by name.

    Pixels are uint8, or floating point if already normalised. The intermediates have the class
    token in front: "embeddings" is hidden_states[0], "selected" hidden_states[select_layer],
    "final" the normed output of the last block. Raises ValueError on another picture size or, with
    temporal attention, another number of frames.
    """
    cfg = self.config
    B, T, *size = pixels.shape[:4]
    if size != [cfg.image_size] * 2:
      raise ValueError(
        f"Vit: pictures of {size[0]}x{size[1]} pixels, expected {cfg.image_size}x{cfg.image_size}; "
        "resize them or change VitConfig.image_size"
      )
    if cfg.frames not in (0, T):
      raise ValueError(
        f"Vit: clips of {T} frames, but temporal attention was made for {cfg.frames}; sample "
        f"{cfg.frames} frames of each clip"
      )
    cut = patchify(pixels, cfg.patch)
    cut = normalise(cut) if cut.dtype == jnp.uint8 else cut
    patches = Dense(cfg.width, False, self.dtype, name="patch")(cut.reshape(B, T, cfg.grid**2, -1))
    first = self.param("class_embedding", INIT, (cfg.width,)).astype(self.dtype)
    first = jnp.broadcast_to(first, (B, T, 1, cfg.width))
    positions = self.param("positions", INIT, (cfg.grid**2 + 1, cfg.width)).astype(self.dtype)
    x = jnp.concatenate([first, patches], axis=2) + positions[None, None]
    x = LayerNorm(cfg.eps, self.dtype, name="pre_norm")(x)
    x = constrain(x, self.rules, "batch", None, None, None)

    selected = cfg.layers + 1 + cfg.select_layer
    y = self._blocks(x, selected, "blocks")
    final = self._blocks(y, cfg.layers - selected, "rest")
    final = LayerNorm(cfg.eps, self.dtype, name="post_norm")(final)
    features = y if cfg.tokens == "all" else y[:, :, 1:]
    return features, {"embeddings": x, "selected": y, "final": final}

  def _blocks(self, x, count: int, name: str):
    if not count:
      return x
    scan = nn.scan(
      Block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      length=count,
      unroll=unroll(count),
    )
    return scan(self.config, self.dtype, self.rules, name=name)(x)[0]
