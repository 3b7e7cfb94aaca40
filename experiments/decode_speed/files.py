"""Drawn faces as files in the official format: JPEG of 256 pixels or clips, landmarks, answers."""

import json
import pathlib

import av
import numpy as np
from PIL import Image

from facejax.config import LlavaConfig
from facejax.faces import questions, synthetic

SIZE = 256  # pixels a side, as Face-LLaVA's crops
LENGTH = 64  # frames of a clip, of which the model sees 8


def pictures(folder: pathlib.Path, count: int) -> LlavaConfig:
  """`count` JPEG files of quality 95 with landmarks, one question about each."""
  folder.mkdir()
  records = []
  for i in range(count):
    face = synthetic.face(i, size=SIZE)
    Image.fromarray(face.image).save(folder / f"{i}.jpg", quality=95)
    np.save(folder / f"{i}.npy", face.landmarks)
    files = {"image": f"{i}.jpg", "landmarks_2d": f"{i}.npy"}
    records.append({"id": i, **files, "conversations": _turns(f"<image>\n{_asked(i)}", face, i)})
  return _index(folder, records)


def clips(folder: pathlib.Path, count: int) -> LlavaConfig:
  """`count` MP4 files (H.264, 25 frames a second) with landmarks of every frame."""
  folder.mkdir()
  records = []
  for i in range(count):
    clip = synthetic.clip(i, frames=LENGTH, size=SIZE)
    _encode(folder / f"{i}.mp4", clip.image)
    np.save(folder / f"{i}.npy", clip.landmarks)
    files = {"video": f"{i}.mp4", "landmarks_2d": f"{i}.npy"}
    records.append({"id": i, **files, "conversations": _turns(f"<video>\n{_asked(i)}", clip, i)})
  return _index(folder, records)


def _encode(path: pathlib.Path, frames: np.ndarray) -> None:
  with av.open(str(path), "w") as file:
    stream = file.add_stream("libx264", rate=25, options={"crf": "18"})
    stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
    for pixels in frames:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    file.mux(stream.encode())


def _asked(i: int) -> str:
  return questions.question("expression", np.random.default_rng(i))


def _turns(question: str, drawn, i: int) -> list[dict]:
  """One round; the answer says all that is known of the face, some 60 words."""
  rng = np.random.default_rng((1, i))
  answer = " ".join(questions.answer(task, drawn.labels, rng) for task in questions.TASKS)
  return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def _index(folder: pathlib.Path, records: list[dict]) -> LlavaConfig:
  (folder / "index.json").write_text(json.dumps(records))
  return LlavaConfig((str(folder / "index.json"),))
