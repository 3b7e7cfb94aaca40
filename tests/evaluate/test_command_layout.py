"""Flags of `facejax evaluate --suite` that change how a checkpoint is asked."""

from pathlib import Path
from unittest import mock

import pytest

from facejax import bases, checkpoint, cli, config_io, generate
from facejax.evaluate import command

CONFIG = Path(__file__).parents[2] / "configs/facellm_1b.py"


def asked(*flags: str):
  """The layout that a model is evaluated with."""
  args = cli.make_parser().parse_args(
    ["evaluate", "--suite", "rafdb", "--checkpoint", "x", "--mesh", "", *flags]
  )
  run = config_io.load(f"{CONFIG}:multi_tile")
  with (
    mock.patch.object(checkpoint, "load_run", return_value=(run, {}, Path("x/lora"))),
    mock.patch.object(generate, "Answerer"),
    mock.patch.object(bases, "manifest", return_value={}),
  ):
    return command._model(args).config.data


def test_tiles_and_template():
  """Kills: a flag that reaches nothing, or changes what it was not asked to."""
  plain, changed = asked(), asked("--tiles", "1", "--template", "internvl")
  assert (plain.max_tiles, plain.template) == (12, "internvl_system")
  assert (changed.max_tiles, changed.template) == (1, "internvl")
  assert asked("--tiles", "4").template == "internvl_system"
  with pytest.raises(ValueError, match=r"DataConfig\.template is 'intern', .*mean 'internvl'"):
    asked("--template", "intern")
