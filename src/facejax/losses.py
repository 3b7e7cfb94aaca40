"""Next-token cross-entropy. logits [B L V] or hidden [B L D], targets, weights -> (sum, weight).

Sums, not means: micro-batches and devices hold different numbers of answer tokens, so their means
must not be averaged; their sums and weights may be added, and divided once at the end.

Training takes `of_hidden`: the float32 logits of a row of 4096 tokens would be 0.5 GB for a
vocabulary of 32,000 and 2.5 GB for InternVL3's, and their gradient as much again.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from facejax.sharding import AxisRules
from facejax.types import typed


@typed
def next_token(
  logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weights: Float[Array, "B L"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Weighted sum of -log p(target) in nats, computed in float32, and the sum of the weights.

  A position of weight 0 adds exactly 0, to the gradient too, whatever its target is.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  nll = jax.nn.logsumexp(logits, axis=-1) - chosen
  weights = weights.astype(jnp.float32)
  return jnp.sum(nll * weights), jnp.sum(weights)


@typed
def per_weight(total: Float[Array, "*any"], weight: Float[Array, ""]) -> Float[Array, "*any"]:
  """total / weight, and 0 / 0 = 0: a step whose samples were all refused changes nothing."""
  return total / jnp.where(weight > 0, weight, 1)


@typed
def of_hidden(
  hidden: Float[Array, "B L D"],
  kernel: Float[Array, "D V"],
  targets: Int[Array, "B L"],
  weights: Float[Array, "B L"],
  rules: AxisRules,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """next_token of the logits hidden @ kernel, computed some positions at a time.

  Where a gradient is asked for, it is computed in the same pass, up to the factor that the backward
  pass brings: no logits are kept, and none computed twice. The products' inputs have the type of
  `hidden`, their sums and the softmax are float32. The gradient of a kernel that is frozen costs
  nothing. Under a mesh each device takes its own positions, and its part of the vocabulary.
  """
  weights = weights.astype(jnp.float32)
  return _total(hidden, kernel, targets, weights, rules), jnp.sum(weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _total(hidden, kernel, targets, weights, rules):
  return _sharded(hidden, kernel, targets, weights, rules, False, False)[0]


def _total_forward(hidden, kernel, targets, weights, rules):
  h, k, t, w = (x.value for x in (hidden, kernel, targets, weights))
  total, *slopes = _sharded(h, k, t, w, rules, hidden.perturbed, kernel.perturbed)
  return total, slopes


def _total_backward(rules, slopes, g):
  del rules
  scaled = [None if x is None else (x * g).astype(x.dtype) for x in slopes]
  return *scaled, None, None


_total.defvjp(_total_forward, _total_backward, symbolic_zeros=True)


class _Axes(NamedTuple):
  """Mesh axes that an array of _some is split over; () each without a mesh."""

  rows: tuple[str, ...] = ()  # positions: of B and of L
  width: tuple[str, ...] = ()  # D of the kernel's gradient
  vocab: tuple[str, ...] = ()


def _sharded(hidden, kernel, targets, weights, rules, wants_hidden, wants_kernel):
  """(sum, its gradient by hidden or None, by kernel or None) on every device of the mesh."""
  some = functools.partial(_some, wants_hidden=wants_hidden, wants_kernel=wants_kernel)
  if jax.sharding.get_abstract_mesh().empty:
    return some(hidden, kernel, targets, weights, axes=_Axes())
  flat = lambda *names: tuple(
    axis
    for entry in rules.spec(*names)
    for axis in ((entry,) if isinstance(entry, str) else entry or ())
  )
  axes = _Axes(flat("batch", "length"), flat("width"), flat("vocab"))
  rows = rules.spec("batch", "length")
  by_hidden = rules.spec("batch", "length", None) if wants_hidden else None
  return jax.shard_map(
    functools.partial(some, axes=axes),
    in_specs=(rules.spec("batch", "length", None), rules.spec(None, "vocab"), rows, rows),
    out_specs=(PartitionSpec(), by_hidden, rules.spec("width", "vocab") if wants_kernel else None),
    check_vma=False,
  )(hidden, kernel, targets, weights)


# Float32 logits in memory at a time: 128 MiB, or those of so many positions. Each piece reads the
# kernel once: with fewer positions (221 of InternVL3's 151,674 words) that takes longer than the
# products, of which a v5e does 240 in the time of a byte.
_LOGITS, _POSITIONS = 2**25, 512


def _some(hidden, kernel, targets, weights, *, axes, wants_hidden, wants_kernel):
  """What one device computes of _sharded: its positions, its part of the vocabulary."""
  (D, V), dtype = kernel.shape, hidden.dtype
  size = min(targets.size, max(_POSITIONS, _LOGITS // V))
  parts = math.ceil(targets.size / size)
  cut = lambda x: jnp.pad(x, ((0, parts * size - len(x)), *[(0, 0)] * (x.ndim - 1))).reshape(
    parts, size, *x.shape[1:]
  )
  product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
  first = sum_of = lambda x: x
  if axes.vocab:
    first = lambda x: jax.lax.pmax(x, axes.vocab)
    sum_of = lambda x: jax.lax.psum(x, axes.vocab)
  offset = jax.lax.axis_index(axes.vocab) * V if axes.vocab else 0

  def add(sums, part):
    h, target, weight = part
    logits = product(h, kernel, (((1,), (0,)), ((), ())))
    top = first(logits.max(-1, keepdims=True))
    log_sum = top + jnp.log(sum_of(jnp.exp(logits - top).sum(-1, keepdims=True)))
    own = jnp.arange(V)[None] == (target - offset)[:, None]
    chosen = sum_of(jnp.where(own, logits, 0).sum(-1))
    total = sums[0] + jnp.sum((log_sum[:, 0] - chosen) * weight)
    slope = (jnp.exp(logits - log_sum) - own) * weight[:, None]
    slope = slope.astype(dtype)
    by_hidden = None
    if wants_hidden:
      by_hidden = sum_of(product(slope, kernel, (((1,), (1,)), ((), ())))).astype(dtype)
    by_kernel = None
    if wants_kernel:
      by_kernel = sums[1] + product(h, slope, (((0,), (0,)), ((), ())))
    return (total, by_kernel), by_hidden

  flat = hidden.reshape(-1, D), targets.reshape(-1), weights.reshape(-1)
  zero = jnp.zeros((), jnp.float32), jnp.zeros((D, V), jnp.float32) if wants_kernel else None
  if parts == 1:
    (total, by_kernel), by_hidden = add(zero, flat)
  else:
    (total, by_kernel), by_hidden = jax.lax.scan(add, zero, jax.tree.map(cut, flat))
  if wants_hidden:
    by_hidden = by_hidden.reshape(-1, D)[: targets.size].reshape(hidden.shape)
  if wants_kernel:
    by_kernel = _reduced(by_kernel.astype(kernel.dtype), axes)
  return (jax.lax.psum(total, axes.rows) if axes.rows else total), by_hidden, by_kernel


def _reduced(by_kernel: jax.Array, axes: _Axes) -> jax.Array:
  """The sum over all devices' positions; each keeps the slice of D that it holds of the kernel."""
  scattered = tuple(axis for axis in axes.width if axis in axes.rows)
  if scattered:
    by_kernel = jax.lax.psum_scatter(by_kernel, scattered, scatter_dimension=0, tiled=True)
  rest = tuple(axis for axis in axes.rows if axis not in scattered)
  return jax.lax.psum(by_kernel, rest) if rest else by_kernel
