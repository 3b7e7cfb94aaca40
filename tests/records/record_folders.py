"""Folders in released layouts, made up: with everything a sample may have."""

import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from facejax.records import spec


def picture(path: pathlib.Path, seed: int, size: tuple[int, int] = (40, 40)) -> None:
  """A picture of noise, (height, width), another one for each seed."""
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(noise).save(path)


def clip(path: pathlib.Path, frames: int, seed: int = 0) -> None:
  """A clip of grey frames."""
  av = pytest.importorskip("av")
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv420p"
    for t in range(frames):
      grey = np.full((48, 48, 3), (20 * t + 7 * seed) % 256, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
    container.mux(stream.encode())


def points(*lead: int) -> np.ndarray:
  """Landmarks in a crop of 256."""
  return np.random.default_rng(1).uniform(20, 230, (*lead, 68, 2)).astype(np.float32)


def turns(question: str, answer: str) -> list[dict]:
  """One question and its answer, as the JSON has them."""
  return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def llava_folder(folder: pathlib.Path) -> pathlib.Path:
  """Seven samples: pictures with and without extras, a clip, two pictures, and text alone."""
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(4):
    picture(folder / f"{i}.png", i)
  picture(folder / "wide.jpg", 9, (30, 50))
  clip(folder / "c.mp4", 9)
  np.save(folder / "0.npy", points())
  np.save(folder / "c.npy", points(9))
  Image.fromarray((np.arange(1600) % 19).reshape(40, 40).astype(np.uint8)).save(
    folder / "0_map.png"
  )
  records = [
    {"id": 5, "image": "0.png", "landmarks_2d": "0.npy", "segmentation": "0_map.png"},
    {"id": 5, "image": "1.png", "dataset": "made up", "score": 0.5},
    {"image": "wide.jpg"},
    {"video": "c.mp4", "landmarks_2d": "c.npy"},
    {"image": ["2.png", "3.png"], "segmentation": [None, "0_map.png"]},
    {},
    {"image": "3.png"},
  ]
  asked = [
    "<image>\nWho é?",
    "<image>\nAge?",
    "<image>",
    "<video>\nWhat?",
    "<image><image>",
    "Why?",
  ]
  for record, question in zip(records, [*asked, "And <image>?"], strict=True):
    record["conversations"] = turns(question, f"Answer to {question.replace('<', '').strip()}.")
  (folder / "train.json").write_text(json.dumps(records))
  return folder


def written(path: pathlib.Path, **changes) -> spec.SourceSpec:
  """The source of a specification file that is written to `path`."""
  entry = {"name": "faces", "layout": "llava", "licence": "CC0", "part": 3} | changes
  if entry["layout"] == "llava":
    entry = {"index": ["official/train.json"]} | entry
  path.write_text(json.dumps({"sources": [entry]}))
  (source,) = spec.load(path)
  return source


def png_bytes(seed: int) -> bytes:
  """A picture's file."""
  data = io.BytesIO()
  noise = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
  Image.fromarray(noise).save(data, "PNG")
  return data.getvalue()
