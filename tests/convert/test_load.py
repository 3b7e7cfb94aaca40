"""What load() makes of a folder: on eight devices, at other sizes, incomplete, or not fitting."""

import dataclasses
import json
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_files as released
from by_hand import assert_same, flat

from facejax import convert
from facejax.config import DecoderConfig, MeshConfig, VitConfig
from facejax.convert import resample
from facejax.models import face_mllm
from facejax.sharding import make_mesh, param_shardings


def folder(tmp_path, names=None, config=released.FACE_LLAVA, **changes):
  """A Face-LLaVA folder with names added, replaced or (None) removed."""
  weights = released.draw(released.face_llava() if names is None else names)
  for name, shape in changes.get("shapes", {}).items():
    weights.pop(name, None)
    if shape is not None:
      weights[name] = np.ones(shape, np.float32)
  return released.write(tmp_path, weights, config, towers=True)


def write_shards(path, weights, files=3):
  """The released form: .bin files and an index."""
  path.mkdir()
  names = list(weights)
  weight_map = {}
  for i in range(files):
    part = {n: weights[n] for n in names[i::files]}
    released.write_torch(path / f"pytorch_model-{i}.bin", part)
    weight_map |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
  (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_eight_devices_hold_what_one_does(tmp_path):
  """Kills: slices of the source's axes instead of ours, a layer's slice at another's place.

  From bfloat16 .bin shards, as Face-LLaVA is released.
  """
  wide = dict(hidden_size=16, intermediate_size=32, num_attention_heads=4)
  vit, video = {**released.VIT, **wide}, {**released.VIDEO, **wide}
  names = released.clip("model.image_tower.image_tower.", vit)
  names |= released.clip("model.video_tower.video_tower.", video)
  names |= released.linear("model.mm_projector.0", 24, 16)
  names |= released.linear("model.mm_projector.2", 24, 24) | released.landmarks("simple")
  text = {**released.TEXT, "vocab_size": 32, "intermediate_size": 40, "num_key_value_heads": 6}
  names |= released.llama("model.", "lm_head.weight", text)
  weights = released.draw(names, dtype="bfloat16")
  write_shards(tmp_path / "wide", weights)
  (tmp_path / "wide" / "config.json").write_text(json.dumps({**released.FACE_LLAVA, **text}))
  for kind, c in (("image", vit), ("video", video)):
    path = tmp_path / "wide" / f"{kind}_tower_config.json"
    path.write_text(json.dumps({"vision_config": c}))
  want = convert.load(tmp_path / "wide")
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  layout = param_shardings(want.params, mesh)
  got = convert.load(tmp_path / "wide", shardings=layout)
  assert jax.tree.map(lambda x: x.sharding, got.params) == layout
  split = [x for x in jax.tree.leaves(got.params) if not x.sharding.is_fully_replicated]
  assert len(split) > 40
  assert_same(flat(got.params), flat(want.params))


def test_landmark_modules_are_there_if_the_file_has_them(tmp_path):
  """Kills: fresh landmark modules without a word, as the official loader has them."""
  got = convert.load(folder(tmp_path, released.face_llava("none")))
  assert got.config.model.fusion is None
  assert got.config.data.modalities == ()
  assert not {"fusion", "landmark_projector"} & got.params.keys()


def test_missing_parts_must_be_named(tmp_path):
  """Kills: a half-random model; `new` that excuses one half of a module."""
  source = folder(tmp_path / "none", released.face_llava("none"))
  model = convert.load(folder(tmp_path / "all")).config.model
  with pytest.raises(ValueError, match=r"missing: model\.landmarks_cross_attn\.cross_attn\."):
    convert.load(source, model=model)
  got = convert.load(source, model=model, new=(r"(fusion|landmark_projector)/.*",))
  assert got.config.model == model
  assert len(got.missing) == 20 + 14
  assert "fusion/attention/q/kernel" in got.missing
  assert "fusion" not in got.params


def test_what_is_unexpected_must_be_named(tmp_path):
  """Kills: landmark modules of a file dropped in silence."""
  source = folder(tmp_path)
  model = dataclasses.replace(convert.load(source).config.model, fusion=None)
  message = r"unexpected: model\.landmarks_cross_attn\.linear_proj\.bias \[24\] in "
  with pytest.raises(ValueError, match=message + re.escape(str(tmp_path))):
    convert.load(source, model=model)
  got = convert.load(source, model=model, new=("fusion/.*", r"model\..*landmarks_projector\..*"))
  assert "model.landmarks_cross_attn.ln.bias" in got.unused


@pytest.mark.parametrize(
  ("shapes", "message"),
  [
    ({"model.norm.weight": None},
     r"does not fit the model: missing: model\.norm\.weight, for decoder/norm/scale \[24\]$"),
    ({"model.layers.1.mlp.up_proj.weight": (24, 34)},
     r"shape: model\.layers\.1\.mlp\.up_proj\.weight \[24, 34\] in .*model\.safetensors, the model "
     r"has \[34, 24\] \(decoder/blocks/up/kernel\)"),
    ({"model.image_tower.image_tower.encoder.layers.3.mlp.fc1.bias": None},
     r"missing: model\.image_tower\.image_tower\.encoder\.layers\.3\.mlp\.fc1\.bias"),
    ({"model.layers.3.mlp.up_proj.weight": (34, 24)},
     r"unexpected: model\.layers\.3\.mlp\.up_proj\.weight \[34, 24\] in"),
    ({"model.landmarks_cross_attn.cross_attn.attn.in_proj_bias": (24,)},
     r"in_proj_bias \[24\] in .* the model has \[72\]"),
    ({"model.landmarks_projector.weight": (24, 136)},
     r"model\.landmarks_projector\.weight is one plain linear layer"),
  ],
)  # fmt: skip
def test_tensors_that_do_not_fit(tmp_path, shapes, message):
  """Kills: a half-missing tower, a turned matrix or a layer too many that is let through."""
  with pytest.raises(ValueError, match=message):
    convert.load(folder(tmp_path, shapes=shapes))


def test_integers_are_no_weights(tmp_path):
  """Kills: ids read as weights."""
  weights = released.draw(released.face_llava())
  weights["model.norm.weight"] = np.arange(24)
  source = released.write(tmp_path, weights, released.FACE_LLAVA, towers=True)
  with pytest.raises(ValueError, match=r"model\.norm\.weight .* is int64, expected floating point"):
    convert.load(source)


def test_many_differences_are_cut_short(tmp_path):
  """Kills: a message of a thousand lines for a folder of another model."""
  names = {n: s for n, s in released.face_llava().items() if "video_tower" not in n}
  with pytest.raises(ValueError, match=r"\(\d+ differences\)") as raised:
    convert.load(folder(tmp_path, names))
  lines = str(raised.value).splitlines()
  assert len(lines) == 22
  assert re.fullmatch(r"  and \d+ more", lines[-1])


def test_another_picture_size_resamples_the_positions(tmp_path):
  """Kills: corners aligned, a = -0.5, the class token resampled, rows and columns swapped."""
  source = folder(tmp_path)
  plain = convert.load(source)
  model = plain.config.model
  model = dataclasses.replace(model, image=dataclasses.replace(model.image, image_size=20))
  got = np.asarray(convert.load(source, model=model).params["image_encoder"]["positions"])
  old = np.asarray(plain.params["image_encoder"]["positions"])
  want = np.zeros((26, 10), np.float64)
  want[0] = old[0]
  near = lambda x: 1.25 * x**3 - 2.25 * x**2 + 1
  far = lambda x: -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
  cubic = lambda x: near(x) if x <= 1 else far(x) if x < 2 else 0
  for y in range(5):
    for x in range(5):
      v, u = (y + 0.5) * 3 / 5 - 0.5, (x + 0.5) * 3 / 5 - 0.5
      for j in range(-3, 6):
        for i in range(-3, 6):
          cell = old[1 + 3 * min(max(j, 0), 2) + min(max(i, 0), 2)]
          want[1 + 5 * y + x] += cubic(abs(v - j)) * cubic(abs(u - i)) * cell
  np.testing.assert_allclose(got, want, atol=2e-6)
  np.testing.assert_array_equal(plain.params["video_encoder"]["positions"].shape, (5, 10))
  with pytest.raises(ValueError, match="positions: 10 and 12 rows, expected squares and one more"):
    resample.positions(old, 12)


def edited(path, **changes):
  """config.json with keys set, or removed by None."""
  file = path / "config.json"
  data = {**json.loads(file.read_text()), **changes}
  file.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
  return path


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_attention_heads": None}, r"config\.json has no 'num_attention_heads', which the model"),
    ({"model_type": None}, r"config\.json has no 'model_type'"),
    ({"mm_vision_select_layer": None}, r"has no 'mm_vision_select_layer'"),
    ({"rms_norm_eps": "1e-5"}, r"'rms_norm_eps' is '1e-5', expected float"),
    ({"hidden_size": -24}, r"'hidden_size' is -24, expected 1 to 16777216"),
    ({"hidden_act": "gelu"}, r"'hidden_act' is 'gelu', supported: 'silu'"),
    ({"model_type": "mamba"}, r"model_type is 'mamba', supported: llava, internvl,"),
    ({"mm_projector_type": "linear"}, r"'mm_projector_type' is 'linear', supported: 'mlp2x"),
    ({"use_landmark_tokens": True}, r"'use_landmark_tokens' is True, supported: False"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rotary scaling 'linear' - "),
  ],
)  # fmt: skip
def test_a_config_that_cannot_be_read(tmp_path, changes, message):
  """Kills: a default in place of what the model needs; a KeyError that names no file."""
  source = edited(folder(tmp_path), **changes)
  with pytest.raises(ValueError, match=message) as raised:
    convert.load(source)
  assert f"{source}/config.json" in str(raised.value)


def test_no_config(tmp_path):
  """Kills: a bare FileNotFoundError."""
  source = folder(tmp_path)
  (source / "config.json").unlink()
  with pytest.raises(FileNotFoundError, match=r"config\.json does not exist - expected beside the"):
    convert.load(source)


def test_encoders_known_by_name_and_not(tmp_path):
  """Kills: a released Face-LLaVA folder refused, whose config only names its encoders."""
  source = folder(tmp_path)
  for kind in ("image", "video"):
    (source / f"{kind}_tower_config.json").unlink()
  with pytest.raises(ValueError, match=r"'mm_image_tower' is 'my/image', which is not known"):
    convert.load(source)
  edited(source, mm_image_tower="LanguageBind/LanguageBind_Image")
  edited(source, mm_video_tower="LanguageBind/LanguageBind_Video_merge")
  with pytest.raises(ValueError, match=r"image_encoder/blocks/attention/k/bias \[23, 1024\]"):
    convert.load(source)


def test_encoders_from_their_own_repositories(tmp_path):
  """Kills: the stored copy preferred; a tower's text half let in; another model's tower."""
  source = folder(tmp_path / "model")
  tower = released.draw(released.clip("vision_model.", released.VIT), seed=5)
  tower["logit_scale"] = np.ones((), np.float32)
  config = {"model_type": "LanguageBindImage", "vision_config": released.VIT}
  released.write(tmp_path / "image", tower, config)
  got = convert.load(source, towers={"image": tmp_path / "image"})
  kernel = got.params["image_encoder"]["blocks"]["fc1"]["kernel"][1]
  np.testing.assert_array_equal(kernel, tower["vision_model.encoder.layers.1.mlp.fc1.weight"].T)
  released.write(source / "image_tower", tower, config)  # beside the weights: taken by itself
  assert_same(flat(convert.load(source).params), flat(got.params))
  with pytest.raises(ValueError, match="a face_llava model has no tower 'audio'"):
    convert.load(source, towers={"audio": tmp_path / "image"})


def test_quick_gelu_where_a_file_says_nothing(tmp_path):
  """Kills: "gelu" as the default, which CLIP's class has not."""
  vit = {k: v for k, v in released.VIT.items() if k != "hidden_act"}
  weights = released.draw(released.clip("", released.VIT))
  config = {**vit, "model_type": "clip_vision_model"}
  assert convert.load(released.write(tmp_path, weights, config)).config.activation == "quick_gelu"


def test_load_into_a_state(tmp_path):
  """Kills: a stage that starts from a lone encoder, in other types, without naming the rest."""
  weights = released.draw(released.clip("vision_model.", released.VIT))
  config = {"model_type": "LanguageBindImage", "vision_config": released.VIT}
  source = released.write(tmp_path, weights, config)
  vit = VitConfig(12, 4, 10, 4, 2, 14)
  model = convert.load(folder(tmp_path / "all")).config.model
  assert isinstance(model.decoder, DecoderConfig)
  assert model.image == vit
  shapes = face_mllm.init_shapes(model)
  abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), shapes)
  with pytest.raises(ValueError, match=r"missing: no tensor of this layout, for decoder/"):
    convert.load_into(source, abstract)
  got = convert.load_into(source, abstract, new=(r"(?!image_encoder/).*",))
  assert got.loaded == tuple(n for n in sorted(flax.traverse_util.flatten_dict(shapes, sep="/"))
                             if n.startswith("image_encoder/"))  # fmt: skip
  assert {x.dtype.name for x in got.params.values()} == {"bfloat16"}


def test_load_into_another_depth(tmp_path):
  """Kills: the first two of three layers loaded as if they were the model."""
  source = folder(tmp_path)
  model = convert.load(source).config.model
  shallow = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, layers=2))
  with pytest.raises(ValueError, match=r"decoder/blocks/down/kernel has 2 layers, the config 3"):
    convert.load_into(source, face_mllm.init_shapes(shallow))


def test_layers_of_several_types_lose_nothing(tmp_path):
  """Kills: the first layer's type for all layers of a stack."""
  names = released.face_llava()
  weights = released.draw(names)
  first = "model.layers.0.mlp.up_proj.weight"
  weights[first] = weights[first].astype(np.float16)
  source = released.write(tmp_path, weights, released.FACE_LLAVA, towers=True)
  kernel = convert.load(source or tmp_path, dtype=None).params["decoder"]["blocks"]["up"]["kernel"]
  assert kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel[0], weights[first].T.astype(np.float32))
  np.testing.assert_array_equal(kernel[1], weights[first.replace(".0.", ".1.")].T)


def test_a_pattern_that_is_none(tmp_path):
  """Kills: a pattern that is looked at only when something is missing."""
  folder(tmp_path)
  with pytest.raises(ValueError, match=r"new: '\[' is no pattern"):
    convert.load(tmp_path, new=("[",))
