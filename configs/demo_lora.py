"""Adapters on the packaged base weights, on drawn faces: what docs/lora.md shows.

  facejax train --config configs/demo_lora.py --workdir runs/lora
  facejax train --config configs/demo_lora.py --workdir runs/lora_nf4 \
    --config.stages.lora.lora.base=nf4

A few minutes on 2 CPU cores that are free; experiments/lora measures it.
"""

import dataclasses

from facejax import stages
from facejax.config import DataConfig, LoraConfig, MeshConfig, RunConfig, SyntheticConfig
from facejax.models import presets


def get_config() -> RunConfig:
  """Rank and learning rate are ours, for a model a thousand times narrower than FaceLLM's."""
  adapters = stages.adapters(
    steps=60, rows=16, init_from="facejax:demo_base.safetensors", peak_lr=2e-3
  )
  return RunConfig(
    model=presets.demo(vocab=1024),
    data=DataConfig(row_length=352, modalities=(), synthetic=SyntheticConfig(turns=5)),
    stages={
      "lora": dataclasses.replace(
        adapters,
        lora=LoraConfig(rank=8, alpha=16.0),
        # The base has no landmark modules: they stay as they are drawn, and no sample uses them.
        new=(r"(landmark_projector|fusion|segmentation)/.*",),
      )
    },
    mesh=MeshConfig(data=1),
    checkpoint_every=20,
  )
