"""Pictures, landmarks and class maps -> the model's square, all by one geometry.

What becomes of a picture that is not square is a policy (a square face crop is the same under all):

    pad      the whole picture, centred on a square of (122, 116, 104)   (Face-LLaVA training)
    crop     the centred square of the short side                        (Face-LLaVA inference)
    stretch  the whole picture, each side scaled on its own              (our choice, for maps)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

PAD_COLOUR = (122, 116, 104)  # The mean pixel of CLIP's training pictures, as in Face-LLaVA.
POLICIES = ("pad", "crop", "stretch")


def resize(
  pixels: UInt8[np.ndarray, "T Y X 3"], size: int, policy: str, antialias: bool = True
) -> UInt8[np.ndarray, "T size size 3"]:
  """A medium at the model's size: `resize_image` if it is a picture (T = 1), else `resize_clip`.

  What has that size stays as it is, which is what both make of it.
  """
  if pixels.shape[1:3] == (size, size):
    return pixels
  if len(pixels) == 1:
    return resize_image(pixels[0], size, policy, antialias)[None]
  return resize_clip(pixels, size, policy)


def resize_image(
  image: UInt8[np.ndarray, "Y X 3"], size: int, policy: str, antialias: bool = True
) -> UInt8[np.ndarray, "size size 3"]:
  """Resizes with a cubic kernel, as the official Face-LLaVA transform does.

  The official transform keeps floats (`resample_image`); here they are rounded and clamped to
  uint8, so that a quarter of the bytes crosses to the device and is normalised there in float32.
  That is up to half a grey level, 0.5/255/std or 0.0075 of a normalised value, and more where the
  kernel overshoots black or white: of three photographed faces of 256 px, in 0.1 % of the values
  and by 8 levels at most; without antialias in 0.2 % and by 16.

  Args:
    image: any size.
    size: pixels a side.
    policy: what becomes of a picture that is not square.
    antialias: True: a = -0.5 and a kernel that widens when shrinking, as torchvision >= 0.17 and
      Pillow do (the versions that Face-LLaVA's README asks for). False: a = -0.75 over four pixels,
      torchvision before 0.17 (the versions that Video-LLaVA was trained with).
  """
  return _rounded(resample_image(image, size, policy, antialias))


def resample_image(
  image: UInt8[np.ndarray, "Y X 3"], size: int, policy: str, antialias: bool = True
) -> Float[np.ndarray, "size size 3"]:
  """The same without rounding: float32 in grey levels, beyond 0 and 255 where it overshoots.

  Divided by 255 and normalised it is the official transform to 1e-5; for comparisons.
  """
  image = _pad(image) if policy == "pad" else image
  y, x = image.shape[:2]
  return _cubic(image, _region(y, x, size, policy), (size, size), antialias)


def stretch_image(
  image: UInt8[np.ndarray, "Y X 3"], height: int, width: int, antialias: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
  """The whole picture at another size, each side scaled on its own; the kernel of resize_image."""
  y, x = image.shape[:2]
  return _rounded(_cubic(image, (0, 0, x, y), (height, width), antialias))


def _rounded(pixels: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
  return pixels.round().clip(0, 255).astype(np.uint8)


def _cubic(
  image: UInt8[np.ndarray, "Y X 3"],
  region: tuple[float, float, float, float],
  shape: tuple[int, int],
  antialias: bool,
) -> Float[np.ndarray, "y x 3"]:
  """A region of the picture at a shape. The kernel looks beyond the region, so cutting it out
  equals resizing everything and cutting then."""
  left, top, width, height = region
  if not antialias:
    rows = _four_taps(image.astype(np.float32), top, height, shape[0])
    return _four_taps(rows.swapaxes(0, 1), left, width, shape[1]).swapaxes(0, 1)
  box = (left, top, left + width, top + height)
  resized = np.empty((*shape, 3), np.float32)
  for c in range(3):
    channel = Image.fromarray(image[..., c].astype(np.float32))
    resized[..., c] = np.asarray(channel.resize(shape[::-1], Image.Resampling.BICUBIC, box=box))
  return resized


def _four_taps(
  lines: Float[np.ndarray, "Y X 3"], start: float, length: float, size: int
) -> Float[np.ndarray, "size X 3"]:
  """Cubic interpolation (a = -0.75) along the first axis; beyond the border is the border."""
  step = length / size
  # Multiplied in float32, as torch does: with float64, 300 pixels would be 1.1e-5 off its result.
  at = np.float32(step) * (start / step + np.arange(size) + 0.5).astype(np.float32)
  at -= np.float32(0.5)
  low = np.floor(at).astype(int)
  t = (at - low).astype(np.float32)[:, None, None]
  near = lambda t: (1.25 * t - 2.25) * t * t + 1
  far = lambda t: ((-0.75 * t + 3.75) * t - 6) * t + 3
  total = np.zeros((size, *lines.shape[1:]), np.float32)
  for tap, weight in ((-1, far(1 + t)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))):
    total += weight * lines[(low + tap).clip(0, len(lines) - 1)]
  return total


def resize_clip(
  clip: UInt8[np.ndarray, "T Y X 3"], size: int, policy: str
) -> UInt8[np.ndarray, "T size size 3"]:
  """Resizes frames bilinearly without antialiasing, as the official code does for videos.

  It never pads them: "crop" is its policy. Rounded to uint8, at most half a grey level away, as a
  bilinear kernel cannot overshoot.
  """
  return _rounded(resample_clip(clip, size, policy))


def resample_clip(
  clip: UInt8[np.ndarray, "T Y X 3"], size: int, policy: str
) -> Float[np.ndarray, "T size size 3"]:
  """The same without rounding: float32 in grey levels."""
  clip = np.stack([_pad(frame) for frame in clip]) if policy == "pad" else clip
  y, x = clip.shape[1:3]
  left, top, width, height = _region(y, x, size, policy)
  low, high, weight = _neighbours(top, height, size, y)
  rows = clip[:, low] * (1 - weight)[None, :, None, None]
  rows = rows + clip[:, high] * weight[None, :, None, None]
  low, high, weight = _neighbours(left, width, size, x)
  both = rows[:, :, low] * (1 - weight)[None, None, :, None]
  both = both + rows[:, :, high] * weight[None, None, :, None]
  return both.astype(np.float32)


def _neighbours(start: float, length: float, size: int, limit: int):
  """Source pixels left and right of each output pixel centre, and the weight of the right one."""
  at = (start + (np.arange(size) + 0.5) * length / size - 0.5).clip(0, limit - 1)
  low = np.floor(at).astype(int)
  return low, (low + 1).clip(max=limit - 1), (at - low).astype(np.float32)


def _pad(image: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "side side 3"]:
  y, x = image.shape[:2]
  left, top, width, height = _region(y, x, 1, "pad")
  canvas = np.full((int(height), int(width), 3), PAD_COLOUR, np.uint8)
  canvas[int(-top) : int(-top) + y, int(-left) : int(-left) + x] = image
  return canvas


def resize_landmarks(
  landmarks: Float[np.ndarray, "*n 2"], shape: tuple[int, int], size: int, policy: str
) -> Float[np.ndarray, "*n 2"]:
  """Moves (x, y) in [0, 1] of a picture of `shape` (Y, X) to [0, 1] of the resized square."""
  y, x = shape
  left, top, width, height = _region(y, x, size, policy)
  scale = np.array([x / width, y / height], np.float32)
  offset = np.array([left / width, top / height], np.float32)
  return (landmarks.reshape(-1, 2) * scale[None] - offset[None]).reshape(landmarks.shape)


def resize_segmentation(
  segmentation: UInt8[np.ndarray, "y x"], size: int, policy: str
) -> UInt8[np.ndarray, "size size"]:
  """Takes the nearest class at each pixel centre; beyond the map is class 0, the background."""
  y, x = segmentation.shape
  left, top, width, height = _region(y, x, size, policy)
  centres = (np.arange(size) + 0.5) / size
  rows = np.floor(top + centres * height).astype(int)
  columns = np.floor(left + centres * width).astype(int)
  known = ((rows >= 0) & (rows < y))[:, None] & ((columns >= 0) & (columns < x))[None, :]
  nearest = segmentation[np.ix_(rows.clip(0, y - 1), columns.clip(0, x - 1))]
  return np.where(known, nearest, 0).astype(np.uint8)


def _region(y: int, x: int, size: int, policy: str) -> tuple[float, float, float, float]:
  """(left, top, width, height) in source pixels of what fills the square."""
  if policy == "stretch":
    return 0, 0, x, y
  if policy == "pad":
    side = max(y, x)
    return -((side - x) // 2), -((side - y) // 2), side, side
  if policy != "crop":
    raise ValueError(f"resize policy '{policy}' - expected one of {', '.join(POLICIES)}")
  # Official rounding: the long side becomes int(size * long / short), the offset is rounded.
  long = int(size * max(y, x) / min(y, x))
  offset = round((long - size) / 2)
  step_x, step_y = x / (long if x > y else size), y / (long if y > x else size)
  left, top = (offset * step_x if x > y else 0), (offset * step_y if y > x else 0)
  return left, top, size * step_x, size * step_y
