"""Face-LLaVA-7B in its two released stages (arXiv 2504.07198), on FaceInstruct-1M.

  facejax train --config configs/face_llava_7b.py --workdir runs/face_llava \
    --config.data.llava.index=dfew.json,rafdb.json --config.data.llava.image_folder=/data/faces \
    --config.data.tokenizer=tokenizer.model --config.stages.stage1.init_from=video_llava.safetensors

Parameters: 7,551,840,256, as published. Needs weights of Video-LLaVA-7B under our names and LLaMA's
tokenizer.model; neither ships with facejax. Nothing here was run at this size by us.
"""

from facejax import stages
from facejax.config import DataConfig, MeshConfig, RunConfig
from facejax.models import presets

SAMPLES = 1_000_000  # FaceInstruct-1M, about; one epoch a stage
# Samples that share a row: 85 % pictures of 311 tokens and 15 % clips of 2118, with texts of other
# lengths. The released stages take 168 and 112 samples a step; 24 and 16 rows hold 160 and 106.
A_ROW = 6.65  # experiments/packing


def get_config() -> RunConfig:
  """Learning rates and schedules of the released scripts; packed rows and the mesh are ours."""
  return RunConfig(
    model=presets.face_llava_7b(),
    # A clip of 8 x 257 tokens and six pictures of 256, with their texts.
    data=DataConfig(
      row_length=4352,
      sources=("llava",),
      images_per_row=6,
      videos_per_row=1,
      modalities=("landmarks",),
    ),
    stages={
      "stage1": stages.stage1(
        steps=int(SAMPLES / A_ROW) // 24, rows=24, init_from="video_llava_7b.safetensors"
      ),
      "stage2": stages.stage2(steps=int(SAMPLES / A_ROW) // 16, rows=16),
    },
    mesh=MeshConfig(data=1, fsdp=-1),
    checkpoint_every=1000,
  )
