"""A media file -> its SHA-256, and the pictures that are sent of it."""

import base64
import hashlib
import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from facejax.data import files, media
from facejax.types import Kind

# What chat completion endpoints take (OpenAI's list); other formats are sent as PNG.
_SENT_AS_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_QUALITY = 90  # of the JPEG of a clip's frame


def sha256(path: pathlib.Path) -> str:
  """Of the file's bytes. Raises MediaError where there is no such file, or it is too large."""
  files.check_file(path)
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def parts(path: pathlib.Path, kind: Kind, frames: int, detail: str) -> list[dict[str, Any]]:
  """The picture, or `frames` frames of the clip, as parts of a user's turn.

  A picture is decoded to see that it can be, and sent as the bytes that it is.

  Args:
    detail: "low", "high" or "auto"; "" leaves the choice to the endpoint.

  Raises:
    MediaError: it cannot be decoded.
    ModuleNotFoundError: a clip, and PyAV is not installed.
  """
  if kind == "image":
    urls = [_picture(path)]
  else:
    urls = [_frame(pixels) for pixels in media.read_video(path, frames).pixels]
  extra = {"detail": detail} if detail else {}
  return [{"type": "image_url", "image_url": {"url": url, **extra}} for url in urls]


def _picture(path: pathlib.Path) -> str:
  data = path.read_bytes()
  pixels = media.decode_image(data, str(path))
  with Image.open(io.BytesIO(data)) as image:
    mime = _SENT_AS_IS.get(image.format or "")
  if mime:
    return _url(mime, data)
  return _url("image/png", _encoded(pixels, "PNG"))


def _frame(pixels: np.ndarray) -> str:
  return _url("image/jpeg", _encoded(pixels, "JPEG", quality=_QUALITY))


def _encoded(pixels: np.ndarray, form: str, **options) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form, **options)
  return file.getvalue()


def _url(mime: str, data: bytes) -> str:
  return f"data:{mime};base64,{base64.b64encode(data).decode()}"
