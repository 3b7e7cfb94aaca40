"""Clips frame by frame, whatever their length: file -> frames; frames -> an H.264 file.

Video.read_video holds all the frames it is asked for; a minute of 1080p is 11 GB. Here one frame
is in memory at a time.
"""

import fractions
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from facejax.data import media

_RATE = 24  # frames a second, where a clip does not say: that of Face-LLaVA's crops
# Constant rate factor of H.264: visually lossless; 23, FFmpeg's default, blurs a 256-pixel face.
_QUALITY = "18"


def count(path: str | os.PathLike) -> int:
  """Frames that the clip decodes to. Raises MediaError for what training would refuse."""
  return media.read_video(path, 1).total


def frames(path: str | os.PathLike) -> Iterator[UInt8[np.ndarray, "Y X 3"]]:
  """The upright frames of a clip that `count` accepted."""
  with open(path, "rb") as file, media.open_video(file) as container:
    for frame in container.decode(container.streams.video[0]):
      upright = np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))
      yield np.ascontiguousarray(upright)


def rate(path: str | os.PathLike) -> fractions.Fraction:
  """Frames a second, on average."""
  with open(path, "rb") as file, media.open_video(file) as container:
    return container.streams.video[0].average_rate or fractions.Fraction(_RATE)


def write(
  path: Path, crops: Iterable[UInt8[np.ndarray, "256 256 3"]], per_second: fractions.Fraction
) -> None:
  """Encodes face crops as H.264, yuv420p, without sound (Face-LLaVA's crop tool).

  That tool resamples to 24 frames a second; here each frame stays one frame, so that landmarks
  stay true (our choice). One thread: the same frames give the same bytes. The file appears when
  it is complete.
  """
  import av

  partial = path.with_name(f".{path.name}.partial")
  with av.open(str(partial), "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=per_second)
    stream.pix_fmt, stream.options = "yuv420p", {"crf": _QUALITY}
    stream.height = stream.width = media.CROP
    stream.codec_context.thread_count = 1
    for image in crops:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode())
  partial.replace(path)
