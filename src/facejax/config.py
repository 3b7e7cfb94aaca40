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
from facejax.types import Kind

__all__ = [
  "MODALITIES",
  "SPLITS",
  "TEMPLATES",
  "DataConfig",
  "DecoderConfig",
  "EvaluateConfig",
  "FusionConfig",
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
  "VitConfig",
]


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """A vision transformer: CLIP's (LanguageBind ViT-L/14 for Face-LLaVA) or InternVL's.

  layout "clip": a norm before and one behind the blocks, patches without a bias. "intern": neither
  norm, patches with a bias, and a learned scale on each branch of a block.
  """

  image_size: int  # pixels a side
  patch: int  # pixels a side
  width: int
  layers: int
  heads: int
  mlp: int
  select_layer: int = -2  # whose output is used, as in hidden_states[select_layer]
  tokens: str = "patches"  # "patches" drops the class token, "all" keeps it in front
  frames: int = 0  # > 0: temporal attention over this many frames in every block
  activation: str = "gelu"  # "gelu" (exact) or "quick_gelu", read from a checkpoint's config
  eps: float = 1e-5
  layout: str = "clip"  # or "intern"
  norm: str = "layer"  # "layer" or "rms", inside the blocks
  qkv_bias: bool = True
  qk_norm: bool = False  # RMS norm of queries and keys over the whole width, before heads split
  statistics: str = "clip"  # mean and deviation taken from the pixels: "clip" or "imagenet"

  def __post_init__(self):
    one_of("VitConfig.tokens", self.tokens, ("patches", "all"))
    one_of("VitConfig.layout", self.layout, ("clip", "intern"))
    one_of("VitConfig.norm", self.norm, ("layer", "rms"))
    one_of("VitConfig.statistics", self.statistics, ("clip", "imagenet"))
    one_of("VitConfig.activation", self.activation, ("gelu", "quick_gelu"))
    within(self, "image_size patch width layers heads mlp", 1)
    within(self, "frames eps", 0)
    if self.image_size % self.patch or self.width % self.heads:
      raise ValueError(
        f"VitConfig: image_size={self.image_size} must be a multiple of patch={self.patch} and "
        f"width={self.width} of heads={self.heads}"
      )
    if not -self.layers - 1 <= self.select_layer <= -1:
      raise ValueError(
        f"VitConfig.select_layer={self.select_layer}: expected -1 to {-self.layers - 1}"
      )

  @property
  def grid(self) -> int:
    """Patches a side; ModelConfig.tokens says what the projector makes of them."""
    return self.image_size // self.patch


@dataclasses.dataclass(frozen=True)
class FusionConfig:
  """Landmark projector and region-guided cross-attention (Face-LLaVA, FRLP and FRGCA)."""

  # "released" (what the released scripts train), "masked" (the released code's other class, with
  # its proximity mask) or "paper" (the figure's, with proximity mask)
  form: str = "released"
  heads: int = 8
  branch_scale: float = 0.1  # not in the paper's form: weight of the landmark branch
  # masked form only: a patch's centre is (x, y), like the landmarks, or (y, x), as the released
  # masked class has it; only "yx" gives that class's numbers
  grid: str = "xy"
  # of a fresh landmark projector: "released" (N(0, 0.02)), or "whitened" by the statistics of drawn
  # faces, which a narrow model needs; see models/landmark_projector.py
  landmark_init: str = "released"

  def __post_init__(self):
    one_of("FusionConfig.landmark_init", self.landmark_init, ("released", "whitened"))
    one_of("FusionConfig.form", self.form, ("released", "masked", "paper"))
    one_of("FusionConfig.grid", self.grid, ("xy", "yx"))
    within(self, "heads", 1)
    if self.grid == "yx" and self.form != "masked":
      raise ValueError(
        f"FusionConfig: grid='yx' with form='{self.form}' - only form='masked' reproduces the "
        "released swap of the axes - set form='masked' or leave grid out"
      )


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
  """The second visual stream: class maps (FaceInsight). mode "off" has no parameters."""

  mode: str = "off"  # "concat": own tokens behind the picture's; "add": added to the picture's
  size: int = 0  # pixels a side of the map as the model takes it
  grid: int = 0  # cells a side; with "concat" grid**2 tokens, with "add" ModelConfig.grid
  width: int = 0  # of the hidden layer, and of the class embedding of form "shares"
  classes: int = 19  # CelebAMask-HQ
  # "shares": of each class in a cell, embedded. Or a ViT sees the map painted in colours: one of
  # its own ("vit"), or the picture's ("image")
  form: str = "shares"
  vit: VitConfig | None = None  # of form "vit"
  projector: str = "own"  # or "image": the picture's, for a ViT of the same width

  def __post_init__(self):
    one_of("SegmentationConfig.mode", self.mode, ("off", "concat", "add"))
    one_of("SegmentationConfig.form", self.form, ("shares", "vit", "image"))
    one_of("SegmentationConfig.projector", self.projector, ("own", "image"))
    within(self, "classes", 1)
    if (self.form == "vit") != (self.vit is not None):
      raise ValueError(
        f"SegmentationConfig: form='{self.form}' and vit={self.vit} - expected a VitConfig with "
        "form='vit', and None with the others"
      )
    if self.mode != "off":
      within(self, "size grid width", 1)
      if self.size % self.grid:
        raise ValueError(
          f"SegmentationConfig: size={self.size} must be a multiple of grid={self.grid}"
        )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A LLaMA-style decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU."""

  vocab: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_width: int
  mlp: int
  max_length: int  # positions it was made for
  rope_theta: float = 10_000.0
  eps: float = 1e-5
  qkv_bias: bool = False
  tied: bool = False  # the output head is the embedding table
  rope_factor: float = 1.0  # samples may be so many times max_length long (dynamic NTK)

  def __post_init__(self):
    within(self, "vocab width layers heads kv_heads head_width mlp max_length rope_factor", 1)
    within(self, "rope_theta eps", 0)
    if self.heads % self.kv_heads:
      raise ValueError(f"DecoderConfig: heads={self.heads} is no multiple of {self.kv_heads=}")

  @property
  def longest(self) -> int:
    """Tokens that a sample may have; a longer one is refused. Rows of several may be longer."""
    return int(self.max_length * self.rope_factor)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A face MLLM. A part that is None (or mode "off") does not exist: it has no parameters."""

  image: VitConfig
  decoder: DecoderConfig
  video: VitConfig | None = None  # None: the frames of a clip go through the image encoder
  projector: str = "mlp"  # LLaVA's mlp2x_gelu; or "pixel_shuffle": InternVL's, a quarter the tokens
  fusion: FusionConfig | None = None
  segmentation: SegmentationConfig = SegmentationConfig()
  frames: int = 8  # of a clip
  dtype: str = "bfloat16"  # of the computation; parameters are float32, softmax and loss too
  remat: str = "full"  # what a decoder block keeps for the backward pass: see models/decoder.py
  attention: str = "auto"  # the decoder's kernel, of models/kernels.py; "auto": the platform's

  def __post_init__(self):
    one_of("ModelConfig.dtype", self.dtype, ("float32", "bfloat16"))
    one_of("ModelConfig.remat", self.remat, ("none", "dots", "full"))
    one_of("ModelConfig.attention", self.attention, ("auto", "xla", "splash", "cudnn", "blocks"))
    one_of("ModelConfig.projector", self.projector, ("mlp", "pixel_shuffle"))
    within(self, "frames", 1)
    if self.video and self.video.frames not in (0, self.frames):
      raise ValueError(
        f"ModelConfig: frames={self.frames} but the video encoder's temporal embedding is made for "
        f"{self.video.frames} frames"
      )
    if self.fusion and self.decoder.width % self.fusion.heads:
      raise ValueError(
        f"ModelConfig: fusion.heads={self.fusion.heads} does not divide the decoder's width "
        f"{self.decoder.width}"
      )
    kinds: tuple[Kind, ...] = ("image", "video")
    for kind in kinds:
      vit, grid = self.encoder(kind), self.grid(kind)
      if self.projector == "pixel_shuffle" and (vit.grid % 2 or vit.tokens == "all"):
        raise ValueError(
          "ModelConfig: projector='pixel_shuffle' joins patches two by two; expected an even "
          f"number a side and no class token, but the {kind} encoder has {vit.grid} a side and "
          f"tokens='{vit.tokens}'; change image_size or patch, set tokens='patches', or take "
          "projector='mlp'"
        )
      if self.segmentation.mode == "add" and self.segmentation.grid != grid:
        raise ValueError(
          f"ModelConfig: segmentation.mode='add' needs segmentation.grid={grid}, the {kind} "
          f"tokens a side behind the projector; got {self.segmentation.grid}"
        )
    self._check_maps()

  def _check_maps(self):
    seg, vit = self.segmentation, self.map_encoder
    if vit and (seg.size, seg.grid) != (vit.image_size, vit.grid):
      raise ValueError(
        f"ModelConfig: segmentation.form='{seg.form}' with size={seg.size}, grid={seg.grid}, but "
        f"its ViT takes {vit.image_size} pixels a side in {vit.grid} patches - expected the same"
      )
    if seg.projector == "image" and (
      vit is None or vit.width != self.image.width or self.projector != "mlp"
    ):
      raise ValueError(
        f"ModelConfig: segmentation.projector='image' with segmentation.form='{seg.form}' and "
        f"projector='{self.projector}' - expected a ViT as wide as the picture's "
        f"({self.image.width}) and projector='mlp'; or take segmentation.projector='own'"
      )

  @property
  def map_encoder(self) -> VitConfig | None:
    """The ViT that sees painted segmentation maps; None if there is none."""
    seg = self.segmentation
    if seg.mode == "off" or seg.form == "shares":
      return None
    return seg.vit if seg.form == "vit" else self.image

  def encoder(self, kind: Kind) -> VitConfig:
    """The encoder that pictures ("image") or the frames of clips ("video") go through."""
    return (self.video or self.image) if kind == "video" else self.image

  def grid(self, kind: Kind) -> int:
    """Tokens a side of a picture or frame, as the decoder reads it."""
    return self.encoder(kind).grid // (2 if self.projector == "pixel_shuffle" else 1)

  def tokens(self, kind: Kind) -> int:
    """Tokens of a picture or frame, as the decoder reads it; with the class token if it is kept."""
    return self.grid(kind) ** 2 + (self.encoder(kind).tokens == "all")


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
class RunConfig:
  """A run: one file of configs/."""

  model: ModelConfig
  data: DataConfig
  stages: dict[str, StageConfig]  # run in this order
  mesh: MeshConfig = MeshConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
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
