"""A run of seconds: a small model, fake batches, three stages. Also a program, to be killed.

python tests/tiny_run.py WORKDIR [--devices N] [--steps N] [--resume]
"""

import argparse
import dataclasses
import functools
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from facejax import stages, train
from facejax.config import (
  DataConfig,
  DecoderConfig,
  FusionConfig,
  MeshConfig,
  Mixture,
  ModelConfig,
  RunConfig,
  SegmentationConfig,
  VitConfig,
)
from facejax.fake import fake_batch
from facejax.state import TrainState

ROWS = 16

# Dozens of runs on one device share three programs, here and in processes to be killed.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
if jax.config.jax_compilation_cache_dir is None:
  jax.config.update("jax_compilation_cache_dir", str(CACHE))


def model(dtype: str = "float32", fusion: bool = True) -> ModelConfig:
  """One picture of four tokens a row. Without fusion it compiles in half the time."""
  return ModelConfig(
    image=VitConfig(image_size=12, patch=6, width=20, layers=2, heads=5, mlp=28, select_layer=-1),
    decoder=DecoderConfig(
      vocab=61, width=24, layers=2, heads=6, kv_heads=3, head_width=10, mlp=34, max_length=40
    ),
    fusion=FusionConfig(heads=4) if fusion else None,
    segmentation=SegmentationConfig(mode="add", size=14, grid=2, width=22, classes=7),
    dtype=dtype,
    remat="none",
  )


def config(steps: int = 6, devices: int = 8, fusion: bool = False, **changes) -> RunConfig:
  """base -> stage1 -> stage2, `steps` each, a checkpoint every second step."""
  run = RunConfig(
    model=model(fusion=fusion),
    data=DataConfig(row_length=23),
    stages={
      "base": stages.base(steps, ROWS),
      "stage1": stages.stage1(steps, ROWS, accumulate=2, peak_lr=1e-3),
      "stage2": stages.stage2(steps, ROWS, peak_lr=1e-3),
    },
    mesh=MeshConfig(data=-1, fsdp=2 if devices > 1 else 1),
    checkpoint_every=2,
    log_every=2,
  )
  return dataclasses.replace(run, **changes)


class FakePipeline:
  """Random batches as a pure function of the step; the interface of data/pipeline.py."""

  refusals = ()

  def __init__(self, model, data, rows, modalities=(), mixtures=()):
    self.model, self.data, self.rows, self.modalities = model, data, rows, tuple(modalities)
    self.mixtures = [Mixture(data.sources), *mixtures]

  def drawn(self, step: int) -> float:
    return self.rows * step

  def name(self, sample_id: int) -> str:
    return f"sample-{sample_id}"

  def fingerprint(self) -> dict:
    mixtures = [{"start": m.start, "samples": list(m.sources)} for m in self.mixtures]
    reads = list(self.modalities)
    return {"seed": self.data.seed, "rows": self.rows, "reads": reads, "mixtures": mixtures}

  def batch(self, step: int):
    seed = 1000 * self.data.seed + step
    with jax.transfer_guard("allow"):  # fake_batch makes device arrays
      batch = fake_batch(self.model, self.rows, self.data.row_length, seed=seed)
    batch = jax.tree.map(np.asarray, batch)
    landmarks = batch.images.landmarks_valid & ("landmarks" in self.modalities)
    maps = batch.images.segmentation_valid & ("segmentation" in self.modalities)
    images = batch.images.replace(landmarks_valid=landmarks, segmentation_valid=maps)
    return batch.replace(images=images), ()

  def batches(self, start: int, stop: int):
    for step in range(start, stop):
      yield self.batch(step)


def filled(shapes: TrainState) -> TrainState:
  """A state of random numbers: as good as a trained one, and nothing is compiled."""
  draw = np.random.default_rng(3)

  def one(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.device_put(jax.random.key(5), x.sharding)
    return jax.device_put(np.asarray(draw.normal(size=x.shape) * 100).astype(x.dtype), x.sharding)

  return jax.tree.map(one, shapes)


def assert_equal(a, b) -> None:
  assert jax.tree.structure(a) == jax.tree.structure(b)
  plain = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(plain(x), plain(y))


class Slow(FakePipeline):
  """Leaves time to be killed between two steps, which take 5 ms."""

  def batch(self, step: int):
    time.sleep(0.1)
    return super().batch(step)


shared_step = functools.cache(train.make_train_step)


def run(workdir: Path, run_config: RunConfig, pipeline=FakePipeline, **arguments) -> int:
  """train() with fake batches. Runs of equal stages in one process share the compiled step."""
  with mock.patch.multiple(train, Pipeline=pipeline, make_train_step=shared_step):
    return train.train(run_config, workdir, **arguments)


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir")
  parser.add_argument("--devices", type=int, default=1)
  parser.add_argument("--steps", type=int, default=6)
  parser.add_argument("--resume", action="store_true")
  arguments = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", arguments.devices)
  run_config = config(arguments.steps, arguments.devices, log_every=1)
  sys.exit(run(Path(arguments.workdir), run_config, Slow, resume=arguments.resume))
