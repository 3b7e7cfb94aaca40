"""Resizing against slow references, and pixels, landmarks and maps moving together."""

import math

import numpy as np
import pytest

from facejax.data import resize


def _cubic(t, a=-0.5):
  t = abs(t)
  if t < 1:
    return (a + 2) * t**3 - (a + 3) * t**2 + 1
  return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def _resized_row(row, size, kernel, support, antialias):
  """One row to `size` samples, by the textbook sum."""
  scale = len(row) / size
  stretch = max(scale, 1.0) if antialias else 1.0
  out = []
  for i in range(size):
    centre = (i + 0.5) * scale
    low, high = math.floor(centre - support * stretch), math.ceil(centre + support * stretch)
    taps = range(low, high + 1)  # Beyond the border: the border's value, or with antialias none.
    if antialias:
      taps = range(max(low, 0), min(high, len(row) - 1) + 1)
    weights = [kernel((j + 0.5 - centre) / stretch) for j in taps]
    values = [row[min(max(j, 0), len(row) - 1)] for j in taps]
    out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
  return np.array(out)


def _resized(image, shape, **how):
  """[Y X 3] to `shape`, columns then rows, in float64."""
  y, x = shape
  wide = np.stack([[_resized_row(r[:, c], x, **how) for c in range(3)] for r in image])
  tall = [[_resized_row(wide[:, c, i], y, **how) for i in range(x)] for c in range(3)]
  return np.array(tall).transpose(2, 1, 0)


BICUBIC = {"kernel": _cubic, "support": 2, "antialias": True}
BILINEAR = {"kernel": lambda t: max(0.0, 1 - abs(t)), "support": 1, "antialias": False}


def _picture(y, x, seed=0):
  """Smooth enough that the cubic kernel does not overshoot 0..255."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:y, :x]
  waves = [np.sin(rows * rng.uniform(0.1, 0.6) + columns * rng.uniform(0.1, 0.6)) for _ in "rgb"]
  return (128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def _official(image, size, policy, how):
  """The transform as the official code orders it: pad, short side to size, cut the centre."""
  y, x = image.shape[:2]
  if policy == "pad":
    side = max(y, x)
    square = np.tile(np.array(resize.PAD_COLOUR, np.uint8), (side, side, 1))
    top, left = (side - y) // 2, (side - x) // 2
    square[top : top + y, left : left + x] = image
    return _resized(square, (size, size), **how)
  if policy == "stretch":
    return _resized(image, (size, size), **how)
  long = int(size * max(y, x) / min(y, x))
  whole = _resized(image, (size, long) if x > y else (long, size), **how)
  cut = round((long - size) / 2)
  return whole[:, cut : cut + size] if x > y else whole[cut : cut + size]


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize("shape", [(20, 31), (29, 18), (23, 23)])
@pytest.mark.parametrize("size", [14, 33])
def test_pictures_equal_the_official_order_of_steps(policy, shape, size):
  """Kills: another kernel or offset, rounding twice, padding after resizing, swapped sides."""
  image = _picture(*shape)
  expected = _official(image, size, policy, BICUBIC)
  got = resize.resize_image(image, size, policy)
  assert (got.shape, got.dtype) == ((size, size, 3), np.uint8)
  # Half a grey level of rounding; the padding's edge overshoots by less than the range here.
  assert np.abs(got - expected.clip(0, 255)).max() < 0.51


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize("shape", [(20, 31), (29, 18)])
def test_clips_equal_the_official_order_of_steps(policy, shape):
  """Kills: antialiasing clips, aligned corners, frames mixed up."""
  clip = np.stack([_picture(*shape, seed) for seed in (1, 2)])
  got = resize.resize_clip(clip, 14, policy)
  assert got.shape == (2, 14, 14, 3)
  for frame, picture in zip(got, clip, strict=True):
    assert np.abs(frame - _official(picture, 14, policy, BILINEAR)).max() < 0.51


def test_resize_tells_pictures_from_clips():
  """Kills: one kernel for both."""
  image = _picture(20, 31)
  clip = np.stack([image, image])
  got = resize.resize(image[None], 14, "crop")
  np.testing.assert_array_equal(got, resize.resize_image(image, 14, "crop")[None])
  np.testing.assert_array_equal(
    resize.resize(clip, 14, "crop"), resize.resize_clip(clip, 14, "crop")
  )
  assert (got[0] != resize.resize_clip(clip, 14, "crop")[0]).any()


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize("shape", [(90, 131), (120, 84)])
def test_landmarks_and_maps_follow_the_pixels(policy, shape):
  """Kills: geometry that differs between pixels, points and classes; x and y swapped."""
  y, x = shape
  at = (y // 2 - 6, x // 2 + 9)  # Row and column of a dot, off centre.
  image = np.zeros((y, x, 3), np.uint8)
  classes = np.zeros((y, x), np.uint8)
  image[at[0] - 2 : at[0] + 3, at[1] - 2 : at[1] + 3] = 255
  classes[at[0] - 2 : at[0] + 3, at[1] - 2 : at[1] + 3] = 7
  points = np.array([[[(at[1] + 0.5) / x, (at[0] + 0.5) / y]]], np.float32)
  size = 64
  moved = resize.resize_landmarks(points, shape, size, policy)
  assert (moved.shape, moved.dtype) == ((1, 1, 2), np.float32)
  for picture in (
    resize.resize_image(image, size, policy)[..., 0] > 127,
    resize.resize_clip(image[None], size, policy)[0, ..., 0] > 127,
    resize.resize_segmentation(classes, size, policy) == 7,
  ):
    rows, columns = np.nonzero(picture)
    centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / size
    np.testing.assert_allclose(moved[0, 0], centre, atol=0.75 / size)


def test_a_square_crop_keeps_its_landmarks():
  """Kills: any shift of the Face-LLaVA case, a square crop."""
  points = np.random.default_rng(0).uniform(size=(68, 2)).astype(np.float32)
  for policy in resize.POLICIES:
    np.testing.assert_array_equal(resize.resize_landmarks(points, (256, 256), 224, policy), points)


def test_padding_is_background_and_the_pad_colour():
  """Kills: padding classes with the border's, or pixels with black."""
  image, classes = np.full((10, 30, 3), 200, np.uint8), np.full((10, 30), 5, np.uint8)
  padded = resize.resize_image(image, 30, "pad")
  assert padded[2, 15].tolist() == list(resize.PAD_COLOUR)
  assert padded[15, 15].tolist() == [200] * 3
  mapped = resize.resize_segmentation(classes, 30, "pad")
  assert (mapped[:10] == 0).all() and (mapped[10:20] == 5).all() and (mapped[20:] == 0).all()


def test_unknown_policy_is_refused():
  """Kills: an unknown name falling through to some policy."""
  with pytest.raises(
    ValueError, match="resize policy 'squash' - expected one of pad, crop, stretch"
  ):
    resize.resize_image(_picture(8, 9), 4, "squash")
