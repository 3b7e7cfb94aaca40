"""RunConfig -> the JSON files that go with exported weights. What released.py reads, and more.

`base` is a config.json of the same family, which the weights came with: what ours does not say
(token ids, names of encoders) is taken from it. Rotary scaling is written as before transformers 5,
which reads both.
"""

from collections.abc import Callable
from typing import Any

from facejax.config import DecoderConfig, ModelConfig, RunConfig, VitConfig
from facejax.config_checks import one_of
from facejax.models.vit import STATISTICS

Json = dict[str, Any]


def check(model: ModelConfig, family: str) -> str:
  """The layout to write. Raises ValueError for an unknown family or one that is not the model's."""
  one_of("format", family, list(WRITERS))
  intern = family in ("internvl", "internvl_hf")
  if (model.projector == "pixel_shuffle") != intern or (model.image.layout == "intern") != intern:
    raise ValueError(
      f"format {family}: the model has projector='{model.projector}' and encoders of layout "
      f"'{model.image.layout}' - expected InternVL's both, or neither"
    )
  if family != "face_llava" and (model.video or model.fusion):
    part = "a video encoder" if model.video else "landmark modules"
    raise ValueError(f"format {family} has no place for {part} - expected face_llava")
  if model.segmentation.mode != "off":
    raise ValueError(
      f"no format has a place for segmentation.mode='{model.segmentation.mode}' - export a model "
      "that was trained with 'off'; only facejax's own checkpoints hold the maps' modules"
    )
  if family == "face_llava" and model.fusion:
    if model.fusion.form == "paper":
      raise ValueError("format face_llava: the released code has no fusion.form='paper'")
    return "masked" if model.fusion.form == "masked" else "simple"
  return {"face_llava": "simple", "llava": "original", "internvl": "original"}.get(family, "files")


def _text(text: DecoderConfig, base: Json) -> Json:
  """A LLaMA or Qwen2 config."""
  kind = "qwen2" if text.qkv_bias else "llama"
  scaling = {"type": "dynamic", "rope_type": "dynamic", "factor": text.rope_factor}
  kept = {k: v for k, v in base.items() if k not in ("rope_parameters", "dtype")}
  return {
    **({"architectures": ["Qwen2ForCausalLM" if text.qkv_bias else "LlamaForCausalLM"]}),
    **kept,
    "model_type": kind,
    "vocab_size": text.vocab,
    "hidden_size": text.width,
    "num_hidden_layers": text.layers,
    "num_attention_heads": text.heads,
    "num_key_value_heads": text.kv_heads,
    "head_dim": text.head_width,
    "intermediate_size": text.mlp,
    "hidden_act": "silu",
    "max_position_embeddings": text.max_length,
    "rope_theta": text.rope_theta,
    "rope_scaling": scaling if text.rope_factor > 1 else None,
    "rms_norm_eps": text.eps,
    "tie_word_embeddings": text.tied,
  }


def _clip(vit: VitConfig, base: Json) -> Json:
  """A CLIP vision config, with LanguageBind's frames."""
  frames = {"add_time_attn": True, "num_frames": vit.frames} if vit.frames else {}
  return {
    "num_channels": 3,
    **base,
    "model_type": "clip_vision_model",
    "hidden_size": vit.width,
    "num_hidden_layers": vit.layers,
    "num_attention_heads": vit.heads,
    "intermediate_size": vit.mlp,
    "image_size": vit.image_size,
    "patch_size": vit.patch,
    "hidden_act": vit.activation,
    "layer_norm_eps": vit.eps,
    **frames,
  }


def _intern(vit: VitConfig, base: Json, original: bool) -> Json:
  """An InternViT config; its own home names two switches otherwise and has sizes as one number."""
  square = lambda n: n if original else [n, n]
  bias, norm = ("qkv_bias", "qk_normalization") if original else ("attention_bias", "use_qk_norm")
  return {
    **base,
    "model_type": "intern_vit_6b" if original else "internvl_vision",
    "hidden_size": vit.width,
    "num_hidden_layers": vit.layers,
    "num_attention_heads": vit.heads,
    "intermediate_size": vit.mlp,
    "image_size": square(vit.image_size),
    "patch_size": square(vit.patch),
    "hidden_act": "gelu",
    "layer_norm_eps": vit.eps,
    "norm_type": "rms_norm" if vit.norm == "rms" else "layer_norm",
    "use_mean_pooling": True,
    bias: vit.qkv_bias,
    norm: vit.qk_norm,
  }


def _mm(config: RunConfig, base: Json, dtype: str) -> Json:
  """What the LLaVA code base keeps in one flat config."""
  vit = config.model.image
  text = _text(config.model.decoder, base)
  del text["head_dim"]  # transformers 4.31 has none; it divides
  return {
    "use_cache": True,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "tokenizer_padding_side": "right",
    "tokenizer_model_max_length": config.data.row_length,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    **text,
    "model_type": "llava",
    "architectures": ["LlavaLlamaForCausalLM"],
    "use_mm_proj": True,
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": vit.width,
    "mm_vision_select_layer": vit.select_layer,
    "mm_vision_select_feature": "patch" if vit.tokens == "patches" else "cls_patch",
    "image_aspect_ratio": "pad" if config.data.resize == "pad" else None,
    "torch_dtype": dtype,
  }


def face_llava(config: RunConfig, base: Json, dtype: str) -> dict[str, Json]:
  """The official LlavaConfig, and the towers' configs, which the official code has by name."""
  model = config.model
  data = _mm(config, base, dtype)
  data.setdefault("mm_image_tower", "LanguageBind/LanguageBind_Image")
  written = {"image_tower_config.json": {"vision_config": _clip(model.image, {})}}
  data.pop("mm_video_tower", None)
  if model.video:
    data["mm_video_tower"] = base.get("mm_video_tower", "LanguageBind/LanguageBind_Video_merge")
    written["video_tower_config.json"] = {"vision_config": _clip(model.video, {})}
  if model.fusion:
    data |= {
      "landmarks_projector_type": "landmarks_region_projector",
      "global_landmarks_projector_type": "linear",
      "cross_attn_type": "masked" if model.fusion.form == "masked" else "simple",
      "use_landmark_tokens": False,
      "landmarks_hidden_size": 136,
    }
  return {"config.json": data, "generation_config.json": _generation(data), **written}


def llava(config: RunConfig, base: Json, dtype: str) -> dict[str, Json]:
  """LLaVA-1.5's own config."""
  data = _mm(config, base, dtype)
  data.setdefault("mm_vision_tower", "openai/clip-vit-large-patch14-336")
  tower = {"vision_config": _clip(config.model.image, {})}
  return {
    "config.json": data,
    "generation_config.json": _generation(data),
    "vision_tower_config.json": tower,
  }


def llava_hf(config: RunConfig, base: Json, dtype: str) -> dict[str, Json]:
  """LLaVA in transformers."""
  vit, text = config.model.image, config.model.decoder
  side = {"height": vit.image_size, "width": vit.image_size}
  data = {
    "image_token_index": 32_000,
    "image_seq_length": config.model.tokens("image"),
    **_outer(base),
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
    "vision_feature_layer": vit.select_layer,
    "vision_feature_select_strategy": "default" if vit.tokens == "patches" else "full",
    "vision_config": _clip(vit, base.get("vision_config", {})),
    "text_config": _text(text, base.get("text_config", {})),
    "tie_word_embeddings": text.tied,
    "torch_dtype": dtype,
  }
  processor = {
    **_preprocessor(vit, "CLIPImageProcessor"),
    "size": {"shortest_edge": vit.image_size},
    "do_center_crop": True,
    "crop_size": side,
  }
  return {
    "config.json": data,
    "generation_config.json": _generation(data["text_config"]),
    "preprocessor_config.json": processor,
  }


def internvl_hf(config: RunConfig, base: Json, dtype: str) -> dict[str, Json]:
  """InternVL3 in transformers."""
  vit, text = config.model.image, config.model.decoder
  data = {
    "image_token_id": 151_667,
    **_outer(base),
    "model_type": "internvl",
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "image_seq_length": config.model.tokens("image"),
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "vision_config": _intern(vit, base.get("vision_config", {}), False),
    "text_config": _text(text, base.get("text_config", {})),
    "tie_word_embeddings": text.tied,  # its class ties them by default
    "torch_dtype": dtype,
  }
  processor = {
    **_preprocessor(vit, "GotOcr2ImageProcessor"),
    "size": {"height": vit.image_size, "width": vit.image_size},
    "crop_to_patches": config.data.max_tiles > 1,
    "min_patches": config.data.min_tiles,
    "max_patches": config.data.max_tiles,
  }
  return {
    "config.json": data,
    "generation_config.json": _generation(data["text_config"]),
    "preprocessor_config.json": processor,
  }


def internvl(config: RunConfig, base: Json, dtype: str) -> dict[str, Json]:
  """InternVLChatModel's config."""
  vit, text = config.model.image, config.model.decoder
  data = {
    **_outer(base),
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "select_layer": -1,
    "force_image_size": vit.image_size,
    "template": "internvl2_5",
    "dynamic_image_size": config.data.max_tiles > 1,
    "use_thumbnail": True,
    "min_dynamic_patch": config.data.min_tiles,
    "max_dynamic_patch": config.data.max_tiles,
    "vision_config": _intern(vit, base.get("vision_config", {}), True),
    "llm_config": _text(text, base.get("llm_config", {})),
    "tie_word_embeddings": text.tied,
    "torch_dtype": dtype,
  }
  return {"config.json": data, "generation_config.json": _generation(data["llm_config"])}


def _outer(base: Json) -> Json:
  """What stays of an outer config; `dtype` is torch_dtype's name since transformers 5."""
  return {k: v for k, v in base.items() if k not in ("dtype", "transformers_version")}


def _generation(text: Json) -> Json:
  ids = ("bos_token_id", "eos_token_id", "pad_token_id")
  return {key: text[key] for key in ids if text.get(key) is not None}


def _preprocessor(vit: VitConfig, kind: str) -> Json:
  mean, deviation = map(list, STATISTICS[vit.statistics])
  return {
    "image_processor_type": kind,
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": 3,  # bicubic
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": mean,
    "image_std": deviation,
  }


WRITERS: dict[str, Callable[[RunConfig, Json, str], dict[str, Json]]] = {
  "face_llava": face_llava,
  "llava": llava,
  "llava_hf": llava_hf,
  "internvl_hf": internvl_hf,
  "internvl": internvl,
}
