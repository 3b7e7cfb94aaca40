"""Files -> arrays: pictures, clips, landmarks and class maps, with headers checked before decoding.

    read_image         file -> [Y X 3] uint8
    read_video         file -> Clip with [T Y X 3] uint8
    read_landmarks     .npy, .json -> [68 2], or [T 68 2] for a clip
    read_segmentation  .png, .npy -> [y x], or [T y x] for a clip

Every refusal is a `MediaError` that names the file, what was found, what was expected and what to
do. A file is a path, or its bytes with a name (`Encoded`). resize.py makes media square.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from facejax.data import h264, jpeg
from facejax.data.files import (
  LIMITS,
  File,
  MediaError,
  MediaLimits,
  check_file,
  inside,
  load_array,
  open_file,
  read,
)
from facejax.types import LANDMARKS

__all__ = [
  "CLASSES",
  "CROP",
  "IMAGES",
  "Clip",
  "File",
  "MediaError",
  "MediaLimits",
  "check_pixels",
  "decode_image",
  "inside",
  "open_video",
  "read_image",
  "read_landmarks",
  "read_segmentation",
  "read_video",
  "reason",
]

CROP = 256  # Pixels a side of the face crop that landmark files refer to (Face-LLaVA).
CLASSES = 19  # CelebAMask-HQ
_MARGIN = 0.25  # Landmarks may leave the crop by this share of it: chins and turned heads do.
# Formats without scripting or references to other files.
IMAGES = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_VIDEOS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv"


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames chosen from a video.

  Attributes:
    pixels: the chosen frames.
    indices: their numbers in the video.
    total: frames that the video decodes to.
  """

  pixels: UInt8[np.ndarray, "T Y X 3"]
  indices: Int[np.ndarray, "T"]
  total: int


def read_image(path: File, limits: MediaLimits = LIMITS) -> UInt8[np.ndarray, "Y X 3"]:
  """Decodes a picture file as RGB; see `decode_image`."""
  return decode_image(read(path, limits), str(path), limits)


def decode_image(
  data: bytes, name: str, limits: MediaLimits = LIMITS
) -> UInt8[np.ndarray, "Y X 3"]:
  """Decodes the bytes of a picture as upright RGB.

  The EXIF orientation is applied; transparency is laid over white (a PNG cut-out has arbitrary
  colours below it); 16-bit grey is scaled by 1/257; CMYK and palettes are converted; of an
  animation the first frame is used.

  Args:
    data: the file's content.
    name: file name for messages.
    limits: checked against the header, before pixels are decoded.

  Raises:
    MediaError: not a picture, truncated, or over a limit.
  """
  try:
    with Image.open(io.BytesIO(data), formats=IMAGES) as image:
      check_pixels(name, *image.size, limits)
      pixels = jpeg.rgb(image, data)
      if pixels is None:
        image.load()
        pixels = _rgb(ImageOps.exif_transpose(image), name)
      return pixels
  except MediaError:
    raise
  # On damaged files Pillow raises OSError, SyntaxError, struct.error, OverflowError and others.
  except Exception as error:
    raise MediaError(
      f"{name} ({len(data)} bytes) cannot be decoded ({reason(error)}) - expected a complete JPEG, "
      "PNG, WebP, BMP, GIF, TIFF or PPM picture - export it again"
    ) from error


def reason(error: Exception) -> str:
  """Pillow's words, without the address of the stream that it was given."""
  return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)


def _rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "Y X 3"]:
  if image.mode.startswith("I"):
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
      raise MediaError(
        f"{name}: values {grey.min()}..{grey.max()} - expected 16 bits at most - export 8-bit RGB"
      )
    return np.repeat(np.round(grey / 257).astype(np.uint8)[..., None], 3, axis=-1)
  if image.mode == "F":
    raise MediaError(
      f"{name}: floating-point pixels (mode F) have no fixed range - export 8-bit RGB"
    )
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return np.array(image.convert("RGB"))


def read_video(path: File, frames: int, limits: MediaLimits = LIMITS) -> Clip:
  """Decodes `frames` frames spread evenly over a clip, first and last included.

  Frame numbers are `trunc(linspace(0, n - 1, frames))` as in the official code, n being the
  number of frames that decode: the header's count is only a first guess, checked by decoding to
  the end, and a second pass follows when it was wrong (of H.264 in MP4 packets are counted, and
  frames that nothing needs are left out: h264.py). A clip shorter than `frames` repeats some.
  The container's rotation is applied.

  Raises:
    MediaError: not a video, damaged, without frames, or over a limit.
    ModuleNotFoundError: PyAV is not installed.
  """
  check_file(path, limits)
  try:
    total, clip = _by_header(path, frames, limits)
    if clip:
      return clip
    for _ in range(3):
      indices = _spread(total, frames)
      count, chosen = _decode(path, set(indices.tolist()), limits)
      if count == total:
        return Clip(np.stack([chosen[i] for i in indices]), indices, total)
      total = count
    raise MediaError(f"{path}: decodes to another number of frames each time - encode it again")
  except (MediaError, ModuleNotFoundError):
    raise
  # PyAV's errors derive from OSError, ValueError and others, by the code FFmpeg returned.
  except Exception as error:
    raise MediaError(
      f"{path} cannot be decoded as a video ({error}) - expected a complete MP4, MOV, MKV, WebM or "
      "AVI file - encode it again"
    ) from error


def open_video(file):
  """PyAV's container of an opened video file. Raises ModuleNotFoundError without PyAV."""
  try:
    import av
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "reading videos needs PyAV, which is not installed - pip install -e '.[video]'"
    ) from error
  # A file object and a list of formats: a playlist cannot make FFmpeg open other files or URLs.
  container = av.open(file, options={"format_whitelist": _VIDEOS})
  for stream in container.streams.video:
    stream.codec_context.thread_count = 1  # FFmpeg's threads cost a tenth; clips are many
  return container


def _by_header(path, frames: int, limits: MediaLimits) -> tuple[int, Clip | None]:
  """(frames by the header, the clip if frames that nobody needs can be left undecoded)."""
  with open_file(path) as file, open_video(file) as container:
    if not container.streams.video:
      raise MediaError(f"{path}: no video stream - expected a video - remove it")
    stream = container.streams.video[0]
    check_pixels(str(path), stream.codec_context.width, stream.codec_context.height, limits)
    seconds, total = (container.duration or 0) / 1e6, stream.frames
    if seconds > limits.max_seconds or total > limits.max_frames:
      raise MediaError(
        f"{path}: {seconds:.1f} s and {total} frames by its header - at most "
        f"{limits.max_seconds:g} s and {limits.max_frames} frames are read - cut it"
      )
    indices = _spread(total, frames)
    found = h264.some(container, set(indices.tolist()))
    if found is None or (found[max(found)].time or 0) > limits.max_seconds:
      return total, None
    upright = _upright()
    chosen = {number: upright(frame) for number, frame in found.items()}
    return total, Clip(np.stack([chosen[i] for i in indices]), indices, total)


def _spread(total: int, frames: int) -> Int[np.ndarray, "T"]:
  return np.linspace(0, max(total - 1, 0), frames, dtype=int)


def _upright() -> Callable[[Any], UInt8[np.ndarray, "Y X 3"]]:
  """frame -> RGB, turned as the container says. Converting tables are made once, not per frame."""
  from av.video.reformatter import VideoReformatter

  reformat = VideoReformatter().reformat
  turned = lambda frame, rgb: np.ascontiguousarray(np.rot90(rgb, k=round(frame.rotation / 90)))
  return lambda frame: turned(frame, reformat(frame, format="rgb24").to_ndarray())


def _decode(path, wanted: set[int], limits: MediaLimits) -> tuple[int, dict[int, np.ndarray]]:
  """Decodes to the end: (frames there are, the wanted ones among them)."""
  chosen: dict[int, np.ndarray] = {}
  count, shape, upright = 0, None, _upright()
  with open_file(path) as file, open_video(file) as container:
    stream = container.streams.video[0]
    for frame in container.decode(stream):
      shape = shape or (frame.width, frame.height)
      if (frame.width, frame.height) != shape:
        raise MediaError(
          f"{path}: frame {count} is {frame.width}x{frame.height}, the first "
          f"{shape[0]}x{shape[1]} - expected one size throughout - encode it again"
        )
      if count == limits.max_frames or (frame.time or 0) > limits.max_seconds:
        raise MediaError(
          f"{path}: more than {limits.max_frames} frames or {limits.max_seconds:g} s - cut it"
        )
      if count in wanted:
        chosen[count] = upright(frame)
      count, end = count + 1, float(frame.time or 0)
    if not count:
      raise MediaError(f"{path}: no frame decodes (0 frames) - expected a video - remove it")
    _check_complete(path, container, stream, count, end)
  return count, chosen


def _check_complete(path, container, stream, count: int, end: float) -> None:
  """Refuses a clip of which a good part is missing, where FFmpeg just stops at the gap.

  Headers are off by a few frames in good files (edit lists), so only a tenth of the frames or,
  where the header has no count, half of the duration is called damage.
  """
  seconds = (container.duration or 0) / 1e6
  if count < 0.9 * stream.frames or (not stream.frames and 2 * end < seconds - 1):
    raise MediaError(
      f"{path}: {count} frames decode up to {end:.1f} s, the header says "
      f"{stream.frames or 'unknown'} frames and {seconds:.1f} s - truncated - copy it again"
    )


def read_landmarks(
  path: File,
  clip: Clip | None = None,
  crop: int = CROP,
  limits: MediaLimits = LIMITS,
) -> Float[np.ndarray, "68 2"] | Float[np.ndarray, "T 68 2"]:
  """Reads iBUG landmarks (x, y) in pixels of the face crop; gives them in [0, 1] of the crop.

  Args:
    path: .npy file, or .json with lists of [x, y]; (68, 2) for a picture. For a clip (n, 68, 2),
      where n is either every frame of the video (`clip.total`, the Face-LLaVA layout), of which
      the clip's are taken, or exactly the clip's frames.
    clip: what `read_video` gave; None for a picture.
    crop: pixels a side of the crop the file refers to.
    limits: of the file.

  Returns:
    float32. Points may leave [0, 1] by a quarter on each side, for chins and turned heads; they
    are not clipped, as in the official code.

  Raises:
    MediaError: shape, type, a value that is not finite or outside -25 %..125 % of the crop.
  """
  points = (_load_json if str(path).endswith(".json") else load_array)(path, limits)
  expected = [(LANDMARKS, 2)] if clip is None else _per_frame(clip, (LANDMARKS, 2))
  if points.shape not in expected or points.dtype.kind not in "fiu":
    raise MediaError(
      f"{path}: landmarks of shape {points.shape}, type {points.dtype} - expected "
      f"{' or '.join(map(str, expected))} numbers{_CLIP_HINT if clip else ''} - extract them again"
    )
  points = np.array(points, np.float32)
  if not np.isfinite(points).all():
    raise MediaError(
      f"{path}: {int((~np.isfinite(points)).sum())} landmark coordinates are not finite - expected "
      f"pixels of a {crop}x{crop} crop - leave the file out where no face was found"
    )
  low, high = float(points.min()), float(points.max())
  if low >= 0 and high <= 1:
    raise MediaError(
      f"{path}: landmarks in {low:.3g}..{high:.3g} - expected pixels of a {crop}x{crop} crop, "
      f"these look already normalised - multiply by {crop}"
    )
  if low < -_MARGIN * crop or high > (1 + _MARGIN) * crop:
    raise MediaError(
      f"{path}: landmarks in {low:.1f}..{high:.1f} - expected pixels of a {crop}x{crop} crop, "
      f"with a quarter to spare ({-_MARGIN * crop:g}..{(1 + _MARGIN) * crop:g}) - crop face and "
      "points alike"
    )
  return (points if clip is None else _of_clip(points, clip)) / np.float32(crop)


def read_segmentation(
  path: File,
  clip: Clip | None = None,
  classes: int = CLASSES,
  limits: MediaLimits = LIMITS,
) -> UInt8[np.ndarray, "y x"] | UInt8[np.ndarray, "T y x"]:
  """Reads a map of class ids: a PNG of mode L or P (palette indices), or .npy integers.

  A clip takes .npy of (n, y, x), n as in `read_landmarks`.

  Raises:
    MediaError: another mode, shape or type, or an id outside 0..classes-1.
  """
  ids = (load_array if str(path).lower().endswith(".npy") else _read_map)(path, limits)
  shapes = [("y", "x")] if clip is None else _per_frame(clip, ("y", "x"))
  fits = ids.ndim == len(shapes[0]) and (clip is None or ids.shape[0] in {s[0] for s in shapes})
  if not fits or ids.dtype.kind not in "iu" or not ids.size:
    raise MediaError(
      f"{path}: class map of shape {ids.shape}, type {ids.dtype} - expected integers of shape "
      f"{' or '.join('(' + ', '.join(map(str, s)) + ')' for s in shapes)}"
      f"{_CLIP_HINT if clip else ''} - save class ids"
    )
  if int(ids.min()) < 0 or int(ids.max()) >= classes:
    raise MediaError(
      f"{path}: class ids {int(ids.min())}..{int(ids.max())} - expected 0..{classes - 1} - map "
      "other label sets to these classes first"
    )
  ids = np.array(ids, np.uint8)
  return ids if clip is None else _of_clip(ids, clip)


_CLIP_HINT = " (every frame of the video, or just the chosen ones)"


def _per_frame(clip: Clip, shape: tuple) -> list[tuple]:
  return [(n, *shape) for n in dict.fromkeys((clip.total, len(clip.indices)))]


def _of_clip(values: np.ndarray, clip: Clip) -> np.ndarray:
  return values[clip.indices] if len(values) == clip.total else values


def _read_map(path, limits: MediaLimits) -> np.ndarray:
  data = read(path, limits)
  try:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
      check_pixels(str(path), *image.size, limits)
      if image.mode not in ("L", "P"):
        raise MediaError(
          f"{path}: a class map of mode {image.mode} - expected mode L or P, class ids and not "
          "colours - save the ids"
        )
      return np.array(image)
  except MediaError:
    raise
  except Exception as error:  # As in decode_image.
    raise MediaError(
      f"{path} cannot be decoded ({reason(error)}) - expected a complete PNG of class ids, or "
      ".npy - save it again"
    ) from error


def _load_json(path, limits: MediaLimits) -> np.ndarray:
  data = read(path, limits)
  try:
    return np.array(json.loads(data))
  except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or lists of unequal lengths
    raise MediaError(
      f"{path} is no JSON list of points ({error}) - expected [[x, y], ...] - save it again"
    ) from error


def check_pixels(name: str, width: int, height: int, limits: MediaLimits) -> None:
  """Refuses what its header says is too large to decode."""
  if width * height > limits.max_pixels:
    raise MediaError(
      f"{name}: {width}x{height} pixels by its header - at most {limits.max_pixels} pixels are "
      "read - shrink it"
    )
