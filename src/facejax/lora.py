"""Low-rank adapters: W x + (alpha / rank) B A x, with W frozen. parameters, LoraConfig -> adapters.

They live in the tree of parameters, beside the kernel of the linear that they change (Hu et al.,
arXiv 2106.09685; written for x from the left, as kernels are):

  decoder/blocks/up/kernel      [layers in out]   frozen
  decoder/blocks/up/lora_a      [layers in rank]  trains, float32
  decoder/blocks/up/lora_b      [layers rank out] trains, float32
  decoder/blocks/up/lora_scale  [layers]          alpha / rank, frozen

models/layers.py finds them there: no module is told. qwix's LoraProvider would add them to a model
as it is, but not to this one: quantize.py says why.
"""

import difflib
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from facejax import quantize
from facejax.config import LoraConfig

Flat = dict[str, Any]  # by "/"-joined path

TRAINED = r"(.*/)?lora_[ab]"
_ADAPTER = r"(.*/)?lora_(a|b|scale)"
# Products with points, in float32 whatever the model's type: models/landmark_projector.py.
_NO_DENSE = r"landmark_projector/.*"


def is_adapter(name: str) -> bool:
  """Whether a path is that of an adapter's half or of its scale."""
  return bool(re.fullmatch(_ADAPTER, name))


def flatten(params: Mapping) -> Flat:
  """A tree of parameters by path."""
  return flax.traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict:
  """The inverse of flatten()."""
  return flax.traverse_util.unflatten_dict(dict(flat), sep="/")


def linears(shapes: Mapping) -> tuple[str, ...]:
  """Paths of the linears of a model, without "/kernel": what LoraConfig.targets can match."""
  kernels = (name for name in flatten(shapes) if name.endswith("/kernel"))
  return tuple(name[: -len("/kernel")] for name in kernels if not re.fullmatch(_NO_DENSE, name))


def targets(shapes: Mapping, config: LoraConfig) -> tuple[str, ...]:
  """The linears that get adapters.

  Raises ValueError for a pattern that matches none, or is no regular expression.
  """
  names, chosen = linears(shapes), set()
  for pattern in config.targets:
    try:
      found = {name for name in names if re.fullmatch(pattern, name)}
    except re.error as error:
      raise ValueError(f"LoraConfig.targets: '{pattern}' is no pattern: {error}") from error
    if not found:
      near = difflib.get_close_matches(pattern, names, 3, cutoff=0.4) or names[:3]
      raise ValueError(
        f"LoraConfig.targets: '{pattern}' matches no linear; near it: {', '.join(near)} - expected "
        "a regular expression that matches a whole path"
      )
    chosen |= found
  return tuple(name for name in names if name in chosen)


def with_adapters(shapes: Mapping, config: LoraConfig | None) -> dict:
  """A model's shapes with those of its adapters. Raises ValueError as targets() does."""
  if config is None:
    return dict(shapes)
  flat = flatten(shapes)
  for name in targets(shapes, config):
    *lead, inputs, outputs = flat[f"{name}/kernel"].shape
    if config.rank > min(inputs, outputs):
      raise ValueError(
        f"LoraConfig.rank={config.rank}: {name} is [{inputs} {outputs}] - expected a rank of at "
        f"most {min(inputs, outputs)}, above which adapters are no longer low-rank"
      )
    shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32)
    flat[f"{name}/lora_a"] = shape(*lead, inputs, config.rank)
    flat[f"{name}/lora_b"] = shape(*lead, config.rank, outputs)
    flat[f"{name}/lora_scale"] = shape(*lead)
  return unflatten(flat)


def draw(shapes: Mapping, config: LoraConfig, rng: jax.Array) -> Flat:
  """Fresh adapters by path, which change nothing yet: B is zero.

  A is drawn as PEFT does, by torch's kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(in)
  (the gain is sqrt(2 / (1 + 5)), the bound sqrt(3) times gain / sqrt(in)).
  """
  drawn: Flat = {}
  for number, name in enumerate(targets(shapes, config)):
    *lead, inputs, outputs = flatten(shapes)[f"{name}/kernel"].shape
    bound, key = 1 / math.sqrt(inputs), jax.random.fold_in(rng, number)
    a = jax.random.uniform(key, (*lead, inputs, config.rank), jnp.float32, -bound, bound)
    drawn[f"{name}/lora_a"] = a
    drawn[f"{name}/lora_b"] = jnp.zeros((*lead, config.rank, outputs), jnp.float32)
    drawn[f"{name}/lora_scale"] = jnp.full(tuple(lead), config.alpha / config.rank, jnp.float32)
  return drawn


def merge(params: Mapping, dtype: str | None = None) -> dict:
  """The tree without adapters and quantised kernels: W + scale * A @ B, in float32, rounded once.

  W is what the run computed with: of a quantised kernel what is left of it, not the one before.
  The sum gets the type `dtype`, or that of W; float32 if W was quantised. A tree without adapters
  comes back as it is.
  """
  flat = flatten(params)
  merged = {n: x for n, x in flat.items() if not is_adapter(n) and not n.endswith("/kernel_scale")}
  for name in [n[: -len("/kernel")] for n in merged if n.endswith("/kernel")]:
    part = lambda last, name=name: flat.get(f"{name}/{last}")
    beside = [part(last) for last in ("kernel_scale", "lora_a", "lora_b", "lora_scale")]
    if any(x is not None for x in beside):
      merged[f"{name}/kernel"] = _merged((part("kernel"), *beside), dtype)
  return unflatten(merged)


@functools.partial(jax.jit, static_argnums=1)
def _merged(parts: tuple[Any, ...], dtype: str | None) -> jax.Array:
  """One kernel [.. in out]; a layer at a time, so that one layer alone is ever float32."""

  def one(parts):
    kernel, kernel_scale, a, b, scale = parts
    wide, kept = kernel.astype(jnp.float32), kernel.dtype
    if kernel_scale is not None:
      wide, kept = quantize.dequantized(kernel, kernel_scale, jnp.float32), jnp.float32
    if a is not None:
      exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
      wide += scale * exact(a.astype(jnp.float32), b.astype(jnp.float32))
    return wide.astype(dtype or kept)

  return jax.lax.map(one, parts) if parts[0].ndim == 3 else one(parts)
