"""What a person sees who mistypes: one line that says what to do, exit status 2, no traceback."""

from pathlib import Path

import pytest

from facejax import cli


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
    (["train", "--config", "configs/nowhere.py", "--workdir", "W"], "nowhere.py does not exist"),
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
