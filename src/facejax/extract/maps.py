"""Class maps that exist already, of any known parser -> ids of faces/segmentation.py.

For the medium `images/7.jpg` of an index, the folder of maps is looked at in this order:

    images/7.png  images/7.npy  7.png  7.npy    a map: ids (PNG of mode L or P, .npy), or colours
    images/7/*.png  7/*.png                     a clip: one map a frame, in the order of names
    0/00007_skin.png  00007_skin.png  ...       CelebAMask-HQ as released: a mask for each part
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from facejax.data import files, media
from facejax.data.media import MediaError
from facejax.faces.parsers import ParserTable
from facejax.faces.segmentation import CLASS_ID, CLASSES
from facejax.types import Kind

_PER_FOLDER = 2000  # pictures in one of CelebAMask-HQ's folders of masks


def find(folder: Path, relative: Path, kind: Kind) -> tuple[Path, ...]:
  """The files that hold a medium's map. Raises MediaError where there are none."""
  stem = relative.with_suffix("")
  for name in (stem, Path(stem.name)):
    for suffix in (".png", ".npy"):
      if (path := folder / f"{name}{suffix}").is_file():
        return (path,)
    if kind == "video" and (frames := sorted((folder / name).glob("*.png"))):
      return tuple(frames)
  if kind == "image" and (parts := _parts(folder, stem.name)):
    return parts
  raise MediaError(
    f"no class map for {relative} in {folder} - expected {stem}.png, {stem}.npy"
    + (f", a folder {stem} of frames" if kind == "video" else ", or masks of its parts")
    + " - check the folder, or leave the medium out"
  )


def _parts(folder: Path, stem: str) -> tuple[Path, ...]:
  """Masks of parts in CelebAMask-HQ's layout, in the order of class ids."""
  numbered = stem.isdecimal()
  name = f"{int(stem):05d}" if numbered else stem
  places = [folder / str(int(stem) // _PER_FOLDER)] if numbered else []
  for place in (*places, folder):
    found = [path for part in CLASSES[1:] if (path := place / f"{name}_{part}.png").is_file()]
    if found:
      return tuple(found)
  return ()


def read(
  medium: Path, kind: Kind, paths: Sequence[Path], table: ParserTable
) -> UInt8[np.ndarray, "*T y x"]:
  """What `find` found, as ids of faces/segmentation.py; a clip has a T axis. Raises MediaError."""
  if kind == "video":
    return read_frames(paths, table)
  # A map has the picture's name, a mask has its part's name behind it.
  return read_map(paths[0], table) if paths[0].stem == medium.stem else read_parts(paths)


def read_map(path: Path, table: ParserTable) -> UInt8[np.ndarray, "y x"]:
  """One map, of ids or in the parser's colours. Raises MediaError."""
  data = files.load_array(path) if path.suffix == ".npy" else _pixels(path, ("L", "P", "RGB"))
  try:
    if data.ndim == 3 and data.shape[-1] == 3 and data.dtype == np.uint8:
      return table.from_colours(data)
    if data.ndim == 2 and data.size:
      return table.to_canonical(data)
  except ValueError as error:
    raise MediaError(f"{path}: {error}") from error
  raise MediaError(
    f"{path}: a map of shape {data.shape}, type {data.dtype} - expected ids [y, x] or colours "
    "[y, x, 3] - save it again"
  )


def read_frames(paths: Sequence[Path], table: ParserTable) -> UInt8[np.ndarray, "T y x"]:
  """Maps of a clip: a .npy file of ids [T y x], or a picture a frame. Raises MediaError."""
  if len(paths) == 1 and paths[0].suffix == ".npy":
    ids = files.load_array(paths[0])
    if ids.ndim != 3 or not ids.size:
      raise MediaError(f"{paths[0]}: maps of shape {ids.shape} - expected ids [frames, y, x]")
    try:
      return table.to_canonical(ids)
    except ValueError as error:
      raise MediaError(f"{paths[0]}: {error}") from error
  maps = [read_map(path, table) for path in paths]
  for path, ids in zip(paths, maps, strict=True):
    _check_equal(path, ids, maps[0])
  return np.stack(maps)


def read_parts(paths: Sequence[Path]) -> UInt8[np.ndarray, "y x"]:
  """CelebAMask-HQ's masks -> a map; where two overlap, the one with the higher id is on top.

  That is the order in which the data set's own script lays them. Raises MediaError.
  """
  ids: np.ndarray | None = None
  for path in paths:
    part = next(name for name in CLASSES[1:] if path.stem.endswith(f"_{name}"))
    pixels = _pixels(path, ("1", "L", "P", "RGB"))
    mask = np.asarray(pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0)
    ids = np.zeros(mask.shape, np.uint8) if ids is None else ids
    _check_equal(path, mask, ids)
    ids[mask] = CLASS_ID[part]
  assert ids is not None
  return ids


def _pixels(path: Path, modes: tuple[str, ...]) -> np.ndarray:
  data = files.read(path)
  try:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
      media.check_pixels(str(path), *image.size, files.LIMITS)
      if image.mode not in modes:
        raise MediaError(
          f"{path}: a PNG of mode {image.mode} - expected {', '.join(modes)} - save it again"
        )
      return np.array(image)
  except MediaError:
    raise
  except Exception as error:  # as in media.decode_image, Pillow raises many types
    raise MediaError(
      f"{path} cannot be decoded ({error}) - expected a complete PNG - save it again"
    ) from error


def _check_equal(path: Path, one: np.ndarray, other: np.ndarray) -> None:
  if one.shape != other.shape:
    raise MediaError(
      f"{path} is {one.shape[1]}x{one.shape[0]} px, the first of its kind {other.shape[1]}x"
      f"{other.shape[0]} - expected one size - make them again"
    )
