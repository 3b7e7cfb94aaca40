"""Compiled programs on disk: where, and where not."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from facejax import compile_cache


@pytest.fixture(autouse=True)
def settings():
  names = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def mesh(devices):
  return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


def test_the_place(monkeypatch):
  """Kills: overriding JAX_COMPILATION_CACHE_DIR; compiling anew at every start."""
  jax.config.update("jax_compilation_cache_dir", "/elsewhere")
  compile_cache.use(mesh(1))
  assert jax.config.jax_compilation_cache_dir == "/elsewhere"
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("HOME", "/home/someone")
  compile_cache.use(mesh(1))
  assert jax.config.jax_compilation_cache_dir == "/home/someone/.cache/facejax/xla"


def test_one_cpu_device_keeps_programs_and_several_do_not(tmp_path):
  """Kills: a program of several CPU devices read back, its collectives in any order; a setting made
  after JAX has looked (a notebook that computed something first), which changes nothing."""
  jax.config.update("jax_compilation_cache_dir", str(tmp_path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  kept = []
  for n, devices in enumerate((8, 1, 8)):
    compile_cache.use(mesh(devices))
    jax.jit(lambda x, n=n: x + n)(np.arange(3.0))
    kept.append(len(list(tmp_path.glob("*-cache"))))
  assert kept == [0, 1, 1]
