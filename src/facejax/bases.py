"""The frozen half of a stage with adapters, recognised. parameters -> what is saved about them.

Such a stage saves what trains and finds its base again where the stage's init_from says. A resume,
or an answer, on another base would be wrong without a sign, so a checkpoint says of each parameter:

  decoder/blocks/up/kernel: [24, 896, 4864]@bfloat16 8c1f0a2b     shape, type, hash of 256 numbers

They are the numbers before they are quantised, which are the same on every mesh and platform.
"""

import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

_SAMPLES = 256  # of a parameter, at equal distances; another training run changes all of them
_LISTED = 8


def manifest(params: Mapping[str, jax.Array]) -> dict[str, str]:
  """What is said of each parameter, by path."""
  places = {name: _places(x.shape) for name, x in params.items()}
  pick = lambda params: {name: x[places[name]] for name, x in params.items()}
  mesh = next((s.mesh for x in params.values() if isinstance(s := x.sharding, NamedSharding)), None)
  everywhere = NamedSharding(mesh, PartitionSpec()) if mesh else None
  picked = jax.jit(pick, out_shardings=everywhere)(dict(params))
  return {name: _described(params[name], np.asarray(x)) for name, x in sorted(picked.items())}


def check(saved: Mapping[str, str], found: Mapping[str, str], where: str, source: str) -> None:
  """Raises ValueError naming the parameters that differ from those a checkpoint was trained on."""
  names = [n for n in sorted({*saved, *found}) if saved.get(n) != found.get(n)]
  if names:
    lines = [
      f"{n}: saved {saved.get(n, 'nothing')}, found {found.get(n, 'nothing')}"
      for n in names[:_LISTED]
    ]
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    raise ValueError(
      f"{where} holds adapters of another base than init_from='{source}' is now: {len(names)} of "
      f"{len(saved)} parameters differ\n  " + "\n  ".join([*lines, *more]) + "\n"
      "Put back the base that the stage started from, or start the stage anew."
    )


def _places(shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
  """Where the numbers are taken: index arrays, one an axis."""
  size = int(np.prod(shape, dtype=np.int64))
  flat = np.linspace(0, size - 1, min(size, _SAMPLES)).astype(np.int64)
  return tuple(jnp.asarray(axis, jnp.int32) for axis in np.unravel_index(flat, shape))


def _described(x: jax.Array, numbers: np.ndarray) -> str:
  digest = hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()[:8]
  return f"{list(x.shape)}@{x.dtype} {digest}"
