"""Some frames of an H.264 clip, without decoding those that neither they nor others need.

  packets   I0 P4 B2 b1 b3 P8 B6 b5 b7     in the order of decoding; b: no frame refers to it
  wanted    0, 3, 8
  decoded   I0 P4 B2    b3 P8 B6

A frame is then the same bit for bit, as its references are. Encoders leave about half of the
frames unreferenced (x264's default), which are a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HELD = 64 * 2**20  # bytes of a file whose packets are held in memory
_SLICES = (1, 2, 5)  # NAL unit types that hold a picture's slices, ISO 14496-10 table 7-1


def some(container: Any, wanted: set[int]) -> dict[int, Any] | None:
  """The frames of these numbers, counted as shown, or None where decoding all of them may differ.

  That is: not H.264 in MP4 or MOV, a count in the header that is not the number of packets, an edit
  list, packets without a time of their own, a file that does not begin with a key frame, or a
  packet that does not give its frame. The container is read to its end; PyAV's errors pass.
  """
  stream = container.streams.video[0]
  header = stream.codec_context.extradata or b""
  if stream.codec_context.name != "h264" or header[:1] != b"\x01" or container.size > _HELD:
    return None
  packets = [packet for packet in container.demux(stream) if packet.size]
  times = sorted({packet.pts for packet in packets if packet.pts is not None})
  if not len(times) == len(packets) == stream.frames or not wanted <= set(range(len(times))):
    return None
  if any(packet.is_corrupt or packet.is_discard or packet.pts < 0 for packet in packets):
    return None
  if not packets[0].is_keyframe:
    return None
  shown = {times[number] for number in wanted}
  prefix = (header[4] & 3) + 1
  fed = [packet for packet in packets if packet.pts in shown or _referenced(packet, prefix)]
  decoded = list(_decoded(stream, fed, shown))
  sizes = {size for _, size, _ in decoded}
  if [time for time, _, _ in decoded] != sorted(packet.pts for packet in fed) or len(sizes) > 1:
    return None
  numbers = {time: number for number, time in enumerate(times)}
  return {numbers[time]: frame for time, _, frame in decoded if frame is not None}


def _decoded(stream, packets: list, shown: set[int]) -> Iterator[tuple[int, tuple[int, int], Any]]:
  """(time, size, frame if it is shown) of every frame; others are let go at once."""
  for packet in [*packets, None]:  # None: what the decoder still holds
    for frame in stream.codec_context.decode(packet):
      yield frame.pts, (frame.width, frame.height), frame if frame.pts in shown else None


def _referenced(packet, prefix: int) -> bool:
  """Another frame may refer to the packet's: the nal_ref_idc of its first slice is not 0."""
  data, at = memoryview(packet), 0
  while at + prefix < len(data):
    unit = data[at + prefix]
    if unit & 31 in _SLICES:
      return bool(unit & 96)
    at += prefix + int.from_bytes(data[at : at + prefix], "big")
  return True
