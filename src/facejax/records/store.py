"""A built source: index -> stored sample (Store), and -> decoded sample that fits a row.

Store          OUT/SOURCE as a Layout; every record
RecordsSource  those that a run can use, for data/pipeline.py
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from facejax.data.refused import check_share
from facejax.data.rows import KINDS, Outline, RowFormat
from facejax.records import count
from facejax.records.build import QUARANTINE
from facejax.records.example import from_example
from facejax.records.manifest import Manifest
from facejax.records.raw import RawMedium, RawSample, decode
from facejax.records.shards import Shards
from facejax.types import Refusal, Sample


class Store:
  """The records of a built source, in its layout's order; reading one is O(1).

  Attributes:
    folder: OUT/SOURCE.
    manifest: what is known without reading them.
  """

  def __init__(self, folder: str | pathlib.Path):
    """Opens the manifest; shards are opened when a record of them is read.

    Raises FileNotFoundError or ValueError if the folder is no built source.
    """
    self.folder = pathlib.Path(folder)
    self.manifest = Manifest(self.folder / "manifest")
    self._shards: Shards | None = None

  def __reduce__(self):
    """Pickled by its folder, for worker processes."""
    return Store, (self.folder,)

  @property
  def name(self) -> str:
    """The source's name."""
    return self.manifest.about["source"]

  def __len__(self) -> int:
    return len(self.manifest)

  def id(self, index: int) -> str:
    """The sample's id; reads no shard."""
    return self.manifest.id(index)

  def digest(self) -> str:
    """Of all content, by the manifest: equal exactly where samples and their order are equal."""
    return self.manifest.about["digest"]

  def __getitem__(self, index: int) -> RawSample:
    """Reads a record. Raises IndexError behind the last, ValueError if the shard is damaged."""
    if not 0 <= index < len(self):
      raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
    try:
      self._shards = self._shards or Shards(self.folder)
      return from_example(self._shards[index])
    except Exception as error:  # array_record and the parser raise RuntimeError and others
      raise ValueError(
        f"sample {self.id(index)!r}, record {index} of {self.folder} cannot be read ({error}) - "
        "expected the shards as they were built - copy them again, or build with --rebuild="
        f"{self.name}"
      ) from error

  def quarantine(self) -> dict[str, str]:
    """Ids that training leaves out, and why: a line {"id", "kind", "reason"} of the list each.

    Raises ValueError, naming the line, if it cannot be read or names no sample of the source.
    """
    path = self.folder / QUARANTINE
    if not path.is_file():
      return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
      try:
        entry = json.loads(line)
        found[str(entry["id"])] = f"{entry['kind']}: {entry['reason']}"
      except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
          f'{path}, line {number}: {line[:80]!r} ({error!r}) - expected {{"id": ..., "kind": ..., '
          '"reason": ...} - repair or remove the line'
        ) from error
    return found


class RecordsSource:
  """The samples of a built source that fit a row and are not in quarantine, in the store's order.

  Attributes:
    refusals: the others, and why.
  """

  def __init__(self, folder: str | pathlib.Path, form: RowFormat, max_refused: float = 0.01):
    """Opens a store; no record is read.

    Args:
      folder: OUT/SOURCE, as `facejax data build` wrote it.
      form: the row layout.
      max_refused: share of the samples that may not fit; quarantined ones do not count.

    Raises:
      FileNotFoundError: no built source, or its tokens are not counted for this tokenizer and
        template.
      ValueError: more refusals than allowed, or a quarantine list that names no sample.
    """
    self._store, self._form = Store(folder), form
    tokens, unreadable = count.load(self._store.manifest, form)
    sizes = _sizes(self._store.manifest, form, tokens)
    over = (sizes > np.array(form.largest)).any(1)
    quarantined = self._quarantined()
    usable = (tokens >= 0) & ~over
    usable[list(quarantined)] = True  # for now: judged once
    refused = [
      Refusal(self._name(i), _reason(self._name(i), sizes[i], form, unreadable.get(i)))
      for i in np.flatnonzero(~usable).tolist()
    ]
    check_share(refused, len(self._store), max_refused)
    self.refusals = (*refused, *quarantined.values())
    usable[list(quarantined)] = False
    self._usable = np.flatnonzero(usable).astype(np.int32)
    self._quarantined_count = len(quarantined)
    self._digest = hashlib.sha256(np.packbits(usable).tobytes()).hexdigest()

  def _name(self, record: int) -> str:
    return f"{self._store.name}/{self._store.id(record)}"

  def _quarantined(self) -> dict[int, Refusal]:
    """By record."""
    reasons = self._store.quarantine()
    if not reasons:
      return {}
    records = {name: i for i, name in enumerate(self._store.manifest.ids())}
    unknown = [name for name in reasons if name not in records]
    if unknown:
      raise ValueError(
        f"{self._store.folder / QUARANTINE} names {unknown[0]!r} and {len(unknown) - 1} more that "
        f"{self._store.name} does not have - expected ids of its samples - check it again with "
        "facejax data check"
      )
    found = {}
    for name, reason in reasons.items():
      called = self._name(records[name])
      found[records[name]] = Refusal(called, f"sample {called!r} is in quarantine ({reason})")
    return found

  def __len__(self) -> int:
    return len(self._usable)

  def name(self, index: int) -> str:
    """Source and id."""
    return self._name(int(self._usable[index]))

  def sizes(self) -> Int[np.ndarray, "n 3"]:
    """Tokens, picture slots and clip slots of each sample, from the manifest."""
    tokens, _ = count.load(self._store.manifest, self._form)
    return _sizes(self._store.manifest, self._form, tokens)[self._usable]

  def fingerprint(self) -> dict:
    """The store's digest and which of its samples are usable; no record is read."""
    return {
      "source": "records",
      "name": self._store.name,
      "digest": self._store.digest(),
      "usable": len(self),
      "quarantined": self._quarantined_count,
      "usable_records": self._digest,
    }

  def raw(self, index: int) -> RawSample:
    """The sample as it is stored, with the name that messages use."""
    return dataclasses.replace(self._store[int(self._usable[index])], id=self.name(index))

  def labels(self, index: int) -> Mapping[str, Any]:
    """What the source's table says of the sample."""
    return self.raw(index).labels

  def __getitem__(self, index: int) -> Sample:
    """Reads and decodes a sample. Raises MediaError, naming sample and file."""
    raw, reads = self.raw(index), self._form.reads
    media = tuple(_selected(medium, reads) for medium in raw.media)
    return decode(dataclasses.replace(raw, media=media), self._form.table.model.frames)


def _selected(medium: RawMedium, reads: Sequence[str]) -> RawMedium:
  """Without the files that are not read, so that they are not decoded either."""
  return dataclasses.replace(
    medium,
    landmarks=medium.landmarks if "landmarks" in reads else None,
    segmentation=medium.segmentation if "segmentation" in reads else None,
  )


def _sizes(
  manifest: Manifest, form: RowFormat, tokens: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n 3"]:
  """What each record takes of a row, by the one function that counts."""
  video, mapped = manifest.column("video"), manifest.column("segmentation")
  mapped = mapped & ("segmentation" in form.reads)
  height, width = manifest.column("size").astype(np.int64).T
  # Few shapes come in many media: one number each, so that counting is done once a shape.
  shapes, which = np.unique(
    ((height << 31 | width) << 2) | (video.astype(np.int64) << 1) | mapped, return_inverse=True
  )
  each = np.array([_counted(int(shape), form) for shape in shapes], np.int64).reshape(-1, 3)[which]
  total = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(each, 0)])
  ends = np.concatenate([[0], manifest.column("media_ends")])
  sizes = total[ends[1:]] - total[ends[:-1]]
  sizes[:, 0] += np.maximum(tokens, 0)
  return sizes.astype(np.int32)


def _counted(shape: int, form: RowFormat) -> tuple[int, int, int]:
  mapped, kind = bool(shape & 1), KINDS[shape >> 1 & 1]
  height, width = shape >> 33, shape >> 2 & (2**31 - 1)
  outline = Outline(kind, mapped, form.pictures(kind, height, width))
  slots = (outline.pictures, 0) if kind == "image" else (0, outline.pictures)
  return (form.count(outline), *slots)


def _reason(name: str, size: np.ndarray, form: RowFormat, unreadable: str | None) -> str:
  if unreadable is not None:
    return unreadable
  taken = [
    f"{n} {what} of {room}"
    for n, what, room in zip(
      size.tolist(), ("tokens", "picture slots", "clip slots"), form.largest, strict=True
    )
    if n > room
  ]
  return (
    f"sample {name!r} takes {' and '.join(taken)} in a row - raise data.row_length, "
    "data.images_per_row or data.videos_per_row, or lower data.max_tiles"
  )
