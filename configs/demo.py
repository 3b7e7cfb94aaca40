"""Two stages on drawn faces, from the packaged base weights: what `facejax demo` runs.

  make demo
  facejax train --config configs/demo.py --workdir runs/mine

About 12 minutes on 2 CPU cores; experiments/demo/result.json has the numbers it reached. For your
own photographs in the LLaVA format:

  facejax train --config configs/demo.py --workdir runs/mine --config.data.sources=llava \
    --config.data.llava.index=train.json --config.data.videos_per_row=1 --config.data.row_length=704
"""

from facejax import stages
from facejax.config import DataConfig, RunConfig, SyntheticConfig
from facejax.models import presets


def get_config() -> RunConfig:
  """The learning rates are ours: a model 4,000 times smaller wants larger ones."""
  return RunConfig(
    model=presets.demo(vocab=1024),
    # Five questions a face: 2.4 times as many answers in the same minutes as one question each.
    # 64 visual tokens, 32 of the system prompt, and the longest questions with their answers.
    data=DataConfig(row_length=352, synthetic=SyntheticConfig(turns=5)),
    stages={
      "stage1": stages.stage1(
        steps=150, rows=16, init_from="facejax:demo_base.safetensors", peak_lr=1e-2
      ),
      "stage2": stages.stage2(steps=1400, rows=16, peak_lr=1e-3),
    },
    checkpoint_every=200,
  )
