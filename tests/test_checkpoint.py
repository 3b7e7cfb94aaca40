"""What is saved comes back bit for bit, on any mesh; what does not fit is refused by name."""

import dataclasses
import json
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from facejax import checkpoint, config_io, meta, stages, weights
from facejax.config import MeshConfig, RunConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import TrainState, abstract_state

CONFIG = tiny_run.config()


def abstract(stage="stage1", data=-1, fsdp=2, dtype="bfloat16", devices=None) -> TrainState:
  model = FaceMLLM(dataclasses.replace(CONFIG.model, dtype=dtype))
  mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp), devices)
  return abstract_state(model, CONFIG.stages[stage], mesh)


def record(config: RunConfig = CONFIG, stage: str = "stage1", mesh=None) -> dict:
  pipeline = tiny_run.FakePipeline(
    config.model,
    config.data,
    config.stages[stage].rows,
    config.stages[stage].modalities,
    config.stages[stage].mixtures,
  )
  return meta.describe(config, stage, pipeline.fingerprint(), mesh or make_mesh(config.mesh))


def write(folder, state, step=4, saved=None) -> None:
  with checkpoint.Checkpoints(folder, keep=2) as checkpoints:
    checkpoints.save(step, state, saved or record())


@pytest.mark.parametrize("mesh", [(4, 2), (1, 2), (8, 1)])
def test_restores_bit_for_bit_on_any_mesh(tmp_path, mesh):
  """Kills: a cast, a slice on the wrong device, moments of another parameter, a lost key."""
  state = tiny_run.filled(abstract())
  write(tmp_path, state)
  devices = jax.devices()[: mesh[0] * mesh[1]]
  target = abstract(data=mesh[0], fsdp=mesh[1], devices=devices)
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest() == 4
    restored = checkpoints.restore(4, target)
  tiny_run.assert_equal(restored, state)
  for x, want in zip(*map(jax.tree.leaves, (restored, target)), strict=True):
    assert x.sharding == want.sharding
  dtypes = {x.dtype.name for x in jax.tree.leaves(restored.trainable)}
  assert dtypes == {"float32"}
  assert {x.dtype.name for x in jax.tree.leaves(restored.frozen)} == {"bfloat16", "float32"}


def test_a_save_is_not_touched_by_later_steps(tmp_path):
  """Kills: handing the writer buffers that the next, donating step overwrites."""
  add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = abstract("base", dtype="float32")
  state = tiny_run.filled(state.replace(rng=state.step))  # a key cannot be added to
  keep = jax.tree.map(np.array, state.trainable)
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    real = dataclasses.replace(state, rng=jax.random.key(0))
    checkpoints.save(1, real, record())
    for _ in range(5):
      state = add(state)
    jax.block_until_ready(state)
  params = checkpoint.load_params(tmp_path)
  tiny_run.assert_equal(stages.split(params, CONFIG.stages["base"])[0], keep)


def test_keeps_the_newest(tmp_path):
  """Kills: `keep` ignored."""
  state = tiny_run.filled(abstract())
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, state, record())
  assert checkpoint.steps_in(tmp_path) == [2, 3]
  assert checkpoint.steps_in(tmp_path / "nowhere") == []


def test_inference_reads_params_alone(tmp_path):
  """Kills: needing the optimiser; a newest step by text ("10" < "9"); the wrong stage."""
  shapes = abstract()
  first, state = tiny_run.filled(shapes), tiny_run.filled(shapes)
  first = first.replace(trainable=jax.tree.map(lambda x: x * 0, first.trainable))
  write(tmp_path / "base", first, step=2, saved=record(stage="base"))
  write(tmp_path / "stage1", first, step=9)
  write(tmp_path / "stage1", state, step=10)
  tiny_run.assert_equal(checkpoint.load_params(tmp_path / "stage1"), state.params)
  tiny_run.assert_equal(checkpoint.load_params(tmp_path / "stage1", step=9), first.params)
  config, params, folder = checkpoint.load_run(tmp_path)
  assert (config, folder) == (CONFIG, tmp_path / "stage1")
  tiny_run.assert_equal(params, state.params)
  assert checkpoint.load_run(str(tmp_path), "base")[2] == tmp_path / "base"
  wanted = jax.tree.map(lambda x: x.sharding, abstract(data=8, fsdp=1).params)
  placed = checkpoint.load_params(tmp_path / "stage1", shardings=wanted)
  assert jax.tree.map(lambda x: x.sharding, placed) == wanted


def test_the_last_stage_is_the_last_in_the_config(tmp_path):
  """Kills: the stage whose files are newest, as after a copy or a base that was trained on."""
  order = ("stage2", "base", "stage1")
  run = dataclasses.replace(CONFIG, stages={name: CONFIG.stages[name] for name in order})
  state = tiny_run.filled(abstract())
  for name in ("stage1", "stage2", "base"):
    write(tmp_path / name, state, saved=record(run, name))
  assert checkpoint.load_run(tmp_path)[2] == tmp_path / "stage1"


def test_loading_what_is_not_there(tmp_path):
  """Kills: Orbax's message, which names neither the folder nor the steps."""
  with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected the --workdir"):
    checkpoint.load_params(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"has no checkpoint: expected .*STAGE/checkpoints"):
    checkpoint.load_params(tmp_path)
  write(tmp_path / "stage1", tiny_run.filled(abstract()))
  with pytest.raises(FileNotFoundError, match=r"stage1 has not step 3; it has the steps \[4\]"):
    checkpoint.load_params(tmp_path / "stage1", step=3)
  with pytest.raises(FileNotFoundError, match=r"stage9 does not exist"):
    checkpoint.load_run(tmp_path, "stage9")


def test_another_state_is_refused_before_reading(tmp_path):
  """Kills: a silent cast; a shape error that names no leaf."""
  write(tmp_path, tiny_run.filled(abstract()))
  with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
    with pytest.raises(ValueError, match=r"/4/params does not fit the run") as caught:
      checkpoints.restore(4, abstract(dtype="float32"))
    assert "\n  decoder/embedding: saved [61, 24]@bfloat16, expected [61, 24]@float32" in str(
      caught.value
    )
    shapes = abstract()
    grown = jax.ShapeDtypeStruct((9, 22), jnp.float32, sharding=shapes.step.sharding)
    trainable = flax.traverse_util.flatten_dict(shapes.trainable, sep="/")
    renamed = {**trainable, "segmentation/classes": grown, "segmentation/more": grown}
    renamed = flax.traverse_util.unflatten_dict(renamed, sep="/")
    with pytest.raises(ValueError, match="does not fit") as caught:
      checkpoints.restore(4, shapes.replace(trainable=renamed))
    assert "segmentation/classes: saved [7, 22]@float32, expected [9, 22]@float32" in str(
      caught.value
    )
    assert "segmentation/more: saved nothing, expected [9, 22]@float32" in str(caught.value)
    other = dataclasses.replace(
      abstract("stage2"), trainable=shapes.trainable, frozen=shapes.frozen
    )
    with pytest.raises(ValueError, match=r"/4/train does not fit the run:\n  opt_state/1/0/mu/dec"):
      checkpoints.restore(4, other)


def test_damaged_files_are_named(tmp_path):
  """Kills: a TensorStore specification of 125 lines instead of the folder to remove."""
  shapes = abstract()
  write(tmp_path, tiny_run.filled(shapes))
  item = tmp_path / "checkpoints" / "4" / "params"
  for path in item.rglob("d/*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  message = r"checkpoints/4 cannot be read: .* remove this folder to fall back"
  with (
    checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints,
    pytest.raises(ValueError, match=message),
  ):
    checkpoints.restore(4, shapes)
  with pytest.raises(ValueError, match=message):
    checkpoint.load_params(tmp_path)
  (item / "_METADATA").write_text("{")
  with pytest.raises(ValueError, match=message):
    checkpoint.load_params(tmp_path)


# Starting from other parameters.


def test_init_from_an_earlier_stage_takes_the_new_types(tmp_path):
  """Kills: parameters that start fresh although they were trained; a wrong type or layout."""
  base = tiny_run.filled(abstract("base", dtype="float32"))
  write(tmp_path / "base", base, saved=record(stage="base"))
  target = abstract("stage1", dtype="bfloat16")
  found = checkpoint.load_init(tmp_path, CONFIG.stages["stage1"], target)
  wanted = flax.traverse_util.flatten_dict(target.params, sep="/")
  saved = flax.traverse_util.flatten_dict(base.params, sep="/")
  assert set(found.loaded) == set(found.params) == set(wanted)
  for name, x in found.params.items():
    assert (x.dtype, x.sharding) == (wanted[name].dtype, wanted[name].sharding)
    np.testing.assert_array_equal(x, saved[name].astype(x.dtype))


def test_init_from_lists_what_it_lacks_and_what_is_new(tmp_path):
  """Kills: a checkpoint of a smaller model accepted without a word."""
  base = abstract("base", dtype="float32")
  half = {name: tree for name, tree in base.params.items() if name != "segmentation"}
  half["old"] = {"kernel": base.step}
  state = tiny_run.filled(dataclasses.replace(base, trainable=half, frozen={}))
  write(tmp_path / "base", state, saved=record(stage="base"))
  stage = CONFIG.stages["stage1"]
  with pytest.raises(
    ValueError, match=r"base/checkpoints/4/params does not fit the model"
  ) as caught:
    checkpoint.load_init(tmp_path, stage, abstract())
  assert "\n  unexpected: old/kernel []\n" in str(caught.value)
  assert "missing" not in str(caught.value)  # segmentation/.* is new in stage 1
  stage = dataclasses.replace(stage, new=(r"old/.*",))
  with pytest.raises(ValueError, match=r"missing: segmentation/classes \[7, 22\]"):
    checkpoint.load_init(tmp_path, stage, abstract())
  stage = dataclasses.replace(stage, new=(r"old/.*", r"segmentation/.*"))
  found = checkpoint.load_init(tmp_path, stage, abstract())
  assert found.unused == ("old/kernel",)
  assert found.missing[0] == "segmentation/classes"
  assert not set(found.missing) & set(found.params)


def test_init_from_a_file(tmp_path):
  """Kills: the file's type or layout instead of the stage's."""
  base = tiny_run.filled(abstract("base", dtype="float32"))
  path = tmp_path / "official.safetensors"
  weights.save_weights(path, base.params)
  stage = dataclasses.replace(CONFIG.stages["stage1"], init_from=str(path))
  found = checkpoint.load_init(tmp_path, stage, abstract())
  x = found.params["decoder/embedding"]
  assert x.dtype == jnp.bfloat16
  np.testing.assert_array_equal(x, base.params["decoder"]["embedding"].astype(jnp.bfloat16))


# Is it the same run?


def changed(**values) -> RunConfig:
  """CONFIG with dotted fields replaced: model__dtype="bfloat16"."""
  data = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
  for name, value in values.items():
    *path, last = name.split("__")
    node = data
    for part in path:
      node = node[part]
    node[last] = value
  return config_io.from_dict(RunConfig, data)


@pytest.mark.parametrize(
  ("values", "line"),
  [
    ({"data__seed": 3}, "data.seed: 0 -> 3"),
    ({"stages__stage1__rows": 32}, "data.rows: 16 -> 32"),
    ({"model__dtype": "bfloat16"}, "model.dtype: 'float32' -> 'bfloat16'"),
    ({"model__image__eps": 1e-6}, "model.image.eps: 1e-05 -> 1e-06"),
    (
      {"stages__stage1__optim__peak_lr": 0.5},
      "stages.stage1.optim.peak_lr: 0.001 -> 0.5",
    ),
    (
      {"stages__stage1__trainable": ["decoder/.*"]},
      "stages.stage1.trainable: ['(landmark_projector|fusion|segmentation)/.*'] -> ['decoder/.*']",
    ),
    ({"seed": 1}, "seed: 0 -> 1"),
    # The cosine and the warm-up are shares of the steps.
    ({"stages__stage1__steps": 99}, "stages.stage1.steps: 6 -> 99"),
  ],
)
def test_changes_of_mathematics_or_data_are_refused_by_name(values, line):
  """Kills: a field that is not compared; old and new swapped; a hint that does not help."""
  with pytest.raises(ValueError, match=re.escape(f"\n  {line}\n")) as caught:
    meta.check(record(), record(changed(**values)), (), 4, "runs/x/checkpoints/4")
  assert str(caught.value).startswith("runs/x/checkpoints/4 was saved by a run with other settings")
  name = line.partition(":")[0]
  assert f"--allow-change={name}" in str(caught.value)
  for entry in (name, f"config.{name}", name.rpartition(".")[0] or name):
    assert line in meta.check(record(), record(changed(**values)), (entry,), 4, "x")
  with pytest.raises(ValueError, match="other settings"):
    meta.check(record(), record(changed(**values)), (name[:-1],), 4, "x")


def test_more_steps_at_a_constant_rate_are_free():
  """Kills: a refusal where no rate changes; leave where the warm-up is a share of the new steps."""
  steady = {"stages__stage1__optim__schedule": "constant", "stages__stage1__optim__warmup": 0.0}
  saved, longer = changed(**steady), changed(**steady, stages__stage1__steps=99)
  assert meta.check(record(saved), record(longer), (), 4, "x") == ["stages.stage1.steps: 6 -> 99"]
  del steady["stages__stage1__optim__warmup"]
  saved, longer = changed(**steady), changed(**steady, stages__stage1__steps=99)
  with pytest.raises(ValueError, match=r"stages\.stage1\.steps: 6 -> 99"):
    meta.check(record(saved), record(longer), (), 4, "x")


def test_a_mixture_may_change_at_a_step_that_is_not_done():
  """Kills: a change of what was trained already; one that needs a word more than its own step."""
  then = lambda start, *sources: changed(
    stages__stage1__mixtures=[{"sources": list(sources), "start": start}]
  )
  for start in (4, 5):
    assert any(
      "mixtures" in line for line in meta.check(record(), record(then(start, "llava")), (), 4, "x")
    )
  with pytest.raises(ValueError, match=r"data\.mixtures\.1\.start: None -> 3"):
    meta.check(record(), record(then(3, "llava")), (), 4, "x")
  with pytest.raises(ValueError, match=r"\(a mixture from step 4 on is free\), or accept"):
    meta.check(record(), record(then(3, "llava")), (), 4, "x")
  # once it has begun it is the past, too
  begun = record(then(5, "llava"))
  assert meta.check(begun, begun, (), 6, "x") == []
  for other in (CONFIG, then(5, "llava", "synthetic"), then(9, "llava")):
    with pytest.raises(ValueError, match=r"--allow-change=data\.mixtures"):
      meta.check(begun, record(other), (), 6, "x")
  assert meta.check(begun, record(), ("data.mixtures",), 6, "x")


@pytest.mark.parametrize(
  "values",
  [
    {"stages__stage1__accumulate": 4},
    {"stages__stage2__steps": 99},
    {"stages__stage2__optim__peak_lr": 0.5},
    {"checkpoint_every": 7, "keep": 1, "log_every": 3},
    {"mesh__data": 8, "mesh__fsdp": 1},
    {"data__workers": 2, "data__max_refused": 0.5},
    {"evaluate__faces": 3},
    {"model__remat": "full"},
  ],
)
def test_other_changes_are_told_and_allowed(values):
  """Kills: a resume that needs the same devices, workers or length; a silent change."""
  mesh = make_mesh(changed(**values).mesh)
  lines = meta.check(record(), record(changed(**values), mesh=mesh), (), 4, "x")
  told = [name for name in values if not name.startswith("data__")]  # those leave batches equal
  for name in told:
    assert any(line.startswith(f"{name.replace('__', '.')}: ") for line in lines), lines
  assert meta.check(record(), record(), (), 4, "x") == []
  assert bool(lines) == bool(told)
