"""A file on disk or in memory: found, small enough, read. Its content is media.py's business.

Every refusal is a `MediaError` that names the file, what was found, what was expected and what to
do. Nothing is fetched, nothing outside the named file is read.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import os
import pathlib
import re
from typing import BinaryIO

import numpy as np


class MediaError(ValueError):
  """A file that cannot be used as it is."""


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A file as it is: its bytes are kept, so that nothing is encoded twice.

  Attributes:
    name: path inside its source, for messages; the suffix says the format.
    data: content.
  """

  name: str
  data: bytes = dataclasses.field(repr=False)

  def __str__(self) -> str:
    return self.name


File = str | os.PathLike | Encoded


@dataclasses.dataclass(frozen=True)
class MediaLimits:
  """What a file may hold; a larger one is refused from its header (our choice).

  Attributes:
    max_bytes: of the file, 512 MiB.
    max_pixels: of a picture or of one frame; 64 million is above any phone camera's default, and
      192 MB decoded.
    max_frames: decoded from one clip, 10 minutes at 30 frames a second.
    max_seconds: of a clip.
  """

  max_bytes: int = 512 * 2**20
  max_pixels: int = 64_000_000
  max_frames: int = 18_000
  max_seconds: float = 600.0


LIMITS = MediaLimits()
_HEADER = 10_000  # bytes of an array file's header that are looked at, as NumPy does


def inside(folder: str | os.PathLike, relative: str, sample: object = "?") -> pathlib.Path:
  """The file `relative` of an index, which may not leave its folder, not even through a link."""
  root = pathlib.Path(folder).resolve()
  parts = relative.replace("\\", "/").split("/")
  path = (root / relative).resolve()
  if not relative or os.path.isabs(relative) or ".." in parts or not path.is_relative_to(root):
    raise MediaError(
      f"sample {sample!r}: path {relative!r} is not inside {root} - an index may only name files "
      "of its own folder - use a relative path without '..' or links that lead out"
    )
  return path


def check_file(file: File, limits: MediaLimits = LIMITS) -> None:
  """Raises MediaError unless there is such a file, and it is not too large."""
  if isinstance(file, Encoded):
    size = len(file.data)
  elif os.path.isfile(file):
    size = os.path.getsize(file)
  else:
    raise MediaError(f"{file}: no such file - check the folder and the index")
  if size > limits.max_bytes:
    raise MediaError(f"{file}: {size} bytes - at most {limits.max_bytes} are read - shrink it")


def read(file: File, limits: MediaLimits = LIMITS) -> bytes:
  """The content of a file. Raises MediaError as check_file does."""
  check_file(file, limits)
  return file.data if isinstance(file, Encoded) else pathlib.Path(file).read_bytes()


def open_file(file: File) -> BinaryIO:
  """The file, to be read and closed by the caller; check_file comes first."""
  return io.BytesIO(file.data) if isinstance(file, Encoded) else open(file, "rb")


def load_array(file: File, limits: MediaLimits = LIMITS) -> np.ndarray:
  """An array file, mapped and not read, so that a header cannot ask for memory."""
  data = _mapped(file, limits)
  if data[:4] == b"PK\x03\x04":
    raise _archive(file)
  try:
    dtype, fortran, shape, start = _header(data)
    array = np.frombuffer(data, dtype, math.prod(shape), start)
    return array.reshape(shape, order="F" if fortran else "C")
  except (ValueError, TypeError) as error:
    raise MediaError(
      f"{file} is not a plain .npy array ({error}) - expected numbers saved by numpy.save - save "
      "them again"
    ) from error


def _mapped(file: File, limits: MediaLimits) -> bytes | mmap.mmap:
  check_file(file, limits)
  if isinstance(file, Encoded):
    return file.data
  with open(file, "rb") as stream:
    if not os.fstat(stream.fileno()).st_size:  # cannot be mapped
      return b""
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


_DESCR = re.compile(rb"'descr': *'([<>|=][biufc]\d+)'")
_FORTRAN = re.compile(rb"'fortran_order': *(True|False)")
_SHAPE = re.compile(rb"'shape': *\(([\d, L]*)\)")


def _header(data: bytes | mmap.mmap) -> tuple[np.dtype, bool, tuple[int, ...], int]:
  """Type, order, shape, and where the numbers start.

  NumPy reads the header as Python, and CPython 3.11 fails now and then where two threads do that at
  once ("AST constructor recursion depth mismatch"): met within 2,000 samples of four workers.
  """
  if data[:6] != b"\x93NUMPY":
    raise ValueError(f"it begins with {bytes(data[:6])!r}")
  version = data[6:8]
  if version not in (b"\x01\x00", b"\x02\x00"):
    raise ValueError(f"format version {tuple(version)}, expected (1, 0) or (2, 0)")
  width = 2 if version[0] == 1 else 4
  start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
  header = bytes(data[8 + width : min(start, _HEADER)])
  found = [pattern.search(header) for pattern in (_DESCR, _FORTRAN, _SHAPE)]
  if None in found:
    raise ValueError(f"it holds Python objects or more than numbers: {header[:80]!r}")
  descr, fortran, shape = (match.group(1).decode() for match in found if match)
  sizes = tuple(int(part.strip(" L")) for part in shape.split(",") if part.strip())
  return np.dtype(descr), fortran == "True", sizes, start


def _archive(file: File) -> MediaError:
  return MediaError(f"{file} is an .npz archive - expected one .npy array - use numpy.save")
