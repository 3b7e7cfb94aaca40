"""Pictures, landmarks and class maps -> the model's square, all by one geometry.

What becomes of a picture that is not square is a policy (a square face crop is the same under all):

    pad      the whole picture, centred on a square of (122, 116, 104)   (Face-LLaVA training)
    crop     the centred square of the short side                        (Face-LLaVA inference)
    stretch  the whole picture, each side scaled on its own              (our choice, for maps)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, UInt8

PAD_COLOUR = (122, 116, 104)  # The mean pixel of CLIP's training pictures, as in Face-LLaVA.
POLICIES = ("pad", "crop", "stretch")
_STRIP = 64  # columns that are turned at a time
# Lines or columns resized at a time. What is in between then stays below 128 KiB, which malloc has
# at hand; more is mapped anew each time, a page fault for 4 KiB: a third of the time for 56.
_BLOCK = 28


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
  return _image(image, size, policy, antialias, np.uint8)


def resample_image(
  image: UInt8[np.ndarray, "Y X 3"], size: int, policy: str, antialias: bool = True
) -> Float[np.ndarray, "size size 3"]:
  """The same without rounding: float32 in grey levels, beyond 0 and 255 where it overshoots.

  Divided by 255 and normalised it is the official transform to 1e-5; for comparisons.
  """
  return _image(image, size, policy, antialias, np.float32)


def stretch_image(
  image: UInt8[np.ndarray, "Y X 3"], height: int, width: int, antialias: bool = True
) -> UInt8[np.ndarray, "height width 3"]:
  """The whole picture at another size, each side scaled on its own; the kernel of resize_image."""
  y, x = image.shape[:2]
  return _cubic(image, (0, 0, x, y), np.empty((height, width, 3), np.uint8), antialias)


def _image(
  image: UInt8[np.ndarray, "Y X 3"], size: int, policy: str, antialias: bool, dtype: type
) -> np.ndarray:
  image = _pad(image) if policy == "pad" else image
  y, x = image.shape[:2]
  out: np.ndarray = np.empty((size, size, 3), dtype)
  return _cubic(image, _region(y, x, size, policy), out, antialias)


def _cubic(
  image: UInt8[np.ndarray, "Y X 3"],
  region: tuple[float, float, float, float],
  out: np.ndarray,
  antialias: bool,
) -> np.ndarray:
  """Fills `out` with a region of the picture. The kernel looks beyond the region, so cutting it
  out equals resizing everything and cutting then."""
  left, top, width, height = region
  (y, x), (rows, columns) = image.shape[:2], out.shape[:2]
  if not antialias:
    lines = _four_taps(image.astype(np.float32), top, height, rows)
    _put(out, _four_taps(lines.swapaxes(0, 1), left, width, columns).swapaxes(0, 1), 0)
    return out
  # Pillow 13's order: fewer sums where a picture is tall (Pillow 12 always began with the lines).
  # What is done first is rounded to float32: the other order is up to 3e-5 grey levels away.
  tall = y > rows and y - rows > 2 * (x - columns)
  fill = _down_first if tall else _across_first
  axes = (y, top, height, rows), (x, left, width, columns)
  down, across = (_cubic_taps(*axis) for axis in axes)
  if out.dtype == np.uint8 and down.most + across.most <= _FEW:
    quick_down, quick_across = (_cubic_taps(*axis, np.float32) for axis in axes)
    within = _ROUNDING * (down.most + across.most + 4)
    doubtful = fill(image, quick_down, quick_across, out, within)
    if doubtful.shape[1] < _MANY * out.size:
      _settle(image, (down, across), tall, doubtful, out)
      return out
  fill(image, down, across, out)
  return out


_FEW = 20  # terms of both axes; for more, float32 leaves too many values in doubt
_MANY = 0.02  # share of values in doubt from which all are computed again: drawings, checkerboards
# Grey levels that a term's rounding to float32 may cost, over both axes: half a unit of the last
# place of a sum of |weight| * 255, which is below 1.3 * 1.3 * 255 (1.27 is the most for a = -0.5).
_ROUNDING = 2.0**-24 * 1.7 * 255


def _settle(
  image: UInt8[np.ndarray, "Y X 3"],
  taps: tuple[_Taps, _Taps],
  tall: bool,
  doubtful: Int[np.ndarray, "3 n"],
  out: UInt8[np.ndarray, "y x 3"],
) -> None:
  """Values so near to a half that float32 cannot say how they round: again, in float64."""
  rows, columns, colours = doubtful
  (lines, down), (places, across) = taps[0].terms(rows), taps[1].terms(columns)
  pixels = image[lines[:, :, None], places[:, None, :], colours[:, None, None]].astype(np.float64)
  first, second = (down, across) if tall else (across, down)
  if not tall:
    pixels = pixels.swapaxes(1, 2)
  sums = np.zeros((len(rows), pixels.shape[2]))
  for k in range(pixels.shape[1]):
    sums += pixels[:, k] * first[:, k, None]
  sums = sums.astype(np.float32).astype(np.float64)
  total = np.zeros(len(rows))
  for k in range(sums.shape[1]):
    total += sums[:, k] * second[:, k]
  out[rows, columns, colours] = np.rint(total.astype(np.float32)).clip(0, 255)


def _put(out: np.ndarray, values: Float[np.ndarray, "*n"], within: float) -> np.ndarray:
  """Stores float32 values, in uint8 rounded and clamped. Gives [3 n]: what is so near to a half."""
  values = values.astype(np.float32, copy=False)
  doubtful = np.zeros(0, int)
  if out.dtype == np.uint8:
    whole = np.rint(values)
    if within:
      doubtful = np.flatnonzero(np.abs(values - whole) > 0.5 - within)
    values = np.clip(whole, 0, 255, out=whole)
  out[...] = values
  return np.stack(np.unravel_index(doubtful, out.shape))


def _turned(lines: np.ndarray) -> np.ndarray:
  """[y x] -> [x y], in strips: where lines are powers of two apart, a sixth of the time."""
  strips = range(0, lines.shape[1], _STRIP)
  return np.concatenate([lines[:, start : start + _STRIP].T for start in strips])


class _Taps(NamedTuple):
  """Resizing along one axis: a sparse matrix [size limit], and it in blocks of _BLOCK rows.

  A product adds a row's terms in their order, as a loop over pixels would.
  """

  whole: scipy.sparse.csr_array
  blocks: list[tuple[slice, slice, scipy.sparse.csr_array]]  # of samples, of pixels they need
  most: int  # terms of a sample at most

  def terms(self, samples: Int[np.ndarray, "n"]) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, weights) of some samples, [n most]; where there are fewer, weights are 0."""
    first, ends = self.whole.indptr[samples], self.whole.indptr[samples + 1]
    at = first[:, None] + np.arange(self.most)[None]
    known = at < ends[:, None]
    at = np.where(known, at, first[:, None])
    return self.whole.indices[at], np.where(known, self.whole.data[at], 0)


def _across_first(
  image: UInt8[np.ndarray, "Y X 3"],
  down: _Taps,
  across: _Taps,
  out: np.ndarray,
  within: float = 0,
) -> Int[np.ndarray, "3 n"]:
  """Some columns of `out` at a time: resized along the lines, then along the columns.

  Returns where values came so near to a half; see `_put`.
  """
  y, dtype = len(image), down.whole.dtype
  found = []
  for columns, used, taps in across.blocks:
    pixels = _turned(image[:, used].reshape(y, -1)).astype(dtype)
    lines = (taps @ pixels.reshape(-1, 3 * y)).astype(np.float32, copy=False)
    lines = _turned(lines.reshape(-1, y)).astype(dtype, copy=False)
    resized = (down.whole @ lines).reshape(len(out), -1, 3)
    near = _put(out[:, columns], resized, within)
    found.append(near + np.array([[0], [columns.start], [0]]))
  return np.concatenate(found, axis=1)


def _down_first(
  image: UInt8[np.ndarray, "Y X 3"],
  down: _Taps,
  across: _Taps,
  out: np.ndarray,
  within: float = 0,
) -> Int[np.ndarray, "3 n"]:
  """Some lines of `out` at a time: resized along the columns, then along the lines."""
  x, dtype = image.shape[1], across.whole.dtype
  found = []
  for rows, used, taps in down.blocks:
    lines = (taps @ image[used].reshape(-1, x * 3).astype(dtype)).astype(np.float32, copy=False)
    pixels = _turned(lines).astype(dtype, copy=False)
    resized = (across.whole @ pixels.reshape(x, -1)).reshape(out.shape[1], 3, -1)
    near = _put(out[rows], resized.transpose(2, 0, 1), within)
    found.append(near + np.array([[rows.start], [0], [0]]))
  return np.concatenate(found, axis=1)


@functools.lru_cache(maxsize=128)
def _cubic_taps(
  limit: int, start: float, length: float, size: int, dtype: type = np.float64
) -> _Taps:
  """What each of `limit` pixels adds to each sample of a stretch of them; a = -0.5, antialiased.

  Term by term what Pillow computes for mode F, where the stretch is given in float32, weights and
  sums are float64: results are equal, bit for bit (on x86-64). With `dtype` float32 they are near.
  """
  low, high = np.float32(start), np.float32(start + length)
  step = float(high - low) / size
  stretch = max(step, 1.0)
  centre = float(low) + (np.arange(size) + 0.5) * step
  first = (centre - 2 * stretch + 0.5).astype(int).clip(min=0)
  counts = (centre + 2 * stretch + 0.5).astype(int).clip(max=limit) - first
  numbers = np.arange(counts.max())
  inside = numbers[None] < counts[:, None]
  pixels = first[:, None] + numbers[None]
  t = np.abs((pixels - centre[:, None] + 0.5) * (1.0 / stretch))
  near, far = (1.5 * t - 2.5) * t * t + 1, (((t - 5) * t + 8) * t - 4) * -0.5
  weights = np.where(t < 1, near, np.where(t < 2, far, 0)) * inside
  weights /= weights.cumsum(1)[:, -1:]  # one after the other, as Pillow sums them
  return _taps(weights[inside].astype(dtype), pixels[inside], counts, limit)


@functools.lru_cache(maxsize=128)
def _linear_taps(limit: int, start: float, length: float, size: int) -> _Taps:
  """The pixels on both sides of each sample's centre, by how near they are; float32."""
  at = (start + (np.arange(size) + 0.5) * length / size - 0.5).clip(0, limit - 1)
  low = np.floor(at).astype(int)
  right = (at - low).astype(np.float32)
  pixels = np.stack([low, (low + 1).clip(max=limit - 1)], 1)
  return _taps(np.stack([1 - right, right], 1).ravel(), pixels.ravel(), np.full(size, 2), limit)


def _taps(weights: np.ndarray, pixels: np.ndarray, counts: np.ndarray, limit: int) -> _Taps:
  """From the terms of all samples, which follow each other."""
  ends = np.concatenate([[0], counts.cumsum()])
  blocks = []
  for start in range(0, len(counts), _BLOCK):
    at = ends[start : start + _BLOCK + 1]
    terms, near = weights[at[0] : at[-1]], pixels[at[0] : at[-1]]
    used = slice(int(near.min()), int(near.max()) + 1)
    shape = (len(at) - 1, used.stop - used.start)
    block = scipy.sparse.csr_array((terms, near - used.start, at - at[0]), shape=shape)
    blocks.append((slice(start, start + _BLOCK), used, block))
  whole = scipy.sparse.csr_array((weights, pixels, ends), shape=(len(counts), limit))
  return _Taps(whole, blocks, int(counts.max()))


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
  return _clip(clip, size, policy, np.uint8)


def resample_clip(
  clip: UInt8[np.ndarray, "T Y X 3"], size: int, policy: str
) -> Float[np.ndarray, "T size size 3"]:
  """The same without rounding: float32 in grey levels."""
  return _clip(clip, size, policy, np.float32)


def _clip(clip: UInt8[np.ndarray, "T Y X 3"], size: int, policy: str, dtype: type) -> np.ndarray:
  out: np.ndarray = np.empty((len(clip), size, size, 3), dtype)
  for resized, frame in zip(out, clip, strict=True):
    frame = _pad(frame) if policy == "pad" else frame
    y, x = frame.shape[:2]
    left, top, width, height = _region(y, x, size, policy)
    down, across = _linear_taps(y, top, height, size), _linear_taps(x, left, width, size)
    _down_first(frame, down, across, resized)
  return out


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
