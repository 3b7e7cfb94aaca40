"""What can be known about a media file without decoding it: cheap enough for every sample."""

import os

from PIL import Image

from facejax.data.media import IMAGES, MediaError, MediaLimits, check_file, check_pixels, load_array

_LIMITS = MediaLimits()


def check_image(path: str | os.PathLike) -> None:
  """Raises MediaError unless the file has the header of a picture within the limits."""
  check_file(path, _LIMITS)
  try:
    with Image.open(path, formats=IMAGES) as image:
      check_pixels(str(path), *image.size, _LIMITS)
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
