"""A photograph or a clip of a face, and a question -> the answer of a run's last checkpoint.

    photograph --faces/detect.py--> 256x256 crop, 68 landmarks --generate.py--> Reply

Whatever could not be had (landmarks without a detector, say) is left out and named in the reply.
A checkpoint without landmark modules (InternVL's, LLaVA's) reads none, and is told of none.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from facejax import best, checkpoint
from facejax.config import RunConfig
from facejax.data import media
from facejax.faces import detect
from facejax.generate import Answerer, Sampling
from facejax.knowledge.telling import NOTHING, Telling
from facejax.types import Kind, Medium, Sample, Turn

# Pixels a side up to which a square picture passes for a face crop: Face-LLaVA's crops have 256,
# and hardly a camera or a site gives square pictures that small. Our choice.
CROP_LIMIT = 300
_VIDEOS = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm")
_FIND_FACE = (
  "run `facejax faces install` so that the face is found, or give the 256x256 crop of a face with "
  "--landmarks"
)
_NO_MODULES = "none; this checkpoint has no landmark modules and reads none"


_GREEDY = Sampling()


class Reply(NamedTuple):
  """The answer, and what it was given from: one sentence a topic."""

  text: str
  metadata: dict[str, str]


def chat(
  workdir: Path,
  path: str | os.PathLike,
  question: str,
  *,
  detector: str | None = None,
  landmarks: str | None = None,
  face: int | None = None,
  sampling: Sampling = _GREEDY,
  telling: Telling = NOTHING,
) -> Reply:
  """Answers a question about the face in a file.

  Args:
    workdir: of a training run, or of one of its stages; or a folder that checkpoint.load_run reads.
    path: a photograph, or a clip of a face crop (told by its suffix).
    question: without placeholders; the medium is put in front of it.
    detector: folder or .task bundle of the face models; None takes the installed ones, if any.
    landmarks: file of 68 points in pixels of the 256x256 crop, one set a frame for a clip: the
      picture then is that crop, and no face is looked for. See media.read_landmarks.
    face: which one of several in a photograph, from the left, from 1.
    sampling: how tokens are chosen.
    telling: labels of the face that are said in front of the question; nothing by default.

  Raises:
    FileNotFoundError: no such file, no models where `detector` says, or no checkpoint.
    ValueError: unreadable file, no face or several, a picture too large to be a crop where nothing
      can find the face in it, landmarks that do not fit or that the model has no modules for, no
      label head to take labels from, or a prompt too long for the model.
    ModuleNotFoundError: LiteRT or PyAV is needed and not installed.
  """
  if not os.path.isfile(path):
    raise FileNotFoundError(f"{path}: no such file - expected a photograph or a clip of a face")
  if not question.strip():
    raise ValueError(f"the question is empty ({question!r}) - expected a sentence about the face")
  config, params, stage_dir = checkpoint.load_run(workdir)
  head = config.model.labels.rules if config.model.labels else None
  if telling.handoff.order != "off":
    telling.rule_set(head)  # refuses before a face is looked for
  kind: Kind = "video" if Path(path).suffix.lower() in _VIDEOS else "image"
  if face is not None and (kind == "video" or landmarks):
    raise ValueError(
      f"--face {face} chooses among the faces found in a photograph, but {path} is taken as one "
      "face crop - drop --face"
    )
  blind = config.model.fusion is None  # to landmarks
  if landmarks and blind:
    raise ValueError(
      f"--landmarks {landmarks}: the checkpoint in {workdir} has no landmark modules "
      "(model.fusion is None) - expected one trained or released with them - drop --landmarks"
    )
  if kind == "video":
    medium, metadata = _clip(path, landmarks, config.model.frames)
  else:
    medium, metadata = _picture(path, detector, landmarks, face, whole=blind)
  if blind:
    metadata["landmarks"] = _NO_MODULES
  reads = config.reads(stage_dir.name)
  used = medium.landmarks is not None and "landmarks" in reads and config.model.fusion is not None
  if not used:
    medium = Medium(kind, medium.pixels)
  sample = Sample(str(path), (Turn("human", f"<{kind}>\n{question.strip()}"),), (medium,))
  answerer = Answerer(config, params)
  (told,) = telling.told(answerer, [sample], head)
  answer = answerer.answer([told], sampling)[0]
  return Reply(
    answer.text,
    {
      **metadata,
      **_labels(telling, sample, told),
      "segmentation": "none; photographs and clips come without class maps",
      "inputs": "pixels and landmarks" if used else "pixels",
      "checkpoint": _checkpoint(config, stage_dir, best.located(Path(workdir))[1]),
      **({} if answer.stopped else {"answer": f"cut after {sampling.new_tokens} tokens"}),
    },
  )


def _labels(telling: Telling, sample: Sample, told: Sample) -> dict[str, str]:
  """What was handed to the model, where that was wanted."""
  if telling.handoff.order == "off":
    return {}
  asked, text = (x.conversation[-1].text.partition("\n")[2] for x in (sample, told))
  said = text.removesuffix(asked).strip()
  source = "its label head" if telling.source == "head" else "its answers to yes or no"
  return {"labels": f"from {source}: {said or 'none is sure enough'}"}


def _checkpoint(config: RunConfig, stage_dir: Path, own: int | None) -> str:
  """The checkpoint's name: step `own`, or the newest if None."""
  steps = checkpoint.steps_in(stage_dir) if own is None else [own]
  if not steps:  # released or imported weights
    return f"{stage_dir}, as imported"
  stage = config.stages.get(stage_dir.name)
  return f"{stage_dir.name}, step {steps[-1]}" + (f" of {stage.steps}" if stage else "")


def _picture(
  path: str | os.PathLike,
  detector: str | None,
  landmarks: str | None,
  face: int | None,
  whole: bool,
) -> tuple[Medium, dict[str, str]]:
  """The face crop of a picture, and where it and its landmarks come from.

  Where nothing can find a face, a picture of any size is taken as it is if `whole` allows it.
  """
  photo = media.read_image(path)
  height, width = photo.shape[:2]
  if landmarks:
    _check_square(path, height, width)
    points = media.read_landmarks(landmarks)
    return Medium("image", photo[None], points[None]), {
      "landmarks": f"from {landmarks}",
      "face": "the whole picture, as --landmarks refers to a crop",
    }
  models = Path(detector) if detector else _installed()
  if models:
    found = detect.LiteRTDetector.load(models).detect(photo)
    chosen = detect.single_face(found, str(path), (height, width), face)
    crop, points = detect.crop(photo, chosen)
    box = ", ".join(f"{edge:.0f}" for edge in chosen.box)
    return Medium("image", crop[None], points[None] / np.float32(detect.CROP)), {
      "landmarks": f"detected by MediaPipe's face mesh, models in {models}",
      "face": f"left, top, right, bottom {box} of {width}x{height} px, score {chosen.score:.2f}",
    }
  if face is not None or (not whole and (height != width or height > CROP_LIMIT)):
    asked = f", of which face {face} is asked for," if face is not None else ""
    raise ValueError(
      f"{path} ({width}x{height} px){asked} is no face crop, and no face detector is installed - "
      f"expected a square picture of at most {CROP_LIMIT} px a side without one - {_FIND_FACE}"
    )
  return Medium("image", photo[None]), {
    "landmarks": f"none; no face detector is installed - {_FIND_FACE}",
    "face": f"the whole picture ({width}x{height} px), "
    + ("as it is; no face" if whole else "taken as a face crop; none")
    + " was looked for",
  }


def _clip(
  path: str | os.PathLike, landmarks: str | None, frames: int
) -> tuple[Medium, dict[str, str]]:
  """The frames of a clip, which must be of a face crop, and where its landmarks come from."""
  clip = media.read_video(path, frames)
  height, width = clip.pixels.shape[1:3]
  _check_square(path, height, width)
  points = media.read_landmarks(landmarks, clip) if landmarks else None
  return Medium("video", clip.pixels, points), {
    "landmarks": f"from {landmarks}" if landmarks else "none; no --landmarks given for the clip",
    "face": f"whole frames ({width}x{height} px), taken as a face crop; no face was looked for",
    "frames": f"{frames} of {clip.total}",
  }


def _check_square(path: str | os.PathLike, height: int, width: int) -> None:
  if height != width:
    raise ValueError(
      f"{path} is {width}x{height} px - expected the square crop of a face, as no face is looked "
      "for in clips or where --landmarks is given - crop it to the face"
    )


def _installed() -> Path | None:
  """The folder of the models that `facejax faces install` put there, if it did."""
  folder = detect.default_folder()
  return folder if (folder / detect.DETECTOR).is_file() else None
