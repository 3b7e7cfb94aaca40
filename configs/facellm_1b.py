"""FaceLLM-1B (arXiv 2507.10300): LoRA on InternVL3-1B's language model, on FairFaceGPT.

  facejax train --config configs/facellm_1b.py --workdir runs/facellm_1b \
    --config.data.llava.index=runs/fairfacegpt/dataset.json \
    --config.data.llava.image_folder=fairface_img_margin025 \
    --config.data.tokenizer=InternVL3-1B-hf --config.stages.lora.init_from=InternVL3-1B-hf

8,798,208 of 938,193,024 parameters train. Needs the released folder OpenGVLab/InternVL3-1B-hf
and FairFaceGPT: what `facejax annotate fairface` writes; or what `facejax data build --config` of
this file makes of it or of the released one (layout "fairfacegpt"), named in data.sources. Nothing
here was run at this size by us; experiments/facellm runs all of it small.
`--config configs/facellm_1b.py:multi_tile` trains on up to 12 tiles and a thumbnail of each
picture; one_tile is the script's. Afterwards:

  facejax convert export runs/facellm_1b/lora FaceLLM-1B --format internvl_hf \
    --like InternVL3-1B-hf
"""

from facejax import stages
from facejax.config import DataConfig, MeshConfig, RunConfig
from facejax.models import presets

SAMPLES = 10_954 * 8  # pictures of FairFace's validation split, questions each; one epoch
ROWS = 80  # the script's 10 a device, 8 times accumulated, on one

OPTIONS = {
  "one_tile": (),  # as released: LLaMA-Factory's crop_to_patches is off
  # InternVL3's own tiles. FairFace's pictures of 224 pixels make one each all the same. A row holds
  # as many samples as fit, so an epoch takes fewer steps: set stages.lora.steps.
  "multi_tile": ("data.max_tiles=12", "data.images_per_row=13", "data.row_length=4096"),
}


def get_config() -> RunConfig:
  """Hyper-parameters of the released script; what its batches hold; the mesh is ours."""
  return RunConfig(
    model=presets.internvl3_1b(),
    # A picture a row and thus, as in the script, a sample a row: of up to 2048 tokens, not packed.
    # images_per_row=4 would pack them: rows of far less padding, and other batches.
    data=DataConfig(
      row_length=2048,
      sources=("llava",),
      modalities=(),
      tokenizer="InternVL3-1B-hf",
      template="internvl_system",
      resize="stretch",  # one tile of 448 x 448, as the script trains
    ),
    stages={
      # The last step takes 48 samples of a second epoch; the script's was shorter.
      "lora": stages.adapters(
        steps=-(-SAMPLES // ROWS), rows=ROWS, init_from="InternVL3-1B-hf", accumulate=5
      )
    },
    mesh=MeshConfig(data=1, fsdp=-1),  # 1, 2, 4, 8 or 16 devices share 16 rows
    checkpoint_every=100,
    log_every=5,
  )
