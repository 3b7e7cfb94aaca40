"""jpeg.py: Pillow's pixels bit for bit, and Pillow itself for everything that is not plain."""

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from facejax.data import jpeg, media
from facejax.faces import synthetic


def _file(pixels, **options):
  data = io.BytesIO()
  Image.fromarray(pixels).save(data, "JPEG", **{"quality": 90, **options})
  return data.getvalue()


def _opened(data):
  image = Image.open(io.BytesIO(data))
  return jpeg.rgb(image, data)


FACE = synthetic.face(3, size=64).image
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize(
  "quality,subsampling,progressive", itertools.product((30, 95), (0, 1, 2), (False, True))
)
def test_pixels_equal_pillows(quality, subsampling, progressive):
  """Kills: another inverse transform or upsampling, swapped colours, another order of sides."""
  options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
  for pixels in (FACE, NOISE, NOISE[:1, :7], FACE[:16, :8]):
    data = _file(pixels, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    got = _opened(data)
    assert got.dtype == np.uint8 and got.flags.writeable
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(media.decode_image(data, "a.jpg"), expected)


def test_colours_stored_as_they_are_and_restart_markers():
  """Kills: a colour conversion where the file has none."""
  for options in ({"keep_rgb": True}, {"restart_marker_blocks": 2}):
    data = _file(FACE, **options)
    np.testing.assert_array_equal(_opened(data), np.asarray(Image.open(io.BytesIO(data))))


def _turned():
  exif = Image.Exif()
  exif[0x0112] = 6
  return _file(NOISE, exif=exif)


def _damaged():
  data = bytearray(_file(FACE))
  middle = len(data) // 2
  data[middle : middle + 40] = bytes(range(40))
  return bytes(data)


def _png():
  data = io.BytesIO()
  Image.fromarray(NOISE).save(data, "PNG")
  return data.getvalue()


@pytest.mark.parametrize(
  "data",
  [
    _turned(),
    _damaged(),
    _png(),
    _file(FACE)[:-30],
    _file(NOISE[..., 0]),
    (lambda data: Image.fromarray(NOISE).convert("CMYK").save(data, "JPEG") or data.getvalue())(
      io.BytesIO()
    ),
  ],
  ids=["turned", "damaged", "png", "cut", "grey", "cmyk"],
)
def test_the_rest_is_pillows(data, monkeypatch):
  """Kills: a picture on its side, damage that is refused or passed over by one of the two."""

  def read():
    try:
      return media.decode_image(data, "a.jpg").tolist()
    except media.MediaError as error:
      return str(error)

  assert _opened(data) is None
  with_it = read()
  monkeypatch.setattr(jpeg, "_decoder", lambda: None)
  assert read() == with_it


def test_without_simplejpeg_pillow_reads_all(monkeypatch):
  """Kills: an import that a plain installation does not have."""
  data = _file(FACE)
  expected = media.decode_image(data, "a.jpg")
  monkeypatch.setitem(sys.modules, "simplejpeg", None)
  jpeg._decoder.cache_clear()
  try:
    assert jpeg._decoder() is None and _opened(data) is None
    np.testing.assert_array_equal(media.decode_image(data, "a.jpg"), expected)
  finally:
    monkeypatch.undo()
    jpeg._decoder.cache_clear()
  assert jpeg._decoder() is not None
