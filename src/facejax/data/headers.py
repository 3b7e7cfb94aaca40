"""What can be known about a media file without decoding it: cheap enough for every sample."""

from collections.abc import Callable
from typing import Any

from PIL import Image

from facejax.data.files import LIMITS, Encoded, File, MediaError, check_file, load_array, open_file
from facejax.data.media import CROP, IMAGES, check_pixels, read_landmarks, reason
from facejax.types import LANDMARKS, Kind

_ORIENTATION = 0x0112  # EXIF; from 5 on the picture lies on its side
# A PNG without any of these has no orientation. Pillow decodes all of it to find that out (2 ms).
_TURNING = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def check_image(path: File) -> None:
  """Raises MediaError unless the file has the header of a picture within the limits."""
  _look(path, lambda image: None)


def size(path: File) -> tuple[int, int]:
  """(width, height) by the header, before EXIF turns the picture. Raises as check_image does."""
  return _look(path, lambda image: image.size)


def upright_size(path: File) -> tuple[int, int]:
  """(height, width) of a picture as it is decoded; of a PNG this reads all of the file.

  Raises MediaError as check_image does.
  """

  def turned(image: Image.Image) -> bool:
    data = path.data if isinstance(path, Encoded) and image.format == "PNG" else None
    if data is not None and not any(mark in data for mark in _TURNING):
      return False
    return image.getexif().get(_ORIENTATION, 1) >= 5

  return _look(path, lambda image: image.size if turned(image) else image.size[::-1])


def _look(path: File, of: Callable[[Image.Image], Any]) -> Any:
  check_file(path, LIMITS)
  try:
    with open_file(path) as file, Image.open(file, formats=IMAGES) as image:
      check_pixels(str(path), *image.size, LIMITS)
      return of(image)
  except MediaError:
    raise
  # As in media.decode_image: Pillow raises many types on damaged files.
  except Exception as error:
    raise MediaError(
      f"{path} has no picture's header ({reason(error)}) - expected JPEG, PNG, WebP, BMP, GIF, "
      "TIFF or PPM - export it again"
    ) from error


def check_array(path: File, shape: tuple[int | None, ...]) -> None:
  """Raises MediaError unless the file is a .npy array of this shape; None is any length."""
  found = load_array(path, LIMITS).shape
  if len(found) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found, strict=True)):
    raise MediaError(
      f"{path}: array of shape {found} - expected "
      f"({', '.join('n' if n is None else str(n) for n in shape)}) - extract it again"
    )


def check_exists(path: File) -> None:
  """Raises MediaError unless there is such a file, within the limits."""
  check_file(path, LIMITS)


def check_medium(
  kind: Kind,
  file: File,
  landmarks: File | None = None,
  segmentation: File | None = None,
  upright: bool = False,
) -> tuple[int, int]:
  """Raises MediaError unless a medium and what lies beside it look usable; no pixel is decoded.

  Gives (width, height) of a picture, (0, 0) of a clip, as the header is read anyway; `upright` as
  it is decoded, which of a PNG on disk costs reading all of it.
  """
  width = height = 0
  if kind == "image" and upright:
    height, width = upright_size(file)
  elif kind == "image":
    width, height = size(file)
  else:
    check_exists(file)
  if landmarks is not None and kind == "image":
    read_landmarks(landmarks)  # 544 bytes
    if width != height:
      raise MediaError(
        f"{file} is {width}x{height} px and has landmarks, which are pixels of a square "
        f"face crop of {CROP} - crop the face, and give its landmarks in that crop"
      )
  elif landmarks is not None and str(landmarks).endswith(".json"):
    check_exists(landmarks)
  elif landmarks is not None:  # whether there is one a frame is known once the clip is decoded
    check_array(landmarks, (None, LANDMARKS, 2))
  if segmentation is not None and str(segmentation).lower().endswith(".npy"):
    check_array(segmentation, (None, None) if kind == "image" else (None, None, None))
  elif segmentation is not None:
    check_image(segmentation)
  return width, height
