"""Every setting of the library, as frozen dataclasses. config_io.py reads and overrides them.

A value that cannot work is refused where it is set: each dataclass checks its own fields.
"""

import dataclasses
import math

from facejax.config_checks import each_once, one_of, within
from facejax.config_data import (
  MODALITIES,
  SPLITS,
  TEMPLATES,
  DataConfig,
  LlavaConfig,
  Mixture,
  SyntheticConfig,
)
from facejax.config_model import (
  DecoderConfig,
  FusionConfig,
  LabelsConfig,
  ModelConfig,
  SegmentationConfig,
  VitConfig,
)

__all__ = [
  "MODALITIES",
  "SPLITS",
  "TEMPLATES",
  "DataConfig",
  "DecoderConfig",
  "EvaluateConfig",
  "FusionConfig",
  "LabelsConfig",
  "LlavaConfig",
  "LoraConfig",
  "MeshConfig",
  "Mixture",
  "ModelConfig",
  "OptimConfig",
  "RunConfig",
  "SegmentationConfig",
  "StageConfig",
  "SyntheticConfig",
  "TrackConfig",
  "VitConfig",
]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """AdamW; the defaults are Face-LLaVA's (specification of the released scripts)."""

  peak_lr: float
  warmup: float = 0.03  # share of the steps, rounded up; linear from 0
  schedule: str = "cosine"  # to 0; or "constant" after the warm-up
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip_norm: float | None = None  # of the global gradient norm; None: no clipping, as released

  def __post_init__(self):
    one_of("OptimConfig.schedule", self.schedule, ("cosine", "constant"))
    within(self, "peak_lr eps weight_decay clip_norm", 0)
    within(self, "warmup b1 b2", 0, 1)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Low-rank adapters beside frozen linears (arXiv 2106.09685); the defaults are FaceLLM's.

  There is no dropout: FaceLLM trains without.
  """

  rank: int = 16
  alpha: float = 32.0  # the product of the two halves is scaled by alpha / rank
  # Regular expressions; the path of a linear must match one in full. Default: all seven of a block.
  targets: tuple[str, ...] = (r"decoder/blocks/(attention/([qkv]|out)|gate|up|down)",)
  # How the frozen kernels of all stacked blocks are held: in ModelConfig.dtype ("model"), or
  # quantised (QLoRA, arXiv 2305.14314): "int8" or "nf4"; see quantize.py
  base: str = "model"

  def __post_init__(self):
    within(self, "rank", 1)
    one_of("LoraConfig.base", self.base, ("model", "int8", "nf4"))
    each_once("LoraConfig.targets", self.targets)
    if not 0 < self.alpha < math.inf:
      raise ValueError(f"LoraConfig.alpha={self.alpha}: expected above 0")


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """What trains, from what, how long. stages.py has the three of Face-LLaVA."""

  # Regular expressions; a parameter path must match one in full. Adapters train beside these.
  trainable: tuple[str, ...]
  optim: OptimConfig
  steps: int
  rows: int  # a step, over all devices
  # "": random; the name of an earlier stage; a .safetensors file ("facejax:X": the package's X); or
  # a folder of released weights, such as Video-LLaVA-7B's
  init_from: str = ""
  new: tuple[str, ...] = ()  # what init_from may lack, as regular expressions; starts fresh
  over: tuple[str, ...] = ()  # .safetensors files of some parameters, in place of init_from's
  # What init_from may lack and starts as another component does: ("image_encoder", "its_copy"), ...
  copied: tuple[tuple[str, str], ...] = ()
  accumulate: int = 1  # micro-batches a step; rows must be a multiple
  modalities: tuple[str, ...] = MODALITIES  # of data.modalities, those this stage reads
  mixtures: tuple[Mixture, ...] = ()  # other sources than data's, each from its step on
  lora: LoraConfig | None = None  # adapters; the checkpoints of the stage then hold no base

  def __post_init__(self):
    within(self, "steps rows accumulate", 1)
    starts = [mixture.start for mixture in self.mixtures]
    if sorted(set(starts)) != starts:
      raise ValueError(f"StageConfig.mixtures start at steps {starts} - expected rising steps")
    for name in self.modalities:
      one_of("StageConfig.modalities", name, MODALITIES)
    if self.rows % self.accumulate:
      raise ValueError(f"StageConfig: rows={self.rows} is no multiple of {self.accumulate=}")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices along each mesh axis. One of them may be -1: all that are left."""

  data: int = -1
  fsdp: int = 1
  context: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """Generated answers on held-out faces."""

  faces: int = 600
  split: str = "test"
  tasks: tuple[str, ...] = ("expression", "action_units", "attributes", "age", "deepfake")
  rows: int = 100  # answered at a time
  new_tokens: int = 64  # an answer is cut after so many
  bootstrap: int = 1000  # resamples behind a 95 % interval

  def __post_init__(self):
    one_of("EvaluateConfig.split", self.split, SPLITS)
    each_once("EvaluateConfig.tasks", self.tasks)
    within(self, "faces rows new_tokens bootstrap", 1)


@dataclasses.dataclass(frozen=True)
class TrackConfig:
  """Benchmarks asked while a stage trains, and the checkpoint that is kept for its answers."""

  suites: tuple[str, ...] = ()  # such as ("rafdb",); (): none. Those of `facejax evaluate --suite`
  data: tuple[str, ...] = ()  # [NAME=]FOLDER, as --data
  settings: tuple[str, ...] = ()  # NAME.OPTION=VALUE, as --set
  every: int = 500  # steps, and behind the last
  limit: int = 100  # items of each suite, evenly spread, the same each time; a split of their own
  new_tokens: int | None = None  # an answer is cut after so many; None: the benchmark's
  best: str = ""  # SUITE.METRIC: the checkpoint with the best one is kept, too; "": none is

  def __post_init__(self):
    within(self, "every limit new_tokens", 1)
    if self.suites:
      each_once("TrackConfig.suites", self.suites)
    elif self.best or self.data or self.settings:
      raise ValueError(
        f"TrackConfig: best={self.best!r}, data={self.data}, settings={self.settings} without "
        "suites - expected at least one - name it in track.suites"
      )


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """A run: one file of configs/."""

  model: ModelConfig
  data: DataConfig
  stages: dict[str, StageConfig]  # run in this order
  mesh: MeshConfig = MeshConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
  track: TrackConfig = TrackConfig()
  seed: int = 0  # of fresh parameters
  checkpoint_every: int = 500  # steps; the last step is always saved
  keep: int = 2  # checkpoints of a stage
  log_every: int = 10  # steps

  def __post_init__(self):
    within(self, "checkpoint_every keep log_every", 1)
    within(self, "seed", 0)

  def reads(self, stage: str) -> tuple[str, ...]:
    """Optional inputs that a stage's model reads: those of data that the stage trains with.

    All of data's where there is no such stage, as with released weights.
    """
    own = self.stages[stage].modalities if stage in self.stages else MODALITIES
    return tuple(name for name in self.data.modalities if name in own)
