"""Causal attention within segments, tile by tile, for CPUs. q, k, v, segment ids -> mixed values.

A row is cut into tiles of positions. A tile of queries reads the tiles of keys from the first that
one of its segments reaches up to itself, as many as the data says, with a running softmax; scores
of one pair of tiles exist at a time. A packed row of 4000 positions, a clip of 2118 and six
pictures of 311, needs a fifth of the products that all pairs of positions would.

  tiles of  keys 0 1 2 3 4 5        two segments: tiles 0 to 2, and 3 to 5
  queries 0      x
          1      x x
          2      x x x
          3            x
          4            x x
          5            x x x
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facejax.types import typed

TILE = 160  # positions; 128 to 192 take a CPU about as long, 512 twice


@typed
def attend_blocks(
  q: Float[Array, "B N L H"],
  k: Float[Array, "B K L H"],
  v: Float[Array, "B K L H"],
  segment_ids: Int[Array, "B L"],
  tile: int = TILE,
) -> Float[Array, "B N L H"]:
  """The numbers of attention.attend under causal_mask. segment_ids are 0 (padding) to L."""
  B, N, L, H = q.shape
  K, T = k.shape[1], tile
  count = -(-L // T)

  def cut(x):  # [B heads L H] -> [B*count heads T H]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, count * T - L), (0, 0)))
    x = x.reshape(B, -1, count, T, H).swapaxes(1, 2)
    return x.reshape(B * count, -1, T, H)

  ids = jnp.pad(segment_ids, ((0, 0), (0, count * T - L))).reshape(-1, T)
  tiles = _Tiles(ids, _first(segment_ids, ids))
  queries = cut(q * jnp.asarray(H**-0.5, q.dtype)).reshape(B * count, K, -1, H)
  mixed = _mix(queries, cut(k), cut(v), tiles).reshape(B, count, N, T, H)
  return mixed.swapaxes(1, 2).reshape(B, N, count * T, H)[:, :, :L]


class _Tiles(NamedTuple):
  """What is known of each tile of queries; tiles of all rows stand behind each other."""

  ids: jax.Array  # [n T] segment ids
  first: jax.Array  # [n] tiles between it and the first that it reads; -1: it reads none


def _first(segment_ids: jax.Array, ids: jax.Array) -> jax.Array:
  """How many tiles back each tile of queries reads: to the first place of any of its segments."""
  B, L = segment_ids.shape
  count, T = len(ids) // B, ids.shape[1]
  starts = jax.vmap(lambda row: jnp.full(L + 1, L).at[row].min(jnp.arange(L)))(segment_ids)
  start = jnp.take_along_axis(starts, segment_ids, axis=1)
  start = jnp.where(segment_ids > 0, start, count * T)
  start = jnp.pad(start, ((0, 0), (0, count * T - L)), constant_values=count * T)
  start = start.reshape(B, count, T).min(-1) // T
  return jnp.maximum(jnp.arange(count)[None] - start, -1).reshape(-1)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


_HIDDEN = jnp.finfo(jnp.float32).min


def _scores(q, k, tiles: _Tiles, n, m) -> jax.Array:
  """[K R T] float32 logits of the queries of tile n and the keys of tile m; lowest if hidden."""
  R, T = q.shape[1], tiles.ids.shape[1]
  mine, other = tiles.ids[n], tiles.ids[m]
  at = jnp.arange(T)
  seen = (mine[:, None] == other[None]) & ((n - m) * T + at[:, None] >= at[None])
  seen &= (mine > 0)[:, None]
  return jnp.where(jnp.tile(seen, (R // T, 1))[None], _product("KRH,KTH->KRT", q, k), _HIDDEN)


@jax.custom_vjp
def _mix(q: jax.Array, k: jax.Array, v: jax.Array, tiles: _Tiles) -> jax.Array:
  """[n K G*T H], [n K T H], [n K T H] -> [n K G*T H]; q is scaled."""
  return _forward(q, k, v, tiles)[0]


def _forward(q, k, v, tiles: _Tiles):
  K, R, H = q.shape[1:]

  def one(_, n):
    def add(m, sums):
      top, total, mixed = sums
      scores = _scores(q[n], k[m], tiles, n, m)
      higher = jnp.maximum(top, scores.max(-1, keepdims=True))
      weights = jnp.exp(scores - higher)
      shrink = jnp.exp(top - higher)
      total = total * shrink + weights.sum(-1, keepdims=True)
      mixed = mixed * shrink + _product("KRT,KTH->KRH", weights.astype(v.dtype), v[m])
      return higher, total, mixed

    start = (jnp.full((K, R, 1), _HIDDEN), jnp.zeros((K, R, 1)), jnp.zeros((K, R, H)))
    top, total, mixed = jax.lax.fori_loop(n - tiles.first[n], n + 1, add, start)
    real = jnp.tile(tiles.ids[n] > 0, R // tiles.ids.shape[1])[None, :, None]
    mixed = jnp.where(real, mixed / jnp.where(real, total, 1), 0)
    return None, (mixed.astype(v.dtype), jnp.where(real, top + jnp.log(total), 0))

  _, (mixed, log_sum) = jax.lax.scan(one, None, jnp.arange(len(q)))
  return mixed, (q, k, v, tiles, mixed, log_sum)


def _backward(saved, g):
  q, k, v, tiles, mixed, log_sum = saved
  g = g.astype(v.dtype)
  mean = jnp.sum((g * mixed).astype(jnp.float32), -1, keepdims=True)

  def one(sums, n):
    def add(m, sums):
      by_q, by_k, by_v = sums
      weights = jnp.exp(_scores(q[n], k[m], tiles, n, m) - log_sum[n])
      slope = weights * (_product("KRH,KTH->KRT", g[n], v[m]) - mean[n])
      weights, slope = weights.astype(v.dtype), slope.astype(v.dtype)
      by_q += _product("KRT,KTH->KRH", slope, k[m])
      by_k = by_k.at[m].add(_product("KRT,KRH->KTH", slope, q[n]))
      by_v = by_v.at[m].add(_product("KRT,KRH->KTH", weights, g[n]))
      return by_q, by_k, by_v

    by_q, *sums = jax.lax.fori_loop(n - tiles.first[n], n + 1, add, (jnp.zeros(q.shape[1:]), *sums))
    return tuple(sums), by_q.astype(q.dtype)

  zeros = jnp.zeros(k.shape), jnp.zeros(v.shape)
  (by_k, by_v), by_q = jax.lax.scan(one, zeros, jnp.arange(len(q)))
  return by_q, by_k.astype(k.dtype), by_v.astype(v.dtype), None


_mix.defvjp(_forward, _backward)
