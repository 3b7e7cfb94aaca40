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


def kept(folder, *meshes):
  """Programs in the folder after one more on each mesh."""
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  counts = []
  for number, devices in enumerate(meshes):
    compile_cache.use(mesh(devices))
    jax.jit(lambda x, n=number: x + n)(np.arange(3.0))
    counts.append(len(list(folder.glob("*-cache"))))
  return counts


def test_one_cpu_device_keeps_programs_and_several_do_not(tmp_path):
  """Kills: a program of several CPU devices read back, its collectives in any order; a setting made
  after JAX has looked (a notebook that computed something first), which changes nothing."""
  jax.config.update("jax_enable_compilation_cache", True)
  assert kept(tmp_path, 1, 8, 1) == [1, 1, 1]


def test_who_wants_no_cache_gets_none(tmp_path):
  """Kills: JAX_ENABLE_COMPILATION_CACHE=false overruled."""
  jax.config.update("jax_enable_compilation_cache", False)
  assert kept(tmp_path, 1) == [0]
