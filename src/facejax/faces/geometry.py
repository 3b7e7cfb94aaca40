"""Where the points of a head are: identity, age and action units -> 3D points -> pixels.

Face units: 1.0 is half the width of the average adult face. x runs to the image's right, y down
(0 at the line of the eyes) and z towards the viewer. The template and all coefficients are ours;
the signs and the points that each action unit moves follow the FACS manual.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from facejax.faces.landmarks import MIRROR

# Points 0..67 are the iBUG landmarks; 68..76 the skull from the subject's right temple over the
# crown to the left temple; 77 and 78 the irises.
SKULL = slice(68, 77)
RIGHT_IRIS, LEFT_IRIS = 77, 78
NUM_POINTS = 79

# The image's left half and the middle line; the other half is its mirror image.
_HALF: dict[int, tuple[float, float, float]] = {
  0: (-1.00, -0.05, -0.28),
  1: (-0.99, 0.22, -0.26),
  2: (-0.95, 0.48, -0.24),
  3: (-0.87, 0.74, -0.20),
  4: (-0.75, 0.97, -0.14),
  5: (-0.59, 1.16, -0.04),
  6: (-0.41, 1.31, 0.06),
  7: (-0.20, 1.40, 0.12),
  8: (0.00, 1.43, 0.14),
  17: (-0.79, -0.27, 0.05),
  18: (-0.67, -0.37, 0.14),
  19: (-0.51, -0.40, 0.20),
  20: (-0.35, -0.37, 0.24),
  21: (-0.20, -0.31, 0.26),
  27: (0.00, -0.05, 0.25),
  28: (0.00, 0.13, 0.34),
  29: (0.00, 0.31, 0.44),
  30: (0.00, 0.48, 0.54),
  31: (-0.20, 0.58, 0.26),
  32: (-0.10, 0.62, 0.32),
  33: (0.00, 0.64, 0.35),
  36: (-0.60, 0.01, 0.08),
  37: (-0.49, -0.085, 0.14),
  38: (-0.35, -0.085, 0.15),
  39: (-0.23, 0.02, 0.12),
  40: (-0.35, 0.07, 0.14),
  41: (-0.49, 0.07, 0.13),
  48: (-0.37, 0.94, 0.16),
  49: (-0.23, 0.875, 0.24),
  50: (-0.09, 0.835, 0.30),
  51: (0.00, 0.85, 0.31),
  57: (0.00, 1.07, 0.29),
  58: (-0.11, 1.065, 0.28),
  59: (-0.24, 1.02, 0.22),
  60: (-0.33, 0.94, 0.17),
  61: (-0.11, 0.935, 0.26),
  62: (0.00, 0.94, 0.27),
  66: (0.00, 0.945, 0.27),
  67: (-0.11, 0.945, 0.26),
}
_HALF_SKULL = (
  (-1.02, -0.36, -0.28),
  (-0.97, -0.70, -0.26),
  (-0.80, -1.00, -0.22),
  (-0.46, -1.20, -0.16),
  (0.0, -1.27, -0.12),
)

_EYE_RIGHT, _EYE_LEFT = slice(36, 42), slice(42, 48)
_BROWS, _NOSE, _NOSTRIL = slice(17, 27), slice(27, 31), slice(31, 36)
_MOUTH, _OUTER, _INNER = slice(48, 68), slice(48, 60), slice(60, 68)
_UPPER_OUTER, _LOWER_OUTER = slice(49, 54), slice(55, 60)


class Shape(NamedTuple):
  """An identity's bones and soft parts; 0 is average, about -1.5..1.5 in population deviations."""

  jaw_width: float
  face_length: float
  chin: float
  forehead: float
  eye_gap: float
  eye_size: float
  eye_tilt: float
  brow_height: float
  brow_arch: float
  nose_length: float
  nose_width: float
  mouth_width: float
  mouth_height: float
  upper_lip: float
  lower_lip: float


class Pose(NamedTuple):
  """Where the head is.

  Angles in degrees (yaw > 0: turned to the image's right; pitch > 0: nodding down; roll > 0:
  clockwise in the image), scale in pixels per face unit, and the pixel of the origin.
  """

  yaw: float
  pitch: float
  roll: float
  scale: float
  centre: tuple[float, float]


@functools.cache
def _template() -> np.ndarray:
  points = np.zeros((NUM_POINTS, 3))
  for index, point in _HALF.items():
    points[MIRROR[index]] = np.multiply(point, (-1, 1, 1))
    points[index] = point
  skull = np.array(_HALF_SKULL)
  points[68:73] = skull
  points[73:77] = skull[3::-1] * (-1, 1, 1)
  points[RIGHT_IRIS] = (-0.42, 0.0, 0.16)
  points[LEFT_IRIS] = (0.42, 0.0, 0.16)
  points.flags.writeable = False
  return points


def childhood(age: float) -> float:
  """1 at 5 years, falling linearly to 0 at 20."""
  return min(max((20 - age) / 15, 0.0), 1.0)


def ageing(age: float) -> float:
  """0 up to 20 years, rising linearly to 1 at 80."""
  return min(max((age - 20) / 60, 0.0), 1.0)


def _scale_about(points: np.ndarray, centre: np.ndarray, factors: tuple[float, ...]) -> None:
  points[:] = centre + (points - centre) * factors


def head(shape: Shape, age: float) -> np.ndarray:
  """The neutral head of an identity at an age (years, 5..80): [79, 3] face units."""
  p = _template().copy()
  child, old = childhood(age), ageing(age)
  for eye, iris, side in ((_EYE_RIGHT, RIGHT_IRIS, -1), (_EYE_LEFT, LEFT_IRIS, 1)):
    size = 1 + 0.07 * shape.eye_size + 0.24 * child
    _scale_about(p[eye], p[iris].copy(), (size, size * (1 + 0.10 * child), 1))
    tilt = (p[eye, 0] - p[iris, 0]) * side
    p[eye, 1] -= tilt * (0.10 * shape.eye_tilt - 0.12 * old)
    p[[*range(eye.start, eye.stop), iris], 0] += side * (0.02 * shape.eye_gap + 0.01 * child)
  # Hooded lids come down with age: upper lid points only.
  p[[37, 38, 43, 44], 1] += 0.025 * old
  p[_BROWS, 1] += -0.022 * shape.brow_height - 0.05 * child + 0.03 * old
  p[[18, 19, 20, 23, 24, 25], 1] -= 0.018 * shape.brow_arch
  _scale_about(
    p[27:36],
    p[27].copy(),
    (
      1 + 0.10 * shape.nose_width - 0.10 * child + 0.10 * old,
      1 + 0.05 * shape.nose_length - 0.13 * child + 0.09 * old,
      1 + 0.08 * shape.nose_length - 0.25 * child,
    ),
  )
  lip_line = p[62].copy()
  _scale_about(p[_MOUTH], lip_line, (1 + 0.06 * shape.mouth_width - 0.10 * child, 1, 1))
  p[50:53, 1] -= 0.015 * shape.upper_lip - 0.035 * old
  p[[49, 53], 1] -= 0.008 * shape.upper_lip - 0.016 * old
  p[[56, 57, 58], 1] += 0.018 * shape.lower_lip - 0.045 * old
  p[[55, 59], 1] += 0.010 * shape.lower_lip - 0.025 * old
  p[_MOUTH, 1] += 0.02 * shape.mouth_height
  p[SKULL, 1] *= 1 + 0.03 * shape.forehead + 0.05 * child
  p[4:13, 0] *= 1 + 0.05 * shape.jaw_width + 0.03 * child
  p[6:11, 1] += 0.025 * shape.chin - 0.03 * child
  # Jowls: the jaw's corners sag outwards and down.
  p[[4, 5, 6], 0] -= 0.055 * old
  p[[10, 11, 12], 0] += 0.055 * old
  p[[4, 5, 6, 10, 11, 12], 1] += 0.045 * old
  below = p[:, 1] > 0
  p[below, 1] *= 1 + 0.035 * shape.face_length - 0.13 * child
  return p


def _brows(p: np.ndarray, au: Mapping[int, float]) -> None:
  inner, outer, lower = au.get(1, 0.0), au.get(2, 0.0), au.get(4, 0.0)
  rise = np.zeros(5)
  rise += inner * np.array((0.0, 0.0, 0.05, 0.12, 0.16))
  rise += outer * np.array((0.11, 0.15, 0.13, 0.05, 0.0))
  # With AU1 the corrugator draws the brows together but cannot lower their inner ends.
  rise -= lower * np.array((0.0, 0.03, 0.07, 0.11, 0.13)) * (1 - 0.6 * inner)
  together = lower * np.array((0.01, 0.02, 0.03, 0.05, 0.07))
  wrinkled = au.get(9, 0.0) * np.array((0.0, 0.0, 0.01, 0.03, 0.05))
  p[17:22, 1] += wrinkled - rise
  p[22:27, 1] += (wrinkled - rise)[::-1]
  p[17:22, 0] += together
  p[22:27, 0] -= together[::-1]


def _lids(p: np.ndarray, au: Mapping[int, float]) -> None:
  wide, cheek, tight = au.get(5, 0.0), au.get(6, 0.0), au.get(7, 0.0)
  p[[37, 38, 43, 44], 1] += 0.035 * tight + 0.01 * cheek - 0.06 * wide
  p[[40, 41, 46, 47], 1] -= 0.025 * tight + 0.035 * cheek
  for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
    # A slit of at least 0.03 units stays open: lids never cross.
    p[upper, 1] = min(p[upper, 1], p[lower, 1] - 0.03)


def _lips(p: np.ndarray, au: Mapping[int, float]) -> None:
  corners = [48, 60, 54, 64]
  outwards = np.array((-1, -1, 1, 1))
  pull, drop, stretch = au.get(12, 0.0), au.get(15, 0.0), au.get(20, 0.0)
  tight, chin, raised = au.get(23, 0.0), au.get(17, 0.0), au.get(10, 0.0)
  p[corners, 0] += outwards * (0.11 * pull + 0.12 * stretch - 0.06 * tight - 0.02 * drop)
  p[corners, 1] += 0.11 * drop + 0.025 * stretch - 0.13 * pull
  near = [49, 53, 55, 59]
  p[near, 0] += np.array((-1, 1, 1, -1)) * (0.06 * pull + 0.07 * stretch - 0.04 * tight)
  p[near, 1] += 0.05 * drop - 0.06 * pull
  p[_UPPER_OUTER, 1] -= raised * np.array((0.06, 0.09, 0.08, 0.09, 0.06))
  p[61:64, 1] -= 0.055 * raised
  p[_LOWER_OUTER, 1] -= 0.055 * chin
  p[65:68, 1] -= 0.015 * chin
  thin = 0.5 * tight + 0.3 * stretch
  middle = p[[61, 62, 63, 65, 66, 67], 1].mean()
  p[[50, 51, 52, 56, 57, 58], 1] += (middle - p[[50, 51, 52, 56, 57, 58], 1]) * min(thin, 0.6)


def _jaw(p: np.ndarray, au: Mapping[int, float]) -> None:
  part, drop = au.get(25, 0.0), au.get(26, 0.0)
  p[61:64, 1] -= 0.03 * part
  p[65:68, 1] += 0.075 * part
  p[_LOWER_OUTER, 1] += np.array((0.04, 0.065, 0.065, 0.065, 0.04)) * part
  p[65:68, 1] += 0.20 * drop
  p[_LOWER_OUTER, 1] += np.array((0.12, 0.19, 0.20, 0.19, 0.12)) * drop
  p[[48, 54, 60, 64], 1] += 0.06 * drop
  p[[48, 60], 0] += 0.03 * drop
  p[[54, 64], 0] -= 0.03 * drop
  p[4:13, 1] += np.array((0.04, 0.10, 0.17, 0.21, 0.22, 0.21, 0.17, 0.10, 0.04)) * drop
  p[[7, 8, 9], 1] -= 0.05 * au.get(17, 0.0)


def express(points: np.ndarray, action_units: Mapping[int, float]) -> np.ndarray:
  """Moves a neutral head's points by action units (number -> 0..1): [79, 3] -> [79, 3]."""
  p = points.copy()
  _brows(p, action_units)
  _lids(p, action_units)
  wrinkled = action_units.get(9, 0.0)
  p[_NOSTRIL, 1] -= 0.06 * wrinkled + 0.02 * action_units.get(10, 0.0)
  p[30, 1] -= 0.03 * wrinkled
  p[[31, 35], 0] += np.array((-0.03, 0.03)) * wrinkled
  p[_UPPER_OUTER, 1] -= 0.025 * wrinkled
  _lips(p, action_units)
  _jaw(p, action_units)
  for upper, lower in ((61, 67), (62, 66), (63, 65)):
    p[lower, 1] = max(p[lower, 1], p[upper, 1] + 0.004)
  # Pressed lips stay a line: at 112 pixels these floors are 1.2 and 1.6 pixels.
  for outer, inner in ((50, 61), (51, 62), (52, 63)):
    p[outer, 1] = min(p[outer, 1], p[inner, 1] - 0.032)
  for outer, inner in ((58, 67), (57, 66), (56, 65)):
    p[outer, 1] = max(p[outer, 1], p[inner, 1] + 0.042)
  return p


def camera(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
  """Weak perspective as pixels = points @ matrix + centre: [3, 2] and [2]."""
  yaw, pitch, roll = np.radians((pose.yaw, pose.pitch, pose.roll))
  about_y = np.array(((np.cos(yaw), 0, np.sin(yaw)), (0, 1, 0), (-np.sin(yaw), 0, np.cos(yaw))))
  about_x = np.array(
    ((1, 0, 0), (0, np.cos(pitch), np.sin(pitch)), (0, -np.sin(pitch), np.cos(pitch)))
  )
  about_z = np.array(((np.cos(roll), -np.sin(roll), 0), (np.sin(roll), np.cos(roll), 0)))
  return (about_z @ about_x @ about_y).T * pose.scale, np.array(pose.centre)


def project(points: np.ndarray, pose: Pose) -> np.ndarray:
  """Turns points and projects them without perspective: [N, 3] face units -> [N, 2] pixels.

  A pixel's centre is at half-integers: (0.5, 0.5) is the middle of the first pixel.
  """
  matrix, centre = camera(pose)
  return points @ matrix + centre


@functools.cache
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
  """The matrix of a Catmull-Rom spline through `count` points: [samples, count]."""
  spans = count if closed else count - 1
  matrix = np.zeros((spans * steps + (not closed), count))
  for span in range(spans):
    for step in range(steps + (not closed and span == spans - 1)):
      t = step / steps
      weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (t**3 - t**2) / 2,
      )
      for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = span + offset
        index = index % count if closed else min(max(index, 0), count - 1)
        matrix[span * steps + step, index] += weight
  matrix.flags.writeable = False
  return matrix


def smooth(points: np.ndarray, *, closed: bool = False, steps: int = 4) -> np.ndarray:
  """A curve through the points: [N, D] -> [about N * steps, D]."""
  return _spline(len(points), closed, steps) @ points
