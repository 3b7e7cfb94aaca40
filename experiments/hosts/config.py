"""The demo's model and drawn faces, 8 rows a step; see run.py."""

from facejax import stages
from facejax.config import DataConfig, MeshConfig, RunConfig
from facejax.models import presets

STEPS = 12
ROWS = 8


def get_config() -> RunConfig:
  """One stage; a checkpoint every third step."""
  return RunConfig(
    model=presets.demo(vocab=1024),
    data=DataConfig(row_length=184),
    stages={"base": stages.base(STEPS, ROWS)},
    mesh=MeshConfig(data=-1, fsdp=2),
    checkpoint_every=3,
    log_every=1,
  )
