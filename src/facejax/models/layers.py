"""Dense layer, norms and activations. arrays [... features] -> arrays [... features].

Parameters are float32; `dtype` is the type of the computation; norms compute in float32.
"""

import functools
from collections.abc import Callable
from typing import Any

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, w: jax.Array, out: Any) -> jax.Array:
  """[n i] @ [i o] with float32 sums, forward and backward; the result has type `out`.

  Asking for float32 sums makes XLA's CPU backend use its bfloat16 kernels; without a rule for the
  backward pass, JAX would multiply a float32 gradient by a bfloat16 matrix, in float32.
  """
  return jnp.dot(x, w, preferred_element_type=jnp.float32).astype(out)


def _matmul_backward(out, saved, g):
  x, w = saved
  g = g.astype(x.dtype)
  product = lambda a, b, dims: jax.lax.dot_general(
    a, b, (dims, ((), ())), preferred_element_type=jnp.float32
  )
  return product(g, w, ((1,), (1,))).astype(x.dtype), product(x, g, ((0,), (0,))).astype(w.dtype)


matmul.defvjp(lambda x, w, out: (matmul(x, w, out), (x, w)), _matmul_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def quantized_matmul(x: jax.Array, held: jax.Array, scale: jax.Array, out: Any) -> jax.Array:
  """matmul() by a frozen kernel in 8 or 4 bits; see quantize.py.

  What the backward pass needs is the quantised kernel, not what becomes of it in `x`'s type.
  """
  return matmul(x, dequantized(held, scale, x.dtype), out)


def _quantized_matmul_backward(out, saved, g):
  held, scale, like = saved
  g = g.astype(like.dtype)
  kernel = dequantized(held, scale, like.dtype)
  dx = jax.lax.dot_general(g, kernel, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
  return dx.astype(like.dtype), np.zeros(held.shape, jax.dtypes.float0), jnp.zeros_like(scale)


quantized_matmul.defvjp(
  lambda x, held, scale, out: (
    quantized_matmul(x, held, scale, out),
    (held, scale, jnp.zeros((), x.dtype)),
  ),
  _quantized_matmul_backward,
)


class Dense(nn.Module):
  """y = x @ kernel + bias over the last axis.

  If its parameters have an adapter, y = x @ kernel + lora_scale * (x @ lora_a) @ lora_b + bias; see
  lora.py. With a `kernel_scale` the kernel is quantised; see quantize.py.

  Leading axes are flattened first: on a CPU the backward pass of a 3-D product reaches 45 GFLOP/s
  and that of a 2-D product 107.
  """

  features: int
  bias: bool = True
  dtype: Any = jnp.float32
  kernel_init: Callable = INIT
  out: Any = None  # type of the result, if not `dtype`

  @nn.compact
  @typed
  def __call__(self, x: Float[Array, "*rows i"]) -> Float[Array, "*rows o"]:
    """Returns `features` numbers a row."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
    flat = x.reshape(-1, x.shape[-1]).astype(self.dtype)
    beside: Callable[[str], Any] = lambda name: self.get_variable("params", name)
    if (scale := beside("kernel_scale")) is None:
      y = matmul(flat, kernel.astype(self.dtype), self.out or self.dtype)
    else:
      y = quantized_matmul(flat, kernel, scale, self.out or self.dtype)
    if self.has_variable("params", "lora_a"):
      low = matmul(flat, beside("lora_a").astype(self.dtype), jnp.float32) * beside("lora_scale")
      y += matmul(low.astype(self.dtype), beside("lora_b").astype(self.dtype), y.dtype)
    # Remat policies know the product by name: inside matmul, with its own gradient, it is hidden.
    y = checkpoint_name(y, DENSE)
    if self.bias:
      y += self.param("bias", zeros, (self.features,)).astype(self.dtype)[None]
    return y.reshape(*x.shape[:-1], self.features)


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
