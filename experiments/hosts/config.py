"""A model that compiles in seconds, on drawn faces, 8 rows a step; see run.py."""

from facejax import stages
from facejax.config import (
  DataConfig,
  DecoderConfig,
  MeshConfig,
  ModelConfig,
  RunConfig,
  VitConfig,
)

STEPS = 12
ROWS = 8


def get_config() -> RunConfig:
  """One stage; a checkpoint every third step."""
  return RunConfig(
    model=ModelConfig(
      image=VitConfig(image_size=64, patch=16, width=32, layers=2, heads=4, mlp=64),
      decoder=DecoderConfig(
        vocab=1024, width=64, layers=2, heads=4, kv_heads=2, head_width=16, mlp=96, max_length=256
      ),
      dtype="float32",
      remat="none",
    ),
    data=DataConfig(row_length=184, modalities=()),
    stages={"base": stages.base(STEPS, ROWS)},
    mesh=MeshConfig(data=-1, fsdp=2),
    checkpoint_every=3,
    log_every=1,
  )
