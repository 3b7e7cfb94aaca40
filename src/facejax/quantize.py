"""Kernels that are frozen, in 8 or 4 bits. [.. in out] -> integers [.. in out] and scales.

  int8  a scale for each output: symmetric, the largest number of a column is 127.5 steps
  nf4   a scale for each 64 inputs of an output, and a number between as one of the 16 levels of
        NormalFloat (Dettmers et al., arXiv 2305.14314, appendix E); scales are not quantised again

The numbers are those of qwix (the extra `qlora`): its QArray has these two fields, which lie in
our tree as `kernel` and `kernel_scale`. On TPU and GPU two 4-bit numbers share a byte; XLA's CPU
backend gives each a byte of its own.

Two things of qwix do not fit. Its providers, which intercept the products of a model, add their
parameters where the product is traced: inside the custom_vjp of layers.matmul, from which no tracer
may escape (UnexpectedTracerError with qwix 0.1.8; they do work with nn.scan). And it reads nf4
levels by a gather for each number; see dequantized().
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 64  # inputs that share a scale, as in the paper
_STORED = {"int8": jnp.int8, "nf4": jnp.uint4}


def _qwix() -> Any:
  try:
    import qwix
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "LoraConfig.base='int8' and 'nf4' need qwix, which is not installed: pip install "
      "'facejax[qlora]', or set lora.base=model"
    ) from error
  return qwix


def shapes(kernel: jax.ShapeDtypeStruct, base: str) -> tuple[Any, Any]:
  """(integers, scales) of a kernel [.. in out] as ShapeDtypeStruct."""
  *lead, inputs, outputs = kernel.shape
  blocks = 1 if base == "int8" else inputs // _block(inputs)
  held = jax.ShapeDtypeStruct(kernel.shape, _STORED[base])
  return held, jax.ShapeDtypeStruct((*lead, blocks, outputs), jnp.float32)


def quantized(kernel: jax.Array, base: str) -> tuple[jax.Array, jax.Array]:
  """(integers, scales) of a kernel [.. in out], a layer at a time. Call it under jit."""

  def one(layer: jax.Array):
    tiles = {} if base == "int8" else {"tiled_axes": {0: _block(layer.shape[0])}}
    held = _qwix().quantize(layer.astype(jnp.float32), base, channelwise_axes=(1,), **tiles)
    return held.qvalue, held.scale

  return jax.lax.map(one, kernel) if kernel.ndim == 3 else one(kernel)


def dequantized(held: jax.Array, scale: jax.Array, dtype: Any) -> jax.Array:
  """A kernel [in out] again: float32 products, rounded once to `dtype`.

  A level is chosen by the four bits of its number, 15 selections, which XLA fuses with what reads
  the kernel. Compiled for v5e, a product of [4096 4096] matrices takes 0.72 ms in bfloat16, 0.72
  with int8, 1.27 with nf4 so, and 3.41 and 0.2 GB more memory with qwix's dequantize.
  """
  if held.dtype == jnp.int8:
    return _qwix().dequantize(_qwix().QArray(held, scale)).astype(dtype)
  choice, number = [jnp.float32(level) for level in _levels()], held.astype(jnp.int32)
  for bit in range(4):
    odd = (number >> bit) & 1 == 1
    choice = [jnp.where(odd, b, a) for a, b in zip(choice[::2], choice[1::2], strict=True)]
  kernel = choice[0].reshape(scale.shape[0], -1, held.shape[1]) * scale[:, None]
  return kernel.reshape(held.shape).astype(dtype)


@functools.cache
def _levels() -> tuple[float, ...]:
  """The 16 levels of NormalFloat."""
  with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):  # within any step's guard
    every = _qwix().QArray(jnp.arange(16, dtype=jnp.uint4)[:, None], jnp.ones((1, 1)), None, "nf4")
    return tuple(np.asarray(_qwix().dequantize(every))[:, 0].tolist())


def _block(inputs: int) -> int:
  """64, or the largest power of two below that divides the inputs."""
  return math.gcd(inputs, BLOCK)
