"""A case -> a small picture of its first medium, with its landmarks drawn in, however wrong."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from facejax.data import media
from facejax.data.files import Encoded, MediaError, load_array
from facejax.doctor import pixels
from facejax.doctor.cases import Case, Piece, Stored, unread
from facejax.doctor.findings import Note
from facejax.types import LANDMARKS

_SIDE = 160  # pixels
_FRAMES = 3  # of a clip; the middle one is drawn


def thumbnail(case: Case) -> str:
  """A JPEG of the first medium that decodes, landmarks drawn in, as base64; "" if none does."""
  for piece in case.media:
    if not piece.file.name or unread(piece.file):
      continue
    try:
      notes: list[Note] = []
      seen = pixels.look(piece.kind, _bytes(piece.file), _FRAMES, notes)
      if seen is not None:
        return _drawn(piece, seen)
    except (OSError, ValueError):
      continue
  return ""


def _bytes(stored: Stored) -> Encoded:
  data = stored.data if stored.path is None else stored.path.read_bytes()
  return Encoded(stored.name, data or b"")


def _drawn(piece: Piece, seen: pixels.Seen) -> str:
  frame = seen.pixels[len(seen.pixels) // 2]
  picture = ImageOps.contain(Image.fromarray(frame), (_SIDE, _SIDE))
  for x, y in _points(piece, seen):
    at = (x * picture.width, y * picture.height)
    ImageDraw.Draw(picture).circle(at, 1.2, fill=(255, 40, 40))
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG", quality=80)
  return base64.b64encode(buffer.getvalue()).decode()


def _points(piece: Piece, seen: pixels.Seen) -> np.ndarray:
  """Landmarks of the drawn frame in [0, 1], however wrong they are; none if they are no points."""
  none = np.zeros((0, 2))
  if piece.landmarks is None or unread(piece.landmarks):
    return none
  try:
    array = np.asarray(load_array(_bytes(piece.landmarks)), np.float64)
  except (MediaError, OSError, ValueError, TypeError):
    return none
  if array.ndim not in (2, 3) or array.shape[-1] != 2 or not array.size:
    return none
  if array.ndim == 3:
    middle = len(array) // 2 if seen.clip is None else seen.clip.indices[len(seen.pixels) // 2]
    array = array[min(int(middle), len(array) - 1)]
  array = array[:LANDMARKS] / media.CROP
  return array[np.isfinite(array).all(axis=1) & (np.abs(array) < 4).all(axis=1)]
