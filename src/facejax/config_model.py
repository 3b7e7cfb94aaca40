"""Settings of the model and its parts; import them from facejax.config."""

import dataclasses

from facejax.config_checks import one_of, within
from facejax.types import Kind


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
class LabelsConfig:
  """Scores of facial labels beside the answer, held to statistics and rules (FaceInsight).

  L = L_bce + L_c is the paper's; all numbers here are ours, it does not say.
  """

  rules: str = "celeba40"  # a rule file of the library, or the path of one (.toml): the labels too
  depth: int = 2  # graph convolutions over the labels; 0: no correlation constraint
  # Of a rule's violation: "hinge" or "product"; see knowledge/violations.py. On drawn faces the
  # product broke fewer rules alone (0.020 against 0.096), the hinge cost rare labels less.
  form: str = "hinge"
  rule_weight: float = 1.0  # lambda of L = L_bce + lambda L_c; 0: no logical constraint
  weight: float = 1.0  # target tokens that a labelled picture counts as in the loss

  def __post_init__(self):
    one_of("LabelsConfig.form", self.form, ("product", "hinge"))
    within(self, "depth rule_weight weight", 0)


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
  labels: LabelsConfig | None = None
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
