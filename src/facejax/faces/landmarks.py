"""The 68 iBUG points of a face: their nine regions, mirror image, and MediaPipe counterparts.

All points are (x, y) with x to the image's right and y down. The numbering runs from the image's
left, which is the subject's right.
"""

import functools
import importlib.resources
from typing import NamedTuple

import numpy as np

NUM_LANDMARKS = 68


class Region(NamedTuple):
  """A named half-open range of landmark indices."""

  name: str
  start: int
  stop: int

  @property
  def indices(self) -> range:
    """Landmark indices of the region, in order."""
    return range(self.start, self.stop)


# Order and ranges of Face-LLaVA (section 3.2): one landmark token per region.
REGIONS: tuple[Region, ...] = (
  Region("face", 0, 17),
  Region("eyebrow1", 17, 22),
  Region("eyebrow2", 22, 27),
  Region("nose", 27, 31),
  Region("nostril", 31, 36),
  Region("eye1", 36, 42),
  Region("eye2", 42, 48),
  Region("lips", 48, 60),
  Region("teeth", 60, 68),
)

# MIRROR[i] is the point that point i becomes when the image is flipped left to right.
MIRROR: tuple[int, ...] = (
  *range(16, -1, -1),
  *range(26, 16, -1),
  *(27, 28, 29, 30),
  *range(35, 30, -1),
  *(45, 44, 43, 42, 47, 46),
  *(39, 38, 37, 36, 41, 40),
  *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
  *(64, 63, 62, 61, 60, 67, 66, 65),
)

# MEDIAPIPE_468_TO_68[i] is the vertex of MediaPipe's face mesh nearest to iBUG point i: the usual
# correspondence. The 478-point mesh only adds irises at 468..477, so the same table serves both.
# Jaw vertices lie on the mesh's border, which is a little inside the iBUG contour.
MEDIAPIPE_468_TO_68: tuple[int, ...] = (
  *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),
  *(70, 63, 105, 66, 107),
  *(336, 296, 334, 293, 300),
  *(168, 197, 5, 4),
  *(75, 97, 2, 326, 305),
  *(33, 160, 158, 133, 153, 144),
  *(362, 385, 387, 263, 373, 380),
  *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
  *(78, 82, 13, 312, 308, 317, 14, 87),
)


class Shapes(NamedTuple):
  """How the points of drawn faces lie in the crop: (x0, y0, x1, y1, ...) in [0, 1]."""

  mean: np.ndarray  # [136] float32
  covariance: np.ndarray  # [136 136] float32


@functools.cache
def shapes() -> Shapes:
  """Mean and covariance over drawn faces and their mirror images (experiments/face_shapes)."""
  asset = importlib.resources.files("facejax") / "assets" / "face_shapes.npz"
  with asset.open("rb") as file, np.load(file) as arrays:
    return Shapes(arrays["mean"], arrays["covariance"].astype(np.float32))


def mirror(landmarks: np.ndarray, width: float) -> np.ndarray:
  """Flips landmarks left to right, renaming each point to its mirror image.

  Args:
    landmarks: [..., 68, 2] points (x, y).
    width: the image's width in the points' own unit (1.0 for normalised points).

  Returns:
    [..., 68, 2] points of the flipped image, same dtype.

  Raises:
    ValueError: the array does not end in [68, 2].
  """
  _check_68(landmarks)
  flipped = landmarks[..., list(MIRROR), :].copy()
  flipped[..., 0] = width - flipped[..., 0]
  return flipped


def from_mediapipe(mesh: np.ndarray) -> np.ndarray:
  """Picks the 68 points out of a face mesh: [..., 468 or 478, D] -> [..., 68, D]."""
  if mesh.ndim < 2 or mesh.shape[-2] not in (468, 478):
    raise ValueError(
      f"face mesh has shape {mesh.shape} - expected [..., 468, D] or [..., 478, D] - "
      "pass MediaPipe's face landmarks with the vertex axis second to last"
    )
  return mesh[..., list(MEDIAPIPE_468_TO_68), :]


def _check_68(landmarks: np.ndarray) -> None:
  if landmarks.shape[-2:] != (NUM_LANDMARKS, 2):
    raise ValueError(
      f"landmarks have shape {landmarks.shape} - expected [..., 68, 2] - "
      "convert other layouts first, for example with from_mediapipe"
    )
