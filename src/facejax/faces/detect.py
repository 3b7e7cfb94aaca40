"""A photograph -> the faces in it, with 68 landmarks -> a 256x256 crop, as Face-LLaVA takes it.

    photo [Y X 3] --BlazeFace--> boxes, eyes --turned, enlarged view--> face mesh --> 68 points
                                   |
                                   +--crop--> [256 256 3] and the points in its pixels

Runs MediaPipe's two small models with LiteRT (extra `faces`) as its published pipeline does, in
about 20 ms for a photo of 512x600 on one core. `install` fetches them once; nothing else here
touches the network. Limits: a face below a tenth of the photo's longer side is missed (it was made
for selfies), and one that is upside down comes out wrong; up to 90 degrees of tilt are fine.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import threading
import zipfile
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facejax.data import media
from facejax.faces.detector_files import DETECTOR, MESH, default_folder
from facejax.faces.detector_files import install as install
from facejax.faces.landmarks import from_mediapipe

CROP = 256  # Pixels a side (Face-LLaVA).
_SCORE = 0.5  # Least confidence of a face, and of a mesh; MediaPipe's default.
_OVERLAP = 0.3  # Boxes of one face overlap at least this much (intersection over union).
_CLOSE = 0.3  # Share of the view's side that a face should take for its box to be trusted.
_ENLARGE = 1.5  # The mesh looks at a square so much larger than the box.


@dataclasses.dataclass(frozen=True)
class Detection:
  """A face; coordinates in pixels of the photograph, (0, 0) its upper left corner.

  Attributes:
    box: left, top, right, bottom; may reach beyond the photograph.
    score: confidence in [0, 1].
    landmarks: 68 iBUG points (x, y).
  """

  box: tuple[float, float, float, float]
  score: float
  landmarks: Float[np.ndarray, "68 2"]


class Detector(Protocol):
  """Finds faces."""

  def detect(self, image: UInt8[np.ndarray, "Y X 3"]) -> list[Detection]:
    """The faces of an RGB photograph, the most confident first."""


def face_of_photo(
  path: str | os.PathLike, detector: Detector, face: int | None = None
) -> tuple[UInt8[np.ndarray, "256 256 3"], Float[np.ndarray, "68 2"]]:
  """Photograph file -> (crop, landmarks in pixels of the crop); the model's input in one call.

  `face` chooses among several, 1 being the leftmost. Raises ValueError as `single_face` does and
  MediaError for an unreadable file.
  """
  photo = media.read_image(path)
  return crop(photo, single_face(detector.detect(photo), str(path), photo.shape[:2], face))


def single_face(
  detections: Sequence[Detection],
  name: str,
  shape: tuple[int, int],
  face: int | None = None,
) -> Detection:
  """The one face of a photograph, or number `face` from the left (from 1).

  Args:
    detections: what a detector found.
    name: the file, for messages.
    shape: (Y, X) of the photograph, for messages.
    face: None refuses to choose among several, as the official tool does.

  Raises:
    ValueError: no face, several and none chosen, or no such number.
  """
  where = f"{name} (photo {shape[1]}x{shape[0]})"
  if not detections:
    raise ValueError(
      f"no face found in {where} - expected a face that looks towards the camera and fills at "
      "least "
      "a tenth of the picture - crop the photo closer to it"
    )
  ordered = sorted(detections, key=lambda found: found.box[0] + found.box[2])
  if face is None and len(ordered) == 1:
    return ordered[0]
  boxes = "; ".join(
    f"{i}: " + ",".join(f"{edge:.0f}" for edge in found.box) for i, found in enumerate(ordered, 1)
  )
  if face is None:
    raise ValueError(
      f"{len(ordered)} faces found in {where} - expected one - choose one with --face N, from left "
      f"to right (left,top,right,bottom): {boxes}"
    )
  if not 1 <= face <= len(ordered):
    raise ValueError(
      f"no face number {face} in {where} - expected 1..{len(ordered)}, from left to right "
      f"(left,top,right,bottom): {boxes}"
    )
  return ordered[face - 1]


def crop(
  photo: UInt8[np.ndarray, "Y X 3"], detection: Detection
) -> tuple[UInt8[np.ndarray, "256 256 3"], Float[np.ndarray, "68 2"]]:
  """Cuts the face out: (crop, landmarks in its pixels).

  The side is (w + h) / 2 of the box, as in the official tool. That tool starts at the box's upper
  left corner and stops at the photo's edge, then stretches what is left to 256x256: an oblong box
  comes out off centre, and a face at the edge distorted. Here the square is centred on the box and
  the photo's edge is continued outwards, so landmarks stay true in both axes (our choice).
  """
  left, top, right, bottom = detection.box
  side = max(round((right - left + bottom - top) / 2), 1)
  start_x = math.floor((left + right - side) / 2 + 0.5)
  start_y = math.floor((top + bottom - side) / 2 + 0.5)
  rows = np.arange(start_y, start_y + side).clip(0, photo.shape[0] - 1)
  columns = np.arange(start_x, start_x + side).clip(0, photo.shape[1] - 1)
  square = Image.fromarray(photo[np.ix_(rows, columns)])
  pixels = np.array(square.resize((CROP, CROP), Image.Resampling.BILINEAR))
  offset = np.array([[start_x, start_y]], np.float32)
  return pixels, (detection.landmarks - offset) * np.float32(CROP / side)


class LiteRTDetector:
  """MediaPipe's BlazeFace (short range) and face mesh, run by LiteRT. Safe to share by threads."""

  def __init__(self, detector: bytes, mesh: bytes):
    try:
      from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        "finding faces needs LiteRT, which is not installed - pip install -e '.[faces]'"
      ) from error
    # One thread: the models take 1 to 3 ms, more threads cost more than they bring.
    self._detector = Interpreter(model_content=detector, num_threads=1)
    self._mesh = Interpreter(model_content=mesh, num_threads=1)
    for model in (self._detector, self._mesh):
      model.allocate_tensors()
    self._anchors = anchors()
    self._lock = threading.Lock()

  @classmethod
  def load(cls, path: str | os.PathLike | None = None) -> LiteRTDetector:
    """Reads the models from a folder of .tflite files or a MediaPipe .task bundle.

    Args:
      path: None is the folder that `install` fills by default.

    Raises:
      FileNotFoundError: a model is missing.
      ValueError: the bundle is not a zip file, or a model is damaged.
    """
    path = pathlib.Path(path) if path else default_folder()
    names = {DETECTOR, MESH, "face_detector.tflite", "face_landmarks_detector.tflite"}
    if path.is_file():
      try:
        with zipfile.ZipFile(path) as bundle:
          found = {name: bundle.read(name) for name in bundle.namelist() if name in names}
      except zipfile.BadZipFile as error:
        raise ValueError(
          f"{path} is not a .task bundle ({error}) - expected a zip file of .tflite models - "
          "download it again, or run `facejax faces`"
        ) from error
    else:
      found = {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    models = []
    for wanted, other in (
      (DETECTOR, "face_detector.tflite"),
      (MESH, "face_landmarks_detector.tflite"),
    ):
      model = found.get(wanted) or found.get(other)
      if model is None:
        raise FileNotFoundError(
          f"no {wanted} in {path} (found {sorted(found) or 'no model'}) - expected {wanted} or "
          f"{other} "
          "- run `facejax faces` to install the models"
        )
      models.append(model)
    try:
      return cls(*models)
    except (ValueError, RuntimeError) as error:
      raise ValueError(
        f"a model in {path} cannot be run ({error}) - expected MediaPipe's {DETECTOR} and {MESH} - "
        "run `facejax faces` to install them again"
      ) from error

  def detect(self, image: UInt8[np.ndarray, "Y X 3"]) -> list[Detection]:
    """The faces of an RGB photograph, the most confident first."""
    with self._lock:
      found = [self._landmarks(image, *face) for face in self._faces(image)]
    return [detection for detection in found if detection]

  def _faces(self, image):
    """(box [4], eyes [2 2], score) of each face, in pixels of the photograph.

    A face that is small in the photo is looked at again from close by (our choice). At a tenth of
    the photo's side the first look alone put landmarks 29 % of the distance between the outer eye
    corners off, the second one 1.5 % (one photograph, scaled).
    """
    y, x = image.shape[:2]
    for face in self._look(image, _View((x / 2, y / 2), max(y, x), 0.0)):
      box = face[0]
      side = max(box[2] - box[0], box[3] - box[1])
      if side < _CLOSE * max(y, x):
        close = _View(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), side / _CLOSE, 0.0)
        again = [seen for seen in self._look(image, close) if _overlap(box, seen[0][None])[0] > 0.1]
        face = again[0] if again else face
      yield face

  def _look(self, image, view: _View) -> list[tuple[np.ndarray, np.ndarray, float]]:
    size = self._detector.get_input_details()[0]["shape"][1]
    # Black beyond the photograph, values in [-1, 1].
    outputs = _run(self._detector, view.of(image, size, beyond="black") / 127.5 - 1)
    regressors = next(o for o in outputs if o.shape[-1] == 16)[0] / size
    scores = next(o for o in outputs if o.shape[-1] == 1)[0, :, 0]
    boxes, points = decode(regressors, self._anchors)
    return [
      (view.to_photo(box.reshape(2, 2)).reshape(4), view.to_photo(eyes), score)
      for box, eyes, score in suppress(boxes, points[:, :2], _sigmoid(scores))
    ]

  def _landmarks(self, image, box, eyes, score) -> Detection | None:
    """Runs the face mesh on the upright view of a face; None where it sees no face."""
    view = region_of_interest(box, eyes)
    size = self._mesh.get_input_details()[0]["shape"][1]
    outputs = _run(self._mesh, view.of(image, size, beyond="edge") / 255)
    present = next(o for o in outputs if o.size == 1).item()
    if _sigmoid(present) < _SCORE:
      return None
    mesh = max(outputs, key=np.size).reshape(-1, 3)  # 468 points, or 478 with irises at the end.
    points = view.to_photo(from_mediapipe(mesh)[:, :2] / size)
    left, top, right, bottom = (float(edge) for edge in box)
    return Detection((left, top, right, bottom), float(score), points.astype(np.float32))


def anchors(size: int = 128) -> Float[np.ndarray, "896 2"]:
  """Centres (x, y) in [0, 1] of BlazeFace's anchors, in the order of its outputs.

  The SSD rule with MediaPipe's options: 2 anchors on each of 16x16 cells, 6 on each of 8x8 (three
  layers of stride 16, two anchors each); all anchors have size 1.
  """
  layers = []
  for stride, count in ((8, 2), (16, 6)):
    cells = size // stride
    rows, columns = np.mgrid[:cells, :cells]
    centres = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) / cells
    layers.append(np.repeat(centres, count, axis=0))
  return np.concatenate(layers).astype(np.float32)


def decode(
  regressors: Float[np.ndarray, "n 16"], anchor: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n 6 2"]]:
  """Offsets, in units of the input's side -> (boxes left top right bottom, keypoints)."""
  centre = regressors[:, :2] + anchor
  half = regressors[:, 2:4] / 2
  points = regressors[:, 4:].reshape(-1, 6, 2) + anchor[:, None, :]
  return np.concatenate([centre - half, centre + half], axis=1), points


def suppress(
  boxes: Float[np.ndarray, "n 4"],
  points: Float[np.ndarray, "n k 2"],
  scores: Float[np.ndarray, "n"],
) -> list[tuple[np.ndarray, np.ndarray, float]]:
  """Weighted non-maximum suppression: (box, points, score) of each face, best first.

  Candidates that overlap the best one are averaged with it, weighted by score, which halves the
  jitter of keeping the best alone (BlazeFace paper, section 4).
  """
  keep = scores >= _SCORE
  boxes, points, scores = boxes[keep], points[keep], scores[keep]
  faces = []
  while len(scores):
    best = int(scores.argmax())
    same = _overlap(boxes[best], boxes) > _OVERLAP
    same[best] = True  # Even a box without area goes, so the loop ends.
    weights = scores[same] / scores[same].sum()
    faces.append(
      (
        np.einsum("n,nc->c", weights, boxes[same]),
        np.einsum("n,nkc->kc", weights, points[same]),
        float(scores[best]),
      )
    )
    boxes, points, scores = boxes[~same], points[~same], scores[~same]
  return faces


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """Intersection over union of one box with each of many."""
  low = np.maximum(box[None, :2], boxes[:, :2])
  high = np.minimum(box[None, 2:], boxes[:, 2:])
  common = (high - low).clip(min=0).prod(axis=1)
  areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)
  union = areas + (box[2:] - box[:2]).clip(min=0).prod() - common
  return common / np.maximum(union, 1e-12)


@dataclasses.dataclass(frozen=True)
class _View:
  """A square of a photograph, turned by `angle` (radians, clockwise), in pixels."""

  centre: tuple[float, float]
  side: float
  angle: float

  def to_photo(self, points: np.ndarray) -> np.ndarray:
    """(x, y) in [0, 1] of the view -> pixels of the photograph."""
    cos, sin = math.cos(self.angle), math.sin(self.angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * self.side
    return (points - 0.5) @ turn + np.array(self.centre)[None, :]

  def of(self, photo: np.ndarray, size: int, beyond: str) -> np.ndarray:
    """[size size 3] float32 in 0..255: the view of `photo`, sampled bilinearly.

    Beyond the photograph is "black", or its "edge" continued.
    """
    # Averaging whole blocks first keeps a large face from aliasing.
    factor = max(int(self.side / size), 1)
    if factor > 1:
      photo = np.asarray(Image.fromarray(photo).reduce(factor))
    middles = (np.arange(size) + 0.5) / size
    grid = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    at = self.to_photo(grid) / factor - 0.5
    low = np.floor(at).astype(int)
    weight = (at - low).astype(np.float32)
    limit = np.array([[photo.shape[1] - 1, photo.shape[0] - 1]])
    total = np.zeros((size * size, 3), np.float32)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
      corner = low + np.array([[dx, dy]])
      share = np.abs(np.array([[1 - dx, 1 - dy]]) - weight).prod(axis=1)
      if beyond == "black":
        share = share * ((corner >= 0) & (corner <= limit)).all(axis=1)
      inside = corner.clip(0, limit)
      total += share[:, None] * photo[inside[:, 1], inside[:, 0]]
    return total.reshape(size, size, 3)


def region_of_interest(box: Float[np.ndarray, "4"], eyes: Float[np.ndarray, "2 2"]) -> _View:
  """The square the mesh looks at: around the box, 1.5 times its long side, eyes level."""
  centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
  side = _ENLARGE * max(box[2] - box[0], box[3] - box[1])
  across, down = eyes[1] - eyes[0]
  return _View((float(centre[0]), float(centre[1])), float(side), math.atan2(down, across))


def _sigmoid(logits):
  return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))  # float32 overflows beyond 88.


def _run(model, pixels: np.ndarray) -> list[np.ndarray]:
  model.set_tensor(model.get_input_details()[0]["index"], pixels[None].astype(np.float32))
  model.invoke()
  return [model.get_tensor(output["index"]) for output in model.get_output_details()]
