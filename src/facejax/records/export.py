"""A built source -> a folder in the official JSON format (data/llava.py), files byte for byte.

For other programs, and for what completes an index: a label table gets landmarks that way.
"""

import json
import os
import pathlib
import shutil
from typing import Any

from tqdm import tqdm

from facejax.data import files
from facejax.records.raw import Encoded, Layout, RawSample

INDEX = "train.json"
_FIELDS = ("id", "image", "video", "landmarks_2d", "segmentation", "conversations")


def export(layout: Layout, folder: str | os.PathLike) -> str:
  """Writes all samples of a layout into a folder that appears complete or not at all.

  Args:
    layout: a built source (records/store.py) or a released folder.
    folder: made; media lie in it under their names, beside train.json.

  Returns:
    What a person needs to know, in a line.

  Raises:
    FileExistsError: there is such a folder.
    ValueError: a label has the name of an official field, or two files of one name differ.
  """
  final = pathlib.Path(folder)
  if final.exists():
    raise FileExistsError(f"{final} exists - expected a folder to be made - name another one")
  part = final.with_name(f".{final.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  written: dict[str, int] = {}
  with open(part / INDEX, "w", encoding="utf-8") as index:
    for number in tqdm(range(len(layout)), desc=final.name, unit=" samples"):
      raw = layout[number]
      for medium in raw.media:
        for file in (medium.file, medium.landmarks, medium.segmentation):
          if file is not None:
            _write(part, file, raw.id, written)
      index.write("[" if number == 0 else ",\n")
      index.write(json.dumps(_record(raw), ensure_ascii=False))
    index.write("]\n" if len(layout) else "[]\n")
  os.replace(part, final)
  return f"{final / INDEX}: {len(layout):,} samples, {len(written):,} files"


def _write(folder: pathlib.Path, file: Encoded, sample: str, written: dict[str, int]) -> None:
  digest = hash(file.data)  # of this process; only ever compared in it
  if file.name == INDEX or written.setdefault(file.name, digest) != digest:
    raise ValueError(
      f"sample {sample!r}: {file.name} is another file than the one of that name before - "
      "expected one file a name - export the sources one by one"
    )
  path = files.inside(folder, file.name, sample)
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)


def _record(raw: RawSample) -> dict[str, Any]:
  clash = [name for name in raw.labels if name in _FIELDS]
  if clash:
    raise ValueError(
      f"sample {raw.id!r} has a label {clash[0]!r}, which is a field of the format - expected "
      "other names - rename it where it comes from"
    )
  record: dict[str, Any] = {"id": raw.id}
  for kind in ("image", "video"):
    if names := [m.file.name for m in raw.media if m.kind == kind]:
      record[kind] = names if len(names) > 1 else names[0]
  for field, extra in (("landmarks_2d", "landmarks"), ("segmentation", "segmentation")):
    found = [getattr(medium, extra) for medium in raw.media]
    if any(file is not None for file in found):
      record[field] = [None if file is None else file.name for file in found]
  turns = [{"from": turn.role, "value": turn.text} for turn in raw.conversation]
  return record | {"conversations": turns} | dict(raw.labels)
