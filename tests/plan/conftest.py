"""Small runs to plan, and one compiled step that several tests read."""

import dataclasses

import pytest

from facejax import stages
from facejax.config import DataConfig, DecoderConfig, MeshConfig, ModelConfig, RunConfig, VitConfig
from facejax.plan import compiled, planner, topology


def small(**changes):
  """A run whose step compiles in seconds: no landmarks, all sizes multiples of 4."""
  image = VitConfig(image_size=12, patch=4, width=16, layers=1, heads=2, mlp=28, select_layer=-1)
  decoder = DecoderConfig(
    vocab=60, width=24, layers=1, heads=6, kv_heads=3, head_width=8, mlp=36, max_length=96
  )
  model = ModelConfig(image=image, decoder=decoder, remat="none", attention="xla")
  config = RunConfig(
    model=model,
    data=DataConfig(row_length=80, images_per_row=1, modalities=()),
    stages={"stage2": stages.stage2(steps=3, rows=8)},
    mesh=MeshConfig(data=1, fsdp=4),
  )
  return dataclasses.replace(config, **changes)


@pytest.fixture(scope="session")
def v5e():
  """Four chips that are not here."""
  pytest.importorskip("libtpu")
  return topology.describe("v5e:2x2")


@pytest.fixture(scope="session")
def program(v5e):
  """The compiled step of small()."""
  return compiled.compile_step(small(), "stage2", v5e)


@pytest.fixture(scope="session")
def plan(v5e, program):
  """What it costs."""
  return planner.assess(small(), "stage2", v5e, program, "small")
