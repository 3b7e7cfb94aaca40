"""The demo's base model: pictures and text, from random weights, without landmarks and maps.

  python experiments/demo_base/run.py        trains it and writes src/facejax/assets/demo_base.safetensors

It stands in for released weights (the published run starts from Video-LLaVA-7B). Each face is asked
about once per task, five questions in random order, so that one picture gives five labels.
"""

from facejax import stages
from facejax.config import DataConfig, RunConfig, SyntheticConfig
from facejax.models import presets


def get_config() -> RunConfig:
  """Everything but the landmark and segmentation modules trains."""
  return RunConfig(
    model=presets.demo(vocab=1024),
    data=DataConfig(row_length=336, synthetic=SyntheticConfig(faces=1_000_000, turns=5)),
    stages={"base": stages.base(steps=3000, rows=16, peak_lr=1e-3)},
    checkpoint_every=250,
  )
