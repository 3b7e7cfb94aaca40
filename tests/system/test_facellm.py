"""FaceLLM's recipe as a user runs it, tiny: pictures -> answers -> adapters -> export -> scores."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parents[2] / "experiments/facellm"


@pytest.fixture(scope="module")
def recipe():
  """The experiment's own script; its neighbours are imported by name."""
  spec = importlib.util.spec_from_file_location("facellm_recipe", HERE / "run.py")
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  before = list(sys.path)
  spec.loader.exec_module(module)
  sys.path[:] = before
  return module


def test_facellm_from_pictures_to_scores(recipe, tmp_path):
  """Kills: a command of the recipe that refuses what the one before it wrote, a resume that is
  another run, an export that answers otherwise than the run it was made from."""
  result = {"main": recipe.recipe(tmp_path, torch="")}
  assert all(recipe.checks(result).values()), result
  assert result["main"]["data"]["samples"] == 12 * 8
  # Rank 16 on q, k, v, out, gate, up, down of two layers of width 48.
  sides = ((48, 48), (48, 16), (48, 16), (48, 48), (48, 136), (48, 136), (136, 48))
  trained = 2 * 16 * sum(a + b for a, b in sides)
  assert f"{trained:,} train" in result["main"]["trainable"]
