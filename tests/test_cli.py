"""What a person sees who mistypes: one line that says what to do, exit status 2, no traceback."""

import dataclasses
from pathlib import Path
from unittest import mock

import pytest
import saved_run

from facejax import cli
from facejax.evaluate import run as evaluation
from facejax.faces import detect


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (
      ["train", "--config", "c.py", "--workdri", "w"],
      "no argument --workdri; did you mean --workdir?",
    ),
    (["train", "--config", "c.py", "--workdir", "w", "--zzz"], "see facejax train --help"),
    (["report", "--workdir", "w", "--config.seed=1"], "report takes no --config.NAME=VALUE"),
    (["trian"], "invalid choice: 'trian'"),
    (["chat", "--workdir", "w", "question?"], "one of the arguments --image --video is required"),
  ],
)
def test_wrong_flags_are_named(argv, message, capsys):
  """Kills: an unknown flag taken for a config override or ignored."""
  with pytest.raises(SystemExit) as stopped:
    cli.main(argv)
  assert stopped.value.code == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (
      ["train", "--config", "configs/nowhere.py", "--workdir", "W"],
      "nowhere.py does not exist, looked for in",
    ),
    (
      ["train", "--config", "configs/demo.py", "--workdir", "W", "--config.sede=1"],
      "did you mean 'seed'",
    ),
    (["train", "--config", "configs/demo.py", "--workdir", "W", "--stages", "stage3"], "'stage3'"),
    (["evaluate", "--workdir", "W"], "W does not exist; expected the --workdir of a training run"),
    (["chat", "--workdir", "W", "--image", "a.jpg", "Who?"], "a.jpg: no such file"),
  ],
)
def test_wrong_values_are_named(argv, message, capsys, tmp_path, monkeypatch):
  """Kills: a traceback in place of a sentence."""
  root = Path(__file__).parents[1]
  (tmp_path / "configs").symlink_to(root / "configs")
  monkeypatch.chdir(tmp_path)
  assert cli.main(argv) == 2
  err = capsys.readouterr().err
  assert message in err and err.startswith(f"facejax {argv[0]}: ") and "Traceback" not in err


def test_traceback_on_request(tmp_path):
  """Kills: an error that a developer cannot trace."""
  argv = ["--traceback", "evaluate", "--workdir", str(tmp_path / "W")]
  with pytest.raises(FileNotFoundError):
    cli.main(argv)


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (PermissionError(13, "Permission denied", "/x"), "Permission denied: '/x'"),
    (NotADirectoryError(20, "Not a directory", "/y/z"), "Not a directory: '/y/z'"),
    (RuntimeError("pip could not download mediapipe"), "pip could not download mediapipe"),
  ],
)
def test_what_the_machine_refuses_is_one_line(error, message, capsys):
  """Kills: a traceback for a folder of another user, a file for a folder, or no network."""
  with mock.patch.object(detect, "install", side_effect=error):
    assert cli.main(["faces", "install"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("facejax faces: ") and message in err and err.count("\n") == 1
    with pytest.raises(type(error)):
      cli.main(["--traceback", "faces", "install"])


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["chat", "--workdir", "w", "--image", "", "Who?"], "--image: expected a path, got ''"),
    (["chat", "--workdir", "w", "--video", "", "Who?"], "--video: expected a path, got ''"),
    (["demo", "--workdir", ""], "--workdir: expected a path, got ''"),
    (
      ["train", "--config", "c", "--workdir", "gs://b/run"],
      "--workdir: 'gs://b/run' is an address - expected a folder on this machine, or a mounted one",
    ),
  ],
)
def test_what_is_no_path_is_refused(argv, message, capsys):
  """Kills: a TypeError for an empty name; a local folder called "gs:" full of checkpoints."""
  with pytest.raises(SystemExit) as stopped:
    cli.main(argv)
  assert stopped.value.code == 2
  assert message in capsys.readouterr().err


def evaluated(argv) -> tuple[Path, tuple[str, ...], int]:
  """Folder, modalities and faces that `facejax evaluate` asks for."""
  fake = mock.Mock(return_value={"parse_failures": {}, "faces": 0})
  with mock.patch.object(evaluation, "evaluate", fake):
    assert not cli.main(["evaluate", *argv])
  (config, _, folder), arguments = fake.call_args
  return folder, arguments["modalities"], config.evaluate.faces


def test_evaluate_reads_what_the_stage_reads(tmp_path):
  """Kills: landmarks shown to a base that never saw one; a smaller evaluation in place of one."""
  run = saved_run.config()
  run = dataclasses.replace(run, data=dataclasses.replace(run.data, modalities=("landmarks",)))
  for stage in ("base", "stage1"):
    saved_run.save(tmp_path, run, stage)
  where = ["--workdir", str(tmp_path)]
  base, last = tmp_path / "base", tmp_path / "stage1"
  assert evaluated([*where, "--stage", "base"]) == (base / "evaluate", (), 600)
  assert evaluated(where) == (last / "evaluate", ("landmarks",), 600)
  assert evaluated([*where, "--faces", "600"])[0] == last / "evaluate"
  assert evaluated([*where, "--faces", "5"]) == (last / "evaluate-5_faces", ("landmarks",), 5)
  without = [*where, "--faces", "5", "--without", "landmarks"]
  assert evaluated(without) == (last / "evaluate-5_faces-no_landmarks", (), 5)
