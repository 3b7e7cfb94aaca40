"""Attention and rotary positions. queries, keys, values, mask -> mixed values.

Grouped-query throughout: N query heads share K key/value heads, head n reads key head n // G.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from facejax.models.layers import INIT, Dense, RMSNorm
from facejax.sharding import AxisRules, constrain
from facejax.types import typed


@typed
def attention_weights(
  q: Float[Array, "B L N H"],
  k: Float[Array, "B S K H"],
  mask: Bool[Array, "B L S"] | None = None,
  bias: Float[Array, "B L S"] | None = None,
) -> Float[Array, "B N L S"]:
  """softmax(q k / sqrt(H) + bias) over the visible slots, in float32: what attend() mixes with."""
  B, L, N, _ = q.shape
  rows, keys = q.swapaxes(1, 2).reshape(B, k.shape[2], -1, q.shape[3]), k.swapaxes(1, 2)
  bias = _bias(mask, bias, (B, L, k.shape[1]))
  return _softmax(rows, keys, bias, N // k.shape[2]).reshape(B, N, L, -1)


@typed
def attend(
  q: Float[Array, "B L N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K H"],
  mask: Bool[Array, "B L S"] | None = None,
  bias: Float[Array, "B L S"] | None = None,
) -> Float[Array, "B L N H"]:
  """Attention with a float32 softmax. A query that sees no slot gets zeros, not NaN.

  bias is added to the logits of every head.
  """
  heads_first = lambda x: x.swapaxes(1, 2)
  return heads_first(attend_heads(*map(heads_first, (q, k, v)), mask, bias))


@typed
def attend_heads(
  q: Float[Array, "B N L H"],
  k: Float[Array, "B K S H"],
  v: Float[Array, "B K S H"],
  mask: Bool[Array, "B L S"] | None = None,
  bias: Float[Array, "B L S"] | None = None,
) -> Float[Array, "B N L H"]:
  """attend() of arrays in the order that its products read: nothing is turned, no cache copied."""
  B, N, L, H = q.shape
  K, S = k.shape[1:3]
  rows = q.reshape(B, K, -1, H)
  mixed = _mix(rows, k, v, _bias(mask, bias, (B, L, S)), N // K).reshape(q.shape)
  if mask is None:
    return mixed
  return jnp.where(mask.any(-1)[:, None, :, None], mixed, 0)


def _bias(mask, bias, shape: tuple[int, int, int]) -> jax.Array:
  """What is added to the logits [B L S]: the lowest float32 where a slot is hidden."""
  total = jnp.zeros(shape, jnp.float32) if bias is None else bias
  if mask is None:
    return total
  return jnp.where(mask, total, jnp.finfo(jnp.float32).min)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _softmax(rows: jax.Array, k: jax.Array, bias: jax.Array, groups: int) -> jax.Array:
  logits = _product("BKRH,BKSH->BKRS", rows * rows.shape[-1] ** -0.5, k)
  return jax.nn.softmax(logits + jnp.tile(bias, (1, groups, 1))[:, None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(rows: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, groups: int) -> jax.Array:
  """[B K R H], [B K S H], [B K S H], [B L S] -> [B K R H], for R = G * L: one product a key head
  is fewer and larger than one a query head.

  The backward pass is written out: its row sum runs over H, not over S, and its products are in the
  type of the inputs. On a CPU it takes 8 ms where JAX's own takes 20 (32 rows of 160, 4 heads).
  """
  return _mix_forward(rows, k, v, bias, groups)[0]


def _mix_forward(rows, k, v, bias, groups):
  weights = _softmax(rows, k, bias, groups).astype(v.dtype)
  mixed = _product("BKRS,BKSH->BKRH", weights, v).astype(v.dtype)
  return mixed, (rows, k, v, weights, mixed)


def _mix_backward(groups, saved, g):
  rows, k, v, weights, mixed = saved
  B, K, R, H = rows.shape
  slope = _product("BKRH,BKSH->BKRS", g, v)
  mean = jnp.sum((g * mixed).astype(jnp.float32), -1, keepdims=True)
  logits = weights.astype(jnp.float32) * (slope - mean)
  bias = logits.reshape(B, K * groups, R // groups, -1).sum(1)
  logits = logits.astype(rows.dtype)
  return (
    (_product("BKRS,BKSH->BKRH", logits, k) * H**-0.5).astype(rows.dtype),
    (_product("BKRS,BKRH->BKSH", logits, rows) * H**-0.5).astype(k.dtype),
    _product("BKRS,BKRH->BKSH", weights, g).astype(v.dtype),
    bias,
  )


_mix.defvjp(_mix_forward, _mix_backward)


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
  positions: Int[Array, "B L"], head_width: int, theta: float | Float[Array, "B L"]
) -> Float[Array, "2 B L half"]:
  """Cosine and sine of position * theta^(-2i / head_width), float32; the same for every layer."""
  half = head_width // 2
  exponent = (jnp.arange(half, dtype=jnp.float32) / half)[None, None]
  frequency = 1.0 / (theta if isinstance(theta, float) else theta[..., None]) ** exponent
  angle = positions[..., None].astype(jnp.float32) * frequency
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@typed
def stretched_theta(
  positions: Int[Array, "B L"], head_width: int, theta: float, max_length: int, factor: float
) -> Float[Array, "B L"]:
  """The base for rows longer than the model was made for: dynamic NTK, as Qwen2.5 in InternVL3.

  A segment of n > max_length positions takes theta * (factor * n / max_length - (factor - 1)) **
  (head_width / (head_width - 2)), a shorter one theta. n is its last position + 1 among those given
  here, so that a token behind a cache gets the base of its own length, and the keys in the cache
  keep theirs (as in transformers). Segments of a row do not touch each other's base (transformers
  takes the longest of the batch). positions count up by one in a segment.
  """
  L = positions.shape[1]
  goes_on = jnp.pad(positions[:, 1:] == positions[:, :-1] + 1, ((0, 0), (0, 1)))
  end = jax.lax.cummin(jnp.where(goes_on, L, jnp.arange(L)[None]), axis=1, reverse=True)
  n = jnp.take_along_axis(positions, end, axis=1) + 1
  excess = jnp.maximum(n / max_length - 1, 0)
  return theta * (1 + factor * excess) ** (head_width / (head_width - 2))


@typed
def rope(x: Float[Array, "B N L H"], table: Float[Array, "2 B L half"]) -> Float[Array, "B N L H"]:
  """Turns the pairs (i, i + H/2) of each head by the angles of rope_table, in float32."""
  cos, sin = table[:, :, None]
  return _turn(x, cos, sin)


@jax.custom_vjp
def _turn(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """x turned. The backward pass turns back; the table has no gradient, as positions have none."""
  return jax.lax.platform_dependent(x, cos, sin, tpu=_turn_by_matrix, default=_turn_by_halves)


_turn.defvjp(
  lambda x, cos, sin: (_turn(x, cos, sin), (cos, sin)),
  lambda table, g: (_turn(g, table[0], -table[1]), None, None),
)


def _turn_by_halves(x, cos, sin):
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _turn_by_matrix(x, cos, sin):
  """(a, b) -> (-b, a) as a product with a signed permutation, which is exact in any type.

  Halves of 64 numbers do not lie well in a TPU's vectors of 128: split and joined in each block,
  they take 6 % of a 7B step on v5e, the product next to nothing.
  """
  half = x.shape[-1] // 2
  other = jnp.eye(2 * half, k=half, dtype=x.dtype) - jnp.eye(2 * half, k=-half, dtype=x.dtype)
  crossed = jnp.einsum(
    "BNLH,HJ->BNLJ", x, other, precision="highest", preferred_element_type=jnp.float32
  )
  twice = lambda y: jnp.concatenate([y, y], axis=-1)
  return (x.astype(jnp.float32) * twice(cos) + crossed * twice(sin)).astype(x.dtype)


class Attention(nn.Module):
  """Multi-head attention. The output projection, if there is one, has a bias.

  By default q, k and v have one too, as in CLIP and in torch's nn.MultiheadAttention. With qk_norm,
  queries and keys are normed over the whole width before the heads split, as in InternViT-6B.
  """

  heads: int
  kernel_init: Callable = INIT  # of q, k and v
  out_init: Callable | None = INIT  # None: no output projection
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()
  qkv_bias: bool = True
  qk_norm: float | None = None  # eps of the RMS norm of queries and keys; None: no norm

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
      y = Dense(D, self.qkv_bias, self.dtype, self.kernel_init, name=name)(y)
      if self.qk_norm is not None and name != "v":
        y = RMSNorm(self.qk_norm, self.dtype, name=f"{name}_norm")(y)
      y = y.reshape(*y.shape[:2], self.heads, D // self.heads)
      return constrain(y, self.rules, "batch", None, "heads", None)

    q, k, v = project("q", x), project("k", memory), project("v", memory)
    mixed = attend(q, k, v, bias=bias).reshape(x.shape)
    if self.out_init is not None:
      mixed = Dense(D, dtype=self.dtype, kernel_init=self.out_init, name="out")(mixed)
    # The weights are computed again, for pictures: a program that does not use them drops this.
    return mixed, attention_weights(q, k, bias=bias)
