"""A small model of LLaVA's shape, and samples with Face-LLaVA's token counts, as NumPy for both.

A picture takes 256 tokens and a clip eight of them (transformers' LLaVA has no clips: there it is
eight pictures). With their texts they have the 311 and 2118 tokens of Face-LLaVA's samples.
"""

import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import sizes

from facejax import convert
from facejax.config import DataConfig, DecoderConfig, ModelConfig, RunConfig, VitConfig
from facejax.data.order import Order
from facejax.models import face_mllm
from facejax.models.vit import STATISTICS


def model(dtype: str) -> ModelConfig:
  """24.0 M parameters: a CLIP of 4 layers and a LLaMA of 4 layers."""
  vit = VitConfig(
    image_size=224,
    patch=14,
    width=256,
    layers=4,
    heads=4,
    mlp=1024,
    activation="quick_gelu",
  )
  decoder = DecoderConfig(
    vocab=8000,
    width=512,
    layers=4,
    heads=8,
    kv_heads=8,
    head_width=64,
    mlp=1408,
    max_length=4096,
  )
  return ModelConfig(image=vit, decoder=decoder, dtype=dtype, remat="none")


def run_config(dtype: str) -> RunConfig:
  """What the export to transformers' layout wants."""
  return RunConfig(model=model(dtype), data=DataConfig(row_length=4096), stages={})


class One(NamedTuple):
  """A sample: one picture or clip between two text tokens, then text that ends in the answer."""

  kind: str
  ids: np.ndarray  # [n], sizes.IMAGE where a visual token stands
  pixels: np.ndarray  # [frames 224 224 3] uint8


def sample(kind: str, number: int) -> One:
  """What a pixel shows and which word is read changes no cost."""
  draw = np.random.default_rng([number, kind == "video"])
  frames = 8 if kind == "video" else 1
  visual = [sizes.IMAGE] * (256 * frames)
  text = draw.integers(3, sizes.IMAGE, sizes.LENGTH[kind] - len(visual)).tolist()
  pixels = draw.integers(0, 256, (frames, 224, 224, 3), np.uint8)
  return One(kind, np.array(text[:2] + visual + text[2:], np.int32), pixels)


def batch(rows: list[list[One]], length: int) -> dict[str, np.ndarray]:
  """Samples behind each other in rows -> the arrays of facejax's Batch, by name."""
  names = ("tokens", "targets", "positions", "segment_ids")
  out = {name: np.zeros((len(rows), length), np.int32) for name in names}
  out["loss_weights"] = np.zeros((len(rows), length), np.float32)
  out["visual_index"] = np.full((len(rows), length), -1, np.int32)
  out["sample_id"] = np.full((len(rows), length), -1, np.int32)
  slots = lambda kind: max(sum(one.kind == kind for one in row) for row in rows)
  images, videos = slots("image"), slots("video")
  out["images"] = np.zeros((len(rows), images, 1, 224, 224, 3), np.uint8)
  out["videos"] = np.zeros((len(rows), videos, 8, 224, 224, 3), np.uint8)
  for r, row in enumerate(rows):
    start, used = 0, {"image": 0, "video": 0}
    for number, one in enumerate(row):
      n = len(one.ids)
      at, visual = slice(start, start + n), one.ids == sizes.IMAGE
      first = 256 * (used["image"] if one.kind == "image" else images + 8 * used["video"])
      out["tokens"][r, at] = np.where(visual, 0, one.ids)
      out["targets"][r, at] = np.append(np.where(visual, 0, one.ids)[1:], 0)
      out["positions"][r, at] = np.arange(n)
      out["segment_ids"][r, at] = number + 1
      out["visual_index"][r, at] = np.where(visual, first + np.cumsum(visual) - 1, -1)
      out["loss_weights"][r, start + n - 1 - sizes.ANSWER : start + n - 1] = 1
      out[f"{one.kind}s"][r, used[one.kind]] = one.pixels
      used[one.kind] += 1
      start += n
  return out


def normalised(pixels: np.ndarray) -> np.ndarray:
  """As a processor gives them."""
  mean, deviation = (np.array(x, np.float32) for x in STATISTICS["clip"])
  return (pixels.astype(np.float32) / 255 - mean) / deviation


def theirs(samples: list[One]) -> dict[str, np.ndarray]:
  """The same for transformers, a sample a row, padded to the longest."""
  length = max(len(one.ids) for one in samples)
  pixels = np.concatenate([one.pixels for one in samples])
  pad = lambda ids, value: np.pad(ids, (0, length - len(ids)), constant_values=value)
  answer = lambda ids: np.where(np.arange(len(ids)) >= len(ids) - sizes.ANSWER, ids, -100)
  return {
    "input_ids": np.stack([pad(one.ids, 0) for one in samples]).astype(np.int64),
    "attention_mask": np.stack([pad(np.ones(len(one.ids), np.int64), 0) for one in samples]),
    "labels": np.stack([pad(answer(one.ids), -100) for one in samples]).astype(np.int64),
    "pixel_values": np.ascontiguousarray(normalised(pixels).transpose(0, 3, 1, 2)),
  }


def padded(clips: int, count: int = sizes.BATCH) -> list[One]:
  """A batch with so many clips."""
  return [sample("video" if i < clips else "image", i) for i in range(count)]


def _order(name: str) -> Order:
  _, length, pictures = sizes.PACKED[name]
  lists = [
    np.array([[sizes.LENGTH[kind], kind == "image", kind == "video"]] * number)
    for kind, number in (("image", 8500), ("video", 1500))
  ]
  return Order(lists, (1 - sizes.CLIPS, sizes.CLIPS), (length, pictures, 1), seed=0)


def packed(name: str) -> dict[str, np.ndarray]:
  """The first step of the rows that training would read."""
  count, length, _ = sizes.PACKED[name]
  order, kinds = _order(name), ("image", "video")
  rows = [[sample(kinds[p.source], p.number) for p in order.row(row)] for row in range(count)]
  return batch(rows, length)


def useful_tokens(name: str) -> float:
  """Tokens of samples in such a step, the mean of a thousand."""
  order, lengths = _order(name), (sizes.LENGTH["image"], sizes.LENGTH["video"])
  rows = range(1000 * sizes.PACKED[name][0])
  return sum(lengths[p.source] for row in rows for p in order.row(row)) / 1000


def write(folder: pathlib.Path) -> None:
  """The checkpoint in transformers' layout, and every batch in the layouts of both sides."""
  params = jax.jit(lambda: face_mllm.init(model("float32"), jax.random.key(0)))()
  convert.export(run_config("float32"), params, "llava_hf", folder / "weights")
  path = folder / "weights" / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "image_token_index": sizes.IMAGE}))
  batches = {"prompt_1": padded(0, 1), "prompt_8": padded(0)}
  batches |= {f"padded_{clips}": padded(clips) for clips in range(2)}
  for name, samples in batches.items():
    longest = max(len(one.ids) for one in samples)
    np.savez(folder / f"{name}.npz", **batch([[one] for one in samples], longest))
    np.savez(folder / f"{name}_theirs.npz", **theirs(samples))
  for name in sizes.PACKED:
    np.savez(folder / f"{name}.npz", **packed(name))
