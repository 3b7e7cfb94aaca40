"""Stages with adapters from start to end: the base, resume, what may follow, what is refused."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from facejax import checkpoint, lora, stages, weights
from facejax.config import LoraConfig, MeshConfig, RunConfig
from facejax.fake import fake_batch
from facejax.models.face_mllm import FaceMLLM, init
from facejax.sharding import make_mesh
from facejax.state import abstract_state
from facejax.train import INTERRUPTED

LORA = LoraConfig(rank=3, alpha=7.5, targets=(r"decoder/blocks/.*", "projector/fc1"))


def config(base: str = "model", steps: int = 6, source: str = "base.safetensors") -> RunConfig:
  """A stage of adapters over a file of weights."""
  stage = stages.adapters(steps, tiny_run.ROWS, source, peak_lr=1e-2)
  stage = dataclasses.replace(stage, lora=dataclasses.replace(LORA, base=base))
  return tiny_run.config(stages={"lora": stage})


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("base") / "base.safetensors"
  weights.save_weights(path, init(tiny_run.model(fusion=False), jax.random.key(1)))
  return str(path)


def saved(workdir: Path, stage: str = "lora") -> dict[str, np.ndarray]:
  return {
    n: np.asarray(x) for n, x in lora.flatten(checkpoint.load_params(workdir / stage)).items()
  }


@pytest.fixture(scope="module", params=["model", "nf4"])
def trained(request, tmp_path_factory, weight_file) -> tuple[Path, RunConfig]:
  run = config(request.param, source=weight_file)
  workdir = tmp_path_factory.mktemp(request.param)
  assert tiny_run.run(workdir, run) == 0
  return workdir, run


def test_the_checkpoint_holds_adapters_and_answers_hold_the_base(trained, weight_file):
  """Kills: a base in the checkpoint; a base that changed; adapters that did not train."""
  workdir, run = trained
  item = checkpoint._params_item(workdir / "lora", None)
  assert set(checkpoint._saved(item)) == {
    f"{name}/lora_{half}"
    for name in (*(f"decoder/blocks/attention/{n}" for n in ("q", "k", "v", "out")),
                 *(f"decoder/blocks/{n}" for n in ("gate", "up", "down")), "projector/fc1")
    for half in "ab"
  }  # fmt: skip
  params = saved(workdir)
  base = lora.flatten(init(run.model, jax.random.key(1)))
  if run.stages["lora"].lora.base == "model":
    for name, x in base.items():
      np.testing.assert_array_equal(params[name], x)
  else:
    assert {str(x.dtype) for n, x in params.items() if n.endswith("kernel") and "blocks" in n} == {
      "uint4"
    }
  assert all(np.abs(x).max() > 0 for n, x in params.items() if n.endswith("lora_b"))
  assert (params["projector/fc1/lora_scale"] == 2.5).all()


class Stopped(tiny_run.FakePipeline):
  """Ctrl-C while the third batch is made."""

  def batch(self, step: int):
    if step == 2:
      os.kill(os.getpid(), signal.SIGINT)
    return super().batch(step)


def test_a_stopped_run_goes_on_bit_for_bit(trained, tmp_path):
  """Kills: an optimiser, a step or a base lost in a resume; a base drawn or rounded anew."""
  workdir, run = trained
  assert tiny_run.run(tmp_path, run, Stopped) == INTERRUPTED
  assert checkpoint.steps_in(tmp_path / "lora")[-1] < 6
  assert tiny_run.run(tmp_path, run, resume=True) == 0
  again, clean = saved(tmp_path), saved(workdir)
  assert set(again) == set(clean)
  for name, x in clean.items():
    np.testing.assert_array_equal(again[name], x)


@pytest.mark.parametrize("trained", ["nf4"], indirect=True)
def test_resume_on_another_mesh(trained, tmp_path):
  """Kills: a base that is recognised on one mesh only; scales that are laid out wrong."""
  workdir, run = trained
  shutil.copytree(workdir / "lora", tmp_path / "lora")
  shutil.rmtree(tmp_path / "lora/checkpoints/6")
  other = dataclasses.replace(run, mesh=MeshConfig(data=8))
  assert tiny_run.run(tmp_path, other, resume=True) == 0
  moved = saved(tmp_path)
  for name, x in saved(workdir).items():
    np.testing.assert_allclose(moved[name], x, atol=1e-5)


def test_a_later_stage_starts_from_adapters(trained):
  """Kills: adapters dropped, or merged and continued at once; a base quantised twice."""
  workdir, run = trained
  first = run.stages["lora"]
  trained_params = checkpoint.load_params(workdir / "lora")
  merged = lora.flatten(lora.merge(trained_params))
  later = {
    "full": stages.stage2(6, 16, "lora"),
    "same": dataclasses.replace(first, init_from="lora"),
    "wider": dataclasses.replace(
      first, init_from="lora", lora=dataclasses.replace(first.lora, rank=4, base="model")
    ),
  }
  later = dataclasses.replace(run, stages={"lora": first, **later})
  mesh = make_mesh(run.mesh)
  for name in ("full", "same", "wider"):
    abstract = abstract_state(FaceMLLM(run.model), later.stages[name], mesh)
    begun = checkpoint.start(later, workdir, name, abstract)
    got = {n: np.asarray(x) for n, x in lora.flatten(begun.state.params).items()}
    if name == "same":
      wanted = lora.flatten(trained_params)
      assert set(got) == set(wanted) and begun.state.step == 0
    else:
      wanted = merged
      assert all(not x.any() for n, x in got.items() if n.endswith("lora_b"))
    for path, x in wanted.items():
      np.testing.assert_array_equal(got[path], x)


def test_another_base_is_refused_by_name(trained, tmp_path, weight_file):
  """Kills: adapters that go on over, or answer with, weights that they were not trained on."""
  workdir, run = trained
  shutil.copytree(workdir / "lora", tmp_path / "lora")
  shutil.rmtree(tmp_path / "lora/checkpoints/6")
  path = Path(weight_file)
  kept = path.read_bytes()
  params = init(run.model, jax.random.key(1))
  params["decoder"]["blocks"]["up"]["kernel"] *= 1.001
  try:
    weights.save_weights(path, params)
    message = (
      r"checkpoints/4 holds adapters of another base than init_from='\S+base.safetensors' is now: "
      r"1 of \d+ parameters differ\n  decoder/blocks/up/kernel: saved \[2, 24, 34\]@float32 "
      r"(\w{8}), found \[2, 24, 34\]@float32 (?!\1)\w{8}"
    )
    with pytest.raises(ValueError, match=message):
      tiny_run.run(tmp_path, run, resume=True)
    with pytest.raises(ValueError, match=message):
      checkpoint.load_run(tmp_path, "lora")
    path.unlink()
    message = (
      r"checkpoints/4 holds adapters alone, and their base cannot be read: weights \S+ do not"
    )
    with pytest.raises(FileNotFoundError, match=message):
      checkpoint.load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"stages\.lora\.init_from=\S+: no such file"):
      tiny_run.run(tmp_path, run, resume=True)
  finally:
    path.write_bytes(kept)


def test_the_model_that_is_loaded_is_the_one_that_trained(trained):
  """Kills: a loader that forgets the adapters, or quantises twice; a merge of other numbers."""
  workdir, run = trained
  _, params, folder = checkpoint.load_run(workdir)
  assert folder == workdir / "lora"
  batch = fake_batch(run.model, 4, 23, seed=9)
  model = FaceMLLM(run.model)
  scores = model.apply({"params": params}, batch)
  merged = model.apply({"params": lora.merge(params)}, batch)
  np.testing.assert_allclose(merged, scores, atol=1e-5)
  plain = lora.merge({**params, "decoder": init(run.model, jax.random.key(1))["decoder"]})
  assert np.abs(np.asarray(model.apply({"params": plain}, batch) - scores)).max() > 1e-3
