"""Files in memory are read as files on disk are, and stored samples decode to the same arrays."""

import io
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from facejax.data import files, headers, media
from facejax.records.raw import Encoded, RawMedium, RawSample, decode
from facejax.types import Turn

TURNS = (Turn("human", "<image>\nWho?"), Turn("gpt", "Nobody."))


def _encoded(path):
  return Encoded(path.name, path.read_bytes())


def _picture(path, size=(40, 40)):
  noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(noise).save(path)
  return path


def _array(path, array):
  np.save(path, array)
  return path


def _clip(path, frames=9):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
    for i in range(frames):
      pixels = np.full((32, 48, 3), 20 * i, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())
  return path


def test_bytes_read_as_files_do(tmp_path):
  """Kills: a reader that takes paths alone, or reads the bytes of another form."""
  picture, clip = _picture(tmp_path / "a.png"), _clip(tmp_path / "a.mp4")
  np.testing.assert_array_equal(media.read_image(_encoded(picture)), media.read_image(picture))
  chosen, seen = media.read_video(_encoded(clip), 4), media.read_video(clip, 4)
  np.testing.assert_array_equal(chosen.pixels, seen.pixels)
  assert chosen.total == 9
  points = np.random.default_rng(1).uniform(0, 256, (68, 2))
  for array in (points, np.asfortranarray(points)):
    path = _array(tmp_path / "p.npy", array)
    np.testing.assert_array_equal(media.read_landmarks(_encoded(path)), media.read_landmarks(path))
  (tmp_path / "p.json").write_text(str(points.tolist()))
  path = tmp_path / "p.json"
  np.testing.assert_array_equal(media.read_landmarks(_encoded(path)), media.read_landmarks(path))
  ids = (np.arange(9 * 5 * 7) % 19).reshape(9, 5, 7)
  path = _array(tmp_path / "m.npy", ids)
  np.testing.assert_array_equal(
    media.read_segmentation(_encoded(path), seen), media.read_segmentation(path, seen)
  )
  Image.fromarray(ids[0].astype(np.uint8)).save(tmp_path / "m.png")
  np.testing.assert_array_equal(media.read_segmentation(_encoded(tmp_path / "m.png")), ids[0])


def test_headers_of_bytes(tmp_path):
  """Kills: a header check that opens the name instead of the bytes, or swaps height and width."""
  file = _encoded(_picture(tmp_path / "a.png", (30, 50)))
  headers.check_image(file)
  headers.check_exists(file)
  assert (headers.size(file), headers.upright_size(file)) == ((50, 30), (30, 50))
  headers.check_array(_encoded(_array(tmp_path / "p.npy", np.zeros((3, 68, 2)))), (None, 68, 2))
  with pytest.raises(media.MediaError, match=r"b.png has no picture's header"):
    headers.check_image(Encoded("b.png", b"nothing"))


def _npy(header):
  text = header.encode().ljust(118) + b"\n"
  return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
  "data, message",
  [
    (_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 68, 2)}"), "not a plain"),
    (_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"), "it holds Python objects"),
    (b"\x93NUMPY\x03\x00", r"format version \(3, 0\)"),
    (b"PK\x03\x04...", "is an .npz archive"),
    (b"", "not a plain .npy array"),
  ],
)
def test_arrays_in_memory_promise_nothing(data, message):
  """Kills: allocating what a header says, unpickling, an archive taken for an array."""
  with pytest.raises(media.MediaError, match=f"x.npy.*{message}"):
    media.read_landmarks(Encoded("x.npy", data))


def test_large_bytes_are_refused():
  """Kills: a limit that holds for paths alone."""
  with pytest.raises(media.MediaError, match=r"a.png: 9 bytes - at most 8 are read"):
    files.read(Encoded("a.png", bytes(9)), media.MediaLimits(max_bytes=8))
  assert str(Encoded("a.png", b"123")) == "a.png"
  assert "123" not in repr(Encoded("a.png", b"123"))


def test_decode_gives_what_files_hold(tmp_path):
  """Kills: media out of order, extras of another medium, a missing frame axis."""
  picture, clip = _picture(tmp_path / "a.png"), _clip(tmp_path / "a.mp4")
  points = np.random.default_rng(1).uniform(0, 256, (68, 2))
  ids = (np.arange(9 * 5 * 7) % 19).reshape(9, 5, 7)
  maps = _encoded(_array(tmp_path / "m.npy", ids))
  raw = RawSample(
    "s1",
    TURNS,
    (
      RawMedium("image", _encoded(picture), _encoded(_array(tmp_path / "p.npy", points))),
      RawMedium("video", _encoded(clip), segmentation=maps),
    ),
  )
  sample = decode(raw, 4)
  assert (sample.id, sample.conversation) == ("s1", TURNS)
  first, second = sample.media
  np.testing.assert_array_equal(first.pixels, media.read_image(picture)[None])
  np.testing.assert_allclose(first.landmarks, points[None] / 256, rtol=1e-6)
  assert first.segmentation is None and second.landmarks is None
  assert second.pixels.shape == (4, 32, 48, 3)
  np.testing.assert_array_equal(second.segmentation, ids[[0, 2, 5, 8]])


def test_decode_names_sample_and_file(tmp_path):
  """Kills: an error without the sample's id; landmarks of a picture that is no face crop."""
  broken = RawSample("s7", TURNS, (RawMedium("image", Encoded("a.png", b"")),))
  with pytest.raises(media.MediaError, match=r"sample 's7': a.png \(0 bytes\) cannot be decoded"):
    decode(broken, 4)
  data = io.BytesIO()
  np.save(data, np.random.default_rng(1).uniform(0, 256, (68, 2)))
  picture = _encoded(_picture(tmp_path / "a.png", (30, 50)))
  wide = RawMedium("image", picture, Encoded("p.npy", data.getvalue()))
  with pytest.raises(media.MediaError, match=r"'s8': a.png is 50x30 px and has landmarks"):
    decode(RawSample("s8", TURNS, (wide,)), 4)


def test_names_stay_where_they_were():
  """Kills: a second Encoded that isinstance does not know."""
  assert files.Encoded is Encoded
  assert pathlib.Path(str(Encoded("b/a.png", b""))).suffix == ".png"
