"""Benchmarks inside training: what is refused, figures, the best step, what a kill leaves."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import facexbench_folder
import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))
import saved_run

from facejax import config_io, meta
from facejax.config import RunConfig, TrackConfig
from facejax.evaluate import track
from facejax.generate import Answer


@pytest.fixture
def data(tmp_path) -> Path:
  """Two benchmarks in folders of their names."""
  folder = tmp_path / "data/facexbench"
  folder.mkdir(parents=True)
  facexbench_folder.write(folder, "utkface_single_mcq_gender_test", "bias_fairness", 8)
  facexbench_folder.draw(folder)
  (tmp_path / "data/utkface").mkdir()
  for i in range(3):
    picture = np.full((20, 20, 3), 40 * i, np.uint8)
    Image.fromarray(picture).save(tmp_path / f"data/utkface/{20 + i}_{i % 2}_0_2017{i:04d}.jpg")
  return tmp_path / "data"


def settings(root: Path, **changes) -> TrackConfig:
  given = {
    "suites": ("facexbench", "utkface"),
    "data": (str(root),),
    "settings": ("facexbench.partial=true", "utkface.split=all"),
    "every": 2,
    "limit": 4,
    "new_tokens": 3,
    "best": "facexbench.accuracy",
  }
  return TrackConfig(**{**given, **changes})


@pytest.mark.parametrize(
  ("changes", "kind", "message"),
  [
    ({"suites": ("facexbenc",)}, ValueError, r"track\.suites is 'facexbenc', .*mean 'facex"),
    ({"best": "utkface.mae"}, ValueError, r"track\.best is 'utkface\.mae', expected one of facexb"
     r"ench\.accuracy, utkface\.age_mae, utkface\.age_mae_answered, utkface\.within_5_years"),
    ({"best": "rafdb.uar"}, ValueError, r"track\.best is 'rafdb\.uar'"),
    ({"data": ("/nowhere",)}, FileNotFoundError, r"track\.data: /nowhere/facexbench does not"),
    ({"data": ("utkface=/nowhere",)}, ValueError, r"no folder for facexbench - give track\.data"),
    ({"settings": ("facexbench.part=true",)}, ValueError, r"track\.settings facexbench\.part: the"),
    ({"settings": ("rafdb.split=all",)}, ValueError, r"track\.settings rafdb\.split=all: expected"),
  ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_name(data, changes, kind, message):
  """Kills: a wrong name that is found after the first thousand steps."""
  with pytest.raises(kind, match=message):
    track.check(settings(data, **changes))


def test_missing_files_are_refused(data):
  """Kills: items that count as wrong at every evaluation, as a file is missing."""
  assert [len(b.items) for b in track.check(settings(data))] == [4, 3]
  gone = next((data / "facexbench/images").rglob("question_1.png"))
  gone.unlink()
  lines = (
    r"1 of the 4 items of facexbench lack a file(.|\n)*test/1: .*question_1\.png: no such file"
  )
  with pytest.raises(FileNotFoundError, match=lines):
    track.check(settings(data))
  (data / "facexbench").rename(data / "benchmark")
  with pytest.raises(
    FileNotFoundError, match=r"facexbench does not exist - .*data has benchmark, utk"
  ):
    track.check(settings(data))


def test_settings_that_say_nothing_are_refused():
  """Kills: a metric that keeps no checkpoint, as nothing is asked."""
  with pytest.raises(ValueError, match=r"best='rafdb\.uar'.* without suites"):
    TrackConfig(best="rafdb.uar")
  with pytest.raises(ValueError, match=r"TrackConfig\.every=0"):
    TrackConfig(every=0)
  run = config_io.override(saved_run.config(), ["track.suites=rafdb,dfew", "track.every=7"])
  assert run.track.suites == ("rafdb", "dfew") and run.track.every == 7


def test_several_processes_are_refused(data, monkeypatch):
  """Kills: processes that wait for each other's answers for ever."""
  monkeypatch.setattr(track.jax, "process_count", lambda: 3)
  with pytest.raises(ValueError, match=r"track\.suites=.* with 3 processes - expected one"):
    track.check(settings(data))
  assert track.check(TrackConfig()) == []


def test_a_resumed_run_may_be_tracked_otherwise(data):
  """Kills: a run that cannot go on as it is asked more, or other questions."""
  told = lambda wanted: meta.describe(wanted, "stage1", {}, SimpleNamespace(shape={"data": 1}))
  old, new = told(saved_run.config()), told(config(data, every=3))
  changed = [d for d in meta.differences(old, new, 1) if d.name.startswith("track.")]
  assert {"track.suites", "track.every", "track.best"} <= {d.name for d in changed}
  assert all(d.free for d in changed)


class Answers:
  """Says the letters that its parameters hold, one an item."""

  def __init__(self, config, params, mesh):
    self.letters = params

  def answer(self, samples, sampling, seed=0):
    assert sampling.new_tokens == 3
    return [Answer(letter, (), True) for letter, _ in zip(self.letters, samples, strict=False)]


def config(data: Path, **changes) -> RunConfig:
  """Prompts fit the model; FaceXBench's first four true letters are B, C, D, A or so."""
  run = saved_run.config(fusion=None)
  decoder = dataclasses.replace(run.model.decoder, max_length=640)
  model = dataclasses.replace(run.model, decoder=decoder)
  evaluate = dataclasses.replace(run.evaluate, rows=4, bootstrap=10)
  wanted = settings(data, suites=("facexbench",), settings=("facexbench.partial=true",), **changes)
  return dataclasses.replace(run, model=model, evaluate=evaluate, track=wanted)


def test_figures_and_the_best_step(data, tmp_path, monkeypatch):
  """Kills: a later equal evaluation that wins, a best step forgotten, or kept of a future that a
  kill undid, or one whose checkpoint is gone, which no later one would replace; other settings'
  figures compared; an evaluation repeated at its step."""
  monkeypatch.setattr(track, "Answerer", Answers)
  run = config(data)
  items = track.check(run.track)[0].items
  chunk = sorted(items, key=lambda item: (len(item.prompt), item.id))  # as suite.chunks orders them
  right = [item.truth for item in chunk]
  some = lambda n: right[:n] + ["E"] * (4 - n)
  folder = tmp_path / "run"
  folder.mkdir()
  tracker = track.Tracker(run, "stage1", folder, None, 0)
  assert [step for step in range(1, 10) if tracker.due(step)] == [2, 4, 6, 8, 9]  # 9 steps in all
  assert not tracker.due(0) and tracker.best is None
  for step, n, best_step in ((2, 1, 2), (4, 3, 4), (6, 3, 4), (8, 4, 8)):
    figures = tracker.ask(step, some(n))
    assert figures == {
      "facexbench.accuracy": 25.0 * n,
      "facexbench.parse_failures": 25.0 * (4 - n),
      "facexbench.not_asked": 0.0,
    }
    assert tracker.best == best_step and not tracker.due(step)
  lines = [json.loads(line) for line in (folder / "track.jsonl").read_text().splitlines()]
  assert [r["step"] for r in lines] == [2, 4, 6, 8] and lines[1]["facexbench.accuracy"] == 75
  assert (folder / "track/6/facexbench/predictions.jsonl").is_file()
  assert track.Tracker(run, "stage1", folder, None, 7).best is None  # no checkpoint of 4 or 6
  for step in (4, 7):
    (folder / f"checkpoints/{step}").mkdir(parents=True)
  (folder / "track.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  other = config(data, limit=3)
  assert track.Tracker(other, "stage1", folder, None, 8).best is None
  again = track.Tracker(run, "stage1", folder, None, 7)  # killed behind step 7
  assert again.best == 4 and again.due(8) and not again.due(6)
  assert len((folder / "track.jsonl").read_text().splitlines()) == 3
  assert again.ask(8, some(2))["facexbench.accuracy"] == 50 and again.best == 4


def test_less_is_better_for_years(data, tmp_path):
  """Kills: the worst age kept as the best; a figure that is none taken for one."""
  run = config(data)
  wanted = settings(data, suites=("utkface",), settings=("utkface.split=all",), limit=9,
                    best="utkface.age_mae_answered")  # fmt: skip
  tracker = track.Tracker(dataclasses.replace(run, track=wanted), "stage1", tmp_path, None, 0)
  asked = tracker._asked
  values = ((2, None), (4, 9.0), (6, 7.5), (8, 8.0))
  record = lambda step, value: {"step": step, "asked": asked, "utkface.age_mae_answered": value}
  (tmp_path / "track.jsonl").write_text("".join(json.dumps(record(*v)) + "\n" for v in values))
  (tmp_path / "checkpoints/6").mkdir(parents=True)
  (tmp_path / "checkpoints/8").mkdir()
  again = track.Tracker(dataclasses.replace(run, track=wanted), "stage1", tmp_path, None, 8)
  assert again.best == 6
