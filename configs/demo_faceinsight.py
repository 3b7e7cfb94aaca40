"""FaceInsight on drawn faces, in both modes: scores without training, and fine-tuned.

  facejax demo --config configs/demo_faceinsight.py --workdir runs/demo_faceinsight

The layout of configs/faceinsight_7b.py at the size of configs/demo.py: a frozen ViT for the picture
and its painted map, labels with rules and a graph, adapters in the decoder. Its first stage makes
what LLaVA-1.5 is for the real one: a model that has seen faces and answers yes or no when asked.
The demo asks that model about every label, with no gradient step (training_free), and trains the
second stage (fine_tuned). The package's demo_labels.safetensors is of

  facejax data labels demo_labels.safetensors --config configs/demo_faceinsight.py
"""

import dataclasses

from facejax.config import (
  DataConfig,
  EvaluateConfig,
  LabelsConfig,
  LoraConfig,
  OptimConfig,
  RunConfig,
  SegmentationConfig,
  StageConfig,
  SyntheticConfig,
)
from facejax.models import presets

ADDED = r"(segmentation|labels)/.*"


def model():
  """The demo's model without landmarks, with 64 tokens of a map behind the picture's 64."""
  maps = SegmentationConfig(mode="concat", size=112, grid=8, width=128, form="image")
  labels = LabelsConfig("drawn_faces", weight=4.0)
  made = presets.demo(vocab=1024)
  return dataclasses.replace(made, fusion=None, segmentation=maps, labels=labels)


def get_config() -> RunConfig:
  """Rates, steps and rank are ours, for a model 4,000 times smaller."""
  return RunConfig(
    model=model(),
    data=DataConfig(
      row_length=384,  # 64 tokens of a picture and 64 of its map, and two tasks' questions
      modalities=("segmentation",),
      synthetic=SyntheticConfig(
        faces=20_000, tasks=("attributes", "expression", "presence"), turns=2
      ),
    ),
    stages={
      "base_model": StageConfig(
        trainable=(r"(projector|decoder)/.*",),
        optim=OptimConfig(peak_lr=1e-3),
        steps=400,
        rows=8,
        init_from="facejax:demo_base.safetensors",
        new=(ADDED,),
        over=("facejax:demo_labels.safetensors",),
        modalities=(),
      ),
      "fine_tuned": StageConfig(
        trainable=(r"(projector|segmentation|labels/scores)/.*",),
        optim=OptimConfig(peak_lr=2e-3),
        steps=600,
        rows=8,
        init_from="base_model",
        lora=LoraConfig(rank=16, alpha=32.0),
      ),
    },
    evaluate=EvaluateConfig(faces=300, tasks=("attributes", "expression")),
    checkpoint_every=200,
  )
