"""The bytes of a picture or clip -> what decoding it told, and what is wrong with it."""

import hashlib
import io
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from facejax.data import media
from facejax.data.files import Encoded, MediaError
from facejax.doctor import signature
from facejax.doctor.findings import Note
from facejax.types import Kind

_SMALL = 32  # pixels a side below which a picture is a thumbnail or a tracking pixel (our choice)
_LONG = 10  # times as long as wide
_FLAT = 3  # values of a channel that differ by less are one colour: JPEG moves them by one or two
_GREY = (120, 136)  # what decoders fill missing parts of a JPEG with
_ORIENTATION = 0x0112  # EXIF
# Words of media.py's refusals, tried in order. Each has a test that plants the damage.
_REFUSALS = (
  ("oversized_media", "by its header|more than|exceeds limit|decompression bomb"),
  ("no_video_stream", "no video stream"),
  ("zero_frames", "no frame decodes"),
  ("truncated", "truncated|unexpected end|[Tt]runcated File|broken PNG"),
)


class Seen(NamedTuple):
  """A decoded medium.

  Attributes:
    pixels: a picture, or the frames that the model would take.
    clip: None for a picture.
    seconds: of a clip, by its container.
    digest: 16 bytes; equal where the pixels are equal.
    turned: EXIF turned the picture.
  """

  pixels: UInt8[np.ndarray, "T Y X 3"]
  clip: media.Clip | None
  seconds: float
  digest: bytes
  turned: bool


def look(kind: Kind, file: Encoded, frames: int, notes: list[Note]) -> Seen | None:
  """Decodes a medium; None, and at least one note, if that fails.

  Args:
    kind: what it should be.
    file: its bytes.
    frames: taken from a clip.
    notes: what is wrong is added here.
  """
  if not _is_medium(kind, file, notes):
    return None
  try:
    seen = _picture(file, notes) if kind == "image" else _clip(file, frames, notes)
  except MediaError as error:
    notes.append(Note(_refusal(file, str(error)), str(error), file.name))
    return None
  if signature.cut_short(file.data):
    notes.append(
      Note(
        "truncated",
        f"{file}: the end is missing ({len(file.data)} bytes); what there is decodes - expected a "
        "complete file - copy it again",
        file.name,
        mild=True,
      )
    )
  _shape(file, seen, notes)
  return seen


def _is_medium(kind: Kind, file: Encoded, notes: list[Note]) -> bool:
  """Whether the first bytes are worth decoding; compares them with the suffix."""
  found, said = signature.of(file.data), signature.said(file.name)
  pictures, clips = signature.PICTURES, signature.CLIPS
  wanted, others = (pictures, clips) if kind == "image" else (clips, pictures)
  if found in signature.STAND_INS:
    notes.append(
      Note(
        "stand_in_file",
        f"{file}: {len(file.data)} bytes, {signature.STAND_INS[found]} - expected a "
        f"{_noun(kind)} - fetch the file itself (git lfs pull, or the download that failed)",
        file.name,
      )
    )
    return False
  if found in others:
    notes.append(
      Note(
        "wrong_kind",
        f"{file} is a {found} file - expected a {_noun(kind)}, one of {', '.join(wanted)} - name "
        "it in the other field",
        file.name,
      )
    )
    return False
  if found and said and found != said:
    notes.append(
      Note(
        "wrong_suffix",
        f"{file} is a {found} file - expected {said} by its suffix - rename it",
        file.name,
      )
    )
  return True


def _noun(kind: Kind) -> str:
  return "picture" if kind == "image" else "clip"


def _refusal(file: Encoded, message: str) -> str:
  words = message.replace(file.name, "", 1)
  for slug, pattern in _REFUSALS:
    if re.search(pattern, words):
      return slug
  return "truncated" if signature.cut_short(file.data) else "undecodable"


def _picture(file: Encoded, notes: list[Note]) -> Seen:
  pixels = media.read_image(file)
  with Image.open(io.BytesIO(file.data), formats=media.IMAGES) as image:
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    moving = getattr(image, "is_animated", False)
  if moving:
    notes.append(Note("animation", f"{file} is an animation - its first frame is used", file.name))
  if not _blank(pixels) and _half_grey(pixels):
    notes.append(
      Note(
        "half_grey",
        f"{file}: the lower quarter is plain grey {pixels[-1, 0].tolist()} - a part of it was "
        "missing when it was saved - fetch it again",
        file.name,
      )
    )
  return Seen(pixels[None], None, 0.0, _digest(pixels[None]), turned)


def _clip(file: Encoded, frames: int, notes: list[Note]) -> Seen:
  clip = media.read_video(file, frames)
  if clip.total < frames:
    notes.append(
      Note(
        "short_clip",
        f"{file}: {clip.total} frames - the model takes {frames}, so some are repeated - cut "
        "longer clips",
        file.name,
      )
    )
  elif clip.total > 1 and (clip.pixels == clip.pixels[:1]).all():
    notes.append(
      Note(
        "frozen_clip",
        f"{file}: the {frames} frames of {clip.total} that are read are all the same - expected "
        "something that moves - check where it was cut",
        file.name,
      )
    )
  return Seen(clip.pixels, clip, _seconds(file), _digest(clip.pixels), False)


def _seconds(file: Encoded) -> float:
  """Duration by the container; 0 where it says nothing."""
  with media.open_video(io.BytesIO(file.data)) as container:
    return (container.duration or 0) / 1e6


def _digest(pixels: np.ndarray) -> bytes:
  found = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
  found.update(np.ascontiguousarray(pixels).data)
  return found.digest()


def _blank(frame: UInt8[np.ndarray, "Y X 3"]) -> bool:
  """One colour; some 64 pixels settle it for nearly every picture."""
  height, width, _ = frame.shape
  return _flat(frame[:: height // 8 + 1, :: width // 8 + 1]) and _flat(frame)


def _flat(part: np.ndarray) -> bool:
  return bool((np.ptp(part.reshape(-1, 3), axis=0) < _FLAT).all())


def _half_grey(pixels: np.ndarray) -> bool:
  lower = pixels[-max(len(pixels) // 4, 1) :]
  first = lower[-1, 0]
  low, high = _GREY
  grey = low <= int(first.min()) and int(first.max()) <= high
  return grey and np.ptp(first) < _FLAT and _flat(lower[-1:]) and _flat(lower)


def _shape(file: Encoded, seen: Seen, notes: list[Note]) -> None:
  count, height, width, _ = seen.pixels.shape
  if min(height, width) < _SMALL:
    notes.append(
      Note(
        "tiny_media",
        f"{file}: {width}x{height} pixels - expected {_SMALL} a side at least - find the original",
        file.name,
      )
    )
  if max(height, width) > _LONG * min(height, width):
    notes.append(
      Note(
        "extreme_shape",
        f"{file}: {width}x{height} pixels - expected at most {_LONG} times as long as wide - crop "
        "it",
        file.name,
      )
    )
  blank = sum(map(_blank, seen.pixels))
  if blank:
    what = "it is of one colour" if seen.clip is None else f"{blank} of {count} frames are"
    more = "" if seen.clip is None else " of one colour"
    notes.append(
      Note(
        "blank_media",
        f"{file}: {what}{more}, {seen.pixels[0, 0, 0].tolist()} in the corner - expected a face - "
        "remove it or cut the clip elsewhere",
        file.name,
      )
    )
