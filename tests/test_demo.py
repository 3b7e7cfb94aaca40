"""The demo as a run of seconds: what it refuses, what it keeps, and that it can be continued."""

import dataclasses
import json
import os
import shutil
import signal
from unittest import mock

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_run

from facejax import checkpoint, cli, demo, train
from facejax.config import LabelsConfig
from facejax.data.pipeline import load_tokenizer
from facejax.evaluate import run as evaluation
from facejax.generate import Answer
from facejax.models import face_mllm


class FakeAnswerer:
  """Says nothing; counts the evaluations."""

  made = 0

  def __init__(self, config, params, mesh=None):
    FakeAnswerer.made += 1
    self.mean = float(np.mean([np.mean(x) for x in jax.tree.leaves(params)]))

  def answer(self, samples, sampling, seed=0, progress=None):
    progress(len(samples))
    return [Answer(f"{self.mean} years", (5,), True) for _ in samples]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Two stages on random weights from a file."""
  made = tiny_run.config(steps=4)
  decoder = dataclasses.replace(
    made.model.decoder, vocab=load_tokenizer("demo").vocab_size, layers=1
  )
  model = dataclasses.replace(made.model, decoder=decoder)
  draw = np.random.default_rng(2)
  flat = flax.traverse_util.flatten_dict(face_mllm.init_shapes(model), sep="/")
  tensors = {
    name: draw.normal(0, 0.1, x.shape).astype(np.float32)
    for name, x in flat.items()
    if not name.startswith("segmentation/")
  }
  start = tmp_path_factory.mktemp("weights") / "start.safetensors"
  safetensors.numpy.save_file(tensors, start)
  stage1 = dataclasses.replace(
    made.stages["stage1"],
    init_from=str(start),
    trainable=("segmentation/.*",),
    new=("segmentation/.*",),
  )
  return dataclasses.replace(
    made,
    model=model,
    stages={"stage1": stage1, "stage2": made.stages["stage2"]},
    evaluate=dataclasses.replace(made.evaluate, faces=2, bootstrap=5, tasks=("age",)),
  )


def run(config, workdir, pipeline=tiny_run.FakePipeline, **arguments):
  with (
    mock.patch.multiple(train, Pipeline=pipeline, make_train_step=tiny_run.shared_step),
    mock.patch.object(evaluation, "Answerer", FakeAnswerer),
    mock.patch.multiple(demo, _conversations=lambda *_: [], report=lambda _: "report.html"),
  ):
    FakeAnswerer.made = 0
    return demo.run(config, workdir, **arguments)


@pytest.fixture(scope="module")
def clean(config, tmp_path_factory):
  """A demo in one piece."""
  workdir = tmp_path_factory.mktemp("clean")
  assert run(config, workdir) == 0
  assert FakeAnswerer.made == 4
  return workdir


def results(workdir) -> dict:
  """results.json without what a clock or the process says."""

  def timeless(value):
    if not isinstance(value, dict):
      return value
    drop = ("seconds", "peak_rss_gb", "resumed")
    return {k: timeless(v) for k, v in value.items() if k not in drop}

  return timeless(json.loads((workdir / "results.json").read_text()))


@pytest.mark.slow
def test_a_stopped_demo_continues_to_the_same_results(config, clean, tmp_path, capsys):
  """Kills: a demo that cannot be continued; finished stages or evaluations made again."""
  made = []

  class Stopping(tiny_run.FakePipeline):
    def __init__(self, *arguments):
      made.append(self)
      super().__init__(*arguments)

    def batch(self, step):
      if len(made) == 2 and step == 0:  # stage 2
        os.kill(os.getpid(), signal.SIGTERM)
      return super().batch(step)

  assert run(config, tmp_path, Stopping) == train.INTERRUPTED
  assert "continue with --resume" in capsys.readouterr().out
  assert checkpoint.steps_in(tmp_path / "stage2") == [1]
  assert not (tmp_path / "results.json").exists()
  assert run(config, tmp_path, resume=True) == 0
  assert FakeAnswerer.made == 2  # stage 2, masked and not
  assert "stage1: finished at step 4" in capsys.readouterr().out
  assert results(tmp_path) == results(clean)
  assert json.loads((tmp_path / "results.json").read_text())["resumed"] is True
  assert json.loads((clean / "results.json").read_text())["resumed"] is False
  params = [checkpoint.load_params(folder / "stage2", step=4) for folder in (tmp_path, clean)]
  tiny_run.assert_equal(*params)


@pytest.mark.slow
def test_evaluations_are_those_of_the_settings(config, clean, tmp_path):
  """Kills: an evaluation of fewer faces taken for this one; half an evaluation taken for whole."""
  shutil.copytree(clean, tmp_path / "run")
  workdir = tmp_path / "run"
  assert run(config, workdir, resume=True) == 0
  assert FakeAnswerer.made == 0
  (workdir / "stage1" / "evaluate" / "results.json").write_text('{"age_mae": ')
  assert run(config, workdir, resume=True) == 0
  assert FakeAnswerer.made == 1 and results(workdir) == results(clean)
  more = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, faces=3))
  assert run(more, workdir, resume=True) == 0
  assert FakeAnswerer.made == 4 and results(workdir)["faces"] == 3


def test_all_stages_are_checked_before_the_first_one_trains(config, tmp_path):
  """Kills: an error after the minutes of stage 1; a thesis removed; the demo of another start."""
  (tmp_path / "stage2").mkdir()
  (tmp_path / "stage2" / "thesis.tex").write_text("")
  with pytest.raises(FileExistsError, match="stage2 has content"):
    run(config, tmp_path)
  with pytest.raises(FileExistsError, match=r"stage2 has neither config\.json nor checkpoints/"):
    run(config, tmp_path, overwrite=True)

  def changed(name, **changes):
    stage = dataclasses.replace(config.stages[name], **changes)
    return dataclasses.replace(config, stages={**config.stages, name: stage})

  with pytest.raises(FileNotFoundError, match=r"stages\.stage1\.init_from=x\.safetensors: no such"):
    run(changed("stage1", init_from="x.safetensors"), tmp_path)
  with pytest.raises(ValueError, match=r"stages\.stage2\.init_from='stage3': expected ''"):
    run(changed("stage2", init_from="stage3"), tmp_path)
  with pytest.raises(ValueError, match=r"stages\.stage1\.init_from='', .* expected a \.safetensor"):
    run(changed("stage1", init_from=""), tmp_path)
  with pytest.raises(ValueError, match="the config has no stages"):
    run(dataclasses.replace(config, stages={}), tmp_path)
  assert sorted(path.name for path in tmp_path.rglob("*")) == ["stage2", "thesis.tex"]


@pytest.mark.slow
def test_an_old_summary_is_kept_or_goes_with_its_run(config, clean, tmp_path):
  """Kills: results.json of the run before beside half of a new one; one overwritten unasked."""
  shutil.copytree(clean, tmp_path / "run")
  workdir = tmp_path / "run"
  for stage in config.stages:
    shutil.rmtree(workdir / stage)
  with pytest.raises(
    FileExistsError, match=r"results\.json is of an earlier demo; use --resume or"
  ):
    run(config, workdir)

  class Crash(RuntimeError):
    """The process dies."""

  class Crashing(tiny_run.FakePipeline):
    def batch(self, step):
      raise Crash

  with pytest.raises(Crash):
    run(config, workdir, Crashing, overwrite=True)
  assert not list(workdir.rglob("results.json"))


def test_the_command_hands_its_flags_on(config, tmp_path):
  """Kills: a --resume that argparse knows and the demo never hears of."""
  with (
    mock.patch.object(demo, "run", return_value=75) as called,
    mock.patch.object(cli.config_io, "load", return_value=config),
  ):
    argv = ["demo", "--workdir", str(tmp_path), "--resume", "--allow-change", "seed,data"]
    assert cli.main(argv) == 75
  assert called.call_args.args == (config, tmp_path)
  wanted = {"resume": True, "overwrite": False, "allow_change": ("seed", "data")}
  assert called.call_args.kwargs == wanted


def test_a_label_head_is_judged_in_both_modes(config, tmp_path, capsys):
  """Kills: a head asked before it has learned, words asked of a model that has, inputs that a stage
  does not read, results that are not kept; a model without labels that is judged by them."""
  model = dataclasses.replace(config.model, labels=LabelsConfig("age_gender_race"))
  labelled = dataclasses.replace(config, model=model)
  asked = []

  def judge(given, params, source, folder, *, modalities, of):
    asked.append((params, source, folder, modalities, of))
    return {"rows": {}, "of": of}

  quick = dict(_prepare=mock.DEFAULT, base_params=mock.DEFAULT, train=lambda *a, **b: 0)
  with (
    mock.patch.multiple(demo, **quick, _evaluated=lambda *a: {}, table=lambda runs: ""),
    mock.patch.multiple(demo, _conversations=lambda *_: [], report=lambda _: "report.html"),
    mock.patch.object(demo.modes, "evaluate", judge),
    mock.patch.object(demo.checkpoint, "load_run", lambda w, name: (labelled, name, w / name)),
    mock.patch.object(demo.checkpoint, "steps_in", lambda folder: [4]),
  ):
    assert demo.run(labelled, tmp_path) == 0
    where = lambda name: tmp_path / name / "labels"
    assert asked == [
      ("stage1", "answers", where("stage1"), labelled.reads("stage1"), "stage1 at step 4"),
      ("stage2", "head", where("stage2"), labelled.reads("stage2"), "stage2 at step 4"),
    ]
    assert list(results(tmp_path)["labels"]) == ["stage1", "stage2"]
    assert "labels, stage1, from its answers" in capsys.readouterr().out
    assert demo.run(config, tmp_path) == 0
  assert len(asked) == 2 and "labels" not in results(tmp_path)
