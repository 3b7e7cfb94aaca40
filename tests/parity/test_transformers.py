"""Models read from the files of transformers give its numbers (experiments/parity made them)."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments/parity/transformers_parity.py"
FOLDERS = sorted(p.parent for p in (ROOT / "tests/goldens/transformers").glob("*/references.npz"))


@pytest.fixture(scope="module")
def parity():
  spec = importlib.util.spec_from_file_location("transformers_parity", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


# Of the whole models one runs in the fast suite: each compiles for 5 to 10 seconds.
QUICK = {"clip_gelu", "internvl_rms_norm"}


@pytest.mark.parametrize(
  "folder",
  [pytest.param(f, marks=() if f.name in QUICK else pytest.mark.slow, id=f.name) for f in FOLDERS],
)
def test_it_is_the_same_model(parity, folder):
  # Kills: a transposed kernel, swapped q and k, a shuffle of version 1, a norm left out, another
  # activation, selected layer or rotary base, tiles in another order.
  errors = parity.errors(folder)
  assert errors and all(error <= 1e-4 for error in errors.values()), errors


def test_the_references_cover_what_they_should():
  # Kills: a family that lost its references, and near ties that would make equal tokens luck.
  names = {folder.name for folder in FOLDERS}
  assert names >= {"clip_gelu", "clip_quick_gelu", "llama", "qwen2", "qwen2_long", "llava"}
  assert names >= {"internvl_layer_norm", "internvl_rms_norm"}
  for folder in FOLDERS:
    arrays = np.load(folder / "references.npz")
    if "greedy" in arrays:
      assert arrays["greedy"].shape[1] == 16 and (arrays["margin"] > 1e-3).all()
  tiles = np.load(ROOT / "tests/goldens/transformers/internvl_rms_norm/references.npz")
  assert len(tiles["pixel_values"]) == 4  # a picture of three tiles and one of one
  vision = [
    json.loads((ROOT / f"tests/goldens/transformers/internvl_{n}/config.json").read_text())
    for n in ("layer_norm", "rms_norm")
  ]
  assert [c["vision_config"]["use_qk_norm"] for c in vision] == [False, True]
