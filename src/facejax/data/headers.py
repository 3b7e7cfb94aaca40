"""What can be known about a media file without decoding it: cheap enough for every sample."""

import os
from collections.abc import Callable
from typing import Any

from PIL import Image

from facejax.data.media import IMAGES, MediaError, MediaLimits, check_file, check_pixels, load_array

_LIMITS = MediaLimits()


_ORIENTATION = 0x0112  # EXIF; from 5 on the picture lies on its side


def check_image(path: str | os.PathLike) -> None:
  """Raises MediaError unless the file has the header of a picture within the limits."""
  _look(path, lambda image: None)


def size(path: str | os.PathLike) -> tuple[int, int]:
  """(width, height) by the header, before EXIF turns the picture. Raises as check_image does."""
  return _look(path, lambda image: image.size)


def upright_size(path: str | os.PathLike) -> tuple[int, int]:
  """(height, width) of a picture as it is decoded; of a PNG this reads all of the file.

  Raises MediaError as check_image does.
  """
  turned = lambda image: image.getexif().get(_ORIENTATION, 1) >= 5
  return _look(path, lambda image: image.size if turned(image) else image.size[::-1])


def _look(path: str | os.PathLike, of: Callable[[Image.Image], Any]) -> Any:
  check_file(path, _LIMITS)
  try:
    with Image.open(path, formats=IMAGES) as image:
      check_pixels(str(path), *image.size, _LIMITS)
      return of(image)
  except MediaError:
    raise
  # As in media.decode_image: Pillow raises many types on damaged files.
  except Exception as error:
    raise MediaError(
      f"{path} has no picture's header ({error}) - expected JPEG, PNG, WebP, BMP, GIF, TIFF or PPM "
      "- export it again"
    ) from error


def check_array(path: str | os.PathLike, shape: tuple[int | None, ...]) -> None:
  """Raises MediaError unless the file is a .npy array of this shape; None is any length."""
  found = load_array(path, _LIMITS).shape
  if len(found) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found, strict=True)):
    raise MediaError(
      f"{path}: array of shape {found} - expected "
      f"({', '.join('n' if n is None else str(n) for n in shape)}) - extract it again"
    )


def check_exists(path: str | os.PathLike) -> None:
  """Raises MediaError unless there is such a file, within the limits."""
  check_file(path, _LIMITS)
