"""FaceInsight-7B's fine-tuned form (arXiv 2504.15624): LLaVA-1.5 with segmentation maps beside it.

  facejax data labels labels.safetensors --config configs/faceinsight_7b.py
  facejax train --config configs/faceinsight_7b.py --workdir runs/faceinsight \
    --config.stages.fine_tuned.over=labels.safetensors

Its other mode, training_free, takes no gradient step and so is no stage: the released LLaVA-1.5 is
asked for a yes or no to each label, and told what it said, given the rules, in front of a question:

  facejax chat --workdir llava-1.5-7b-hf --image face.png --labels=answers --labels-rules=celeba40 \
    "Describe this person."

The first two take where things are: --config.data.sources=records/celeba (built by facejax data
build), --config.data.tokenizer and --config.stages.fine_tuned.init_from=llava-1.5-7b-hf.

The paper's: LLaVA-1.5 as the base, a segmentation map of the face as a second visual input that a
pretrained ViT encodes and whose features enter the language model beside the picture's, and that
most parameters are frozen. Not in the text that was available to us, so ours: the ViT (the
picture's, frozen, so one set of weights serves both; form="vit" has one of its own), the colours of
the map, a two-layer projector of its own, 576 tokens behind the picture's 576, that adapters of
LLaVA's published rank and rate train in the language model, data, steps and rows. Of the paper's
constraints, the graph convolution over label prompts and L = L_bce + L_c are known; where scores
branch off, the rules (CelebA's 40 labels) and how a picture's loss weighs against its answer's
tokens are ours. No weights of it are published. Nothing here was run at this size by us;
planned on 64 v5e chips (docs/plans.md), a step of 128 samples takes 0.69 s, and 0.47 s with the
map's features added to the picture's instead of behind them (--config.model.segmentation.mode=add
--config.data.row_length=1536).
"""

import dataclasses

from facejax.config import (
  DataConfig,
  LabelsConfig,
  LoraConfig,
  MeshConfig,
  OptimConfig,
  RunConfig,
  SegmentationConfig,
  StageConfig,
)
from facejax.models import presets

SAMPLES = 162_770  # CelebA's training pictures, one question each; one epoch
A_ROW = 2  # pictures of 576 tokens, each with 576 of its map, and their texts
ROWS = 64  # 128 samples a step, as LLaVA-1.5's published fine-tuning


def model():
  """LLaVA-1.5-7B, maps of 336 pixels in patches of 14 (as the picture), and labels."""
  maps = SegmentationConfig(mode="concat", size=336, grid=24, width=4096, form="image")
  labels = LabelsConfig("celeba40")
  return dataclasses.replace(presets.llava_15_7b(), segmentation=maps, labels=labels)


def get_config() -> RunConfig:
  """LLaVA-1.5's published LoRA settings; packed rows and the mesh are ours."""
  return RunConfig(
    model=model(),
    data=DataConfig(
      row_length=2560,  # two samples of 1152 visual tokens
      sources=("records/celeba",),
      images_per_row=2,
      modalities=("segmentation",),
    ),
    stages={
      "fine_tuned": StageConfig(
        trainable=(r"(projector|segmentation|labels/scores)/.*",),
        optim=OptimConfig(peak_lr=2e-4),
        steps=SAMPLES // (A_ROW * ROWS),
        rows=ROWS,
        init_from="llava-1.5-7b-hf",
        new=(r"(segmentation|labels)/.*",),
        lora=LoraConfig(rank=128, alpha=256),
      )
    },
    mesh=MeshConfig(data=1, fsdp=-1),
    checkpoint_every=500,
  )
