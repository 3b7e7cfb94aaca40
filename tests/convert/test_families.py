"""Every released layout arrives where it belongs, and goes back as it came."""

import dataclasses

import flax.traverse_util
import numpy as np
import pytest
import released_files as released
from by_hand import assert_same, face_llava_by_hand, flat, internvl_by_hand

from facejax import convert
from facejax.config import FusionConfig
from facejax.convert import families, files, tables
from facejax.models import face_mllm


@pytest.mark.parametrize("form", ["simple", "masked"])
def test_face_llava_against_a_mapping_by_hand(tmp_path, form):
  """Kills: a missed transpose, two projections swapped, a patch kernel of another pixel order."""
  weights = released.write_layout(tmp_path, f"face_llava/{form}")
  got = convert.load(tmp_path)
  assert_same(flat(got.params), face_llava_by_hand(weights, form))
  assert got.family == "face_llava"
  assert got.missing == ()
  assert got.unused == tuple(f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(3))
  assert got.loaded == tuple(sorted(flat(got.params)))
  forms = {"simple": FusionConfig(), "masked": FusionConfig("masked", grid="yx")}
  assert got.config.model.fusion == forms[form]


@pytest.mark.parametrize("rms", [False, True])
def test_internvl_against_a_mapping_by_hand(tmp_path, rms):
  """Kills: q_norm and k_norm swapped, a bias that an RMS norm has not, lambda_1 for lambda_2."""
  weights = released.draw(released.internvl_hf(rms=rms))
  released.write(tmp_path, weights, released.internvl_config(False, rms))
  got = convert.load(tmp_path)
  names = ("", "language_model.model.", "language_model.lm_head.weight")
  assert_same(flat(got.params), internvl_by_hand(weights, *names, rms))
  vit = got.config.model.image
  assert (vit.norm, vit.qkv_bias, vit.qk_norm) == (
    ("rms", False, True) if rms else ("layer", True, False)
  )


def renamed(theirs: str) -> str:
  """A name of transformers' InternVL files as its own code calls it."""
  pairs = (
    ("vision_tower.", "vision_model."), ("encoder.layer.", "encoder.layers."),
    ("cls_token", "class_embedding"), ("position_embeddings", "position_embedding"),
    ("patch_embeddings.projection", "patch_embedding"), ("lambda_", "ls"),
    ("attention.projection_layer", "attn.proj"), ("attention.", "attn."),
    ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
    ("multi_modal_projector.layer_norm", "mlp1.0"),
    ("multi_modal_projector.linear_1", "mlp1.1"), ("multi_modal_projector.linear_2", "mlp1.3"),
  )  # fmt: skip
  for old, new in pairs if not theirs.startswith("language_model") else ():
    theirs = theirs.replace(old, new)
  return theirs


@pytest.mark.parametrize("rms", [False, True])
def test_internvls_own_names_are_the_same_model(tmp_path, rms):
  """Kills: thirds of attn.qkv in another order than q, k, v; rows interleaved by head."""
  weights = released.draw(released.internvl_hf(rms=rms))
  own = {
    renamed(n): x for n, x in weights.items() if not n.endswith("proj.weight") or "layers" in n
  }
  own = {
    n: x for n, x in own.items() if not any(f"attn.{c}_proj" in n for c in "qkv") or "lan" in n
  }
  for i in range(2):
    for kind in ("weight",) if rms else ("weight", "bias"):
      parts = [weights[f"vision_tower.encoder.layer.{i}.attention.{c}_proj.{kind}"] for c in "qkv"]
      own[f"vision_model.encoder.layers.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
  assert {n: x.shape for n, x in own.items()} == released.internvl(rms)
  released.write(tmp_path / "hf", weights, released.internvl_config(False, rms))
  released.write(tmp_path / "own", own, released.internvl_config(True, rms))
  hf, mine = convert.load(tmp_path / "hf"), convert.load(tmp_path / "own")
  assert_same(flat(mine.params), flat(hf.params))
  assert mine.config.model == hf.config.model
  assert (hf.config.data.template, mine.config.data.template) == ("internvl", "internvl_system")


@pytest.mark.parametrize("layout", released.LAYOUTS)
def test_out_comes_what_went_in(tmp_path, layout):
  """Kills: a rule that works in one direction; a fused tensor in another order; a cast.

  bfloat16, so that a detour over another type would show. Through an imported folder and straight.
  """
  family, name = layout.split("/")
  weights = released.write_layout(tmp_path / "source", layout, "bfloat16")
  imported = convert.load(tmp_path / "source", dtype=None)
  convert.import_folder(tmp_path / "source", tmp_path / "imported")
  opened = convert.open_checkpoint(tmp_path / "imported")
  assert opened.family == family
  sources = {
    "arrays": (imported.params, tmp_path / "source"),
    "stored": (opened.matched.parameters, tmp_path / "imported"),
  }
  for way, (params, like) in sources.items():
    folder = tmp_path / way
    limit = 4_000 if way == "stored" else 5_000_000_000
    written = convert.export(imported.config, params, family, folder, like=like, shard=limit)
    assert (len(written) > 3) == (way == "stored")
    out = files.open_weights(folder)
    assert out.keys() >= {n for n in weights if "inv_freq" not in n}, name
    for tensor, stored in out.items():
      if not tensor.endswith("inv_freq"):
        assert stored.array.tobytes() == weights[tensor].tobytes(), (way, tensor)
        assert stored.shape == weights[tensor].shape
    again = convert.load(folder, dtype=None)
    assert again.config.model == imported.config.model
    tokenizer = dataclasses.replace(again.config.data, tokenizer="demo")
    assert tokenizer == imported.config.data
    assert_same(flat(again.params), flat(imported.params))


def test_every_line_of_every_table_is_used():
  """Kills: a line for a name that no released layout has."""
  used = {f"{layout}": set(names) for layout, (names, _) in released.LAYOUTS.items()}
  used["internvl_hf/files"] |= set(released.internvl_hf(rms=True))
  used["internvl_hf/memory"] |= set(released.internvl_hf(True))
  used["internvl/original"] |= set(released.internvl(rms=True))
  for layout, names in used.items():
    family, name = layout.split("/")
    numbered = {n.replace(f".{i}.", ".{i}.") for n in names for i in range(4)} | names
    for rule in families.FAMILIES[family][name].rules:
      frames = "temporal" in rule.theirs and "video_tower" not in rule.theirs
      qwens = rule.theirs.endswith("_proj.bias") and rule.ours.startswith("decoder/")
      if not frames and not qwens:
        assert rule.theirs in numbered, (layout, rule)


def test_the_published_sizes_fit_their_tables():
  """Kills: a parameter of the 7B model that no line of the table covers, without its weights."""
  from facejax.models import presets

  config = presets.face_llava_7b()
  shapes = flax.traverse_util.flatten_dict(face_mllm.init_shapes(config), sep="/")
  plans = tables.expand(families.FAMILIES["face_llava"]["simple"], config)
  assert shapes.keys() <= plans.keys()
  theirs = {}
  for path, x in shapes.items():
    for piece in plans[path].pieces:
      own = x.shape[1:] if plans[path].stacked else x.shape
      theirs[piece.theirs] = piece.shape(own)
  assert theirs["model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
  assert theirs["model.image_tower.image_tower.embeddings.patch_embedding.weight"] == (
    1024,
    3,
    14,
    14,
  )
  assert theirs["model.video_tower.video_tower.encoder.layers.23.temporal_embedding"] == (
    1,
    8,
    1024,
  )
  total = sum(int(np.prod(s)) for s in theirs.values())
  assert total == sum(int(np.prod(x.shape)) for x in shapes.values())
