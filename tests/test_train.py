"""The loop: what it computes, what it writes, and when it stops."""

import dataclasses
import json
import os
import re
import shutil
import signal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from facejax import checkpoint, logs, losses, optim, train
from facejax.config import MeshConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import TrainState, abstract_state

CONFIG = tiny_run.config(steps=4)
STAGES = tuple(CONFIG.stages)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
  """A run that nothing disturbs, and the exit code of train()."""
  workdir = tmp_path_factory.mktemp("clean")
  return workdir, tiny_run.run(workdir, CONFIG)


def final(workdir, stage):
  return checkpoint.load_params(workdir / stage, step=4)


# The step.


def random_state(abstract: TrainState) -> TrainState:
  """The parameters of tiny_run.filled at a fresh model's scale; the rest zero. Nothing compiles."""
  scale = lambda tree: jax.tree.map(
    lambda x: jax.device_put(np.asarray(x) * 3e-4, x.sharding), tree
  )
  zeros = lambda tree: jax.tree.map(lambda x: jax.device_put(np.asarray(x) * 0, x.sharding), tree)
  state = tiny_run.filled(abstract)
  return state.replace(
    step=zeros(state.step),
    trainable=scale(state.trainable),
    frozen=scale(state.frozen),
    opt_state=zeros(state.opt_state),
  )


def start(stage, devices=8, **changes) -> tuple:
  """(state, step, mesh) of a stage with fresh parameters, equal on any mesh."""
  stage = dataclasses.replace(CONFIG.stages[stage], **changes)
  mesh = make_mesh(MeshConfig(data=-1, fsdp=2 if devices > 1 else 1), jax.devices()[:devices])
  model = FaceMLLM(CONFIG.model)
  state = random_state(abstract_state(model, stage, mesh))
  return state, train.make_train_step(model, stage, mesh), mesh


def batch(step: int = 0):
  return tiny_run.FakePipeline(CONFIG.model, CONFIG.data, tiny_run.ROWS, ("segmentation",)).batch(
    step
  )[0]


def steps(started, count: int) -> tuple[TrainState, list[dict]]:
  state, step, mesh = started
  metrics = []
  with jax.set_mesh(mesh):
    for n in range(count):
      state, values = step(state, train.put(batch(n), tiny_run.ROWS, mesh))
      metrics.append({name: float(x) for name, x in values.items()})
  return state, metrics


@pytest.fixture(scope="module")
def stage2():
  """Three steps of stage 2 in one piece on eight devices: start, end, metrics."""
  started = start("stage2")
  before = jax.tree.map(np.array, started[0].params)
  state, metrics = steps(started, 3)
  return before, state, metrics


def test_frozen_parameters_do_not_move_and_trainable_ones_do(stage2):
  """Kills: a gradient step on a frozen part; a part that never gets a gradient."""
  before, state, metrics = stage2
  tiny_run.assert_equal(state.frozen, {"image_encoder": before["image_encoder"]})
  for part in ("decoder", "projector", "segmentation"):
    moved = [
      float(np.abs(x - y).max())
      for x, y in zip(*map(jax.tree.leaves, (state.params[part], before[part])), strict=True)
    ]
    assert min(moved) > 0, (part, moved)
  adam = state.opt_state[1][0]
  assert set(adam.mu) == set(adam.nu) == {"decoder", "projector", "segmentation"}
  assert int(state.step) == int(adam.count) == 3
  assert metrics[0]["learning_rate"] == metrics[0]["update_norm"] == 0
  want = optim.learning_rate(CONFIG.stages["stage2"].optim, 4)
  np.testing.assert_allclose([m["learning_rate"] for m in metrics], [want(s) for s in range(3)])


def test_metrics_are_those_of_a_plain_computation(stage2):
  """Kills: a mean over rows, a gradient of the sum, a norm of the wrong tree."""
  before, _, metrics = stage2
  model, data = FaceMLLM(CONFIG.model), jax.tree.map(jnp.asarray, batch())
  frozen = {"image_encoder": before.pop("image_encoder")}

  def loss(trainable):
    logits = model.apply({"params": {**trainable, **frozen}}, data)
    logp = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(logp, data.targets[..., None], -1)[..., 0]
    return -jnp.sum(chosen * data.loss_weights) / jnp.sum(data.loss_weights)

  value, grads = jax.jit(jax.value_and_grad(loss))(before)
  norm = lambda tree: np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in tree))
  got = metrics[0]
  assert got["weight"] == float(data.loss_weights.sum()) > 0
  np.testing.assert_allclose(got["loss"], value, rtol=1e-5)
  np.testing.assert_allclose(got["grad_norm"], norm(jax.tree.leaves(grads)), rtol=1e-4)
  np.testing.assert_allclose(got["param_norm"], norm(jax.tree.leaves(before)), rtol=1e-5)


def test_devices_and_micro_batches_change_rounding_alone(stage2):
  """Kills: rows lost or counted twice; means of micro-batches of different weight.

  One device and four micro-batches against eight devices and one.

  Tolerances: sums of float32 in another order; Adam's division magnifies that in small gradients.
  """
  _, state, want = stage2
  other, got = steps(start("stage2", devices=1, accumulate=4), 3)
  for a, b in zip(got, want, strict=True):
    assert a["weight"] == b["weight"]
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-5)
    np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=2e-4)
  for x, y in zip(*map(jax.tree.leaves, (other.opt_state, state.opt_state)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-6)


def test_micro_batches_differ_in_weight():
  """The quarters of the test above hold different numbers of targets, or it would prove little."""
  weights = batch().loss_weights.reshape(-1, 4, batch().loss_weights.shape[1]).sum((0, 2))
  assert len(set(weights)) > 2


def test_the_step_is_traced_once():
  """Kills: a Python number in the state, a layout that changes after the first step."""
  started = start("stage1")
  with mock.patch.object(losses, "of_hidden", side_effect=losses.of_hidden) as traced:
    state, _ = steps(started, 1)
    once = traced.call_count
    steps((state, *started[1:]), 4)
  assert once > 0
  assert traced.call_count == once


def test_a_batch_without_targets_changes_no_parameter():
  """Kills: 0 / 0 in a step whose samples were all refused."""
  state, step, mesh = start("stage1")
  before = jax.tree.map(np.array, state.params)
  empty = batch().replace(loss_weights=np.zeros_like(batch().loss_weights))
  with jax.set_mesh(mesh):
    for _ in range(2):
      state, values = step(state, train.put(empty, tiny_run.ROWS, mesh))
  tiny_run.assert_equal(state.params, before)
  assert float(values["loss"]) == float(values["weight"]) == float(values["grad_norm"]) == 0


# The run.


def test_a_run_writes_its_records(clean):
  """Kills: a missing last checkpoint, a loss of one step for that of a window, a stage skipped."""
  workdir, code = clean
  assert code == 0
  for name in STAGES:
    folder = workdir / name
    assert checkpoint.steps_in(folder) == [2, 4]
    assert list(folder.glob("events.out.tfevents.*"))
    assert json.loads((folder / "config.json").read_text())["stages"][name]["steps"] == 4
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 4]
    data = tiny_run.FakePipeline(
      CONFIG.model, CONFIG.data, tiny_run.ROWS, CONFIG.stages[name].modalities
    )
    for record, members in zip(records, ((0,), (1,), (2, 3)), strict=True):
      weight = sum(float(data.batch(step)[0].loss_weights.sum()) for step in members)
      assert record["weight"] == weight
      assert 3.5 < record["loss"] < 4.5  # random answers: ln 61 = 4.11
      assert record["tokens_per_second"] > 0 and record["step_seconds"] > 0
      assert 0 <= record["data_wait"] <= 1 and 0.05 < record["memory_gib"] < 50


def test_each_stage_starts_from_the_one_before(clean):
  """Kills: a stage that starts from random weights; stage 1 that moves the decoder."""
  workdir, _ = clean
  base, one, two = (final(workdir, name) for name in STAGES)
  for part in ("decoder", "projector", "image_encoder"):
    tiny_run.assert_equal(one[part], base[part])
  tiny_run.assert_equal(two["image_encoder"], base["image_encoder"])
  change = lambda a, b: max(
    float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
  )
  assert 0 < change(one["segmentation"], base["segmentation"]) < 4e-3  # 3 updates of at most 1e-3
  assert 0 < change(two["decoder"], one["decoder"]) < 4e-3


class Crash(RuntimeError):
  """The process dies; nothing is saved on the way."""


def crashing(at: int):
  """Pipelines of which the first dies at batch `at`; what was logged until then stays."""

  class Pipeline(tiny_run.FakePipeline):
    def batch(self, step):
      if step == at:
        raise Crash
      return super().batch(step)

  return Pipeline


def test_resumes_bit_for_bit_in_each_stage(clean, tmp_path):
  """Kills: data, optimiser, key or step that restart; records written twice."""
  for name in STAGES:
    with pytest.raises(Crash):
      tiny_run.run(tmp_path, CONFIG, crashing(3), stages=[name], resume=name != "base")
    assert checkpoint.steps_in(tmp_path / name) == [2]
    assert tiny_run.run(tmp_path, CONFIG, stages=[name], resume=True) == 0
    tiny_run.assert_equal(final(tmp_path, name), final(clean[0], name))
    steps = [r["step"] for r in logs.read_until(tmp_path / name / "metrics.jsonl", 99)]
    assert steps == sorted(set(steps))


def test_a_signal_saves_and_a_resume_goes_on(clean, tmp_path, capsys):
  """Kills: a step lost, a save skipped because it is not due, exit status 0, a lost handler."""

  class Pipeline(tiny_run.FakePipeline):
    def batch(self, step):
      if step == 0:
        os.kill(os.getpid(), signal.SIGTERM)
      return super().batch(step)

  handler = signal.getsignal(signal.SIGTERM)
  assert tiny_run.run(tmp_path, CONFIG, Pipeline) == train.INTERRUPTED == 75
  assert signal.getsignal(signal.SIGTERM) is handler
  assert "base: stopped and saved; continue with --resume" in capsys.readouterr().out
  assert checkpoint.steps_in(tmp_path / "base") == [1]
  assert not (tmp_path / "stage1" / "checkpoints").exists()
  assert tiny_run.run(tmp_path, CONFIG, stages=["base"], resume=True) == 0
  tiny_run.assert_equal(final(tmp_path, "base"), final(clean[0], "base"))


def test_what_is_finished_is_not_trained_again(clean, capsys):
  """Kills: a resume that trains or saves a finished stage; a step more each time."""
  workdir, _ = clean
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("metrics.jsonl")}
  assert tiny_run.run(workdir, CONFIG, resume=True) == 0
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("metrics.jsonl")} == before
  out = capsys.readouterr().out
  assert all(f"{name}: finished at step 4" in out for name in STAGES)


def test_another_run_is_refused_and_may_be_allowed(clean, tmp_path, capsys):
  """Kills: resuming on other data; an allowance that is not heard, or that hides the change."""
  other = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, seed=3))
  with pytest.raises(ValueError, match=r"(?s)base/checkpoints/4 .*\n  data\.seed: 0 -> 3\n"):
    tiny_run.run(clean[0], other, resume=True)
  allow = ("data", "stages.base.optim")
  assert tiny_run.run(clean[0], other, stages=["base"], resume=True, allow_change=allow) == 0
  assert "changed since step 4: data.seed: 0 -> 3" in capsys.readouterr().out


def test_a_stage_on_an_older_start_is_refused(clean, tmp_path):
  """Kills: a base that was trained on, and a stage 1 that still stands on the old one."""
  shutil.copytree(clean[0], tmp_path / "run")
  checkpoints = tmp_path / "run" / "base" / "checkpoints"
  (checkpoints / "4").rename(checkpoints / "5")
  with pytest.raises(ValueError, match=r"start: 'base at step 4' -> 'base at step 5'"):
    tiny_run.run(tmp_path / "run", CONFIG, stages=["stage1"], resume=True)
  shutil.rmtree(tmp_path / "run" / "base")
  assert tiny_run.run(tmp_path / "run", CONFIG, stages=["stage1"], resume=True) == 0


def test_existing_folders_are_kept_unless_told(clean, tmp_path):
  """Kills: overwriting a week of training; removing a folder that is not ours."""
  with pytest.raises(FileExistsError, match=r"base has content: .* --resume or --overwrite"):
    tiny_run.run(clean[0], CONFIG)
  with pytest.raises(ValueError, match="--resume and --overwrite exclude each other"):
    tiny_run.run(clean[0], CONFIG, resume=True, overwrite=True)
  (tmp_path / "base").mkdir()
  (tmp_path / "base" / "metrics.jsonl").write_text("")
  (tmp_path / "base" / "checkpoints").mkdir()
  (tmp_path / "stage1").mkdir()
  (tmp_path / "stage1" / "thesis.tex").write_text("")
  with pytest.raises(FileExistsError, match=r"stage1 has neither config\.json nor checkpoints/"):
    tiny_run.run(tmp_path, CONFIG, overwrite=True)
  assert (tmp_path / "base" / "metrics.jsonl").exists()
  (tmp_path / "notes.txt").write_text("")
  with pytest.raises(Crash):
    tiny_run.run(tmp_path, CONFIG, crashing(0), stages=["base"], overwrite=True)
  assert (tmp_path / "notes.txt").exists() and (tmp_path / "stage1" / "thesis.tex").exists()
  assert (tmp_path / "base" / "metrics.jsonl").exists() is False


def with_stage(name: str, **changes):
  stages = {**CONFIG.stages, name: dataclasses.replace(CONFIG.stages[name], **changes)}
  return dataclasses.replace(CONFIG, stages=stages)


@pytest.mark.parametrize(
  ("run_config", "stages", "error", "message"),
  [
    (CONFIG, ["stage3"], ValueError, "--stages is 'stage3', .* did you mean 'stage.'"),
    (CONFIG, ["stage2"], FileNotFoundError, "stage2 starts from stage1, but .* no checkpoint; .*"
     "--stages=stage1,stage2"),
    (with_stage("base", init_from="stage1"), None, ValueError, r"stages\.base\.init_from='stage1': "
     r"expected '', a \.safetensors file or an earlier stage \(there is none\)"),
    (with_stage("stage2", init_from="stage"), None, ValueError, r"init_from='stage': .*"
     r"\(base, stage1\)"),
    (with_stage("base", init_from="x.safetensors"), None, FileNotFoundError,
     r"stages\.base\.init_from=x\.safetensors: no such file"),
    (with_stage("stage1", rows=24), None, ValueError, r"stages\.stage1\.rows=24 on 8 devices: "
     r"expected a multiple of 16, that is accumulate=2 times 8 devices"),
  ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_work(tmp_path, run_config, stages, error, message):
  """Kills: an error after hours of an earlier stage."""
  with pytest.raises(error, match=message):
    tiny_run.run(tmp_path, run_config, stages=stages)
  assert not any(tmp_path.iterdir())


def test_an_unfinished_stage_is_no_start(tmp_path):
  """Kills: stage 1 on top of half a base."""
  (tmp_path / "base" / "checkpoints" / "3").mkdir(parents=True)
  with pytest.raises(ValueError, match=r"base, which stopped at step 3 of 4; .* --resume"):
    tiny_run.run(tmp_path, CONFIG, stages=["stage1"])


# What it says.


def test_prints_what_will_run_before_the_first_step(tmp_path, capsys):
  """Kills: finding out after a day that a part was frozen or a shape wrong."""
  with pytest.raises(Crash):
    tiny_run.run(tmp_path, CONFIG, crashing(1), stages=["base"])
  out = capsys.readouterr().out
  assert "decoder/embedding: [61, 24]@float32" in out
  assert "images/pixels: [16, 1, 1, 12, 12, 3]@uint8" in out
  assert re.search(r"segmentation +1,300 +frozen", out)
  assert "mesh {'data': 4, 'fsdp': 2, 'context': 1, 'tensor': 1}, 8 cpu" in out
