"""A folder in the official format: good samples, to stand beside damaged ones."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from facejax.data.media import CROP
from facejax.faces import questions, synthetic

SIZE = 64  # pixels a side
FRAMES = 12  # of a clip
TASKS = ("expression", "action_units", "attributes", "age", "deepfake")
Record = dict | bytes


@dataclasses.dataclass
class Folder:
  """Writes media and an index below `path`. Every face is drawn once, so no two files are equal.

  Attributes:
    path: of the folder.
    indexes: records by index file; a bytes record is written as it is.
    expected: (index file, place) -> kinds that must be found there, and no others.
    faces: drawn so far.
  """

  path: Path
  indexes: dict[str, list[Record]]
  expected: dict[tuple[str, int], set[str]] = dataclasses.field(default_factory=dict)
  faces: int = 0

  def face(self) -> synthetic.Face:
    """The next face."""
    self.faces += 1
    return synthetic.face(self.faces, size=SIZE)

  def write(self, name: str, data: bytes) -> str:
    """A file of these bytes; gives its name."""
    (self.path / name).write_bytes(data)
    return name

  def array(self, name: str, values: np.ndarray) -> str:
    """A .npy file."""
    np.save(self.path / name, values)
    return name

  def sample(self, suffix: str = ".png") -> dict:
    """A good record of a new picture with landmarks and a class map, not yet in an index."""
    face, n = self.face(), self.faces
    return {
      "id": n,
      "image": self.write(f"face{n}{suffix}", encoded(face.image, suffix)),
      "landmarks_2d": self.array(f"face{n}.npy", points(face.landmarks)),
      "segmentation": self.write(f"map{n}.png", encoded(face.segmentation, ".png")),
      "conversations": self.turns(face, "image"),
    }

  def clip_sample(self, change: Callable[[bytes], bytes] = bytes, suffix: str = ".mp4") -> dict:
    """A good record of a new clip with landmarks; `change` damages the file."""
    self.faces += 1
    n = self.faces
    clip = synthetic.clip(n, frames=FRAMES, size=SIZE)
    return {
      "id": n,
      "video": self.write(f"clip{n}{suffix}", change(video(clip.image, suffix))),
      "landmarks_2d": self.array(f"clip{n}.npy", points(clip.landmarks)),
      "conversations": self.turns(clip, "video"),
    }

  def text_sample(self) -> dict:
    """A good record without media."""
    self.faces += 1
    question, answer = f"What is {self.faces} and one more?", f"It is {self.faces + 1}."
    return {"id": self.faces, "conversations": conversation(question, answer)}

  def turns(self, face, kind: str) -> list[dict]:
    """A question about a face, with its answer."""
    rng = np.random.default_rng(self.faces)
    task = TASKS[self.faces % len(TASKS)]
    asked = f"<{kind}>\n{questions.question(task, rng)}"
    return conversation(asked, questions.answer(task, face.labels, rng))

  def add(self, record: Record, *kinds: str, index: str = "train.json") -> None:
    """Puts a record into an index, with what must be found wrong with it."""
    self.expected[index, len(self.indexes[index])] = set(kinds)
    self.indexes[index].append(record)

  def save(self) -> None:
    """Writes the indexes."""
    for name, records in self.indexes.items():
      lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
      (self.path / name).write_bytes(b"[\n" + b",\n".join(lines) + b"\n]\n")


def conversation(*texts: str) -> list[dict]:
  """Turns of human and gpt in alternation."""
  return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def points(landmarks: np.ndarray) -> np.ndarray:
  """Landmarks as files hold them: pixels of the 256x256 crop."""
  return (landmarks * (CROP / SIZE)).astype(np.float32)


def encoded(pixels: np.ndarray, suffix: str, **options) -> bytes:
  """A picture file."""
  buffer = io.BytesIO()
  kind = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP"}[suffix]
  Image.fromarray(pixels).save(buffer, kind, **options)
  return buffer.getvalue()


def video(frames: np.ndarray, suffix: str = ".mp4") -> bytes:
  """A clip file of MPEG-4 frames."""
  buffer = io.BytesIO()
  with av.open(buffer, "w", format={".mp4": "mp4", ".avi": "avi", ".mkv": "matroska"}[suffix]) as c:
    stream = c.add_stream("mpeg4", rate=10)
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
      c.mux(stream.encode(picture))
    c.mux(stream.encode())
  return buffer.getvalue()
