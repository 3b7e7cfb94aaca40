"""The page about knowledge does what it says."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "knowledge.md"


def test_examples_run():
  """Kills: an example that a rename left behind, or whose results are not what the page says."""
  names: dict = {}
  blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
  assert len(blocks) == 2
  for block in blocks:
    exec(block, names)
  assert not names["celeba"].broken(names["kept"].astype(np.int8)).any()
  assert names["asked"].startswith("<image>\nDetected attributes: ")
  assert names["asked"].endswith("\nWho is this?")
  assert np.isfinite(names["loss"]) and names["p"].shape == (8, 40)
