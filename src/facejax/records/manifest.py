"""What is known of a source's samples without reading them: columns, mapped and not read.

    n samples, m media                            OUT/SOURCE/manifest/NAME.npy
    places     [n] int64      place in the layout
    licence    [n] int16      index into manifest.json's licences
    content    [n 32] uint8   SHA-256 over conversation and files: example.content
    ids        bytes, and ids_ends [n] int64: where each one ends
    texts      bytes, and texts_ends [n]: the turns as JSON, [[role, text], ...]
    media_ends [n] int64      where the media of a sample end
    video      [m] bool       a clip
    size       [m 2] int32    height, width of a picture as it is decoded; 0, 0 for a clip
    landmarks, segmentation [m] bool   they lie beside it
    medium     [m 32] uint8   SHA-256 of the file alone: the same picture under other questions
    tokens-XXXXXXXX [n] int32 text tokens, by the tokenizer and template of that fingerprint

manifest.json says what the source was built from, and has a digest of all content.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.records.example import SampleRow
from facejax.types import Turn

FORMAT = 1
_HEADER = 128  # bytes of an empty .npy file
_BYTES = ("ids", "texts")  # columns of texts of any length
Columns = dict[str, np.ndarray]


def columns(rows: Sequence[SampleRow]) -> Columns:
  """The columns of some samples, but for the licence."""
  media = [medium for row in rows for medium in row.media]
  texts = {
    "ids": [row.id.encode() for row in rows],
    "texts": [json.dumps(row.turns, ensure_ascii=False).encode() for row in rows],
  }
  digests = lambda values: np.frombuffer(b"".join(values), np.uint8).reshape(-1, 32)
  ends = lambda lengths: np.cumsum(np.array(lengths, np.int64))
  found: Columns = {
    "places": np.array([row.place for row in rows], np.int64),
    "content": digests([row.content for row in rows]),
    "media_ends": ends([len(row.media) for row in rows]),
    "video": np.array([m.video for m in media], bool),
    "size": np.array([(m.height, m.width) for m in media], np.int32).reshape(-1, 2),
    "landmarks": np.array([m.landmarks for m in media], bool),
    "segmentation": np.array([m.segmentation for m in media], bool),
    "medium": digests([m.content for m in media]),
  }
  for name, values in texts.items():
    found[name] = np.frombuffer(b"".join(values), np.uint8)
    found[f"{name}_ends"] = ends([len(value) for value in values])
  return found


def join(parts: Sequence[Columns]) -> Columns:
  """The columns of several stretches, one behind the other."""
  joined = {name: [part[name] for part in parts] for name in parts[0]}
  for name in [name for name in joined if name.endswith("_ends")]:
    starts = np.cumsum([0, *(int(ends[-1]) if len(ends) else 0 for ends in joined[name])])
    joined[name] = [ends + start for ends, start in zip(joined[name], starts[:-1], strict=True)]
  return {name: np.concatenate(arrays) for name, arrays in joined.items()}


def write(folder: pathlib.Path, found: Columns, about: dict[str, Any]) -> None:
  """Writes columns and manifest.json, the latter last.

  Args:
    folder: of the manifest; made.
    found: the columns.
    about: what manifest.json says beside `format`, `samples` and `digest`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for name, array in found.items():
    np.save(folder / f"{name}.npy", array)
  digest = hashlib.sha256()
  for name in ("content", "ids"):
    digest.update(np.ascontiguousarray(found[name]).data)
  known = {"format": FORMAT, "samples": len(found["places"]), "digest": digest.hexdigest()}
  write_text(folder / "manifest.json", json.dumps(known | about, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file that appears complete or not at all."""
  part = path.with_name(f".{path.name}.{os.getpid()}")
  part.write_text(text)
  os.replace(part, path)


class Manifest:
  """A source's manifest, opened; columns are mapped when they are asked for.

  Attributes:
    folder: of the manifest.
    about: manifest.json.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens OUT/SOURCE/manifest. Raises FileNotFoundError or ValueError if it is none."""
    self.folder = folder
    self._columns: Columns = {}
    path = folder / "manifest.json"
    if not path.is_file():
      raise FileNotFoundError(
        f"{folder.parent} is no built source: no {path} - expected a folder that `facejax data "
        "build SPEC OUT` wrote, OUT/SOURCE - check the path, or build it"
      )
    try:
      self.about = json.loads(path.read_bytes())
      version = self.about["format"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(f"{path} is damaged ({error!r}) - build the source again") from error
    if version != FORMAT:
      raise ValueError(
        f"{path} has format {version!r}, this version reads {FORMAT} - build the source again, or "
        "install the version that built it"
      )

  def __len__(self) -> int:
    return self.about["samples"]

  def __reduce__(self):
    """Pickled by its folder: maps would travel as arrays."""
    return Manifest, (self.folder,)

  def column(self, name: str) -> np.ndarray:
    """A column by name, mapped. Raises FileNotFoundError if there is none."""
    if name not in self._columns:
      path = self.folder / f"{name}.npy"
      if not path.is_file():
        raise FileNotFoundError(f"no column {path} - build the source again")
      # A map of nothing is refused by the system: the media of a source of texts.
      self._columns[name] = np.load(path, mmap_mode="r" if path.stat().st_size > _HEADER else None)
    return self._columns[name]

  def id(self, index: int) -> str:
    """A sample's id."""
    return self._text("ids", index).decode()

  def conversation(self, index: int) -> tuple[Turn, ...]:
    """A sample's turns."""
    return tuple(Turn(role, text) for role, text in json.loads(self._text("texts", index)))

  def ids(self) -> list[str]:
    """All ids, in order."""
    data, ends = self.column("ids").tobytes(), self.column("ids_ends").tolist()
    return [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]

  def media(self, index: int) -> slice:
    """Where a sample's media stand in the columns of media."""
    return _span(self.column("media_ends"), index)

  def _text(self, name: str, index: int) -> bytes:
    return self.column(name)[_span(self.column(f"{name}_ends"), index)].tobytes()


def _span(ends: np.ndarray, index: int) -> slice:
  return slice(int(ends[index - 1]) if index else 0, int(ends[index]))
