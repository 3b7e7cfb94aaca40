"""config.json of theirs <-> RunConfig.

What a file must say and does not is an error that names the file and the key. Where transformers
has a default for a key, and the published files rely on it, the default is here (CLIP's activation
is quick_gelu unless the file says otherwise).
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from facejax.config import (
  MODALITIES,
  DataConfig,
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  RunConfig,
  VitConfig,
)
from facejax.convert.files import read_json

_REQUIRED = object()


class Fields(NamedTuple):
  """An object of a JSON file, which knows where it stands."""

  data: dict
  file: Path
  where: str = ""

  @classmethod
  def read(cls, file: Path) -> "Fields":
    """The whole file."""
    return cls(read_json(file), file)

  def get(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
    """The value of a key. Raises ValueError if it is needed and absent, or of another type."""
    value = self.data.get(key)
    if value is None:
      if default is _REQUIRED:
        raise ValueError(
          f"{self.file} has no '{self.where}{key}', which the model cannot be built without - "
          "take the config.json that came with the weights"
        )
      return default
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if float in kinds and type(value) is int:
      return float(value)
    if type(value) not in kinds:
      names = " or ".join(k.__name__ for k in kinds)
      raise ValueError(f"{self.file}: '{self.where}{key}' is {value!r}, expected {names}")
    return value

  def size(self, key: str, default: Any = _REQUIRED) -> int:
    """A positive count; [n, n] counts as n."""
    value = self.get(key, (int, list), default)
    value = value[0] if isinstance(value, list) and len(set(map(str, value))) == 1 else value
    if type(value) is not int or value < 1:
      raise ValueError(f"{self.file}: '{self.where}{key}' is {value!r}, expected a count above 0")
    return value

  def sub(self, key: str, default: Any = _REQUIRED) -> "Fields":
    """An object inside."""
    return Fields(self.get(key, dict, default), self.file, f"{self.where}{key}.")

  def expect(self, key: str, default: Any, *allowed: Any) -> None:
    """Raises ValueError if a key has a value that this library does not implement."""
    value = self.data.get(key, default)
    if value not in allowed:
      raise ValueError(
        f"{self.file}: '{self.where}{key}' is {value!r}, supported: "
        f"{' or '.join(repr(a) for a in allowed)}"
      )


# Of transformers' classes, for files that leave them out (llava-hf's do).
CLIP_DEFAULTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}

# Towers that released configs only name, as their repositories' config.json describes them.
_VIT_L = {
  "hidden_size": 1024,
  "num_hidden_layers": 24,
  "num_attention_heads": 16,
  "intermediate_size": 4096,
  "patch_size": 14,
  "layer_norm_eps": 1e-5,
}
KNOWN_TOWERS = {
  "LanguageBind/LanguageBind_Image": {**_VIT_L, "image_size": 224, "hidden_act": "gelu"},
  "LanguageBind/LanguageBind_Video_merge": {
    **_VIT_L,
    "image_size": 224,
    "hidden_act": "gelu",
    "add_time_attn": True,
    "num_frames": 8,
  },
  "openai/clip-vit-large-patch14": {**_VIT_L, "image_size": 224, "hidden_act": "quick_gelu"},
  "openai/clip-vit-large-patch14-336": {**_VIT_L, "image_size": 336, "hidden_act": "quick_gelu"},
}


def clip_vit(fields: Fields, select_layer: int, tokens: str) -> VitConfig:
  """CLIP's vision config. Raises ValueError for a missing key or an unknown activation."""
  activation = fields.get("hidden_act", str, CLIP_DEFAULTS["hidden_act"])
  fields.expect("hidden_act", activation, "gelu", "quick_gelu")
  layers = fields.size("num_hidden_layers")
  if select_layer >= 0:  # counted from the embeddings
    select_layer -= layers + 1
  return VitConfig(
    image_size=fields.size("image_size"),
    patch=fields.size("patch_size"),
    width=fields.size("hidden_size"),
    layers=layers,
    heads=fields.size("num_attention_heads"),
    mlp=fields.size("intermediate_size"),
    select_layer=select_layer,
    tokens=tokens,
    frames=fields.size("num_frames") if fields.data.get("add_time_attn") else 0,
    activation=activation,
    eps=fields.get("layer_norm_eps", float, CLIP_DEFAULTS["layer_norm_eps"]),
  )


def decoder(fields: Fields, *, qkv_bias: bool = False) -> DecoderConfig:
  """LLaMA's or Qwen2's config."""
  fields.expect("hidden_act", "silu", "silu")
  heads, width = fields.size("num_attention_heads"), fields.size("hidden_size")
  theta, factor = _rope(fields)
  return DecoderConfig(
    vocab=fields.size("vocab_size"),
    width=width,
    layers=fields.size("num_hidden_layers"),
    heads=heads,
    kv_heads=fields.size("num_key_value_heads", heads),
    head_width=fields.size("head_dim", width // heads),
    mlp=fields.size("intermediate_size"),
    max_length=fields.size("max_position_embeddings"),
    rope_theta=theta,
    eps=fields.get("rms_norm_eps", float),
    qkv_bias=qkv_bias,
    tied=fields.get("tie_word_embeddings", bool, False),
    rope_factor=factor,
  )


def _rope(fields: Fields) -> tuple[float, float]:
  """(theta, factor): as rope_theta and rope_scaling, or in rope_parameters since transformers 5."""
  scaling = fields.sub("rope_parameters", fields.data.get("rope_scaling") or {})
  theta = scaling.get("rope_theta", float, fields.get("rope_theta", float, 10_000.0))
  kind = scaling.data.get("rope_type") or scaling.data.get("type") or "default"
  if kind == "default":
    return theta, 1.0
  if kind != "dynamic":
    raise ValueError(f"{fields.file}: rotary scaling {kind!r} - supported: none or 'dynamic'")
  return theta, scaling.get("factor", float)


def _dtype(fields: Fields) -> str:
  """Of the computation: float32 if the weights were saved so, else bfloat16."""
  saved = fields.data.get("torch_dtype") or fields.data.get("dtype")
  return "float32" if saved in (None, "float32") else "bfloat16"


def _tower(fields: Fields, kind: str, key: str, folder: Path) -> Fields:
  """The vision config of a tower: beside the weights, or one that is known by name."""
  for name in (f"{kind}_tower_config.json", f"{kind}_tower/config.json"):
    if (folder / name).is_file():
      found = Fields.read(folder / name)
      return found.sub("vision_config") if "vision_config" in found.data else found
  name = fields.get(key, str)
  if name in KNOWN_TOWERS:
    return Fields(KNOWN_TOWERS[name], fields.file, f"{key}.")
  raise ValueError(
    f"{fields.file}: '{key}' is {name!r}, which is not known by name - put its config.json beside "
    f"it as {kind}_tower_config.json"
  )


def tokenizer_in(folder: Path) -> str:
  """What DataConfig.tokenizer is for a folder: its tokenizer's file, or "demo" if it has none."""
  for name in ("tokenizer.model", "tokenizer.json"):
    if (folder / name).is_file():
      return str(folder / name)
  return "demo"


def face_llava(folder: Path, names: Collection[str]) -> RunConfig:
  """The official LlavaConfig of Face-LLaVA and Video-LLaVA. Landmark modules: by `names`."""
  fields = Fields.read(folder / "config.json")
  fields.expect("mm_projector_type", "mlp2x_gelu", "mlp2x_gelu")
  fields.expect("use_landmark_tokens", False, False)
  select = fields.get("mm_vision_select_layer", int)
  feature = fields.get("mm_vision_select_feature", str, "patch")
  fields.expect("mm_vision_select_feature", "patch", "patch", "cls_patch")
  image = clip_vit(
    _tower(fields, "image", "mm_image_tower", folder),
    select,
    "patches" if feature == "patch" else "all",
  )
  # The released video tower keeps the class token whatever mm_vision_select_feature says.
  video = None
  if fields.data.get("mm_video_tower"):
    video = clip_vit(_tower(fields, "video", "mm_video_tower", folder), select, "all")
  text = decoder(fields)
  model = ModelConfig(
    image=image,
    decoder=text,
    video=video,
    fusion=_fusion(fields, names),
    frames=(video.frames if video else 0) or 8,
    dtype=_dtype(fields),
  )
  data = DataConfig(
    row_length=min(fields.size("tokenizer_model_max_length", 2048), text.max_length),
    tokenizer=tokenizer_in(folder),
    resize="pad" if fields.data.get("image_aspect_ratio") == "pad" else "crop",
    modalities=MODALITIES if model.fusion else (),
  )
  return RunConfig(model=model, data=data, stages={})


def _fusion(fields: Fields, names: Collection[str]) -> FusionConfig | None:
  """The landmark modules that the file holds, whatever its config says; None if none."""
  found = [n for n in names if n.startswith(("model.landmarks_", "model.global_landmarks_"))]
  if not found:
    return None
  if "model.landmarks_projector.weight" in found:
    raise ValueError(
      f"{fields.file.parent}: tensor model.landmarks_projector.weight is one plain linear layer "
      "(landmarks_projector_type 'linear', the default of the released code) - supported: "
      "'landmarks_region_projector', one layer a face region"
    )
  if any(n.startswith("model.landmarks_cross_attn.cross_attn.q_proj.") for n in found):
    return FusionConfig(form="masked", grid="yx")  # the released class swaps the axes
  return FusionConfig()  # 8 heads always, in both classes
