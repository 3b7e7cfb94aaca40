"""The fake endpoint is the experiment's; a folder and an endpoint for each test."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments" / "annotate"))

from workplace import Workplace


@pytest.fixture
def place(tmp_path) -> Workplace:
  return Workplace(tmp_path)
