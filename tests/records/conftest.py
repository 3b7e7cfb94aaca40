"""A folder in the official layout and what is built of it."""

import pathlib

import pytest
import small_data
from record_folders import llava_folder, written

from facejax.config import ModelConfig
from facejax.data.pipeline import load_tokenizer
from facejax.data.rows import RowFormat
from facejax.records import build, spec
from facejax.visual_table import VisualTable


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


@pytest.fixture(scope="session")
def model() -> ModelConfig:
  """4 tokens a picture, 9 a map; clips of 3 frames: 12 and 27."""
  return small_data.mapped_model()


@pytest.fixture
def form(model) -> RowFormat:
  """Rows that hold any sample of `folder`."""
  return RowFormat(VisualTable(model, 2, 1), 300, load_tokenizer("demo"))
