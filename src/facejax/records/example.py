"""A stored sample <-> the record of it in a shard: names, types and their order in one place.

The features are TensorFlow Datasets', so `tfds.builder_from_directory(folder)` reads them too. What
a medium lacks is an empty name. `index` is the sample's place in its layout.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from facejax.data import headers
from facejax.data.rows import placeholders
from facejax.records.raw import Encoded, RawMedium, RawSample
from facejax.types import Turn

_EXTRAS = ("landmarks", "segmentation")
_MEDIUM = (
  *("kind", "name", "data", "content", "height", "width"),
  *(name for extra in _EXTRAS for name in (extra, f"{extra}_name")),
)


class MediumRow(NamedTuple):
  """What the manifest says of a medium.

  Attributes:
    video: it is a clip.
    height: pixels of the picture as it is decoded; 0 for a clip, which is not opened.
    width: likewise.
    landmarks: they lie beside it.
    segmentation: likewise.
    content: SHA-256 of the file.
  """

  video: bool
  height: int
  width: int
  landmarks: bool
  segmentation: bool
  content: bytes


class SampleRow(NamedTuple):
  """What the manifest says of a sample.

  Attributes:
    place: in its layout.
    id: of the sample.
    turns: of the conversation, (role, text) each.
    content: SHA-256 over conversation and files; see `content`.
    media: in the order of their placeholders.
  """

  place: int
  id: str
  turns: tuple[tuple[str, str], ...]
  content: bytes
  media: tuple[MediumRow, ...]


def features() -> tfds.features.FeaturesDict:
  """The features of a record."""
  text = tfds.features.Text
  return tfds.features.FeaturesDict(
    {
      "index": np.int64,
      "id": text(),
      "content": tfds.features.Tensor(shape=(), dtype=np.object_),
      "labels": text(),  # JSON
      "conversation": tfds.features.Sequence({"role": text(), "text": text()}),
      "media": tfds.features.Sequence(_medium_features()),
    }
  )


def _medium_features() -> dict[str, Any]:
  kinds = {"kind": "text", "name": "text", "height": "int", "width": "int"}
  kinds |= {f"{extra}_name": "text" for extra in _EXTRAS}
  make = {
    "text": tfds.features.Text,
    "int": lambda: tfds.features.Scalar(np.int32),
    "blob": lambda: tfds.features.Tensor(shape=(), dtype=np.object_),
  }
  return {name: make[kinds.get(name, "blob")]() for name in _MEDIUM}


def to_example(index: int, raw: RawSample) -> dict[str, Any]:
  """The record of a sample, whose files are looked at but not decoded.

  Raises:
    ValueError: placeholders are not the media, or a label is no JSON value; naming the sample.
    MediaError: a header or an array is not usable; naming sample and file.
  """
  asked, kinds = placeholders(raw.conversation), [medium.kind for medium in raw.media]
  if asked != kinds:
    raise ValueError(
      f"sample {raw.id!r}: the questions have the placeholders [{', '.join(asked)}] but the media "
      f"are [{', '.join(kinds)}] - the n-th placeholder stands for the n-th medium - add or remove "
      "placeholders or files"
    )
  try:
    labels = json.dumps(dict(raw.labels), ensure_ascii=False, allow_nan=False).encode()
    media = [_medium(medium) for medium in raw.media]
    turns = raw.conversation
    told = {
      "role": [turn.role.encode() for turn in turns],
      "text": [turn.text.encode() for turn in turns],
    }
    name = raw.id.encode()
  except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell
    raise ValueError(
      f"sample {raw.id!a} has text that is no Unicode: {error.object[error.start]!a} at "
      f"{error.start} of {error.object[:40]!a} - expected whole characters - repair the text"
    ) from error
  except TypeError as error:
    raise ValueError(f"sample {raw.id!r}: {error} - expected labels that JSON can hold") from error
  except ValueError as error:
    raise type(error)(f"sample {raw.id!r}: {error}") from error
  return {
    "index": index,
    "id": name,
    "content": content(raw, [medium["content"] for medium in media]),
    "labels": labels,
    "conversation": told,
    "media": {key: [medium[key] for medium in media] for key in _MEDIUM},
  }


def content(raw: RawSample, media: list[bytes]) -> bytes:
  """SHA-256 of a sample: its turns, and of each medium the kind and its files' hashes.

  Args:
    raw: the sample.
    media: SHA-256 of each medium's own file.
  """
  total = hashlib.sha256()
  total.update(json.dumps([[turn.role, turn.text] for turn in raw.conversation]).encode())
  for medium, digest in zip(raw.media, media, strict=True):
    total.update(medium.kind.encode() + digest)
    for extra in (medium.landmarks, medium.segmentation):
      total.update(b"-" if extra is None else hashlib.sha256(extra.data).digest())
  return total.digest()


def _medium(medium: RawMedium) -> dict[str, Any]:
  extras = medium.landmarks, medium.segmentation
  width, height = headers.check_medium(medium.kind, medium.file, *extras, upright=True)
  stored = {
    "kind": medium.kind.encode(),
    "name": medium.file.name.encode(),
    "data": medium.file.data,
    "content": hashlib.sha256(medium.file.data).digest(),
    "height": height,
    "width": width,
  }
  for extra in _EXTRAS:
    file = getattr(medium, extra)
    stored[f"{extra}_name"] = b"" if file is None else file.name.encode()
    stored[extra] = b"" if file is None else file.data
  return stored


def from_example(example: Mapping[str, Any]) -> RawSample:
  """The sample of a record, as tfds gives it back."""
  turns, media = example["conversation"], example["media"]
  return RawSample(
    example["id"].decode(),
    tuple(
      Turn(role.decode(), text.decode())
      for role, text in zip(turns["role"], turns["text"], strict=True)
    ),
    tuple(
      RawMedium(
        media["kind"][i].decode(),
        Encoded(media["name"][i].decode(), media["data"][i]),
        *(_extra(media, extra, i) for extra in _EXTRAS),
      )
      for i in range(len(media["kind"]))
    ),
    json.loads(example["labels"]),
  )


def _extra(media: Mapping[str, Any], extra: str, i: int) -> Encoded | None:
  name = media[f"{extra}_name"][i].decode()
  return Encoded(name, media[extra][i]) if name else None


def row_of(example: Mapping[str, Any]) -> SampleRow:
  """What the manifest says of a record, as `to_example` makes it and tfds gives it back."""
  turns, media = example["conversation"], example["media"]
  return SampleRow(
    int(example["index"]),
    example["id"].decode(),
    tuple((r.decode(), t.decode()) for r, t in zip(turns["role"], turns["text"], strict=True)),
    example["content"],
    tuple(
      MediumRow(
        media["kind"][i] == b"video",
        int(media["height"][i]),
        int(media["width"][i]),
        media["landmarks_name"][i] != b"",
        media["segmentation_name"][i] != b"",
        media["content"][i],
      )
      for i in range(len(media["kind"]))
    ),
  )
