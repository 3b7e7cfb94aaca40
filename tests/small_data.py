"""A model of a few tokens and clips of a few frames, for tests of the data."""

import dataclasses
import pathlib

import numpy as np
import pytest

from facejax.config import DecoderConfig, ModelConfig, SegmentationConfig, VitConfig
from facejax.data.pipeline import load_tokenizer


def model() -> ModelConfig:
  """4 tokens a picture; clips of 3 frames: 12."""
  vit = VitConfig(image_size=12, patch=6, width=4, layers=1, heads=1, mlp=4, select_layer=-1)
  vocab = load_tokenizer("demo").vocab_size
  decoder = DecoderConfig(vocab, 8, 1, 1, 1, head_width=8, mlp=8, max_length=512)
  return ModelConfig(vit, decoder, frames=3)


def mapped_model() -> ModelConfig:
  """And 9 tokens a map; of clips 27."""
  maps = SegmentationConfig(mode="concat", size=6, grid=3, width=4)
  return dataclasses.replace(model(), segmentation=maps)


def write_clip(path: pathlib.Path, frames: int) -> None:
  """Frame t is grey of 20 t."""
  av = pytest.importorskip("av")
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    for t in range(frames):
      picture = np.full((32, 32, 3), 20 * t, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())
