"""`facejax data segment`: media of an index -> maps of the 19 classes, by a parser or from files.

    picture --parser or maps.py--> ids [y x]   --> .png
    clip    --parser or maps.py--> ids [T y x] --> .npy

A map belongs to the picture as it lies in the index: crop faces first (`facejax data landmarks`).
Maps are read back with the reader that training uses before they are kept.
"""

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from facejax.data import llava, media
from facejax.data.files import Encoded
from facejax.data.media import MediaError
from facejax.extract import clips, dataset, maps
from facejax.extract.campaign import Job, Result, place, save
from facejax.extract.ledger import sha256
from facejax.extract.parser import FaceParser, open_network
from facejax.faces.parsers import ParserTable
from facejax.faces.segmentation import CLASS_ID

_VERSION = 1  # of the results; another one is worked out anew
_MISSING = 0.3  # share of a clip's frames that may show no skin, as for landmarks


def segment(
  where: dataset.Place, parser: str | os.PathLike, table: ParserTable, workers: int = 0
) -> dataset.Summary:
  """Runs a parser over an index; what was done before is not done again.

  Args:
    where: the index and the folder to write.
    parser: .onnx or .tflite file.
    table: its classes and how it is fed.
    workers: processes; 0 works in this one.

  Raises:
    FileNotFoundError: no index or no parser.
    ValueError: as open_network, FaceParser and dataset.complete.
    ModuleNotFoundError: what runs the parser is not installed.
  """
  work = ParserWork(where.out, Path(parser), table)
  work.open()  # what is wrong with it is said once, here, and not by each process
  job_of = lambda file: Job(file.kind, (file.path,))
  return dataset.complete(work, "segmentation", where, job_of, workers)


def convert_maps(
  where: dataset.Place, folder: str | os.PathLike, table: ParserTable, workers: int = 0
) -> dataset.Summary:
  """Takes maps that exist already (maps.py says where they are looked for); else as `segment`."""
  root = Path(folder)
  if not root.is_dir():
    raise FileNotFoundError(f"no folder of maps {root} - check the path")
  roots = {"image": where.image_folder, "video": where.video_folder}
  base = {kind: Path(path or where.source.parent).resolve() for kind, path in roots.items()}

  def job_of(file: llava.File) -> Job:
    relative = file.path.relative_to(base[file.kind])
    return Job(file.kind, (file.path, *maps.find(root, relative, file.kind)))

  return dataset.complete(MapWork(where.out, table), "segmentation", where, job_of, workers)


class ParserWork:
  """Class maps of one medium by a network; see campaign.Work."""

  def __init__(self, out: Path, parser: Path, table: ParserTable):
    self.out = out
    self._path, self._table = parser, table
    self._parser: FaceParser | None = None
    self.fingerprint: dict[str, Any] = {
      "step": "segment",
      "version": _VERSION,
      "table": dataclasses.asdict(table),
      "parser": sha256(parser) if parser.is_file() else "",
    }

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, "_parser": None}  # a session is no data

  def open(self) -> FaceParser:
    """The parser, loaded once a process."""
    if self._parser is None:
      self._parser = FaceParser(open_network(self._path), self._table, str(self._path))
    return self._parser

  def __call__(self, job: Job, key: str) -> Result:
    """Raises ValueError, naming the file, where the parser sees no face."""
    path, parser = job.files[0], self.open()
    if job.kind == "image":
      return _save_picture(self.out, path, key, parser.parse(media.read_image(path)))
    total = clips.count(path)
    each = map(parser.parse, clips.frames(path))
    return _save_clip(self.out, path, key, each, total)


class MapWork:
  """Class maps of one medium from files; see campaign.Work."""

  def __init__(self, out: Path, table: ParserTable):
    self.out = out
    self._table = table
    self.fingerprint: dict[str, Any] = {
      "step": "maps",
      "version": _VERSION,
      "table": dataclasses.asdict(table),
    }

  def __call__(self, job: Job, key: str) -> Result:
    """Raises ValueError, naming the file, where map and medium do not go together."""
    path, *sources = job.files
    ids = maps.read(path, job.kind, sources, self._table)
    if job.kind == "image":
      _check_shape(sources[0], ids.shape, path, media.read_image(path).shape[:2])
      return _save_picture(self.out, path, key, ids)
    total = clips.count(path)
    if len(ids) != total:
      raise MediaError(
        f"{sources[0]}: {len(ids)} maps for the {total} frames of {path} - expected one each - "
        "make them again"
      )
    _check_shape(sources[0], ids.shape[1:], path, next(clips.frames(path)).shape[:2])
    return _save_clip(self.out, path, key, ids, total)


def _check_shape(source: Path, shape: tuple[int, ...], path: Path, of: tuple[int, ...]) -> None:
  """Refuses a map of other proportions: it may be smaller or larger, but not of another cut."""
  (y, x), (height, width) = shape, of
  if abs(y * width - x * height) > max(height, width):  # a pixel, rounded
    raise MediaError(
      f"{source} is {x}x{y} px, {path} {width}x{height} - expected the same proportions - make the "
      "map from this picture"
    )


def _save_picture(out: Path, path: Path, key: str, ids: UInt8[np.ndarray, "y x"]) -> Result:
  if not (ids == CLASS_ID["skin"]).any():
    raise MediaError(f"{path}: no skin in its map, {_seen(ids)} - {_NO_FACE}")
  stream = io.BytesIO()
  Image.fromarray(ids).save(stream, "PNG")
  media.read_segmentation(Encoded(f"map of {path}.png", stream.getvalue()))
  name = place(out, "maps", key, ".png")
  save(out / name, stream.getvalue())
  return {"segmentation": name.as_posix(), "files": [name.as_posix()], "counts": ["pictures"]}


def _save_clip(out: Path, path: Path, key: str, each, total: int) -> Result:
  """Writes a map a frame; no more than one is in memory."""
  name = place(out, "maps", key, ".npy")
  partial = (out / name).with_name(f".{key}.partial.npy")
  try:
    bare = _write_frames(partial, each, total)
    if bare > _MISSING * total:
      raise MediaError(
        f"{path}: no skin in {bare} of {total} maps, expected so in at most {_MISSING:.0%} - "
        f"{_NO_FACE}"
      )
    clip = media.Clip(np.empty((1, 0, 0, 3), np.uint8), np.zeros(1, int), total)
    media.read_segmentation(partial, clip)
    partial.replace(out / name)
  finally:
    partial.unlink(missing_ok=True)
  made = name.as_posix()
  result: Result = {"segmentation": made, "files": [made], "counts": ["clips"]}
  if bare:
    result["note"] = f"no skin in {bare} of {total} frames"
  return result


def _write_frames(path: Path, each, total: int) -> int:
  """Writes [T y x]; returns in how many frames there is no skin."""
  array, bare = None, 0
  for number, ids in enumerate(each):
    if array is None:
      array = np.lib.format.open_memmap(path, "w+", np.uint8, (total, *ids.shape))
    array[number] = ids
    bare += not (ids == CLASS_ID["skin"]).any()
  assert array is not None
  array.flush()
  return bare


def _seen(ids: UInt8[np.ndarray, "y x"]) -> str:
  return f"only classes {np.unique(ids).tolist()}"


_NO_FACE = "expected a face - check that --classes names the maps' parser, or leave the medium out"
