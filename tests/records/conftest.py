"""A folder in the official layout and what is built of it."""

import pathlib

import pytest
from record_folders import llava_folder, written

from facejax.config import DecoderConfig, ModelConfig, SegmentationConfig, VitConfig
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
  tokenizer = load_tokenizer("demo")
  return ModelConfig(
    image=VitConfig(image_size=12, patch=6, width=4, layers=1, heads=1, mlp=4, select_layer=-1),
    decoder=DecoderConfig(
      vocab=tokenizer.vocab_size,
      width=8,
      layers=1,
      heads=1,
      kv_heads=1,
      head_width=8,
      mlp=8,
      max_length=512,
    ),
    segmentation=SegmentationConfig(mode="concat", size=6, grid=3, width=4),
    frames=3,
  )


@pytest.fixture
def form(model) -> RowFormat:
  """Rows that hold any sample of `folder`."""
  return RowFormat(VisualTable(model, 2, 1), 300, load_tokenizer("demo"))
