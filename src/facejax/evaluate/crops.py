"""A benchmark's media -> an index for `facejax data landmarks` -> the same items on crops.

Face-LLaVA was trained on face crops with landmarks, and releases hold whole pictures. So the media
are named in an index in the LLaVA format, crops, landmarks and class maps are made as for training,
and the items are asked about those. An item that is not in the completed index (no face was found)
stays in the denominator: it cannot be asked, and counts as wrong.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facejax.data.files import Encoded, inside, read
from facejax.evaluate.protocol import Benchmark, Item, MediaFile
from facejax.records.raw import RawMedium

_CLIPS = (".mp4", ".avi", ".flv", ".mov", ".mkv", ".webm")


def write_index(benchmark: Benchmark, path: Path) -> Path:
  """Writes the index of a benchmark's media, relative to its folder; returns the path.

  Raises ValueError where pictures are frames of clips, which an index cannot name.
  """
  records = []
  for item in benchmark.items:
    if item.error:
      continue
    record: dict[str, Any] = {"id": item.id}
    for medium in item.media:
      if medium.kind == "image" and medium.path.lower().endswith(_CLIPS):
        raise ValueError(
          f"{benchmark.name}: item {item.id} is a frame of {medium.path} - expected a picture - "
          "take the frames out of the clips, and name their folder with --set disfa.frames=FOLDER"
        )
      record.setdefault(medium.kind, []).append(medium.path)
    turns = (("human", item.prompt), ("gpt", "-"))
    record["conversations"] = [{"from": role, "value": text} for role, text in turns]
    records.append(record)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(records), encoding="utf-8")
  return path


def with_crops(benchmark: Benchmark, index: Path) -> Benchmark:
  """The items, asked about the media of a completed index.

  Raises:
    FileNotFoundError: no such index.
    ValueError: an index of other items, or damaged.
  """
  if not index.is_file():
    raise FileNotFoundError(f"no index {index} - expected what facejax data landmarks wrote")
  data = index.read_bytes()
  try:
    records = {record["id"]: record for record in json.loads(data)}
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f"{index} is no index with ids ({error!r}) - expected what facejax data landmarks wrote"
    ) from error
  names = {item.id for item in benchmark.items}
  if not names & set(records):
    raise ValueError(
      f"{index} names none of the {len(names)} items of {benchmark.name}, but "
      f"{list(records)[:3]} - expected the completed index of --write-index"
    )
  folder = index.parent
  beside: dict[str, tuple[list[str], list[str]]] = {}
  items = []
  for item in benchmark.items:
    record = records.get(item.id)
    if record is None or item.error:
      why = item.error or f"no face: it is not in {index}"
      items.append(dataclasses.replace(item, error=why))
      continue
    media = tuple(_media(record, item, index))
    beside[item.id] = (
      _listed(record.get("landmarks_2d"), len(media)),
      _listed(record.get("segmentation"), len(media)),
    )
    items.append(dataclasses.replace(item, media=media))
  digest = hashlib.sha256(data).hexdigest()[:16]
  return dataclasses.replace(
    benchmark,
    items=items,
    folder=folder,
    load=lambda item: tuple(_load(folder, item, beside[item.id])),
    settings={**benchmark.settings, "crops": digest},
  )


def _media(record: Mapping[str, Any], item: Item, index: Path):
  left = {kind: _listed(record.get(kind), 0) for kind in ("image", "video")}
  for medium in item.media:
    if not left[medium.kind]:
      raise ValueError(
        f"{index}: record {item.id!r} has fewer than {len(item.media)} media - expected the "
        "completed index of --write-index"
      )
    yield MediaFile(medium.kind, left[medium.kind].pop(0))


def _listed(value: Any, count: int) -> list[str]:
  """A path or a list of paths as a list; "" where there is none."""
  if value is None:
    return [""] * count
  return [entry or "" for entry in value] if isinstance(value, list) else [value]


def _load(folder: Path, item: Item, beside: tuple[list[str], list[str]]):
  encoded = lambda path: Encoded(path, read(inside(folder, path, item.id))) if path else None
  for medium, points, classes in zip(item.media, *beside, strict=True):
    file = encoded(medium.path)
    assert file is not None
    yield RawMedium(medium.kind, file, encoded(points), encoded(classes))
