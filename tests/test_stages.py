"""Which parameters train, what a stage prints, and strict loading of weights."""

import dataclasses
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from facejax import stages, state, weights
from facejax.config import MeshConfig, OptimConfig, StageConfig
from facejax.fake import fake_batch
from facejax.models import face_mllm, presets
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh

SHAPES = face_mllm.init_shapes(presets.tiny())
PARTS = set(SHAPES)


def stage(*trainable: str, **changes) -> StageConfig:
  return StageConfig(trainable, OptimConfig(1e-3), steps=5, rows=8, **changes)


@pytest.mark.parametrize(
  ("config", "rate", "frozen"),
  [
    (stages.base(9, 8), 1e-3, {"landmark_projector", "fusion", "segmentation"}),
    (stages.stage1(9, 8), 1e-4, {"image_encoder", "video_encoder", "projector", "decoder"}),
    (stages.stage2(9, 8), 2e-5, {"image_encoder", "video_encoder"}),
  ],
)
def test_stages_train_what_the_released_scripts_train(config, rate, frozen):
  """Kills: a part that trains or freezes in the wrong stage; another default of the optimiser."""
  trainable, kept = stages.split(SHAPES, config)
  assert set(kept) == frozen
  assert set(trainable) == PARTS - frozen
  assert config.optim == OptimConfig(
    rate, 0.03, "cosine", 0.9, 0.999, 1e-8, weight_decay=0.0, clip_norm=None
  )
  assert (config.steps, config.rows) == (9, 8)


def test_stages_follow_each_other():
  """Kills: a default that starts stage 2 from base, or reads landmarks before they have a use."""
  one, two = stages.stage1(9, 8), stages.stage2(9, 8)
  assert (one.init_from, two.init_from) == ("base", "stage1")
  assert stages.base(9, 8).modalities == ()
  assert one.modalities == two.modalities == ("landmarks", "segmentation")


def test_split_within_a_component_and_merge_back():
  """Kills: a search instead of a full match; a leaf lost or held twice."""
  numbers = dict(enumerate(flax.traverse_util.flatten_dict(SHAPES, sep="/")))
  params = flax.traverse_util.unflatten_dict({n: i for i, n in numbers.items()}, sep="/")
  trainable, frozen = stages.split(params, stage(r"decoder/blocks/.*", r"fusion/.*"))
  names = set(flax.traverse_util.flatten_dict(trainable, sep="/"))
  assert names == {n for n in numbers.values() if n.startswith(("decoder/blocks/", "fusion/"))}
  assert len(jax.tree.leaves(frozen)) == len(numbers) - len(names)
  assert stages.merge(trainable, frozen) == params
  with pytest.raises(ValueError, match="'blocks' matches no parameter"):
    stages.split(params, stage("blocks"))


@pytest.mark.parametrize(
  ("pattern", "message"),
  [
    ("decodr/.*", "'decodr/.*' matches no parameter; near it: .*; components: decoder, fusion"),
    ("decoder/embeding", "'decoder/embeding' matches .* near it: decoder/embedding"),
    ("decoder/(", r"'decoder/\(' is no pattern: .*"),
  ],
)
def test_a_pattern_that_trains_nothing_is_refused(pattern, message):
  """Kills: a typo that silently freezes a part."""
  with pytest.raises(ValueError, match=message):
    stages.split(SHAPES, stage("fusion/.*", pattern))


def test_a_stage_without_patterns_is_refused():
  """Kills: a run that trains nothing."""
  with pytest.raises(ValueError, match=r"StageConfig\.trainable is empty"):
    stages.split(SHAPES, stage())


def test_table_counts_and_names_the_types():
  """Kills: bytes that ignore the type, optimiser slots of frozen parameters, a wrong total."""
  params = {
    "decoder": {
      "a": jax.ShapeDtypeStruct((3, 5), jnp.bfloat16),
      "b": jax.ShapeDtypeStruct((4,), jnp.float32),
    },
    "fusion": {"c": jax.ShapeDtypeStruct((2,), jnp.float32)},
    "projector": {"d": jax.ShapeDtypeStruct((1000,), jnp.bfloat16)},
  }
  lines = [
    line.split() for line in stages.table(params, stage("decoder/b", "fusion/.*")).split("\n")
  ]
  assert lines[1] == ["decoder", "19", "4", "train", "bfloat16+float32", "46", "32"]
  assert lines[2] == ["fusion", "2", "trainable", "float32", "8", "16"]
  assert lines[3] == ["projector", "1,000", "frozen", "bfloat16", "2,000", "0"]
  assert lines[4] == ["total", "1,021", "6", "train", "2,054", "48"]


def test_state_has_float32_masters_bfloat16_rest_and_no_slots_for_it():
  """Kills: trainable parameters in bfloat16; moments of frozen parameters; a lost layout."""
  mesh = make_mesh(MeshConfig(data=-1, fsdp=2))
  model = FaceMLLM(dataclasses.replace(tiny_run.model(), dtype="bfloat16"))
  abstract = state.abstract_state(model, stages.stage1(5, 8), mesh)
  assert {x.dtype for x in jax.tree.leaves(abstract.trainable)} == {jnp.dtype("float32")}
  frozen = flax.traverse_util.flatten_dict(abstract.frozen, sep="/")
  float32 = {name for name, x in frozen.items() if x.dtype == jnp.float32}
  assert {x.dtype.name for x in frozen.values()} == {"bfloat16", "float32"}
  assert {name.split("/")[-2] for name in float32} == {
    "attention_norm", "mlp_norm", "norm", "pre_norm", "post_norm"
  }  # fmt: skip
  layout = lambda tree: [x.sharding.spec for x in jax.tree.leaves(tree)]
  adam = abstract.opt_state[1][0]
  for moment in (adam.mu, adam.nu):
    assert jax.tree.structure(moment) == jax.tree.structure(abstract.trainable)
    assert layout(moment) == layout(abstract.trainable)
  slots = sum(x.size for x in jax.tree.leaves(abstract.opt_state) if x.ndim)
  assert slots == 2 * sum(x.size for x in jax.tree.leaves(abstract.trainable))
  assert any("fsdp" in jax.tree.leaves(tuple(spec)) for spec in layout(abstract.trainable))
  assert set(abstract.params) == {
    "decoder", "fusion", "image_encoder", "landmark_projector", "projector", "segmentation"
  }  # fmt: skip


def test_what_is_held_in_bfloat16_is_rounded_there_anyway():
  """Kills: a frozen part whose rounding changes the numbers: landmark projector, norms, class map.

  Bit for bit; XLA may not leave out a rounding that the model asks for.
  """
  config = dataclasses.replace(tiny_run.model(), dtype="bfloat16")
  model, draw = FaceMLLM(config), np.random.default_rng(1)
  fill = lambda x: jnp.asarray(draw.normal(0, 0.3, x.shape), jnp.float32)
  params = jax.tree.map(fill, face_mllm.init_shapes(config))
  frozen_but_head = stage("decoder/head/.*")
  _, held = stages.split(params, frozen_but_head)
  types = state.abstract_state(model, frozen_but_head, make_mesh(MeshConfig())).frozen
  rounded = lambda x, dtype: x.astype(dtype).astype(jnp.float32)  # one program for all
  held = jax.tree.map(lambda x, as_held: rounded(x, as_held.dtype), held, types)
  held = stages.merge(held, {"decoder": {"head": params["decoder"]["head"]}})
  batch = jax.tree.map(jnp.asarray, fake_batch(config, 4, 23, seed=1))
  exact = {"xla_allow_excess_precision": False}
  apply = jax.jit(lambda p: model.apply({"params": p}, batch), compiler_options=exact)
  want = np.asarray(apply(params))
  np.testing.assert_array_equal(apply(held), want)
  everything = jax.tree.map(lambda x: rounded(x, jnp.bfloat16), held)
  assert np.abs(np.asarray(apply(everything)) - want).max() > 1e-3


# Weights in a file.

TARGET = {
  "decoder": {"head": jax.ShapeDtypeStruct((3, 5), jnp.float32)},
  "fusion": {"scale": jax.ShapeDtypeStruct((4,), jnp.float32)},
}
DRAW = np.random.default_rng(0)
HEAD = DRAW.normal(size=(3, 5)).astype(np.float32)
SCALE = DRAW.normal(size=4).astype(np.float32)


def test_weights_round_trip_bit_for_bit(tmp_path):
  """Kills: a cast on the way, a transposed or swapped array, bfloat16 read as something else."""
  params = {"decoder": {"head": jnp.asarray(HEAD, jnp.bfloat16)}, "fusion": {"scale": SCALE}}
  weights.save_weights(tmp_path / "w.safetensors", params)
  target = {**TARGET, "decoder": {"head": jax.ShapeDtypeStruct((3, 5), jnp.bfloat16)}}
  got = weights.load_weights(tmp_path / "w.safetensors", target)
  assert got.loaded == ("decoder/head", "fusion/scale")
  assert got.missing == got.unused == ()
  assert got.params["decoder/head"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(got.params["decoder/head"], params["decoder"]["head"])
  np.testing.assert_array_equal(got.params["fusion/scale"], SCALE)


def test_scalars_are_saved_as_scalars(tmp_path):
  # Kills: a label head's log_scale written as [1], which its model then refuses.
  params = {"scale": jnp.float32(2.5), "turned": jnp.arange(6.0).reshape(2, 3).T}
  weights.save_weights(tmp_path / "w.safetensors", params)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
  loaded = weights.load_weights(tmp_path / "w.safetensors", shapes).params
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert loaded["scale"].shape == ()


def test_weights_are_cast_and_laid_out(tmp_path):
  """Kills: `dtype` ignored in saving; the target's type or sharding ignored in loading."""
  mesh = make_mesh(MeshConfig())
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  table = np.arange(24, dtype=np.float32).reshape(8, 3)
  weights.save_weights(tmp_path / "w.safetensors", {"table": table + 1 / 3}, "bfloat16")
  target = {"table": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=sharding)}
  got = weights.load_weights(tmp_path / "w.safetensors", target).params["table"]
  assert got.sharding == sharding
  assert got.dtype == jnp.float32
  want = np.asarray(jnp.asarray(table + 1 / 3, jnp.bfloat16), np.float32)
  np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
  ("saved", "lines"),
  [
    ({"decoder/head": HEAD}, ["missing: fusion/scale [4]"]),
    (
      {"decoder/head": HEAD, "fusion/scales": SCALE},
      ["missing: fusion/scale [4]; near it: fusion/scales", "unexpected: fusion/scales [4]"],
    ),
    (
      {"decoder/head": HEAD.T, "fusion/scale": SCALE},
      ["shape: decoder/head is [5, 3], the model has [3, 5]"],
    ),
  ],
)
def test_weights_that_do_not_fit_are_listed(tmp_path, saved, lines):
  """Kills: filling a renamed parameter with random numbers; a message that names no parameter."""
  path = tmp_path / "w.safetensors"
  weights.save_weights(path, flax.traverse_util.unflatten_dict(saved, sep="/"))
  with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
    weights.load_weights(path, TARGET)
  assert f"({len(lines)} differences)" in str(caught.value)
  for line in lines:
    assert f"\n  {line}\n" in str(caught.value)


def test_new_parameters_may_be_missing_or_unused_but_not_of_another_shape(tmp_path):
  """Kills: `new` as a search, or as a pardon for shapes."""
  path = tmp_path / "w.safetensors"
  weights.save_weights(path, {"decoder": {"head": HEAD}, "old": {"bias": SCALE}})
  got = weights.load_weights(path, TARGET, new=(r"fusion/.*", r"old/bias"))
  assert got == ({"decoder/head": got.params["decoder/head"]}, ("decoder/head",),
                 ("fusion/scale",), ("old/bias",))  # fmt: skip
  with pytest.raises(ValueError, match="missing: fusion/scale"):
    weights.load_weights(path, TARGET, new=("fusion", "old/bias"))
  weights.save_weights(path, {"decoder": {"head": HEAD.T}, "fusion": {"scale": SCALE}})
  with pytest.raises(ValueError, match=r"shape: decoder/head is \[5, 3\]"):
    weights.load_weights(path, TARGET, new=(".*",))


def test_weights_that_do_not_exist(tmp_path):
  """Kills: a file library's message that does not say which setting is wrong."""
  with pytest.raises(FileNotFoundError, match=r"no\.safetensors do not exist; check init_from"):
    weights.load_weights(tmp_path / "no.safetensors", TARGET)
