"""Bytes of small files around one drawn face."""

import io

import av
import numpy as np
from PIL import Image

from facejax.faces import synthetic

FACE = synthetic.face(3, size=48)
POINTS = (FACE.landmarks * (256 / 48)).astype(np.float32)
FRAMES = [synthetic.face(i, size=48).image for i in range(10)]


def picture(array, kind="PNG", **options) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, kind, **options)
  return buffer.getvalue()


def npy(array) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def clip(frames, name="mp4") -> bytes:
  buffer = io.BytesIO()
  with av.open(buffer, "w", format=name) as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())
  return buffer.getvalue()
