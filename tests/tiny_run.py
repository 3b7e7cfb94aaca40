"""A run of seconds: a small model, fake batches, three stages. Also a program, to be killed.

python tests/tiny_run.py WORKDIR [--resume]      devices: --devices N
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from facejax import stages, train
from facejax.config import (
  DataConfig,
  DecoderConfig,
  FusionConfig,
  MeshConfig,
  ModelConfig,
  RunConfig,
  SegmentationConfig,
  VitConfig,
)
from facejax.fake import fake_batch

ROWS = 16


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
  samples = 1000

  def __init__(self, model, data, rows, modalities=()):
    self.model, self.data, self.rows, self.modalities = model, data, rows, tuple(modalities)

  def name(self, sample_id: int) -> str:
    return f"sample-{sample_id}"

  def fingerprint(self) -> dict:
    return {"seed": self.data.seed, "rows": self.rows, "reads": list(self.modalities)}

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


def run(workdir: Path, run_config: RunConfig, pipeline=FakePipeline, **arguments) -> int:
  """train() with fake batches."""
  with mock.patch.object(train, "Pipeline", pipeline):
    return train.train(run_config, workdir, **arguments)


if __name__ == "__main__":
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir")
  parser.add_argument("--devices", type=int, default=1)
  parser.add_argument("--resume", action="store_true")
  arguments = parser.parse_args()
  jax.config.update("jax_num_cpu_devices", arguments.devices)
  run_config = config(devices=arguments.devices)
  sys.exit(run(Path(arguments.workdir), run_config, resume=arguments.resume))
