"""Benchmarks inside real training on eight devices; slow, as it compiles."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
import test_track_settings
import tiny_run

from facejax import best, checkpoint, cli, stages, train
from facejax.config import DataConfig, MeshConfig, OptimConfig, RunConfig, SyntheticConfig
from facejax.data.pipeline import Pipeline
from facejax.evaluate import track

pytestmark = pytest.mark.slow
data = test_track_settings.data


SCORES = {2: 10.0, 4: 30.0, 6: 30.0, 7: 20.0}  # a model that has learnt nothing scores the same


@pytest.fixture(autouse=True)
def scores(monkeypatch):
  """Accuracies of SCORES."""
  real = track._figures

  def made_up(name, results):
    step = int(results["settings"]["checkpoint"].removeprefix("step "))
    return {**real(name, results), f"{name}.accuracy": SCORES[step]}

  monkeypatch.setattr(track, "_figures", made_up)


def config(root: Path) -> RunConfig:
  """Seven steps, evaluated at 2, 4, 6 and 7, saved at 5 and 7; one stays besides the best."""
  run = test_track_settings.config(root, new_tokens=4, limit=6)
  stage = dataclasses.replace(
    stages.base(7, 16), optim=OptimConfig(3e-3, schedule="constant", warmup=0)
  )
  return dataclasses.replace(
    run,
    data=DataConfig(row_length=352, modalities=(), synthetic=SyntheticConfig(faces=50)),
    stages={"base": stage},
    mesh=MeshConfig(data=-1, fsdp=2),
    checkpoint_every=5,
    keep=1,
    log_every=1,
  )


class Breaks(Pipeline):
  """A machine that goes down behind the evaluation of step 6, of which no checkpoint was made."""

  def batches(self, start, stop):
    for step, batch in zip(range(start, stop), super().batches(start, stop), strict=True):
      if step == 6:
        raise OSError("power")
      yield batch


class Stops(Pipeline):
  """Ctrl-C before step 4 is done: its evaluation is left to the run that goes on."""

  def batches(self, start, stop):
    for step, batch in zip(range(start, stop), super().batches(start, stop), strict=True):
      if step == 3:
        os.kill(os.getpid(), signal.SIGINT)
      yield batch


def run(workdir: Path, wanted: RunConfig, pipeline=Pipeline, **more) -> int:
  with mock.patch.multiple(train, Pipeline=pipeline, make_train_step=tiny_run.shared_step):
    return train.train(wanted, workdir, **more)


def figures(workdir: Path) -> list[dict]:
  lines = (workdir / "base/track.jsonl").read_text().splitlines()
  return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


def test_training_with_evaluations(data, tmp_path):
  """Kills: a train step or generation compiled again, figures that a kill, a stop or the loop's
  own parameters change, a best checkpoint that is removed or is another step's."""
  wanted = config(data)
  clean = tmp_path / "clean"
  compiled, evaluated = [], []
  ask = track.Tracker.ask

  def note(event: str, seconds: float, **about) -> None:
    if event.endswith("backend_compile_duration"):
      compiled.append(about.get("fun_name"))

  def counted(self, step, params):
    found = ask(self, step, params)
    evaluated.append(len(compiled))
    return found

  jax.monitoring.register_event_duration_secs_listener(note)
  with mock.patch.object(track.Tracker, "ask", counted):
    assert run(clean, wanted) == 0
  assert [r["step"] for r in figures(clean)] == [2, 4, 6, 7] and len(evaluated) == 4
  names = [str(name) for name in compiled]
  for program in ("train_step", "generate"):  # before the first evaluation is over, or in it
    assert sum(program in name for name in names) == 1
    assert any(program in name for name in names[: evaluated[0]])

  events = b"".join(path.read_bytes() for path in (clean / "base").glob("events.*"))
  assert b"facexbench/accuracy" in events and b"facexbench/parse_failures" in events

  top = 4  # saved for its score alone; the equal one of step 6 comes too late
  assert best.located(clean / "base/best") == ((clean / "base").resolve(), top)
  assert checkpoint.steps_in(clean / "base") == [top, 7]

  for name, pipeline, status in (("broken", Breaks, None), ("stopped", Stops, train.INTERRUPTED)):
    workdir = tmp_path / name
    if status is None:
      with pytest.raises(OSError, match="power"):
        run(workdir, wanted, pipeline)
      assert [r["step"] for r in figures(workdir)] == [2, 4, 6]
      assert checkpoint.steps_in(workdir / "base") == [4, 5]
    else:
      assert run(workdir, wanted, pipeline) == status
      assert [r["step"] for r in figures(workdir)] == [2]
    assert run(workdir, wanted, resume=True) == 0
    assert figures(workdir) == figures(clean)
    assert (workdir / "base/best").resolve().name == str(top)
    again, first = (
      jax.tree.leaves(checkpoint.load_params(place / "base/best")) for place in (workdir, clean)
    )
    for a, b in zip(again, first, strict=True):
      np.testing.assert_array_equal(a, b)

  arguments = ["evaluate", "--suite", "facexbench", "--checkpoint", str(clean / "base/best")]
  arguments += ["--data", str(data), "--set", "facexbench.partial=true", "--limit", "6"]
  assert cli.main(["--traceback", *arguments, "--new-tokens", "4", "--rows", "4"]) == 0
  out = clean / f"base/evaluate_suite_{top}_6/facexbench"
  answers = lambda file: {
    r["id"]: r["answer"] for r in map(json.loads, file.read_text().splitlines()[1:])
  }
  own = clean / f"base/track/{top}/facexbench/predictions.jsonl"
  assert answers(out / "predictions.jsonl") == answers(own)
