"""Attention and rotary positions. queries, keys, values, mask -> mixed values.

Grouped-query throughout: N query heads share K key/value heads, head n reads key head n // G.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from facejax.models.layers import INIT, Dense
from facejax.sharding import AxisRules, constrain
from facejax.types import typed


@typed
def attention_weights(
  q: Float[Array, "B L N H"],
  k: Float[Array, "B S K H"],
  mask: Bool[Array, "B L S"] | None = None,
  bias: Float[Array, "B L S"] | None = None,
) -> Float[Array, "B K G L S"]:
  """softmax(q k / sqrt(H) + bias) over the visible slots, in float32.

  The row of a query that sees no slot is uniform; attend() clears what comes of it.
  """
  B, L, N, H = q.shape
  K = k.shape[2]
  # One product a key head, of G * L rows: fewer and larger products than one a query head.
  rows = q.reshape(B, L, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
  logits = jnp.einsum("BKLH,BSKH->BKLS", rows, k, preferred_element_type=jnp.float32)
  logits = logits.reshape(B, K, N // K, L, -1) * H**-0.5
  if bias is not None:
    logits += bias[:, None, None]
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, jnp.finfo(logits.dtype).min)
  return jax.nn.softmax(logits)


@typed
def mix(weights: Float[Array, "B K G L S"], v: Float[Array, "B S K H"]) -> Float[Array, "B L N H"]:
  """Values mixed by attention weights, in the type of v."""
  B, K, G, L, S = weights.shape
  rows = weights.astype(v.dtype).reshape(B, K, G * L, S)
  mixed = jnp.einsum("BKLS,BSKH->BKLH", rows, v, preferred_element_type=jnp.float32)
  return (
    mixed.astype(v.dtype).reshape(B, K, G, L, -1).transpose(0, 3, 1, 2, 4).reshape(B, L, K * G, -1)
  )


@typed
def attend(
  q: Float[Array, "B L N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K H"],
  mask: Bool[Array, "B L S"] | None = None,
) -> Float[Array, "B L N H"]:
  """Attention with a float32 softmax. A query that sees no slot gets zeros, not NaN."""
  mixed = mix(attention_weights(q, k, mask), v)
  if mask is None:
    return mixed
  return jnp.where(mask.any(-1)[..., None, None], mixed, 0)


@typed
def causal_mask(segment_ids: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
  """Who sees whom: earlier positions and itself, inside its own segment. Padding sees nothing.

  segment_ids  1 1 2 2 2 0   sees  0 1 2 3 4 5
                          position 0  x . . . . .
                                   1  x x . . . .
                                   2  . . x . . .
                                   3  . . x x . .
                                   4  . . x x x .
                                   5  . . . . . .
  """
  L = segment_ids.shape[1]
  same = segment_ids[:, :, None] == segment_ids[:, None, :]
  causal = jnp.tri(L, dtype=bool)[None]
  return same & causal & (segment_ids > 0)[:, :, None]


@typed
def rope_table(
  positions: Int[Array, "B L"], head_width: int, theta: float
) -> Float[Array, "2 B L half"]:
  """Cosine and sine of position * theta^(-2i / head_width), float32; the same for every layer."""
  half = head_width // 2
  frequency = 1.0 / theta ** (jnp.arange(half, dtype=jnp.float32) / half)
  angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@typed
def rope(x: Float[Array, "B L N H"], table: Float[Array, "2 B L half"]) -> Float[Array, "B L N H"]:
  """Turns the pairs (i, i + H/2) of each head by the angles of rope_table, in float32."""
  cos, sin = table[:, :, :, None]
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Attention(nn.Module):
  """Multi-head attention with biases on all four projections, without a mask.

  As in CLIP, and as in torch's nn.MultiheadAttention.
  """

  heads: int
  kernel_init: Callable = INIT  # of q, k and v
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()

  @nn.compact
  @typed
  def __call__(
    self,
    x: Float[Array, "B L D"],
    memory: Float[Array, "B S D"],
    bias: Float[Array, "B L S"] | None = None,
  ) -> tuple[Float[Array, "B L D"], Float[Array, "B N L S"]]:
    """Queries from x, keys and values from memory. Also returns the float32 weights."""
    D = x.shape[-1]
    if D % self.heads:
      raise ValueError(f"Attention: width {D} does not divide into heads={self.heads}")

    def project(name, y):
      y = Dense(D, dtype=self.dtype, kernel_init=self.kernel_init, name=name)(y)
      y = y.reshape(*y.shape[:2], self.heads, D // self.heads)
      return constrain(y, self.rules, "batch", None, "heads", None)

    q, k, v = project("q", x), project("k", memory), project("v", memory)
    weights = attention_weights(q, k, bias=bias)
    mixed = mix(weights, v).reshape(x.shape)
    return Dense(D, dtype=self.dtype, name="out")(mixed), weights[:, :, 0]
