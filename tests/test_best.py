"""The best checkpoint stays beside the newest ones, and is read by its name."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import saved_run

from facejax import best, chat, checkpoint, cli, config_io
from facejax.evaluate import run as evaluate_run
from facejax.evaluate.command import _beside
from facejax.knowledge import modes
from facejax.state import TrainState


def test_which_checkpoints_stay_and_where_the_best_is(tmp_path):
  """Kills: a best one removed, an old best one kept, a link to what is not on disk; a workdir of
  such a name taken for a checkpoint."""
  kept = best.Newest(2)
  infos = [dataclasses.make_dataclass("Info", ["step"])(step) for step in (3, 5, 7, 9)]
  asked = lambda: zip(infos, kept.should_preserve(infos, context=None), strict=True)
  stays = lambda: [info.step for info, stay in asked() if stay]
  assert stays() == [7, 9]
  kept.best = 3
  assert stays() == [3, 7, 9]
  kept.best = 9
  assert stays() == [7, 9]
  assert best.Newest(None).should_preserve(infos, context=None) == [True] * 4
  (tmp_path / "checkpoints/3").mkdir(parents=True)
  assert best.located(tmp_path / "checkpoints/3") == (tmp_path / "checkpoints/3", None)
  (tmp_path / "checkpoints/3/params").mkdir()
  best.link(tmp_path, 5)
  assert not (tmp_path / "best").exists()
  best.link(tmp_path, 3)
  assert best.located(tmp_path / "best") == (tmp_path, 3)
  assert best.located(tmp_path / "checkpoints/3") == (tmp_path, 3)
  assert best.located(tmp_path) == (tmp_path, None)
  (tmp_path / "checkpoints/5/params").mkdir(parents=True)
  best.link(tmp_path, 5)
  assert best.located(tmp_path / "best") == (tmp_path, 5)


def test_the_link_never_hangs_while_each_is_better_than_the_last(tmp_path):
  """Kills: a best checkpoint removed while STAGE/best still points at it; a link that waits for the
  first evaluation that is no better; an old best one that is kept for ever."""
  stage = tmp_path / "stage1"
  state = lambda n: TrainState(jnp.int32(n), {"a": jnp.ones(3)}, {}, {}, jnp.ones(2))
  seen = []
  with checkpoint.Checkpoints(stage, 1) as checkpoints:
    for step in (2, 3, 4, 5):
      checkpoints.kept.best = step
      checkpoints.save(step, state(step), {})
      checkpoints._manager.wait_until_finished()
      seen.append(best.located(stage / "best")[1])
  assert seen == [None, 2, 3, 4]
  assert best.located(stage / "best")[1] == 5 and checkpoint.steps_in(stage) == [4, 5]


def test_answers_of_the_best_are_not_called_those_of_the_newest(tmp_path, monkeypatch):
  """Kills: STAGE/best named by the newest step, and its figures written over the newest one's, or
  taken from them."""
  stage = tmp_path / "stage1"
  for step in (3, 5):
    (stage / f"checkpoints/{step}/params").mkdir(parents=True)
  best.link(stage, 3)
  run, made = saved_run.config(), []
  monkeypatch.setattr(checkpoint, "load_run", lambda *_: (run, {}, stage))
  monkeypatch.setattr(evaluate_run, "evaluate", lambda c, p, out, **_: made.append(out.name) or {})
  monkeypatch.setattr(evaluate_run, "table", lambda _: "")
  monkeypatch.setattr(
    modes, "evaluate", lambda c, p, s, out, of, **_: made.append((out.name, of)) or {}
  )
  monkeypatch.setattr(modes, "table", lambda _: "")
  for given in ([str(stage / "best")], [str(stage)], [str(tmp_path), "--stage", "stage1"]):
    assert cli.main(["evaluate", "--workdir", *given]) == 0
    assert not cli.main(["evaluate", "--workdir", *given, "--labels", "head"])
  newest = ["evaluate", ("labels-head", "stage1 at step 5")]
  own = ["evaluate-step_3", ("labels-head-step_3", "stage1 at step 3")]
  assert made == [*own, *newest, *newest]
  assert chat._checkpoint(run, stage, 3).startswith("stage1, step 3")
  assert chat._checkpoint(run, stage, None).startswith("stage1, step 5")


def test_the_best_is_kept_and_loaded(tmp_path):
  """Kills: a keeper that Orbax does not ask; STAGE/best that means the newest; a link to a
  checkpoint that is not complete; an output inside a checkpoint."""
  run, stage = saved_run.config(), tmp_path / "stage1"
  record = {"config": config_io.to_dict(run), "stage": "stage1"}
  state = lambda n: TrainState(
    jnp.int32(n), {"a": jnp.full(3, n, jnp.float32)}, {}, {}, jnp.ones(2)
  )
  with checkpoint.Checkpoints(stage, 1) as checkpoints:
    for step in (2, 3, 4, 5):
      if step == 3:
        checkpoints.kept.best = 3
      checkpoints.save(step, state(step), record)
      assert (stage / "best").is_symlink() == (step > 3)
  assert checkpoint.steps_in(stage) == [3, 5]
  found = lambda path: float(np.asarray(checkpoint.load_params(path)["a"])[0])
  assert [found(stage / "best"), found(stage / "checkpoints/3"), found(stage)] == [3, 3, 5]
  assert found(tmp_path) == 5
  config, read, folder = checkpoint.load_run(stage / "best")
  assert config == run and read["a"][0] == 3 and folder.name == "stage1"
  with pytest.raises(FileNotFoundError, match=r"stage1 has not step 4; it has the steps \[3, 5\]"):
    checkpoint.load_params(stage, 4)
  assert _beside(stage / "best", 7) == stage / "evaluate_suite_3_7"
  assert _beside(stage, None) == stage / "evaluate_suite"
