"""Decoding of pictures, clips, landmarks and class maps, and every refusal."""

import io
import pathlib
import struct
import sys
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from facejax.data import media
from facejax.data.files import Encoded, load_array

LIMITS = media.MediaLimits()
GOLDENS = pathlib.Path(__file__).parent / "goldens"


def _png(array, mode=None, **save):
  data = io.BytesIO()
  Image.fromarray(array, mode).save(data, "PNG", **save)
  return data.getvalue()


def _gradient(y=5, x=7):
  """Every pixel another colour."""
  grid = np.arange(y * x).reshape(y, x)
  return np.stack([grid, 255 - grid, (grid * 3) % 256], axis=-1).astype(np.uint8)


def _save(path, data):
  path.write_bytes(data)
  return path


# --- pictures ---


def test_read_image_gives_rgb_pixels(tmp_path):
  """Kills: BGR, rows and columns swapped, a dropped alpha channel of an opaque file."""
  image = _gradient()
  np.testing.assert_array_equal(media.read_image(_save(tmp_path / "a.png", _png(image))), image)
  opaque = np.dstack([image, np.full((5, 7), 255, np.uint8)])
  np.testing.assert_array_equal(media.decode_image(_png(opaque), "a"), image)


def test_exif_orientation_is_applied():
  """Kills: a phone's portrait photograph read on its side."""
  image = np.zeros((16, 24, 3), np.uint8)
  image[:8] = 255  # White on top as stored.
  exif = Image.Exif()
  exif[0x0112] = 6  # Turn clockwise to view: white goes to the right.
  data = io.BytesIO()
  Image.fromarray(image).save(data, "JPEG", quality=95, exif=exif)
  upright = media.decode_image(data.getvalue(), "a.jpg")
  assert upright.shape == (24, 16, 3)
  assert upright[:, 10:].min() > 200
  assert upright[:, :6].max() < 55


def test_transparency_is_laid_over_white():
  """Kills: showing the arbitrary colours below transparent pixels, or black."""
  rgba = np.zeros((2, 3, 4), np.uint8)
  rgba[0, 0] = (200, 100, 50, 255)
  rgba[1, 2] = (200, 100, 50, 128)
  image = media.decode_image(_png(rgba), "a.png")
  assert image[0, 0].tolist() == [200, 100, 50]
  assert image[0, 1].tolist() == [255, 255, 255]
  assert np.abs(image[1, 2] - np.array([227.4, 177.2, 152.1])).max() <= 1


def test_palette_with_transparency_is_converted():
  """Kills: returning palette indices as grey, or ignoring the tRNS chunk."""
  picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
  picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  data = io.BytesIO()
  picture.save(data, "PNG", transparency=1)
  image = media.decode_image(data.getvalue(), "a.png")
  assert image.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_grey_of_8_and_16_bits():
  """Kills: 16-bit values clipped to white or wrapped around instead of scaled."""
  eight = np.array([[0, 100, 255]], np.uint8)
  assert media.decode_image(_png(eight), "a")[0, :, 2].tolist() == [0, 100, 255]
  sixteen = np.array([[0, 100 * 257, 65535]], np.uint16)
  image = media.decode_image(_png(sixteen), "a")
  assert image.dtype == np.uint8
  assert image[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_cmyk_is_converted():
  """Kills: four channels let through."""
  data = io.BytesIO()
  Image.new("CMYK", (9, 8), (0, 255, 255, 0)).save(data, "JPEG")
  image = media.decode_image(data.getvalue(), "a.jpg")
  assert image.shape == (8, 9, 3)
  red, green, blue = image[4, 4].astype(int)
  assert red > 200 and max(green, blue) < 60


def test_floating_point_and_wide_pictures_are_refused():
  """Kills: clipping pixels of unknown range to something that looks like a picture."""
  data = io.BytesIO()
  Image.fromarray(np.zeros((2, 3), np.float32)).save(data, "TIFF")
  with pytest.raises(media.MediaError, match=r"f.tif: floating-point pixels \(mode F\)"):
    media.decode_image(data.getvalue(), "f.tif")
  data = io.BytesIO()
  Image.fromarray(np.array([[5, 70000]], np.int32)).save(data, "TIFF")
  with pytest.raises(media.MediaError, match=r"i.tif: values 5..70000 - expected 16 bits"):
    media.decode_image(data.getvalue(), "i.tif")


def _bomb(side):
  """A PNG whose header promises side x side pixels and whose body is empty."""

  def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

  header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_pixels_are_counted_before_decoding():
  """Kills: the check after decoding (the body is empty: decoding would fail otherwise)."""
  with pytest.raises(
    media.MediaError, match=r"b.png: 9000x9000 pixels by its header - at most 6400"
  ):
    media.decode_image(_bomb(9000), "b.png")
  # Beyond twice Pillow's own limit, Pillow refuses first.
  with pytest.raises(media.MediaError, match=r"b.png.*exceeds limit"):
    media.decode_image(_bomb(20000), "b.png")


def test_bytes_are_counted_before_reading(tmp_path):
  """Kills: reading a huge file into memory first."""
  path = _save(tmp_path / "a.png", _png(_gradient()))
  size = path.stat().st_size
  limits = media.MediaLimits(max_bytes=size - 1)
  with pytest.raises(media.MediaError, match=f"a.png: {size} bytes - at most {size - 1} are read"):
    media.read_image(path, limits)
  media.read_image(path, media.MediaLimits(max_bytes=size))


def test_missing_file_is_named(tmp_path):
  """Kills: a bare OSError, or a folder let through."""
  with pytest.raises(media.MediaError, match=r"nowhere.png: no such file"):
    media.read_image(tmp_path / "nowhere.png")
  with pytest.raises(media.MediaError, match="no such file"):
    media.read_image(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_pictures_are_refused(form, share):
  """Kills: a grey lower half, and errors other than MediaError."""
  noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  data = io.BytesIO()
  Image.fromarray(noise).save(data, form)
  data = data.getvalue()
  cut = data[: int(len(data) * share)]
  with pytest.raises(media.MediaError, match=rf"t \({len(cut)} bytes\) cannot be decoded"):
    media.decode_image(cut, "t")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_pictures_raise_nothing_else():
  """Kills: an unlisted exception of a decoder stopping a run (400 random damages)."""
  rng = np.random.default_rng(1)
  noise = rng.integers(0, 256, (12, 14, 3), np.uint8)
  refused = 0
  for form in ("PNG", "JPEG", "GIF", "TIFF"):
    data = io.BytesIO()
    Image.fromarray(noise).save(data, form)
    for _ in range(100):
      damaged = bytearray(data.getvalue())
      for _ in range(4):
        damaged[rng.integers(len(damaged))] = rng.integers(256)
      try:
        media.decode_image(bytes(damaged), "d")
      except media.MediaError:
        refused += 1
  assert 100 < refused < 400


def test_other_formats_are_refused():
  """Kills: opening whatever Pillow can (EPS starts an interpreter, PDF, icons)."""
  data = io.BytesIO()
  Image.fromarray(_gradient(16, 16)).save(data, "ICO")
  with pytest.raises(media.MediaError, match="expected a complete JPEG, PNG"):
    media.decode_image(data.getvalue(), "a.ico")


# --- paths ---


def test_inside_gives_the_file(tmp_path):
  """Kills: joining to the working folder."""
  assert media.inside(tmp_path, "a/b.png") == (tmp_path / "a" / "b.png").resolve()


@pytest.mark.parametrize(
  "bad", ["/etc/passwd", "../x", "a/../../x", "a/../b", "..\\x", "", "out/x"]
)
def test_inside_refuses_to_leave(tmp_path, bad):
  """Kills: absolute paths, parents on either slash, links that lead out."""
  folder = tmp_path / "media"
  folder.mkdir()
  (folder / "out").symlink_to(tmp_path)
  with pytest.raises(media.MediaError, match=r"sample 'q1': path .* is not inside"):
    media.inside(folder, bad, "q1")


def test_inside_names_the_path(tmp_path):
  """Kills: an error without the offending path."""
  with pytest.raises(media.MediaError, match=r"path '\.\./x'"):
    media.inside(tmp_path, "../x")


# --- clips ---


def _video(path, n=20, size=(32, 48), codec="mpeg4", rate=10):
  """Frame i is grey level 10 * i (mod 250), with a white band on top."""
  options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
  with av.open(str(path), "w", options=options) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    for i in range(n):
      pixels = np.full((*size, 3), 10 * i % 250, np.uint8)
      pixels[:8] = 255
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())
  return path


def _levels(clip):
  return clip.pixels[:, 20:, 20:].mean(axis=(1, 2, 3)) / 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])  # mkv has no frame count in its header
def test_read_video_spreads_frames(tmp_path, suffix):
  """Kills: rounding instead of truncation, an off-by-one at the end, trusting a count of 0."""
  clip = media.read_video(_video(tmp_path / f"v.{suffix}"), 8)
  assert clip.pixels.shape == (8, 32, 48, 3)
  assert clip.pixels.dtype == np.uint8
  assert clip.total == 20
  assert clip.indices.tolist() == [0, 2, 5, 8, 10, 13, 16, 19]
  np.testing.assert_allclose(_levels(clip), clip.indices, atol=0.4)


def test_a_short_clip_repeats_frames(tmp_path):
  """Kills: a clip with fewer frames than the model takes failing or coming out shorter."""
  clip = media.read_video(_video(tmp_path / "v.mp4", n=3), 5)
  assert clip.indices.tolist() == [0, 0, 1, 1, 2]
  np.testing.assert_allclose(_levels(clip), clip.indices, atol=0.4)


def test_a_wrong_frame_count_is_corrected(tmp_path, monkeypatch):
  """Kills: choosing frames by the header's count."""
  path = _video(tmp_path / "v.mp4")
  monkeypatch.setattr(media, "_by_header", lambda *_: (13, None))
  clip = media.read_video(path, 4)
  assert (clip.total, clip.indices.tolist()) == (20, [0, 6, 12, 19])
  np.testing.assert_allclose(_levels(clip), clip.indices, atol=0.4)


def test_a_count_that_never_settles_is_refused(tmp_path, monkeypatch):
  """Kills: an endless loop on a damaged file that decodes differently each time."""
  counts = iter(range(5, 99))
  monkeypatch.setattr(media, "_decode", lambda path, wanted, limits: (next(counts), {}))
  with pytest.raises(media.MediaError, match=r"v.mp4: decodes to another number of frames"):
    media.read_video(_video(tmp_path / "v.mp4"), 4)


def test_rotation_is_applied(tmp_path):
  """Kills: a phone's portrait clip on its side, or turned the wrong way."""
  data = bytearray(_video(tmp_path / "v.mp4").read_bytes())
  at = data.index(b"tkhd") + 4 + 40
  # 90 degrees clockwise in ISO 14496-12: x' = -y, y' = x.
  data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 32 * 65536, 0, 1 << 30)
  clip = media.read_video(_save(tmp_path / "r.mp4", bytes(data)), 2)
  assert clip.pixels.shape == (2, 48, 32, 3)
  assert clip.pixels[0, :, 26:].min() > 200  # The white band on top is now on the right.
  assert clip.pixels[0, :, :22].max() < 60


def test_truncated_clips_are_refused(tmp_path):
  """Kills: training on the first frames of a file that was not copied to its end."""
  data = _video(tmp_path / "v.mp4", n=60).read_bytes()
  start = data.index(b"mdat") + 4  # Frames follow; faststart puts the header before them.
  cut = data[: start + (len(data) - start) // 2]
  with pytest.raises(media.MediaError, match=r"c.mp4(: \d+ frames decode| cannot be decoded)"):
    media.read_video(_save(tmp_path / "c.mp4", cut), 4)
  data = _video(tmp_path / "v.mkv", n=60).read_bytes()
  with pytest.raises(media.MediaError, match=r"frames decode up to .* s, the header says unknown"):
    media.read_video(_save(tmp_path / "c.mkv", data[: len(data) * 2 // 5]), 4)


@pytest.mark.parametrize(
  "content",
  [b"", b"not a video", b"ffconcat version 1.0\nfile v.mp4\n", b"#EXTM3U\n#EXTINF:2,\nv.mp4\n"],
)
def test_other_files_are_refused(tmp_path, content):
  """Kills: a playlist making FFmpeg open other files."""
  _video(tmp_path / "v.mp4", n=2)
  path = _save(tmp_path / "list.mp4", content)
  with pytest.raises(media.MediaError, match=r"list.mp4 cannot be decoded as a video"):
    media.read_video(path, 2)


def test_video_without_frames_or_stream(tmp_path):
  """Kills: an empty array or an IndexError."""
  path = tmp_path / "sound.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("aac", rate=8000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.rate = 8000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  with pytest.raises(media.MediaError, match=r"sound.mp4: no video stream"):
    media.read_video(path, 2)
  data = _video(tmp_path / "v.mp4").read_bytes()
  with pytest.raises(media.MediaError, match=r"e.mp4: no frame decodes \(0 frames\)"):
    media.read_video(_save(tmp_path / "e.mp4", data[: data.index(b"mdat") + 4]), 2)


def test_oversized_clips_are_refused(tmp_path):
  """Kills: each limit, in the header and, where the header is silent, while decoding."""
  mp4, mkv = _video(tmp_path / "v.mp4"), _video(tmp_path / "v.mkv")
  for path, limits, message in (
    (mp4, {"max_pixels": 1535}, "v.mp4: 48x32 pixels by its header - at most 1535"),
    (mp4, {"max_frames": 19}, r"2.0 s and 20 frames by its header - at most 600 s and 19 frames"),
    (mp4, {"max_seconds": 1.9}, r"2.0 s and 20 frames by its header - at most 1.9 s"),
    (mkv, {"max_frames": 19}, "v.mkv: more than 19 frames or 600 s"),
    (mp4, {"max_bytes": 99}, r"v.mp4: \d+ bytes - at most 99 are read"),
  ):
    with pytest.raises(media.MediaError, match=message):
      media.read_video(path, 2, media.MediaLimits(**limits))
  assert media.read_video(mkv, 2, media.MediaLimits(max_frames=20)).total == 20


def test_frames_of_two_sizes_are_refused(tmp_path):
  """Kills: np.stack failing without the file's name."""
  first = _video(tmp_path / "a.ts", n=4, codec="mpeg2video").read_bytes()
  other = _video(tmp_path / "b.ts", n=4, codec="mpeg2video", size=(64, 32)).read_bytes()
  path = _save(tmp_path / "ab.ts", first + other)
  with pytest.raises(media.MediaError, match=r"ab.ts: frame \d is 32x64, the first 48x32"):
    media.read_video(path, 2)


def test_missing_pyav_says_what_to_install(tmp_path, monkeypatch):
  """Kills: a bare ModuleNotFoundError, or one turned into a refusal of the file."""
  path = _video(tmp_path / "v.mp4", n=2)
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[video\]'"):
    media.read_video(path, 2)


# --- landmarks and class maps ---


def test_frame_numbers_equal_the_official_ones(monkeypatch):
  """Kills: rounding instead of truncating, a last frame left out, clips shorter than 8 frames."""
  with np.load(GOLDENS / "face_llava" / "preprocess.npz") as goldens:
    durations, official = goldens["video.frame_ids.durations"], goldens["video.frame_ids"]
  assert len(durations) == 20
  monkeypatch.setattr(media, "check_file", lambda *_: None)
  for total, expected in zip(durations.tolist(), official.tolist(), strict=True):
    decode = lambda path, wanted, limits, n=total: (
      n,
      {i: np.zeros((2, 2, 3), np.uint8) for i in wanted},
    )
    monkeypatch.setattr(media, "_by_header", lambda *_, n=total: (n, None))
    monkeypatch.setattr(media, "_decode", decode)
    clip = media.read_video("clip.mp4", 8)
    assert (clip.indices.tolist(), clip.total) == (expected, total)


def _clip(total=9, indices=(0, 4, 8)):
  return media.Clip(np.zeros((len(indices), 4, 6, 3), np.uint8), np.array(indices), total)


def _points(*shape):
  return np.random.default_rng(2).uniform(-60, 310, (*shape, 68, 2))


def _npy(path, array):
  np.save(path, array)
  return path


def test_landmarks_of_a_picture(tmp_path):
  """Kills: dividing by another size, swapping x and y, clipping to [0, 1]."""
  points = _points()
  read = media.read_landmarks(_npy(tmp_path / "l.npy", points))
  assert (read.shape, read.dtype) == ((68, 2), np.float32)
  assert read.min() < 0 and read.max() > 1
  np.testing.assert_allclose(read, points / 256, rtol=1e-6)
  halved = media.read_landmarks(_npy(tmp_path / "h.npy", points / 2), crop=128)
  np.testing.assert_allclose(halved, read, rtol=1e-6)


def test_landmarks_of_a_clip(tmp_path):
  """Kills: taking the first frames instead of the chosen ones; choosing twice."""
  clip, points = _clip(), _points(9)
  every = media.read_landmarks(_npy(tmp_path / "all.npy", points), clip)
  assert every.shape == (3, 68, 2)
  np.testing.assert_allclose(every, points[[0, 4, 8]] / 256, rtol=1e-6)
  chosen = media.read_landmarks(_npy(tmp_path / "some.npy", points[:3]), clip)
  np.testing.assert_allclose(chosen, points[:3] / 256, rtol=1e-6)


@pytest.mark.parametrize(
  "array, clip, message",
  [
    (np.zeros((68, 3)), None, r"shape \(68, 3\), type float64 - expected \(68, 2\) numbers"),
    (np.zeros((1, 68, 2)), None, r"shape \(1, 68, 2\)"),
    (np.zeros((7, 68, 2)), _clip(), r"\(7, 68, 2\).*\(9, 68, 2\) or \(3, 68, 2\).*every frame"),
    (np.zeros((68, 2), complex), None, "type complex128"),
    (np.full((68, 2), np.nan), None, "136 landmark coordinates are not finite"),
    (np.linspace(0.1, 0.9, 136).reshape(68, 2), None, r"0.1..0.9 .*look already normalised"),
    (np.linspace(3, 512, 136).reshape(68, 2), None, r"3.0..512.0 - .*256x256 crop.*\(-64..320\)"),
    (np.linspace(-65, 99, 136).reshape(68, 2), None, r"landmarks in -65.0..99.0"),
  ],
)
def test_bad_landmarks_are_refused(tmp_path, array, clip, message):
  """Kills: each check, and an error without the file's name."""
  with pytest.raises(media.MediaError, match=message) as caught:
    media.read_landmarks(_npy(tmp_path / "bad.npy", array), clip)
  assert "bad.npy" in str(caught.value)


def test_arrays_are_never_unpickled(tmp_path):
  """Kills: allow_pickle=True, an archive taken for an array, a truncated array."""
  with pytest.raises(media.MediaError, match=r"o.npy is not a plain .npy array"):
    media.read_landmarks(_npy(tmp_path / "o.npy", np.array([{}], object)))
  np.savez(tmp_path / "z.npz", np.zeros((68, 2)))
  with pytest.raises(media.MediaError, match=r"z.npz is an .npz archive"):
    media.read_landmarks(tmp_path / "z.npz")
  data = _npy(tmp_path / "l.npy", _points()).read_bytes()
  for cut in (0, 20, 500):
    with pytest.raises(media.MediaError, match=r"c.npy is not a plain .npy array"):
      media.read_landmarks(_save(tmp_path / "c.npy", data[:cut]))
  with pytest.raises(media.MediaError, match="at most 100 are read"):
    media.read_landmarks(tmp_path / "l.npy", limits=media.MediaLimits(max_bytes=100))


def test_class_maps_of_every_kind(tmp_path):
  """Kills: palette colours instead of indices, int maps refused, frames not chosen."""
  ids = (np.arange(20) % 19).reshape(4, 5).astype(np.uint8)
  np.testing.assert_array_equal(media.read_segmentation(_save(tmp_path / "l.png", _png(ids))), ids)
  picture = Image.fromarray(ids, "P")
  picture.putpalette(np.random.default_rng(3).integers(0, 256, 57).tolist())
  picture.save(tmp_path / "p.png")
  np.testing.assert_array_equal(media.read_segmentation(tmp_path / "p.png"), ids)
  read = media.read_segmentation(_npy(tmp_path / "m.npy", ids.astype(np.int64)))
  assert read.dtype == np.uint8
  np.testing.assert_array_equal(read, ids)
  frames = np.stack([(ids + i) % 19 for i in range(9)])
  read = media.read_segmentation(_npy(tmp_path / "v.npy", frames), _clip())
  np.testing.assert_array_equal(read, frames[[0, 4, 8]])


@pytest.mark.parametrize(
  "array, clip, message",
  [
    (np.full((4, 5), 19), None, r"class ids 19..19 - expected 0..18"),
    (np.full((4, 5), -1), None, r"class ids -1..-1"),
    (np.zeros((4, 5)), None, r"type float64 - expected integers of shape \(y, x\)"),
    (np.zeros((2, 4, 5), int), None, r"shape \(2, 4, 5\)"),
    (np.zeros((0, 5), int), None, r"shape \(0, 5\)"),
    (np.zeros((4, 5), int), _clip(), r"expected integers of shape \(9, y, x\) or \(3, y, x\)"),
    (np.zeros((7, 4, 5), int), _clip(), r"shape \(7, 4, 5\)"),
  ],
)
def test_bad_class_maps_are_refused(tmp_path, array, clip, message):
  """Kills: each check; ids of another label set wrapped into uint8."""
  with pytest.raises(media.MediaError, match=message) as caught:
    media.read_segmentation(_npy(tmp_path / "bad.npy", array), clip)
  assert "bad.npy" in str(caught.value)


def test_coloured_and_truncated_class_maps_are_refused(tmp_path):
  """Kills: a colour-coded map read as classes."""
  path = _save(tmp_path / "c.png", _png(_gradient()))
  with pytest.raises(media.MediaError, match=r"c.png: a class map of mode RGB - expected mode L"):
    media.read_segmentation(path)
  data = _png(np.zeros((40, 50), np.uint8))
  with pytest.raises(media.MediaError, match=r"t.png cannot be decoded"):
    media.read_segmentation(_save(tmp_path / "t.png", data[: len(data) // 2]))


def test_array_headers_are_not_read_as_python(tmp_path, monkeypatch):
  """Kills: np.load in decoding threads, which CPython 3.11 fails at now and then."""
  arrays = {
    "f": np.arange(6, dtype=">f4").reshape(2, 3),
    "order": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "none": np.float64(3.5),
    "many": np.arange(5, dtype=np.int16),
    "bool": np.array([True, False]),
  }
  for name, array in arrays.items():
    np.save(tmp_path / f"{name}.npy", array)

  def refuse(text):
    raise SystemError("AST constructor recursion depth mismatch")

  monkeypatch.setattr("ast.literal_eval", refuse)
  for name, array in arrays.items():
    path = tmp_path / f"{name}.npy"
    for file in (path, Encoded(path.name, path.read_bytes())):
      read = load_array(file)
      assert read.dtype == array.dtype
      np.testing.assert_array_equal(read, array)
