"""The parts of a config.json -> ours: encoders, decoders, rotary scaling. See released.py.

What a file must say and does not is an error that names the file and the key. Where transformers
has a default for a key, and the published files rely on it, the default is here (CLIP's activation
is quick_gelu unless the file says otherwise).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facejax.config import DecoderConfig, VitConfig
from facejax.convert.files import read_json

_REQUIRED = object()


# A count above these is damage, and would take hours to lay out before weights are missed.
_MOST = {"num_hidden_layers": 1000}


class Fields(NamedTuple):
  """An object of a JSON file, which knows where it stands."""

  data: dict
  file: Path
  where: str = ""
  defaults: dict = {}  # of the class that wrote the file, which leaves such values out

  @classmethod
  def read(cls, file: Path) -> "Fields":
    """The whole file."""
    return cls(read_json(file), file)

  def get(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
    """The value of a key. Raises ValueError if it is needed and absent, or of another type."""
    value = self.data.get(key)
    value = self.defaults.get(key) if value is None else value
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
    most = _MOST.get(key, 1 << 24)
    if type(value) is not int or not 1 <= value <= most:
      raise ValueError(f"{self.file}: '{self.where}{key}' is {value!r}, expected 1 to {most}")
    return value

  def sub(self, key: str, default: Any = _REQUIRED, defaults: dict | None = None) -> "Fields":
    """An object inside."""
    data = self.get(key, dict, default)
    return Fields(data, self.file, f"{self.where}{key}.", defaults or {})

  def expect(self, key: str, default: Any, *allowed: Any) -> None:
    """Raises ValueError if a key has a value that this library does not implement."""
    value = self.data.get(key, self.defaults.get(key, default))
    if value not in allowed:
      raise ValueError(
        f"{self.file}: '{self.where}{key}' is {value!r}, supported: "
        f"{' or '.join(repr(a) for a in allowed)}"
      )


# Of transformers' classes: a file may leave out what its class has by default, and does so for
# configs inside configs.
CLIP = {
  "hidden_size": 768,
  "intermediate_size": 3072,
  "num_hidden_layers": 12,
  "num_attention_heads": 12,
  "image_size": 224,
  "patch_size": 32,
  "hidden_act": "quick_gelu",
  "layer_norm_eps": 1e-5,
}
INTERN = {
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "num_hidden_layers": 24,
  "num_attention_heads": 16,
  "image_size": [448, 448],
  "patch_size": [14, 14],
  "hidden_act": "gelu",
  "layer_norm_eps": 1e-6,
  "norm_type": "layer_norm",
  "attention_bias": False,
  "use_qk_norm": False,
}
LLAMA = {
  "vocab_size": 32_000,
  "hidden_size": 4096,
  "intermediate_size": 11_008,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-6,
}
QWEN2 = {
  **LLAMA,
  "vocab_size": 151_936,
  "intermediate_size": 22_016,
  "num_key_value_heads": 32,
  "max_position_embeddings": 32_768,
}

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
  activation = fields.get("hidden_act", str, CLIP["hidden_act"])
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
    eps=fields.get("layer_norm_eps", float, CLIP["layer_norm_eps"]),
  )


def intern_vit(fields: Fields, *, qkv_bias: str, qk_norm: str) -> VitConfig:
  """InternViT's config; the names of two switches differ between its two homes."""
  fields.expect("hidden_act", "gelu", "gelu")
  fields.expect("use_mean_pooling", True, True)  # else a last norm would be used
  fields.expect("norm_type", fields.get("norm_type", str), "layer_norm", "rms_norm")
  return VitConfig(
    image_size=fields.size("image_size"),
    patch=fields.size("patch_size"),
    width=fields.size("hidden_size"),
    layers=fields.size("num_hidden_layers"),
    heads=fields.size("num_attention_heads"),
    mlp=fields.size("intermediate_size"),
    select_layer=-1,
    activation="gelu",
    eps=fields.get("layer_norm_eps", float),
    layout="intern",
    norm="rms" if fields.get("norm_type", str) == "rms_norm" else "layer",
    qkv_bias=fields.get(qkv_bias, bool),
    qk_norm=fields.get(qk_norm, bool),
    statistics="imagenet",
  )


def decoder(fields: Fields, tied: bool) -> DecoderConfig:
  """LLaMA's or Qwen2's config. tied: the file has no output head of its own."""
  kind = fields.get("model_type", str, "llama")
  fields.expect("hidden_act", "silu", "silu")
  fields.expect("attention_bias", False, False)  # LLaMA's; it would be on the output too
  fields.expect("use_sliding_window", False, False)
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
    qkv_bias=kind == "qwen2",
    tied=tied,
    rope_factor=factor,
  )


def _rope(fields: Fields) -> tuple[float, float]:
  """(theta, factor): as rope_theta and rope_scaling, or in rope_parameters since transformers 5."""
  scaling = fields.sub("rope_parameters", fields.sub("rope_scaling", {}).data)
  theta = scaling.get("rope_theta", float, fields.get("rope_theta", float, 10_000.0))
  kind = scaling.data.get("rope_type") or scaling.data.get("type") or "default"
  if kind == "default":
    return theta, 1.0
  if kind != "dynamic":
    raise ValueError(f"{fields.file}: rotary scaling {kind!r} - supported: none or 'dynamic'")
  return theta, scaling.get("factor", float)


def dtype(fields: Fields) -> str:
  """Of the computation: float32 if the weights were saved so, else bfloat16."""
  saved = fields.data.get("torch_dtype") or fields.data.get("dtype")
  return "float32" if saved in (None, "float32") else "bfloat16"


def tower(fields: Fields, kind: str, key: str, towers: Mapping[str, Path]) -> Fields:
  """The vision config of an encoder: in its folder, beside the weights, or known by name."""
  beside = fields.file.parent / f"{kind}_tower_config.json"
  for file in ([towers[kind] / "config.json"] if kind in towers else []) + [beside]:
    if file.is_file():
      found = Fields.read(file)
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
  for name in ("tokenizer.model", "tokenizer.json", "vocab.json"):
    if (folder / name).is_file():
      return str(folder / name)
  return "demo"
