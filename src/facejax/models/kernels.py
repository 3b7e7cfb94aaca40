"""Causal attention within segments, by the kernel that a platform has. q, k, v, ids -> mixed.

KERNELS by name: "xla" everywhere, "splash" on TPU (Pallas; computes no tile above the diagonal, no
scores in memory), "cudnn" on GPU, "blocks" on CPU (tiles that the mask hides are left out, at run
time). All give the numbers of attention.attend under causal_mask.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jaxtyping import Array, Float, Int

from facejax.models.attention import attend, causal_mask
from facejax.models.blocks import attend_blocks
from facejax.sharding import AxisRules
from facejax.types import typed

MIXED = "mixed"  # the checkpoint name of what a kernel keeps for its backward pass

Kernel = Callable[..., jax.Array]


@typed
def attend_segments(
  q: Float[Array, "B N L H"],
  k: Float[Array, "B K L H"],
  v: Float[Array, "B K L H"],
  segment_ids: Int[Array, "B L"],
  kernel: str,
  rules: AxisRules,
) -> Float[Array, "B N L H"]:
  """Each position looks at those before it and at itself, in its own segment; padding gives 0.

  Under a mesh, q, k and v are split over rows and heads ("batch", "row_heads"), never over L.
  """
  return KERNELS[kernel](q, k, v, segment_ids, rules)


def kernel_for(name: str, platform: str) -> str:
  """The kernel that ModelConfig.attention means on a platform of JAX; "auto" is its fastest."""
  fastest = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn", "cpu": "blocks"}
  return fastest.get(platform, "xla") if name == "auto" else name


def _xla(q, k, v, segment_ids, rules):
  del rules  # the partitioner splits plain products by itself
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  return attend(q, k, v, causal_mask(segment_ids)).swapaxes(1, 2)


def _cudnn(q, k, v, segment_ids, rules):
  del rules
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  mask = causal_mask(segment_ids)[:, None]
  mixed = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
  return _without_padding(mixed.swapaxes(1, 2), segment_ids)


def _without_padding(mixed: jax.Array, segment_ids: jax.Array) -> jax.Array:
  return jnp.where((segment_ids > 0)[:, None, :, None], mixed, 0)


_TILE = 512  # positions; 1024 are faster on v6e alone, and waste more above the diagonal
_LANES = 128  # a TPU's vector is so wide


def splash_attention(q, k, v, segment_ids, cores: int = 1, interpret: bool = False) -> jax.Array:
  """The Pallas kernel on what one device holds. Rows are padded to whole tiles, heads to 128.

  Tiles that no segment joins are left out, at run time: of a row of 4096, a clip of 2118 and six
  pictures of 311, 24 are computed of the 36 that the diagonal leaves.

  The library's backward kernels stay on one core of a device that has two. The axis that vmap adds
  to their grid may be split, so there the kernel is of one head, mapped over all. (Mapped over two
  halves of the heads, all that it reads and writes is copied: 6 % of a 7B step.)
  """
  (N, L, H), heads = q.shape[1:], k.shape[1]
  split = cores > 1 and heads % cores == 0
  tile = min(_TILE, _LANES * math.ceil(L / _LANES))
  more = -L % tile
  whole = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, -H % _LANES)))
  causal = _causal_kernel(N // heads if split else N, L + more, tile, interpret)
  q = q * jnp.asarray(H**-0.5, q.dtype)

  def one(row):
    q, k, v, ids = row
    attention = functools.partial(
      _within_segments(causal, ids, tile), segment_ids=splash_kernel.SegmentIds(ids, ids)
    )
    if not split:
      return attention(q, k, v)
    by_head = q.reshape(heads, N // heads, *q.shape[1:]), k[:, None], v[:, None]
    return jax.vmap(attention)(*by_head).reshape(q.shape)

  rows = whole(q), whole(k), whole(v), jnp.pad(segment_ids, ((0, 0), (0, more)))
  # Each row has tiles of its own, so rows go one after another. A loop over the one that a chip of
  # a large pod has would copy it in and out: 2 % of a 7B step.
  mixed = one([x[0] for x in rows])[None] if len(q) == 1 else jax.lax.map(one, rows)
  return _without_padding(mixed[:, :, :L, :H], segment_ids)


def _causal_kernel(heads: int, length: int, tile: int, interpret: bool):
  mask = splash_mask.MultiHeadMask([splash_mask.CausalMask((length, length))] * heads)
  sizes = splash_kernel.BlockSizes(
    block_q=tile,
    block_kv=tile,
    block_q_dkv=tile,
    block_kv_dkv=tile,
    block_q_dq=tile,
    block_kv_dq=tile,
  )
  return splash_kernel.make_splash_mha(
    mask,
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name=MIXED,
    interpret=interpret,
  )


def _within_segments(causal, segment_ids: jax.Array, tile: int):
  """A causal kernel that leaves out the tiles in which no query and no key share a segment.

  A tile spans the ids from its lowest to its highest; padding counts as the last segment.
  """
  ids = jnp.where(segment_ids > 0, segment_ids, jnp.iinfo(jnp.int32).max).reshape(-1, tile)
  low, high = ids.min(1, keepdims=True), ids.max(1, keepdims=True)
  queries = jnp.arange(len(ids))[:, None]
  keys = queries.T
  run = (low <= high.T) & (high >= low.T) & (keys <= queries)
  # What is fetched for a tile that is left out is what the next computed one reads: no traffic.
  first = jnp.argmax(run, axis=1, keepdims=True)
  last = len(ids) - 1 - jnp.argmax(run[::-1], axis=0, keepdims=True)

  def only(info, fetched):
    mask = jnp.where(run, info.block_mask[0], 0).astype(info.block_mask.dtype)
    return info._replace(block_mask=mask[None], data_next=fetched.astype(jnp.int32)[None])

  by_query = jnp.minimum(jnp.maximum(keys, first), queries)
  by_key = jnp.minimum(jnp.maximum(queries, keys), last)
  return splash_kernel.SplashAttentionKernel(
    only(causal.fwd_mask_info, by_query),
    only(causal.dq_mask_info, by_query),
    only(causal.dkv_mask_info, by_key),
    **causal.kwargs,
  )


def _splash(q, k, v, segment_ids, rules):
  device = jax.sharding.get_abstract_mesh().abstract_device
  cores = (device and device.num_cores) or 1  # 2 on v4 and v5p
  return _on_each_device(
    functools.partial(splash_attention, cores=cores), q, k, v, segment_ids, rules
  )


_PAIRS = 512  # positions of a row up to which all pairs at once cost a CPU less than tiles


def _blocks(q, k, v, segment_ids, rules):
  if q.shape[2] <= _PAIRS:
    return _xla(q, k, v, segment_ids, rules)
  return _on_each_device(attend_blocks, q, k, v, segment_ids, rules)


def _on_each_device(attention, q, k, v, segment_ids, rules):
  """XLA cannot split a kernel or a loop over tiles: each device takes its own rows and heads."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return attention(q, k, v, segment_ids)
  heads = rules.spec("batch", "row_heads", None, None)
  return jax.shard_map(
    attention,
    in_specs=(heads, heads, heads, rules.spec("batch", None)),
    out_specs=heads,
    check_vma=False,
  )(q, k, v, segment_ids)


KERNELS: dict[str, Kernel] = {"xla": _xla, "splash": _splash, "cudnn": _cudnn, "blocks": _blocks}
