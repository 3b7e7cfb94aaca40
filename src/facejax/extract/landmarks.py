"""`facejax data landmarks`: media of an index -> 68 points of each face, and its crop.

    photograph --detector--> face --> crop [256 256 3], points [68 2] in its pixels
    clip       --detector--> faces --track--> face --> crops of all frames, points [T 68 2]
    a medium that is a face crop already keeps its pixels; points are scaled to a crop of 256

The points are read back with the reader that training uses before they are kept.
"""

import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facejax.data import media
from facejax.data.files import Encoded
from facejax.extract import clips, dataset
from facejax.extract.campaign import Job, Result, place, save
from facejax.extract.ledger import sha256
from facejax.extract.track import Track, follow, largest
from facejax.faces import detect
from facejax.faces.detect import Detection, Detector
from facejax.faces.detector_files import default_folder

# A square picture of at most this many pixels a side passes for a face crop, as in chat.py.
CROP_LIMIT = 300
_VERSION = 1  # of the results; another one is worked out anew
_JPEG = (".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How faces are chosen and cut.

  Attributes:
    crop: True cuts faces out of all media, False takes all as crops; None decides for each: a
      square one of at most CROP_LIMIT pixels is a crop.
    several: in a photograph with several faces, take the "largest", or "refuse" it as the official
      tool does. A clip always follows the largest.
    max_gap: frames in a row without the face that are filled; 5 are 0.2 s at 24 frames a second.
  """

  crop: bool | None = None
  several: Literal["largest", "refuse"] = "largest"
  max_gap: int = 5

  def __post_init__(self):
    if self.several not in ("largest", "refuse") or self.max_gap < 0:
      raise ValueError(
        f"several={self.several!r}, max_gap={self.max_gap} - expected 'largest' or 'refuse', and 0 "
        "frames or more"
      )


class DetectorChoice(NamedTuple):
  """A detector that each process loads for itself.

  Attributes:
    load: picklable.
    fingerprint: changes whenever its detections may.
  """

  load: Callable[[], Detector]
  fingerprint: str


def litert(path: str | Path | None = None) -> DetectorChoice:
  """MediaPipe's models in a folder or .task bundle, by default those of `facejax faces install`.

  Raises FileNotFoundError, ValueError or ModuleNotFoundError as LiteRTDetector.load does.
  """
  where = Path(path) if path else default_folder()
  load = functools.partial(detect.LiteRTDetector.load, where)
  load()  # what is wrong with it is said once, here, and not by each process
  files = [where] if where.is_file() else sorted(where.glob("*.tflite"))
  return DetectorChoice(load, "litert " + " ".join(sha256(file) for file in files))


def extract_landmarks(
  where: dataset.Place,
  detector: DetectorChoice,
  settings: Settings = Settings(),
  workers: int = 0,
) -> dataset.Summary:
  """Writes landmarks, crops and a new index; what was done before is not done again.

  Args:
    where: the index and the folder to write.
    detector: finds faces.
    settings: how they are chosen and cut.
    workers: processes; 0 works in this one.

  Raises:
    FileNotFoundError: no index.
    ValueError: as dataset.complete.
  """
  work = LandmarkWork(where.out, detector, settings)
  job_of = lambda file: Job(file.kind, (file.path,))
  return dataset.complete(work, "landmarks", where, job_of, workers)


class LandmarkWork:
  """Landmarks and, of whole photographs, the crop of one medium; see campaign.Work."""

  def __init__(self, out: Path, detector: DetectorChoice, settings: Settings):
    self.out = out
    self.fingerprint: dict[str, Any] = {
      "step": "landmarks",
      "version": _VERSION,
      "detector": detector.fingerprint,
      **dataclasses.asdict(settings),
    }
    self._choice, self._settings = detector, settings
    self._detector: Detector | None = None

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, "_detector": None}  # interpreters are no data

  def __call__(self, job: Job, key: str) -> Result:
    """Raises ValueError, naming the file, where there is no usable face."""
    return (self._picture if job.kind == "image" else self._clip)(job.files[0], key)

  def _detect(self, image: UInt8[np.ndarray, "Y X 3"]) -> list[Detection]:
    if self._detector is None:
      self._detector = self._choice.load()
    return self._detector.detect(image)

  def _picture(self, path: Path, key: str) -> Result:
    photo = media.read_image(path)
    shape = photo.shape[:2]
    crops = self._is_cropped(shape, path)
    found = self._detect(photo)
    if len(found) < 2 or self._settings.several == "refuse":
      face = detect.single_face(found, str(path), shape)
    else:
      face = largest(found)
    result: Result = {"counts": ["cropped" if crops else "kept"], "files": []}
    if len(found) > 1:
      box = ", ".join(f"{edge:.0f}" for edge in face.box)
      result["counts"].append("several faces")
      result["note"] = (
        f"{len(found)} faces, the largest taken (left, top, right, bottom: {box} of "
        f"{shape[1]}x{shape[0]} px)"
      )
    if crops:
      pixels, points = detect.crop(photo, face)
    else:
      points = face.landmarks * np.float32(media.CROP / shape[0])
    result |= self._points(path, key, points)
    if crops:
      # Lossless stays lossless; of a JPEG, a PNG would keep nothing but its artefacts.
      suffix = ".jpg" if path.suffix.lower() in _JPEG else ".png"
      name = place(self.out, "crops", key, suffix)
      save(self.out / name, _encoded(pixels, suffix))
      result |= _medium(result, name)
    return result

  def _clip(self, path: Path, key: str) -> Result:
    total = clips.count(path)
    shape = next(clips.frames(path)).shape[:2]
    crops = self._is_cropped(shape, path)
    track = follow(map(self._detect, clips.frames(path)), self._settings.max_gap, str(path))
    faces = _crops(path, track) if crops else None
    result: Result = {"counts": ["cropped" if crops else "kept"], "files": []}
    notes = []
    if track.several:
      result["counts"].append("several faces")
      box = ", ".join(f"{edge:.0f}" for edge in track.boxes[0])
      notes.append(
        f"several faces in {track.several} of {total} frames, one followed (left, top, right, "
        f"bottom: {box} of {shape[1]}x{shape[0]} px in the first)"
      )
    if filled := np.flatnonzero(~track.detected).tolist():
      result["counts"].append("frames filled")
      notes.append(f"no face in frames {', '.join(map(str, filled))}, filled from their neighbours")
    if notes:
      result["note"] = "; ".join(notes)
    if faces is None:
      points = track.points * np.float32(media.CROP / shape[0])
      return result | self._points(path, key, points)
    points = np.stack([points for _, points in faces()])
    result |= self._points(path, key, points)
    name = place(self.out, "crops", key, ".mp4")
    clips.write(self.out / name, (pixels for pixels, _ in faces()), clips.rate(path))
    return result | _medium(result, name)

  def _is_cropped(self, shape: tuple[int, int], path: Path) -> bool:
    """Whether a face is to be cut out of such a medium."""
    square = shape[0] == shape[1]
    if self._settings.crop is False and not square:
      raise ValueError(
        f"{path} is {shape[1]}x{shape[0]} px - --no-crop expects square face crops - leave it out, "
        "or let faces be cut out with --crop"
      )
    if self._settings.crop is None:
      return not (square and shape[0] <= CROP_LIMIT)
    return self._settings.crop

  def _points(self, path: Path, key: str, points: Float[np.ndarray, "*T 68 2"]) -> Result:
    """Saves landmarks once training's reader accepts them."""
    stream = io.BytesIO()
    np.save(stream, points.astype(np.float32))
    clip = None
    if points.ndim == 3:
      none = np.empty((len(points), 0, 0, 3), np.uint8)
      clip = media.Clip(none, np.arange(len(points)), len(points))
    media.read_landmarks(Encoded(f"landmarks of {path}", stream.getvalue()), clip)
    name = place(self.out, "landmarks", key, ".npy")
    save(self.out / name, stream.getvalue())
    return {"landmarks": name.as_posix(), "files": [name.as_posix()]}


def _medium(result: Result, name: Path) -> Result:
  return {"medium": name.as_posix(), "files": [*result["files"], name.as_posix()]}


def _crops(path: Path, track: Track):
  """A function that goes through the clip: (crop, points in it) of each frame."""

  def each():
    for frame, box, points in zip(clips.frames(path), track.boxes, track.points, strict=True):
      left, top, right, bottom = box.tolist()
      yield detect.crop(frame, Detection((left, top, right, bottom), 1.0, points))

  return each


def _encoded(pixels: UInt8[np.ndarray, "Y X 3"], suffix: str) -> bytes:
  stream = io.BytesIO()
  if suffix == ".jpg":
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
  else:
    Image.fromarray(pixels).save(stream, "PNG")
  return stream.getvalue()
