"""Resizing against slow references, and pixels, landmarks and maps moving together."""

import math
import pathlib
import platform

import numpy as np
import pytest
from PIL import Image

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


GOLDENS = pathlib.Path(__file__).parent / "goldens" / "face_llava" / "preprocess.npz"
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])
_BICUBIC = Image.Resampling.BICUBIC
BICUBIC = {"kernel": _cubic, "support": 2, "antialias": True}
NO_ANTIALIAS = {"kernel": lambda t: _cubic(t, -0.75), "support": 2, "antialias": False}
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


def _pillow(image, region, shape, tall):
  """One axis after the other, each by Pillow in its float mode."""
  left, top, width, height = region
  rows, columns = shape
  down = lambda picture: picture.resize(
    (picture.width, rows), _BICUBIC, (0, top, picture.width, top + height)
  )
  across = lambda picture: picture.resize(
    (columns, picture.height), _BICUBIC, (left, 0, left + width, picture.height)
  )
  passes = (down, across) if tall else (across, down)
  out = []
  for c in range(3):
    picture = Image.fromarray(image[..., c].astype(np.float32))
    for one in passes:
      picture = one(picture)
    out.append(np.asarray(picture))
  return np.stack(out, axis=-1)


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize(
  "shape,size,tall",
  [
    ((256, 256), 224, False),
    ((90, 71), 70, True),
    ((97, 45), 41, True),
    ((45, 97), 41, False),
    ((60, 50), 40, False),
    ((19, 23), 65, False),
    ((3, 2), 40, False),
  ],
)
def test_pictures_equal_pillow_bit_for_bit(policy, shape, size, tall):
  """Kills: sums or weights in float32, weights summed in another order, the stretch in float64,
  axes in the other order, no rounding between them, a block of lines that is shifted."""
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  padded = resize._pad(image) if policy == "pad" else image
  y, x = padded.shape[:2]
  tall = tall and policy != "pad"
  expected = _pillow(padded, resize._region(y, x, size, policy), (size, size), tall)
  got = resize.resample_image(image, size, policy)
  assert got.dtype == np.float32
  if platform.machine() in ("x86_64", "AMD64"):
    np.testing.assert_array_equal(got, expected)
    rounded = expected.round().clip(0, 255)
    np.testing.assert_array_equal(resize.resize_image(image, size, policy), rounded)
  else:  # Compilers fuse products and sums there.
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)


def _drawings(y, x):
  """Noise; cells, stripes and black and white, where many sums are halves; a slope."""
  noise = np.random.default_rng(0).integers(0, 256, (y, x, 3), np.uint8)
  rows, columns = np.mgrid[:y, :x]
  yield noise
  yield np.repeat(np.repeat(noise[::8, ::8], 8, 0), 8, 1)[:y, :x]
  yield np.repeat((((rows + columns) % 2) * 255)[..., None], 3, -1).astype(np.uint8)
  yield np.stack([rows % 2, columns % 2 + 7, (rows + columns) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("shape,size", [((128, 128), 112), ((64, 64), 48), ((150, 98), 70)])
def test_what_float32_cannot_round_is_computed_again(shape, size):
  """Kills: rounding of float32 sums, a bound that is too small, a place that is off."""
  for image in _drawings(*shape):
    exact = resize.resample_image(image, size, "stretch")
    got = resize.resize_image(image, size, "stretch")
    np.testing.assert_array_equal(got, exact.round().clip(0, 255))


@pytest.mark.parametrize("shape,tall", [((96, 96), False), ((150, 98), True)])
def test_values_in_doubt(shape, tall):
  """Kills: `_settle` that does nothing or takes another pixel, and a bound that errors exceed."""
  size, (y, x) = 70, shape
  image = np.random.default_rng(0).integers(0, 256, (y, x, 3), np.uint8)
  exact = resize.resample_image(image, size, "stretch")
  taps = [resize._cubic_taps(n, 0, n, size) for n in shape]
  quick = [resize._cubic_taps(n, 0, n, size, np.float32) for n in shape]
  fill = resize._down_first if tall else resize._across_first
  single = np.empty((size, size, 3), np.float32)
  fill(image, *quick, single)
  within = resize._ROUNDING * (sum(axis.most for axis in taps) + 4)
  assert 0 < np.abs(single - exact).max() < within < 1e-3
  out = np.empty((size, size, 3), np.uint8)
  near = fill(image, *quick, out, 0.01)
  expected = np.argwhere(np.abs(single - single.round()) > 0.49)
  assert sorted(map(tuple, near.T)) == sorted(map(tuple, expected)) and len(expected) > 100
  out[...] = 77
  resize._settle(image, tuple(taps), tall, near, out)
  settled = np.full_like(out, 77)
  settled[tuple(near)] = exact.round().clip(0, 255)[tuple(near)]
  np.testing.assert_array_equal(out, settled)


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize("shape", [(20, 31), (29, 18)])
@pytest.mark.parametrize("size", [14, 33])
def test_without_antialias_four_pixels_decide(policy, shape, size):
  """Kills: a = -0.5 or a wider kernel there, a border that is not repeated, rows for columns."""
  image = _picture(*shape)
  expected = _official(image, size, policy, NO_ANTIALIAS)
  resampled = resize.resample_image(image, size, policy, antialias=False)
  np.testing.assert_allclose(resampled, expected, atol=2e-3)
  got = resize.resize_image(image, size, policy, antialias=False)
  assert np.abs(got - expected.clip(0, 255)).max() < 0.51
  again = resize.resize(image[None], size, policy, antialias=False)
  np.testing.assert_array_equal(again[0], got)
  assert (got != resize.resize_image(image, size, policy)).any()


@pytest.mark.parametrize("antialias", [True, False])
def test_a_picture_stretches_to_any_rectangle(antialias):
  """Kills: height and width swapped; the switch not passed on; tiles cut from a square."""
  image = _picture(20, 31)
  how = BICUBIC if antialias else NO_ANTIALIAS
  got = resize.stretch_image(image, 26, 13, antialias)
  assert (got.shape, got.dtype) == ((26, 13, 3), np.uint8)
  assert np.abs(got - _resized(image, (26, 13), **how).clip(0, 255)).max() < 0.51


def _golden_pictures():
  with np.load(GOLDENS) as goldens:
    names = [name.removesuffix(".rows") for name in goldens if name.endswith("alias.rows")]
  return sorted(names)


@pytest.mark.parametrize("name", _golden_pictures())
def test_pictures_equal_the_official_transform(name):
  """Kills: another kernel, offset or rounding of the long side than torchvision's; rounding that
  costs more than half a grey level; a clamp that reaches into 0..255."""
  _, picture, order, kernel = name.split(".")
  with np.load(GOLDENS) as goldens:
    image, rows = goldens[f"image.{picture}.u8"], goldens["rows"]
    official, stats = goldens[f"{name}.rows"].transpose(1, 2, 0), goldens[f"{name}.stats"]
  how = (224, {"direct": "crop", "pad": "pad"}[order], kernel == "antialias")
  exact = (resize.resample_image(image, *how) / 255 - CLIP_MEAN) / CLIP_STD
  np.testing.assert_allclose(exact[rows], official, atol=1e-5)
  sums = [exact.sum(), (exact**2).sum(), exact.min(), exact.max()]
  np.testing.assert_allclose(sums, stats, rtol=1e-5)
  levels = (official * CLIP_STD + CLIP_MEAN) * 255
  assert np.abs(resize.resize_image(image, *how)[rows] - levels.clip(0, 255)).max() < 0.5 + 1e-3
  # These pictures are noise: what the kernel overshoots, and uint8 cannot hold, is large here.
  assert np.abs(resize.resize_image(image, *how)[rows] - levels).max() < 7.2


def test_clips_equal_the_official_transform():
  """Kills: antialiasing or padding clips, another crop offset, frames mixed up."""
  with np.load(GOLDENS) as goldens:
    clip, frames, rows = (goldens[f"video.{name}"] for name in ("u8_thwc", "frames", "rows"))
    official = goldens["video.pixel_values.sub"].transpose(1, 2, 3, 0)
  of = lambda pixels: ((pixels / 255 - CLIP_MEAN) / CLIP_STD)[frames][:, rows]
  np.testing.assert_allclose(of(resize.resample_clip(clip, 224, "crop")), official, atol=1e-5)
  error = np.abs(of(resize.resize_clip(clip, 224, "crop")) - official) * CLIP_STD * 255
  assert error.max() < 0.5 + 1e-3


def test_padding_equals_the_official_one():
  """Kills: another colour, an offset that is rounded up."""
  with np.load(GOLDENS) as goldens:
    padded, column = resize._pad(goldens["image.landscape.u8"]), goldens["pad_color"]
    np.testing.assert_array_equal(
      padded[:, padded.shape[1] // 2], goldens["image.landscape.padded_u8_midcol"]
    )
  assert tuple(column) == resize.PAD_COLOUR


@pytest.mark.parametrize("policy", resize.POLICIES)
@pytest.mark.parametrize("shape", [(20, 31), (29, 18)])
def test_clips_equal_the_official_order_of_steps(policy, shape):
  """Kills: antialiasing clips, aligned corners, frames mixed up."""
  clip = np.stack([_picture(*shape, seed) for seed in (1, 2)])
  got = resize.resize_clip(clip, 14, policy)
  assert got.shape == (2, 14, 14, 3)
  for frame, picture in zip(got, clip, strict=True):
    assert np.abs(frame - _official(picture, 14, policy, BILINEAR)).max() < 0.51


@pytest.mark.parametrize("policy", ["crop", "stretch"])
@pytest.mark.parametrize("shape,size", [((40, 71), 70), ((70, 36), 33)])
def test_clips_add_two_neighbours_in_float32(policy, shape, size):
  """Kills: float64 sums, lines before columns, a block of lines that is shifted, a neighbour
  beyond the border."""
  clip = np.random.default_rng(1).integers(0, 256, (2, *shape, 3), np.uint8)
  left, top, width, height = resize._region(*shape, size, policy)
  pixels = clip.astype(np.float32)
  for axis, start, length in ((1, top, height), (2, left, width)):
    limit = shape[axis - 1]
    at = (start + (np.arange(size) + 0.5) * length / size - 0.5).clip(0, limit - 1)
    low = np.floor(at).astype(int)
    right = np.expand_dims((at - low).astype(np.float32), tuple({0, 1, 2, 3} - {axis}))
    high = np.minimum(low + 1, limit - 1)
    pixels = pixels.take(low, axis) * (1 - right) + pixels.take(high, axis) * right
  got = resize.resample_clip(clip, size, policy)
  assert got.dtype == np.float32
  if platform.machine() in ("x86_64", "AMD64"):
    np.testing.assert_array_equal(got, pixels)
  np.testing.assert_allclose(got, pixels, rtol=0, atol=1e-4)
  assert np.abs(resize.resize_clip(clip, size, policy) - pixels).max() < 0.51


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
