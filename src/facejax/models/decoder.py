"""Decoder language model. embeddings [B L D] -> hidden [B L D], and tokens <-> embeddings.

LLaMA's: RMSNorm, rotary positions, grouped-query attention, SwiGLU. The blocks are scanned, so that
a 7B step compiles in the time of one block.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Int

from facejax import losses
from facejax.config import DecoderConfig
from facejax.models.attention import attend_heads, rope, rope_table, stretched_theta
from facejax.models.kernels import MIXED, attend_segments
from facejax.models.layers import DENSE, INIT, Dense, RMSNorm, matmul, rows, unroll
from facejax.sharding import AxisRules, constrain
from facejax.types import Cache, typed

# Checkpoint names: queries and keys behind their rotary positions; the sum behind attention.
TURNED, MIDDLE = "turned", "middle"

# What a block keeps for the backward pass. "dots": the products with parameters, queries and keys
# as attention sees them, what its kernel keeps, and the sum behind it; of these only what the
# backward pass reads is stored, 6.1 GB for a row of 2048 in Face-LLaVA-7B, and no product is
# computed twice. "full": nothing, a block is computed twice. "none": everything.
REMAT = {
  "dots": jax.checkpoint_policies.save_only_these_names(DENSE, TURNED, MIXED, MIDDLE),
  "full": jax.checkpoint_policies.nothing_saveable,
}


# Keys and values of all layers.
Stacks = tuple[Float[Array, "layers B K S H"], Float[Array, "layers B K S H"]]


class SelfAttention(nn.Module):
  """Grouped-query attention with rotary positions, over the row or over a layer of a cache."""

  config: DecoderConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()
  kernel: str = "xla"  # of kernels.KERNELS, for rows without a cache

  @nn.compact
  @typed
  def __call__(
    self,
    x: Float[Array, "B L D"],
    table: Float[Array, "2 B L half"],
    seen: Bool[Array, "B L S"] | Int[Array, "B L"],
    cache: Stacks | None = None,
    layer: Int[Array, ""] | int | None = None,
    slot: Int[Array, ""] | int = 0,
  ) -> tuple[Float[Array, "B L D"], Stacks | None]:
    """`seen` holds segment ids, attention is then causal within a segment; or a mask over slots.

    The new keys and values are written to `layer` of the cache, if there is one, from `slot` on.
    """
    cfg, length = self.config, "length" if cache is None else None

    def project(name, heads, axis):
      y = Dense(
        heads * cfg.head_width, cfg.qkv_bias, self.dtype, form="split", heads=heads, name=name
      )(x)
      return constrain(y, self.rules, "batch", axis, length, None)

    q = rope(project("q", cfg.heads, "heads"), table)
    k = rope(project("k", cfg.kv_heads, "kv_heads"), table)
    v = project("v", cfg.kv_heads, "kv_heads")
    if cache is not None and layer is not None:
      write = lambda old, new: jax.lax.dynamic_update_slice(
        old, new[None].astype(old.dtype), (layer, 0, 0, slot, 0)
      )
      cache = (write(cache[0], k), write(cache[1], v))
    if seen.ndim == 2:
      whole_rows = lambda y: constrain(y, self.rules, "batch", "row_heads", None, None)
      q, k, v = (whole_rows(checkpoint_name(y, TURNED)) for y in (q, k, v))
      mixed = attend_segments(q, k, v, seen, self.kernel, self.rules)
      mixed = constrain(mixed, self.rules, "batch", "heads", length, None)
    else:
      assert cache is not None and layer is not None
      keys, values = (jax.lax.dynamic_index_in_dim(x, layer, keepdims=False) for x in cache)
      mixed = attend_heads(q, keys, values, seen)
    return Dense(x.shape[-1], False, self.dtype, form="join", name="out")(mixed), cache


class Block(nn.Module):
  """Pre-norm attention and SwiGLU."""

  config: DecoderConfig
  dtype: Any = jnp.float32
  rules: AxisRules = AxisRules()
  kernel: str = "xla"

  @nn.compact
  def __call__(self, carry, layer, table, seen, slot):
    """carry: (x, keys and values of all layers). The second result is a scan's output: none."""
    x, cache = carry
    cfg, length = self.config, "length" if cache is None else None
    norm = lambda name: RMSNorm(cfg.eps, self.dtype, name=name)
    dense = lambda features, name: Dense(features, False, self.dtype, name=name)
    attention = SelfAttention(cfg, self.dtype, self.rules, self.kernel, name="attention")
    y, cache = attention(norm("attention_norm")(x), table, seen, cache, layer, slot)
    x = checkpoint_name(_by_rows(x + y), MIDDLE)
    y = norm("mlp_norm")(x)
    y = jax.nn.silu(dense(cfg.mlp, "gate")(y)) * dense(cfg.mlp, "up")(y)
    y = constrain(y, self.rules, "batch", length, "mlp")
    x = _by_rows(x + dense(cfg.width, "down")(y))
    return (constrain(x, self.rules, "batch", length, None), cache), None


def _by_rows(x: jax.Array) -> jax.Array:
  """x [B L D] with a position's numbers side by side in a TPU's memory.

  Left to itself, its compiler keeps what the backward pass needs the other way around, and turns it
  in each block: 3 to 4 % of the decoder's time on v5e and v5p.
  """
  turned = lambda x: with_layout_constraint(x, Layout(tuple(range(x.ndim))))
  return jax.lax.platform_dependent(x, tpu=turned, default=lambda x: x)


class Decoder(nn.Module):
  """The language model between token embeddings and logits."""

  config: DecoderConfig
  dtype: Any = jnp.float32
  remat: str = "none"
  rules: AxisRules = AxisRules()
  kernel: str = "xla"
  apart: bool = False  # its parameters are take_apart()'s

  def setup(self):
    """Names the parts."""
    cfg = self.config
    self.embedding = self.param("embedding", INIT, (cfg.vocab, cfg.width))
    policy = REMAT.get(self.remat)
    block = Block if policy is None else nn.remat(Block, policy=policy, prevent_cse=False)
    one = cfg, self.dtype, self.rules, self.kernel
    if self.apart:
      self.layers = [block(*one) for _ in range(cfg.layers)]
    else:
      scan = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
        length=cfg.layers,
        unroll=unroll(cfg.layers),
      )
      self.blocks = scan(*one)
    self.norm = RMSNorm(cfg.eps, self.dtype)
    if not cfg.tied:
      self.head = Dense(cfg.vocab, False, self.dtype, out=jnp.float32)

  @typed
  def embed(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """Token embeddings."""
    return jnp.asarray(self.embedding, self.dtype)[tokens]

  @typed
  def __call__(
    self,
    x: Float[Array, "B L D"],
    positions: Int[Array, "B L"],
    seen: Bool[Array, "B L S"] | Int[Array, "B L"],
    cache: Cache | None = None,
  ) -> tuple[Float[Array, "B L D"], Cache | None]:
    """Normed hidden states. `seen` says what a position attends to.

    Segment ids [B L]: a position sees itself and those before it in its segment, among those given
    here. A mask [B L S]: row b's query i sees slot j of the cache. Keys and values are written to
    the L slots from cache.filled on; which of them are valid is the caller's to say. A row of
    several samples may be longer than config.longest, as each has its own positions; a sample that
    is longer is refused where rows are laid out.
    """
    cfg, length = self.config, "length" if cache is None else None
    x = constrain(x.astype(self.dtype), self.rules, "batch", length, None)
    theta: float | jax.Array = cfg.rope_theta
    if seen.shape[-1] > cfg.max_length and cfg.rope_factor > 1:
      theta = stretched_theta(positions, cfg.head_width, theta, cfg.max_length, cfg.rope_factor)
    table = rope_table(positions, cfg.head_width, theta)
    if cache is None:
      (x, _), _ = self.blocks((x, None), None, table, seen, 0)
      return self.norm(x), None
    through = self._apart if self.apart else self._stacked
    x, (keys, values) = through(x, (cache.keys, cache.values), table, seen, cache.filled)
    filled = cache.filled + positions.shape[1]
    return self.norm(x), dataclasses.replace(cache, keys=keys, values=values, filled=filled)

  def _stacked(self, x, cache, *shared):
    """The stacks go around: each layer writes its new slots and reads its own, copying neither."""
    return self.blocks((x, cache), jnp.arange(self.config.layers), *shared)[0]

  def _apart(self, x, cache, *shared):
    new = []
    for block, own in zip(self.layers, zip(*cache, strict=True), strict=True):
      (x, own), _ = block((x, tuple(y[None] for y in own)), 0, *shared)
      new.append(tuple(y[0] for y in own))
    return x, tuple(zip(*new, strict=True))

  @typed
  def logits(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Scores of the next token. Sums and scores are float32, the products' inputs `dtype`."""
    if self.config.tied:
      table = self.embedding.astype(self.dtype)
      scores = matmul(hidden, table.T, jnp.float32, rows(3))
    else:
      scores = self.head(hidden)
    return constrain(scores, self.rules, "batch", None, "vocab")

  @typed
  def loss(
    self,
    hidden: Float[Array, "B L D"],
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"],
  ) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """losses.next_token of logits(hidden), which are never all in memory."""
    tied = self.config.tied
    kernel = self.embedding.T if tied else self.head.get_variable("params", "kernel")
    return losses.of_hidden(hidden, kernel.astype(self.dtype), targets, weights, self.rules)


def take_apart(params: dict[str, Any]) -> dict[str, Any]:
  """A decoder's parameters with each layer's arrays by themselves, for Decoder.apart.

  A loop that draws tokens would cut them out of the stacks of all layers for every token.
  """
  blocks = params["blocks"]
  count = len(jax.tree.leaves(blocks)[0])
  layers = {f"layers_{i}": jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(count)}
  return {**{name: x for name, x in params.items() if name != "blocks"}, **layers}
