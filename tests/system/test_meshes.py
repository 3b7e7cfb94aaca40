"""One run on many meshes has the same losses; one that begins on a mesh may end on another."""

import dataclasses

import numpy as np
import pytest
import tiny_run

from facejax import logs
from facejax.config import (
  DataConfig,
  DecoderConfig,
  FusionConfig,
  MeshConfig,
  ModelConfig,
  SegmentationConfig,
  VitConfig,
)

STEPS = 5
# data, fsdp, context, tensor
MESHES = [(8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 1, 2), (1, 4, 1, 2), (1, 2, 2, 2)]
# Begun on one, ended on the other: rows to slices and back, with and without slices of positions.
MOVES = [(MESHES[0], MESHES[4]), (MESHES[4], MESHES[1]), (MESHES[1], MESHES[2])]


def model() -> ModelConfig:
  """Every axis divides by 8 where parameters are sliced, by 4 where heads are."""
  return ModelConfig(
    image=VitConfig(image_size=12, patch=6, width=16, layers=2, heads=4, mlp=24, select_layer=-1),
    decoder=DecoderConfig(
      vocab=64, width=32, layers=2, heads=8, kv_heads=4, head_width=10, mlp=40, max_length=48
    ),
    fusion=FusionConfig(heads=4),
    segmentation=SegmentationConfig(mode="add", size=14, grid=2, width=24, classes=7),
    dtype="float32",
    remat="none",
  )


def config(mesh: tuple[int, ...]):
  run = tiny_run.config(STEPS, log_every=1, mesh=MeshConfig(*mesh), model=model())
  return dataclasses.replace(run, data=DataConfig(row_length=28))


def losses(workdir) -> list[float]:
  return [r["loss"] for r in logs.read_until(workdir / "base" / "metrics.jsonl", STEPS)]


class Crash(RuntimeError):
  """The process dies."""


class Dying(tiny_run.FakePipeline):
  def batch(self, step):
    if step == 3:
      raise Crash
    return super().batch(step)


@pytest.mark.slow
def test_the_loss_does_not_depend_on_the_mesh(tmp_path):
  """Kills: a sum over the wrong axis, a gradient counted once a copy, positions or masks of a slice
  of a row taken for those of a row; a checkpoint that goes on alone on its own mesh."""
  found = {}
  for mesh in MESHES:
    workdir = tmp_path / "x".join(map(str, mesh))
    assert tiny_run.run(workdir, config(mesh), stages=["base"]) == 0
    found[mesh] = losses(workdir)
  first = found[MESHES[0]]
  assert len(first) == STEPS and np.ptp(first) > 0.01
  for mesh, values in found.items():
    np.testing.assert_allclose(values, first, atol=1e-5, rtol=0, err_msg=str(mesh))
  for mesh, later in MOVES:
    workdir = tmp_path / f"moved_{'x'.join(map(str, mesh))}"
    with pytest.raises(Crash):
      tiny_run.run(workdir, config(mesh), Dying, stages=["base"])
    assert tiny_run.run(workdir, config(later), stages=["base"], resume=True) == 0
    np.testing.assert_allclose(losses(workdir), first, atol=1e-5, rtol=0, err_msg=str(mesh))
