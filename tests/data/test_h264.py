"""h264.py: the same frames as decoding all of them, in less work; and when it has to step back."""

import dataclasses

import av
import numpy as np
import pytest

from facejax.data import h264, media


def _clip(path, n=23, codec="libx264", size=(48, 64), **options):
  """Frames of moving waves, so that the encoder has reason to refer to both sides."""
  rows, columns = np.mgrid[: size[0], : size[1]]
  with av.open(str(path), "w") as file:
    stream = file.add_stream(codec, rate=10, options={"bf": "3", **options})
    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
    for i in range(n):
      grey = 128 + 90 * np.sin((rows + 2 * columns + 3 * i) / 9)
      pixels = np.stack([grey, grey[::-1], 255 - grey], -1).astype(np.uint8)
      file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    file.mux(stream.encode())
  return path


def _all(path):
  with av.open(str(path)) as container:
    return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _some(path, wanted):
  with av.open(str(path)) as container:
    found = h264.some(container, wanted)
    return found and {i: frame.to_ndarray(format="rgb24") for i, frame in found.items()}


@pytest.mark.parametrize("options", [{}, {"bf": "0"}, {"x264-params": "b-pyramid=none:keyint=7"}])
def test_frames_are_those_of_a_whole_decoding(tmp_path, monkeypatch, options):
  """Kills: a frame left out that others refer to, numbers in decoding order, frames mixed up."""
  path = _clip(tmp_path / "v.mp4", **options)
  fed = []
  decoded = h264._decoded
  spy = lambda stream, packets, shown: fed.append(len(packets)) or decoded(stream, packets, shown)
  monkeypatch.setattr(h264, "_decoded", spy)
  frames = _all(path)
  for wanted in ({0, 3, 8, 22}, {5}, {0}, set(range(23))):
    found = _some(path, wanted)
    assert set(found) == wanted
    for number, pixels in found.items():
      np.testing.assert_array_equal(pixels, frames[number])
  assert fed[-1] == 23
  # Without frames that nothing refers to there is nothing to leave out.
  assert fed[0] == 23 if options == {"bf": "0"} else fed[0] < 20


def test_a_clip_is_the_same_either_way(tmp_path, monkeypatch):
  """Kills: another number of frames, a sparse reading that is not used or not upright."""
  path = _clip(tmp_path / "v.mp4")
  fast = media.read_video(path, 8)
  monkeypatch.setattr(h264, "some", lambda *_: None)
  slow = media.read_video(path, 8)
  monkeypatch.setattr(media, "_decode", lambda *_: pytest.fail("decoded all"))
  monkeypatch.undo()
  assert (
    (fast.total, fast.indices.tolist()) == (slow.total, slow.indices.tolist()) == (23, [*_at()])
  )
  np.testing.assert_array_equal(fast.pixels, slow.pixels)
  monkeypatch.setattr(media, "_decode", lambda *_: pytest.fail("all frames were decoded"))
  assert media.read_video(path, 1).total == 23


def _at():
  return np.linspace(0, 22, 8, dtype=int).tolist()


def test_a_clip_that_is_too_long_is_refused_either_way(tmp_path):
  """Kills: no limit of time where frames are left out."""
  path = _clip(tmp_path / "v.mp4")
  with pytest.raises(media.MediaError, match=r"v.mp4: 2.3 s and 23 frames by its header"):
    media.read_video(path, 2, media.MediaLimits(max_seconds=1.5))


@pytest.mark.parametrize(
  "name,codec", [("v.mp4", "mpeg4"), ("v.mkv", "libx264"), ("v.ts", "libx264")]
)
def test_other_files_are_left_to_a_whole_decoding(tmp_path, name, codec):
  """Kills: counting packets of a format in which a packet need not be a frame."""
  options = {"bf": "0"} if codec == "mpeg4" else {}
  path = _clip(tmp_path / name, codec=codec, **options)
  assert _some(path, {0, 2}) is None
  assert media.read_video(path, 3).total == 23


@dataclasses.dataclass
class Packet:
  """A packet of one slice; nal_ref_idc 3 or 0."""

  pts: int | None
  referenced: bool = True
  is_keyframe: bool = False
  is_corrupt: bool = False
  is_discard: bool = False
  size: int = 9

  def __buffer__(self, flags):
    return memoryview(self.bytes())

  def bytes(self):
    sei = b"\x00\x00\x00\x02\x06\x60"  # as if referenced: it holds no slice
    return sei + b"\x00\x00\x00\x02" + bytes([0x61 if self.referenced else 0x01, 0])


@dataclasses.dataclass
class Frame:
  """A frame as wide as the container says."""

  pts: int
  width: int = 8
  height: int = 6


class Container:
  """A stream of packets of which each gives its frame, in the order of their times."""

  size = 100

  def __init__(self, packets, lost=(), frames=None, wide=()):
    self.name, self.extradata = "h264", bytes([1, 0, 0, 0, 0xFF])
    self.codec_context, self.video, self.streams = self, [self], self
    self.packets, self.lost, self.wide = packets, lost, wide
    self.frames = len(packets) if frames is None else frames
    self.held = []

  def demux(self, stream):
    return [*self.packets, Packet(None, size=0)]

  def decode(self, packet):
    if packet is None:
      frames = [Frame(p.pts, 9 if p.pts in self.wide else 8) for p in self.held]
      return sorted(frames, key=lambda frame: frame.pts)
    if packet.pts not in self.lost:
      self.held.append(packet)
    return []


def _packets(**changes):
  """I0 P3 b1 b2, times 0, 10, 20, 30; `changes` of the second."""
  second = dataclasses.replace(Packet(30), **changes)
  return [Packet(0, is_keyframe=True), second, Packet(10, False), Packet(20, False)]


@pytest.fixture(autouse=True)
def _views(monkeypatch):
  """Python's own classes cannot be viewed as bytes before 3.12."""
  view = lambda packet: memoryview(packet.bytes() if isinstance(packet, Packet) else packet)
  monkeypatch.setattr(h264, "memoryview", view, raising=False)


def test_only_what_is_needed_is_decoded():
  """Kills: a slice searched at the wrong place, every packet decoded, none of the wanted ones."""
  container = Container(_packets())
  assert {n: frame.pts for n, frame in h264.some(container, {0, 2}).items()} == {0: 0, 2: 20}
  assert [packet.pts for packet in container.held] == [0, 30, 20]


@pytest.mark.parametrize(
  "container",
  [
    Container(_packets(is_corrupt=True)),
    Container(_packets(is_discard=True)),
    Container(_packets(pts=None)),
    Container(_packets(pts=10)),
    Container(_packets(pts=-10)),
    Container(_packets()[1:]),
    Container(_packets(), frames=5),
    Container(_packets(), lost={30}),
    Container(_packets(), wide={30}),
    Container([], frames=0),
  ],
)
def test_what_may_differ_from_a_whole_decoding_is_left_to_it(container):
  """Kills: each condition of `some`."""
  assert h264.some(container, {0, 2}) is None


@pytest.mark.parametrize(
  "change",
  [{"name": "hevc"}, {"extradata": b"\x00\x00\x01\x67"}, {"extradata": None}, {"size": 1e9}],
)
def test_other_streams_are_not_even_read(change):
  """Kills: holding a large file in memory; reading start codes as lengths."""
  container = Container(_packets())
  for name, value in change.items():
    setattr(container, name, value)
  container.demux = lambda stream: pytest.fail("was read")
  assert h264.some(container, {0, 2}) is None


def test_a_number_that_the_clip_does_not_have():
  """Kills: a KeyError for a header that promises more frames than there are packets."""
  assert h264.some(Container(_packets()), {0, 4}) is None
