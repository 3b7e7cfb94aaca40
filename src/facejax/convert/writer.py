"""Tensors -> safetensors files of a limited size, written a layer at a time. What files.py reads.

A tensor that is larger than the limit has a file of its own. Several files get an index.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facejax.convert.files import TYPES

_NAMES = {dtype: name for name, dtype in TYPES.items()}

SHARD = 5_000_000_000  # bytes a file, as transformers writes them


class Entry(NamedTuple):
  """A tensor to write: its bytes come in order, in pieces."""

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  pieces: Callable[[], Iterable[np.ndarray]]

  @property
  def size(self) -> int:
    """Bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


def write(folder: Path, stem: str, entries: Sequence[Entry], limit: int = SHARD) -> list[str]:
  """Writes STEM.safetensors, or STEM-00001-of-N.safetensors and an index; returns the names."""
  shards: list[list[Entry]] = [[]]
  for entry in entries:
    if shards[-1] and sum(e.size for e in shards[-1]) + entry.size > limit:
      shards.append([])
    shards[-1].append(entry)
  if len(shards) == 1:
    names = [f"{stem}.safetensors"]
  else:
    names = [f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
  for name, shard in zip(names, shards, strict=True):
    _write_file(folder / name, shard)
  if len(shards) > 1:
    weight_map = {e.name: n for n, shard in zip(names, shards, strict=True) for e in shard}
    total = sum(entry.size for entry in entries)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
  return names


def _write_file(path: Path, entries: Sequence[Entry]) -> None:
  header: dict[str, dict] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
  at = 0
  for entry in entries:
    header[entry.name] = {
      "dtype": _NAMES[entry.dtype],
      "shape": list(entry.shape),
      "data_offsets": [at, at + entry.size],
    }
    at += entry.size
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with path.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for entry in entries:
      for piece in entry.pieces():
        file.write(np.ascontiguousarray(piece).view(np.uint8).reshape(-1).data)


def prepare(folder: Path) -> Path:
  """Makes the folder. Raises FileExistsError if it has content."""
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise FileExistsError(f"{folder} has content: expected a new or empty folder")
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def write_json(path: Path, data: dict) -> None:
  """As transformers writes config.json: two spaces, keys in order."""
  path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
