"""Vision encoder. pixels [B T Y X 3] -> features [B T P E]. A picture has T = 1.

CLIP's transformer (ViT-L/14 for Face-LLaVA), with LanguageBind's attention over frames in the
video encoder; or InternViT. The features are hidden_states[select_layer]. Blocks behind the
selected one, and the last norm, exist because published checkpoints and counts have them; their
work only reaches out["final"], so that a compiled program without "final" does not do it.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import constant
from jaxtyping import Array, Float, UInt8

from facejax.config import VitConfig
from facejax.models.attention import Attention
from facejax.models.layers import ACTIVATIONS, INIT, NORMS, Dense, LayerNorm, unroll
from facejax.sharding import AxisRules, constrain
from facejax.types import typed

# Mean and deviation of red, green and blue in [0, 1], as each family was trained with.
STATISTICS = {
  "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class Layout(NamedTuple):
  """What the families differ in, besides the settings of VitConfig."""

  patch_bias: bool
  outer_norms: bool  # one before and one behind the blocks
  branch_scale: float | None  # a learned scale on each branch of a block starts so; None: no scale


LAYOUTS = {
  "clip": Layout(patch_bias=False, outer_norms=True, branch_scale=None),
  "intern": Layout(patch_bias=True, outer_norms=False, branch_scale=0.1),  # 0.1: as released
}


@typed
def normalise(pixels: UInt8[Array, "*rows 3"], statistics: str = "clip") -> Float[Array, "*rows 3"]:
  """uint8 RGB -> float32 with the mean and deviation of STATISTICS removed."""
  row = (1,) * (pixels.ndim - 1) + (3,)
  mean, deviation = (np.array(x, np.float32).reshape(row) for x in STATISTICS[statistics])
  return (pixels.astype(jnp.float32) / 255 - mean) / deviation


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
    branch_scale = LAYOUTS[cfg.layout].branch_scale
    norm = lambda name: NORMS[cfg.norm](cfg.eps, self.dtype, name=name)
    attention = lambda name: Attention(
      cfg.heads,
      dtype=self.dtype,
      rules=self.rules,
      qkv_bias=cfg.qkv_bias,
      qk_norm=cfg.eps if cfg.qk_norm else None,
      name=name,
    )

    def scaled(name, y):
      if branch_scale is None:
        return y
      return self.param(name, constant(branch_scale), (E,)).astype(self.dtype)[None, None, None] * y

    if cfg.frames:
      # The embedding enters the residual stream in every block, as in LanguageBind's video encoder.
      when = self.param("temporal_embedding", INIT, (cfg.frames, E)).astype(self.dtype)
      x += when[None, :, None]
      y = norm("temporal_norm")(x).swapaxes(1, 2).reshape(B * P, T, E)
      y, _ = attention("temporal_attention")(y, y)
      x += y.reshape(B, P, T, E).swapaxes(1, 2)
    y = norm("attention_norm")(x).reshape(B * T, P, E)
    y, _ = attention("attention")(y, y)
    x += scaled("attention_scale", y.reshape(x.shape))
    y = norm("mlp_norm")(x)
    y = ACTIVATIONS[cfg.activation](Dense(cfg.mlp, dtype=self.dtype, name="fc1")(y))
    y = constrain(y, self.rules, "batch", None, None, "mlp")
    x += scaled("mlp_scale", Dense(E, dtype=self.dtype, name="fc2")(y))
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
    "final" the output of the last block, normed in layout "clip". Raises ValueError on another
    picture size or, with temporal attention, another number of frames.
    """
    cfg, layout = self.config, LAYOUTS[self.config.layout]
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
    cut = normalise(cut, cfg.statistics) if cut.dtype == jnp.uint8 else cut
    patches = Dense(cfg.width, layout.patch_bias, self.dtype, name="patch")(
      cut.reshape(B, T, cfg.grid**2, -1)
    )
    first = self.param("class_embedding", INIT, (cfg.width,)).astype(self.dtype)
    first = jnp.broadcast_to(first, (B, T, 1, cfg.width))
    positions = self.param("positions", INIT, (cfg.grid**2 + 1, cfg.width)).astype(self.dtype)
    x = jnp.concatenate([first, patches], axis=2) + positions[None, None]
    x = self._outer_norm(x, "pre_norm")
    x = constrain(x, self.rules, "batch", None, None, None)

    selected = cfg.layers + 1 + cfg.select_layer
    y = self._blocks(x, selected, "blocks")
    final = self._blocks(y, cfg.layers - selected, "rest")
    final = self._outer_norm(final, "post_norm")
    features = y if cfg.tokens == "all" else y[:, :, 1:]
    return features, {"embeddings": x, "selected": y, "final": final}

  def _outer_norm(self, x, name: str):
    if not LAYOUTS[self.config.layout].outer_norms:
      return x
    return LayerNorm(self.config.eps, self.dtype, name=name)(x)

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
