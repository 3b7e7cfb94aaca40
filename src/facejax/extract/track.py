"""Detections of each frame -> one face through the clip, with short gaps filled.

frame        0  1  2  3  4  5  6  7
detected     .  A  A  .  .  A  A  B      the largest first, then the nearest: B jumps too far
followed     A  A  A  a  a  A  A  A      held at the ends, between neighbours otherwise
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from facejax.faces.detect import Detection

# A face whose centre moves further than its own side between frames is another one, or there was a
# cut: at 24 frames a second a head crosses its width in no less than five frames.
_JUMP = 1.0
# The official crop tool skips a clip in which more frames fail.
_MISSING = 0.3


@dataclasses.dataclass(frozen=True)
class Track:
  """A face through a clip, in pixels of its frames.

  Attributes:
    boxes: left, top, right, bottom of each frame.
    points: 68 landmarks of each.
    detected: frames in which the face was seen; the others are filled.
    several: frames with more than one face.
  """

  boxes: Float[np.ndarray, "T 4"]
  points: Float[np.ndarray, "T 68 2"]
  detected: Bool[np.ndarray, "T"]
  several: int


def largest(detections: Sequence[Detection]) -> Detection:
  """The face with the largest box, the earlier one of two equal ones."""
  return max(detections, key=lambda found: _side(found) ** 2)


def follow(frames: Iterable[Sequence[Detection]], max_gap: int, name: str) -> Track:
  """Follows a face: the largest when it is first seen, then the nearest to where it was.

  Args:
    frames: the faces of each frame; read once.
    max_gap: frames in a row that may be filled: linearly between two sights of the face, with the
      nearest one at the ends of the clip (our choice).
    name: of the clip, for messages.

  Raises:
    ValueError: no face, a longer gap, or more than 30 % of the frames filled.
  """
  path: list[Detection | None] = []
  last: Detection | None = None
  several = 0
  for detections in frames:
    several += len(detections) > 1
    found = _next(last, detections)
    path.append(found)
    last = found or last
  seen = np.array([found is not None for found in path], bool)
  if not seen.any():
    raise ValueError(
      f"{name}: no face in any of {len(path)} frames - expected one that looks towards the camera "
      "and fills at least a tenth of the picture - crop it closer, or leave it out"
    )
  start, length = _longest_gap(seen)
  if length > max_gap or (~seen).sum() > _MISSING * len(seen):
    raise ValueError(
      f"{name}: no face in {int((~seen).sum())} of {len(seen)} frames, {length} of them in a row "
      f"from frame {start} - expected at most {max_gap} in a row and {_MISSING:.0%} in all - cut "
      "the clip, or raise --max-gap"
    )
  faces = [face for face in path if face is not None]
  values = np.stack([np.concatenate([face.box, face.landmarks.ravel()]) for face in faces])
  at, known = np.arange(len(seen)), np.flatnonzero(seen)
  filled = np.stack([np.interp(at, known, column) for column in values.T], axis=1)
  points = filled[:, 4:].reshape(-1, 68, 2)
  return Track(filled[:, :4].astype(np.float32), points.astype(np.float32), seen, several)


def _next(last: Detection | None, detections: Sequence[Detection]) -> Detection | None:
  if not detections:
    return None
  if last is None:
    return largest(detections)
  distances = [float(np.linalg.norm(_centre(found) - _centre(last))) for found in detections]
  nearest = int(np.argmin(distances))
  return detections[nearest] if distances[nearest] <= _JUMP * _side(last) else None


def _centre(found: Detection) -> np.ndarray:
  left, top, right, bottom = found.box
  return np.array([(left + right) / 2, (top + bottom) / 2])


def _side(found: Detection) -> float:
  left, top, right, bottom = found.box
  return (max(right - left, 0) * max(bottom - top, 0)) ** 0.5


def _longest_gap(seen: Bool[np.ndarray, "T"]) -> tuple[int, int]:
  """(first frame, length) of the longest run without the face."""
  edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
  runs = edges.reshape(-1, 2)
  if not len(runs):
    return 0, 0
  lengths = runs[:, 1] - runs[:, 0]
  longest = int(lengths.argmax())
  return int(runs[longest, 0]), int(lengths[longest])
