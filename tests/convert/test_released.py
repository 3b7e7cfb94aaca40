"""A released config.json becomes ours; lone encoders and decoders; types."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import released_files as released
from by_hand import assert_same, clip_by_hand, decoder_by_hand, flat

from facejax import convert
from facejax.config import DecoderConfig, RunConfig, VitConfig


@pytest.mark.parametrize("level", ["vision_model.", ""])
def test_an_encoder_alone(tmp_path, level):
  """Kills: text parameters of a CLIP model taken for unexpected; the wrong encoder's names."""
  names = released.clip(level, released.VIT)
  if level:
    names |= {"text_model.final_layer_norm.weight": (6,), "logit_scale": ()}
    names |= {"visual_projection.weight": (7, 10), "vision_model.embeddings.position_ids": (1, 10)}
  weights = released.draw(names)
  config = {"model_type": "clip", "vision_config": released.VIT}
  released.write(
    tmp_path, weights, config if level else {**released.VIT, "model_type": "clip_vision_model"}
  )
  got = convert.load(tmp_path)
  assert isinstance(got.config, VitConfig)
  assert got.config.heads == 2
  assert_same(flat(got.params), clip_by_hand(weights, level, "image_encoder", 4, False))
  assert len(got.unused) == (4 if level else 0)


def test_languagebinds_video_encoder(tmp_path):
  """Kills: temporal parameters unknown to the lone encoder; its class token dropped."""
  weights = released.draw(released.clip("vision_model.", released.VIDEO))
  config = {"model_type": "LanguageBindVideo", "vision_config": released.VIDEO}
  got = convert.load(released.write(tmp_path, weights, config))
  assert got.family == "video_encoder"
  assert (got.config.frames, got.config.tokens) == (2, "all")
  assert_same(flat(got.params), clip_by_hand(weights, "vision_model.", "video_encoder", 3, True))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_decoder_alone(tmp_path, kind):
  """Kills: biases of Qwen2 dropped, or asked of LLaMA."""
  weights = released.draw(released.llama("model.", "lm_head.weight", biases=kind == "qwen2"))
  got = convert.load(released.write(tmp_path, weights, {**released.TEXT, "model_type": kind}))
  assert isinstance(got.config, DecoderConfig)
  assert_same(
    flat(got.params), decoder_by_hand(weights, "model.", "lm_head.weight", kind == "qwen2")
  )


def test_a_tied_head_is_no_parameter(tmp_path):
  """Kills: a head asked for that transformers does not write, or tied although it is there."""
  names = released.internvl_hf()
  del names["language_model.lm_head.weight"]
  config = {**released.internvl_config(False), "tie_word_embeddings": True}
  got = convert.load(released.write(tmp_path / "tied", released.draw(names), config))
  assert got.config.model.decoder.tied
  assert "head" not in got.params["decoder"]
  weights = released.draw(released.internvl_hf())
  assert not convert.load(
    released.write(tmp_path / "both", weights, config)
  ).config.model.decoder.tied


def test_config_of_face_llava(tmp_path):
  """Kills: the encoders' settings crossed; the row length; a default in place of a key."""
  released.write_layout(tmp_path, "face_llava/simple")
  config = convert.load(tmp_path).config
  assert isinstance(config, RunConfig)
  image = VitConfig(12, 4, 10, 4, 2, 14)
  assert config.model.image == image
  assert config.model.video == VitConfig(8, 4, 10, 3, 5, 18, tokens="all", frames=2)
  text = DecoderConfig(22, 24, 3, 6, 2, 4, 34, 640, eps=1e-6)
  assert config.model.decoder == text
  assert (config.model.frames, config.model.dtype, config.data.row_length) == (2, "float32", 320)
  assert (config.data.resize, config.data.template, config.stages) == ("pad", "vicuna_v1", {})


def test_config_of_internvl(tmp_path):
  """Kills: rotary scaling or theta dropped; ImageNet's statistics taken for CLIP's."""
  released.write_layout(tmp_path, "internvl_hf/files", "bfloat16")
  config = convert.load(tmp_path).config
  decoder = config.model.decoder
  assert (decoder.rope_theta, decoder.rope_factor, decoder.qkv_bias) == (1e6, 2.0, True)
  assert (config.model.image.statistics, config.model.image.eps) == ("imagenet", 1e-6)
  assert (config.model.projector, config.model.dtype) == ("pixel_shuffle", "bfloat16")
  assert (config.data.resize, config.data.max_tiles, config.data.images_per_row) == (
    "stretch",
    12,
    13,
  )
  newer = {k: v for k, v in released.QWEN.items() if not k.startswith("rope")}
  newer["rope_parameters"] = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 7.0}
  path = tmp_path / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "text_config": newer}))
  decoder = convert.load(tmp_path).config.model.decoder
  assert (decoder.rope_theta, decoder.rope_factor) == (7.0, 3.0)


def test_types_on_the_way(tmp_path):
  """Kills: `dtype` ignored; a bfloat16 file read as float32 bits."""
  weights = released.write_layout(tmp_path, "face_llava/simple", "bfloat16")
  for dtype in ("float32", "float16", None):
    kernel = convert.load(tmp_path, dtype=dtype).params["decoder"]["head"]["kernel"]
    want = weights["lm_head.weight"].T.astype(jnp.dtype(dtype or "bfloat16"))
    assert kernel.dtype == want.dtype
    np.testing.assert_array_equal(kernel, want)


@pytest.mark.parametrize(
  ("layout", "changes", "message"),
  [
    ("internvl/original", {"ps_version": None}, "'ps_version' is 'v1', supported: 'v2'"),
    ("internvl/original", {"llm_config": {"model_type": "internlm2"}}, "'llm_config.model_type'"),
    ("internvl/original", {"llm_config": None}, r"config\.json has no 'llm_config'"),
    ("internvl_hf/files", {"downsample_ratio": 0.25}, "'downsample_ratio' is 0.25, supported: 0.5"),
    ("internvl_hf/files", {"vision_config": {"image_size": [28, 14]}}, "'vision_config.image_"),
    ("internvl_hf/files", {"vision_config": {"norm_type": "x"}}, "'vision_config.norm_type' is"),
    ("llava_hf/files", {"vision_feature_layer": [-2, -1]}, r"'vision_feature_layer' is \[-2, -1\]"),
    ("face_llava/simple", {"num_hidden_layers": 10**9}, "is 1000000000, expected 1 to 1000"),
    ("llava_hf/files", {"text_config": 7}, "'text_config' is 7, expected dict"),
  ],
)  # fmt: skip
def test_configs_that_are_refused(tmp_path, layout, changes, message):
  """Kills: another pixel shuffle, decoder or grid computed as if it were ours."""
  released.write_layout(tmp_path, layout)
  file = tmp_path / "config.json"
  data = {k: v for k, v in {**json.loads(file.read_text()), **changes}.items() if v is not None}
  file.write_text(json.dumps(data))
  with pytest.raises(ValueError, match=message):
    convert.load(tmp_path)
