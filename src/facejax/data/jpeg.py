"""JPEG bytes -> RGB by simplejpeg, where it is installed: Pillow's pixels in half the time.

Both bring libjpeg-turbo; Pillow copies pixels twice more. What is not a plain, upright, undamaged
RGB picture is left to Pillow, so that pixels and refusals are the same with and without it.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image


def rgb(image: Image.Image, data: bytes) -> UInt8[np.ndarray, "Y X 3"] | None:
  """The pixels of a picture that Pillow has opened and not loaded; None if it shall load them.

  Args:
    image: what Pillow makes of the header.
    data: the whole file.
  """
  decoder = _decoder()
  if decoder is None or image.format != "JPEG" or image.mode != "RGB":
    return None
  if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
    return None
  try:
    return decoder.decode_jpeg(data, strict=True)
  except ValueError:  # a warning of libjpeg's, which Pillow may pass over
    return None


@functools.cache
def _decoder() -> ModuleType | None:
  try:
    import simplejpeg
  except ModuleNotFoundError:
    return None
  return simplejpeg
