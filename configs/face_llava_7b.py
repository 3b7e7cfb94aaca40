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


def get_config() -> RunConfig:
  """Learning rates, rows and schedules of the released scripts; the mesh is ours."""
  return RunConfig(
    model=presets.face_llava_7b(),
    # 8 x 257 tokens of a clip, and text up to the released limit of 3072 positions.
    data=DataConfig(
      row_length=3072,
      sources=("llava",),
      images_per_row=1,
      videos_per_row=1,
      modalities=("landmarks",),
    ),
    stages={
      "stage1": stages.stage1(
        steps=SAMPLES // 168, rows=168, init_from="video_llava_7b.safetensors"
      ),
      "stage2": stages.stage2(steps=SAMPLES // 112, rows=112),
    },
    mesh=MeshConfig(data=1, fsdp=-1),
    checkpoint_every=1000,
  )
