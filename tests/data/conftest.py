"""A model of a few tokens, and a folder in the official format, made anew for each test."""

import json
import pathlib

import numpy as np
import pytest
import small_data
from PIL import Image

from facejax.config import ModelConfig


@pytest.fixture(scope="session")
def model() -> ModelConfig:
  """4 tokens a picture, 9 a map; clips of 3 frames: 12 and 27."""
  return small_data.mapped_model()


class Folder:
  """Writes media and the index. Media names are relative to `path`."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.records: list = []

  def image(self, name: str = "a.png", y: int = 12, x: int = 12, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (y, x, 3), np.uint8)
    Image.fromarray(pixels).save(self.path / name)
    return name

  def array(self, name: str, values) -> str:
    np.save(self.path / name, values)
    return name

  def add(self, question: str = "<image>\nWho?", answer: str = "A face.", **fields) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    record = {"id": len(self.records), "conversations": turns, **fields}
    self.records.append(record)
    return record

  def index(self, name: str = "train.json") -> str:
    (self.path / name).write_text(json.dumps(self.records))
    return str(self.path / name)


@pytest.fixture
def folder(tmp_path) -> Folder:
  return Folder(tmp_path)
