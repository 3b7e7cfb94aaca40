"""A released folder's config.json and names -> family and RunConfig.

model_type                       family
llava, with mm_image_tower       face_llava      Face-LLaVA, Video-LLaVA
llava, with mm_vision_tower      llava           LLaVA-1.5 as its authors wrote it
llava, with vision_config        llava_hf        the same from transformers
internvl                         internvl_hf     InternVL3-hf, FaceLLM
internvl_chat                    internvl        InternVL3 as its authors wrote it
clip, LanguageBindImage, ...     image_encoder or video_encoder: one encoder
llama, qwen2                     decoder: a language model alone
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from facejax.config import (
  MODALITIES,
  DataConfig,
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  RunConfig,
  VitConfig,
)
from facejax.convert import configs
from facejax.convert.configs import Fields

AnyConfig = RunConfig | VitConfig | DecoderConfig


def read(folder: Path, names: Collection[str], towers: Mapping[str, Path]) -> tuple[str, AnyConfig]:
  """(family, config) of a folder whose weights have these names, with encoders kept in `towers`.

  A lone encoder or decoder gives its own config, everything else a RunConfig without stages.
  Raises ValueError for an unknown model_type, a missing key, or what is not implemented.
  """
  fields = Fields.read(folder / "config.json")
  family = family_of(fields)
  if family in ("face_llava", "llava"):
    return family, (face_llava if family == "face_llava" else llava)(fields, names, towers)
  if family in ("image_encoder", "video_encoder"):
    vision = fields.sub("vision_config") if "vision_config" in fields.data else fields
    vision = vision._replace(defaults=configs.CLIP)
    tokens = "all" if family == "video_encoder" else "patches"
    return family, configs.clip_vit(vision, select_layer=-2, tokens=tokens)
  if family == "decoder":
    return family, configs.decoder(fields, _tied(names, fields))
  whole = {"llava_hf": llava_hf, "internvl_hf": internvl_hf, "internvl": internvl}
  return family, whole[family](fields, names)


def family_of(fields: Fields) -> str:
  """The family of a config.json. Raises ValueError for an unknown model_type."""
  kind = fields.get("model_type", str)
  if kind in ("llava", "llava_llama"):
    if "vision_config" in fields.data:
      return "llava_hf"
    return "llava" if "mm_vision_tower" in fields.data else "face_llava"
  if kind in ("clip", "clip_vision_model", "LanguageBindImage", "LanguageBindVideo"):
    vision = fields.sub("vision_config", fields.data).data
    return "video_encoder" if vision.get("add_time_attn") else "image_encoder"
  families = {
    "internvl": "internvl_hf",
    "internvl_chat": "internvl",
    "llama": "decoder",
    "qwen2": "decoder",
  }
  if kind not in families:
    raise ValueError(
      f"{fields.file}: model_type is {kind!r}, supported: llava, {', '.join(families)}, clip, "
      "clip_vision_model, LanguageBindImage, LanguageBindVideo"
    )
  return families[kind]


def face_llava(fields: Fields, names: Collection[str], towers: Mapping[str, Path]) -> RunConfig:
  """The official LlavaConfig of Face-LLaVA and Video-LLaVA. Landmark modules: by `names`."""
  fields.expect("mm_projector_type", "mlp2x_gelu", "mlp2x_gelu")
  fields.expect("use_landmark_tokens", False, False)
  select = fields.get("mm_vision_select_layer", int)
  tower = configs.tower(fields, "image", "mm_image_tower", towers)
  image = configs.clip_vit(tower, select, _tokens(fields))
  video = None
  if fields.data.get("mm_video_tower"):
    # The released video tower keeps the class token whatever mm_vision_select_feature says.
    video = configs.clip_vit(
      configs.tower(fields, "video", "mm_video_tower", towers), select, "all"
    )
  text = configs.decoder(fields, _tied(names, fields))
  model = ModelConfig(
    image=image,
    decoder=text,
    video=video,
    fusion=_fusion(fields, names),
    frames=(video.frames if video else 0) or 8,
    dtype=configs.dtype(fields),
  )
  return _run(model, fields, modalities=MODALITIES if model.fusion else ())


def llava(fields: Fields, names: Collection[str], towers: Mapping[str, Path]) -> RunConfig:
  """The original LLaVA-1.5."""
  fields.expect("mm_projector_type", "linear", "mlp2x_gelu")
  select = fields.get("mm_vision_select_layer", int)
  tower = configs.tower(fields, "vision", "mm_vision_tower", towers)
  image = configs.clip_vit(tower, select, _tokens(fields))
  text = configs.decoder(fields, _tied(names, fields))
  model = ModelConfig(image=image, decoder=text, dtype=configs.dtype(fields))
  return _run(model, fields)


def llava_hf(fields: Fields, names: Collection[str]) -> RunConfig:
  """LLaVA-1.5 in transformers."""
  fields.expect("projector_hidden_act", "gelu", "gelu")
  fields.expect("multimodal_projector_bias", True, True)
  fields.expect("vision_feature_select_strategy", "default", "default", "full")
  full = fields.data.get("vision_feature_select_strategy") == "full"
  image = configs.clip_vit(
    fields.sub("vision_config", defaults=configs.CLIP),
    fields.get("vision_feature_layer", int, -2),
    "all" if full else "patches",
  )
  model = ModelConfig(
    image=image, decoder=_text(fields, "text_config", names), dtype=configs.dtype(fields)
  )
  return _run(model, fields, resize="crop")


def internvl_hf(fields: Fields, names: Collection[str]) -> RunConfig:
  """InternVL3 in transformers, and FaceLLM, which was trained with it."""
  fields.expect("projector_hidden_act", "gelu", "gelu")
  fields.expect("downsample_ratio", 0.5, 0.5)
  fields.expect("vision_feature_layer", -1, -1)
  fields.expect("vision_feature_select_strategy", "default", "default")
  vision = fields.sub("vision_config", defaults=configs.INTERN)
  vit = configs.intern_vit(vision, qkv_bias="attention_bias", qk_norm="use_qk_norm")
  text = _text(fields, "text_config", names)
  return _internvl(vit, text, fields, "internvl")


def internvl(fields: Fields, names: Collection[str]) -> RunConfig:
  """InternVLChatModel, InternVL's own code."""
  fields.expect("ps_version", "v1", "v2")
  fields.expect("select_layer", -1, -1)
  fields.expect("downsample_ratio", 0.5, 0.5)
  vision = fields.sub("vision_config")
  vit = configs.intern_vit(vision, qkv_bias="qkv_bias", qk_norm="qk_normalization")
  text = _text(fields, "llm_config", names)
  return _internvl(vit, text, fields, "internvl_system")


def _internvl(vit: VitConfig, text: DecoderConfig, fields: Fields, template: str) -> RunConfig:
  model = ModelConfig(
    image=vit, decoder=text, projector="pixel_shuffle", dtype=configs.dtype(fields)
  )
  tiles = 12  # of both processors, and a thumbnail of the whole
  data = DataConfig(
    row_length=min(8192, text.max_length),  # the tokenizer's limit
    images_per_row=tiles + 1,
    tokenizer=configs.tokenizer_in(fields.file.parent),
    template=template,
    resize="stretch",
    max_tiles=tiles,
    modalities=(),
  )
  return RunConfig(model=model, data=data, stages={})


def _run(
  model: ModelConfig,
  fields: Fields,
  resize: str = "",
  modalities: tuple[str, ...] = (),
) -> RunConfig:
  pad = fields.data.get("image_aspect_ratio") == "pad"
  longest = fields.size("tokenizer_model_max_length", 2048)
  data = DataConfig(
    row_length=min(longest, model.decoder.max_length),
    tokenizer=configs.tokenizer_in(fields.file.parent),
    resize=resize or ("pad" if pad else "crop"),
    modalities=modalities,
  )
  return RunConfig(model=model, data=data, stages={})


def _tokens(fields: Fields) -> str:
  fields.expect("mm_vision_select_feature", "patch", "patch", "cls_patch")
  return "all" if fields.data.get("mm_vision_select_feature") == "cls_patch" else "patches"


def _text(fields: Fields, key: str, names: Collection[str]) -> DecoderConfig:
  """The language model inside; its class is said by model_type."""
  text = fields.sub(key)
  text.expect("model_type", "llama", "llama", "qwen2")
  defaults = configs.QWEN2 if text.data.get("model_type") == "qwen2" else configs.LLAMA
  return configs.decoder(text._replace(defaults=defaults), _tied(names, text, fields))


def _tied(names: Collection[str], *levels: Fields) -> bool:
  """Whether the head is the embedding: the config says so somewhere and the file has no head."""
  said = any(level.data.get("tie_word_embeddings") for level in levels)
  return said and not any(name.endswith("lm_head.weight") for name in names)


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
