"""Dense layer, norms and activations. arrays [... features] -> arrays [... features].

Parameters are float32; `dtype` is the type of the computation; norms compute in float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import normal, ones, zeros
from jaxtyping import Array, Float

from facejax.quantize import dequantized
from facejax.types import typed

# Our choice for training from scratch, and what the released code gives new layers.
INIT = normal(0.02)

DENSE = "dense"  # the checkpoint name of every product with a parameter

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def unroll(layers: int) -> int:
  """How many scanned blocks to write out one after another: all of a small model, else one.

  Four layers written out run 10 % faster on a CPU than as a loop (25 % in bfloat16), which copies
  what the backward pass needs in and out of stacks; 32 would compile for minutes (143 s against
  46 s, a 7B step for 256 TPU chips). Parameters are stacked either way.
  """
  return layers if layers <= 8 else 1


class Form(NamedTuple):
  """Letters of the axes of a product's input, matrix and result."""

  x: str
  w: str
  y: str


# One matrix [L H] a head: what attention's kernels read and write. The TPU compiler writes and
# reads that order from the product itself; turned around it afterwards, queries, keys, values and
# their gradients would be copied in each block (9 % of a 7B step).
SPLIT = Form("BLi", "iNH", "BNLH")
JOIN = Form("BNLH", "NHo", "BLo")
FORMS = ("rows", "split", "join")


def rows(ndim: int) -> Form:
  """The last of `ndim` axes by a matrix. They stay apart: flattened, rows that are split along two
  mesh axes would have to be gathered."""
  lead = "abcdefgh"[: ndim - 1]
  return Form(f"{lead}i", "io", f"{lead}o")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def matmul(x: jax.Array, w: jax.Array, out: Any, form: Form) -> jax.Array:
  """x times w with float32 sums on a device, forward and backward; the result has type `out`.

  Without a rule for the backward pass, JAX would multiply a float32 gradient by a bfloat16 matrix,
  in float32.
  """
  return _product(x, w, form, out)


def _matmul_backward(out, form, saved, g):
  x, w = saved
  f, g = form, g.astype(x.dtype)
  dx = _product(g, w, Form(f.y, f.w, f.x), x.dtype)
  return dx, _product(x, g, Form(f.x, f.y, f.w), w.dtype)


matmul.defvjp(lambda x, w, out, form: (matmul(x, w, out, form), (x, w)), _matmul_backward)


def _product(a: jax.Array, b: jax.Array, form: Form, out: Any) -> jax.Array:
  """The einsum of a form; on a CPU as one product of two matrices.

  Asking for float32 sums makes XLA's CPU backend use its bfloat16 kernels. TPUs and GPUs sum in
  float32 whatever the result is; asked for it there, devices would add up gradients in float32,
  which is half as much traffic again: 7 GB and 5 % of the time of a 7B step on 256 chips.
  """
  einsum = lambda a, b: jnp.einsum(f"{form.x},{form.w}->{form.y}", a, b, preferred_element_type=out)
  flat = lambda a, b: _flat(a, b, form).astype(out)
  return jax.lax.platform_dependent(a, b, cpu=flat, default=einsum)


def _flat(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
  """Leading axes are flattened: on a CPU the backward pass of a 3-D product reaches 45 GFLOP/s and
  that of a 2-D product 107."""
  size = {**dict(zip(form.x, a.shape, strict=True)), **dict(zip(form.w, b.shape, strict=True))}
  both = [axis for axis in form.x if axis in form.w]
  rows = [axis for axis in form.x if axis not in both]
  columns = [axis for axis in form.w if axis not in both]
  turn = lambda x, axes, order: x.transpose([axes.index(axis) for axis in order])
  length = lambda axes: math.prod(size[axis] for axis in axes)
  y = jax.lax.dot_general(
    turn(a, form.x, rows + both).reshape(length(rows), length(both)),
    turn(b, form.w, both + columns).reshape(length(both), length(columns)),
    (((1,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
  )
  y = y.reshape([size[axis] for axis in rows + columns])
  return turn(y, "".join(rows + columns), form.y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def quantized_matmul(
  x: jax.Array, held: jax.Array, scale: jax.Array, out: Any, form: Form
) -> jax.Array:
  """matmul() by a frozen kernel in 8 or 4 bits; see quantize.py.

  What the backward pass needs is the quantised kernel, not what becomes of it in `x`'s type.
  """
  return matmul(x, _dequantized(held, scale, x.dtype), out, form)


def _dequantized(held: jax.Array, scale: jax.Array, dtype: Any) -> jax.Array:
  """The kernel, with the axes of heads that `held` has."""
  matrix = held.reshape(-1, scale.shape[-1])
  return dequantized(matrix, scale, dtype).reshape(held.shape)


def _quantized_matmul_backward(out, form, saved, g):
  held, scale, like = saved
  f, g = form, g.astype(like.dtype)
  dx = _product(g, _dequantized(held, scale, like.dtype), Form(f.y, f.w, f.x), like.dtype)
  return dx, np.zeros(held.shape, jax.dtypes.float0), jnp.zeros_like(scale)


quantized_matmul.defvjp(
  lambda x, held, scale, out, form: (
    quantized_matmul(x, held, scale, out, form),
    (held, scale, jnp.zeros((), x.dtype)),
  ),
  _quantized_matmul_backward,
)


def project(
  x: jax.Array, w: jax.Array, out: Any, form: str = "rows", heads: int = 1, scale: Any = None
) -> jax.Array:
  """matmul() of [.. i], or [B N L H] in form "join", by a matrix [i o] with its scales if any."""
  letters = {"rows": rows(x.ndim), "split": SPLIT, "join": JOIN}[form]
  if form == "split":
    w = w.reshape(w.shape[0], heads, -1)
  elif form == "join":
    w = w.reshape(x.shape[1], x.shape[3], -1)
  if scale is None:
    return matmul(x, w, out, letters)
  return quantized_matmul(x, w, scale, out, letters)


class Dense(nn.Module):
  """y = x @ kernel + bias over the last axis.

  If its parameters have an adapter, y = x @ kernel + lora_scale * (x @ lora_a) @ lora_b + bias; see
  lora.py. With a `kernel_scale` the kernel is quantised; see quantize.py. With form "split" the
  features are those of `heads` heads, [B L i] -> [B N L H]; "join" reads them.
  """

  features: int
  bias: bool = True
  dtype: Any = jnp.float32
  kernel_init: Callable = INIT
  out: Any = None  # type of the result, if not `dtype`
  form: str = "rows"  # of FORMS
  heads: int = 1

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "*rows i"]) -> Float[Array, "*result o"]:
    """Returns `features` numbers a row."""
    inputs = x.shape[-1] * (x.shape[1] if self.form == "join" else 1)
    kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
    x, out = x.astype(self.dtype), self.out or self.dtype
    beside: Callable[[str], Any] = lambda name: self.get_variable("params", name)
    scale = beside("kernel_scale")
    held = kernel.astype(self.dtype) if scale is None else kernel
    y = project(x, held, out, self.form, self.heads, scale)
    if self.has_variable("params", "lora_a"):
      first, second = ("rows", "split") if self.form == "split" else (self.form, "rows")
      low = project(x, beside("lora_a").astype(self.dtype), jnp.float32, first)
      low = (low * beside("lora_scale")).astype(self.dtype)
      y += project(low, beside("lora_b").astype(self.dtype), y.dtype, second, self.heads)
    # Remat policies know the product by name: inside matmul, with its own gradient, it is hidden.
    y = checkpoint_name(y, DENSE)
    if self.bias:
      bias = self.param("bias", zeros, (self.features,)).astype(self.dtype)
      bias = bias.reshape(self.heads, 1, -1) if self.form == "split" else bias
      y += bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
    return y


class RMSNorm(nn.Module):
  """Root-mean-square norm over the last axis, in float32."""

  eps: float
  dtype: Any = jnp.float32

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "*rows i"]) -> Float[Array, "*rows i"]:
    """Returns the normed x, in `dtype`."""
    scale = self.param("scale", ones, (x.shape[-1],))
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(self.dtype)


class LayerNorm(nn.Module):
  """Layer norm over the last axis, in float32."""

  eps: float
  dtype: Any = jnp.float32

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "*rows i"]) -> Float[Array, "*rows i"]:
    """Returns the normed x, in `dtype`."""
    row = (1,) * (x.ndim - 1) + (-1,)
    scale = self.param("scale", ones, (x.shape[-1],)).reshape(row)
    bias = self.param("bias", zeros, (x.shape[-1],)).reshape(row)
    y = x.astype(jnp.float32)
    y -= jnp.mean(y, -1, keepdims=True)
    y *= jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
    return (y * scale + bias).astype(self.dtype)


NORMS = {"layer": LayerNorm, "rms": RMSNorm}
