"""Compiled programs kept on disk, where that is safe."""

from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh


def use(mesh: Mesh) -> None:
  """Keeps compiled programs in ~/.cache/facejax/xla, or where JAX_COMPILATION_CACHE_DIR says.

  On several CPU devices they are not kept, wherever that variable points: XLA runs the collectives
  of a program it has just compiled one after another, and loses that order when it reads the
  program back (jaxlib 0.10). Within a process the waiting collectives then take up all threads,
  and the run aborts after a minute; between processes Gloo hands one collective the bytes of
  another. A tiny model of three stages on eight devices: four of four runs died.
  """
  if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu":
    jax.config.update("jax_enable_compilation_cache", False)
  if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "facejax" / "xla"))
  compilation_cache.reset_cache()  # JAX looks at these settings once, at its first program
