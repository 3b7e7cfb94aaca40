"""A folder in the official layout and what is built of it."""

import pathlib

import pytest
from record_folders import llava_folder, written

from facejax import config_io
from facejax.data.pipeline import row_format
from facejax.records import build, spec

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  return llava_folder(tmp_path / "official")


@pytest.fixture
def source(folder, tmp_path) -> spec.SourceSpec:
  return written(tmp_path / "spec.json")


@pytest.fixture
def built(source, tmp_path) -> pathlib.Path:
  """OUT/SOURCE of `folder`."""
  build.build(source, tmp_path / "out")
  return tmp_path / "out" / "faces"


@pytest.fixture
def form():
  changes = ["data.row_length=400", "data.images_per_row=2", "data.videos_per_row=1"]
  config = config_io.load(CONFIG, changes)
  return row_format(config.model, config.data)
