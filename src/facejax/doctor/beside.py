"""Landmarks and class maps beside a medium -> what is wrong with them."""

import re

import numpy as np

from facejax.data import media
from facejax.data.files import Encoded, MediaError, load_array
from facejax.doctor.findings import Note
from facejax.doctor.pixels import Seen
from facejax.types import LANDMARKS, Kind

_SPREAD = 0.05  # of the crop: a face whose points lie closer together is none (our choice)
_SHARES = 1.5  # a coordinate in shares of the crop may be so large: chins leave the crop
_EYES, _RIGHT, _LEFT, _MOUTH = slice(36, 48), slice(36, 42), slice(42, 48), slice(48, 68)  # iBUG
# Words of media.py's refusals. Each has a test that plants the damage.
_POINTS = (
  ("landmarks_shape", "landmarks of shape"),
  ("landmarks_not_finite", "are not finite"),
  ("landmarks_normalised", "already normalised"),
  ("landmarks_outside", "with a quarter to spare"),
)
_MAPS = (
  ("segmentation_shape", "class map of shape"),
  ("segmentation_classes", "class ids -?[0-9]"),
  ("segmentation_mode", "class map of mode"),
)


def check_landmarks(
  file: Encoded, kind: Kind, seen: Seen | None, notes: list[Note], mild: bool
) -> None:
  """Notes what is wrong with a landmark file.

  Args:
    file: its bytes.
    kind: of its medium.
    seen: the decoded medium; None: it does not decode, so frames are not counted.
    notes: are added here.
    mild: landmarks are not read, so nothing here spoils the sample.
  """
  if seen is not None:
    height, width = seen.pixels.shape[1:3]
    if height != width:
      notes.append(
        Note(
          "landmarks_not_square",
          f"{file}: landmarks of a picture of {width}x{height} px - they are pixels of a square "
          f"face crop of {media.CROP} - crop the face, and give its landmarks in that crop",
          file.name,
          mild,
        )
      )
  array = _numbers(file)
  clip = _clip(kind, seen, array)
  try:
    points = media.read_landmarks(file, clip)
  except MediaError as error:
    slug = _named(str(error), file, _POINTS, "landmarks_unreadable")
    if array is not None and array.size and array.dtype.kind in "fiu":
      slug = _sharpened(slug, array, kind)
      if slug in ("landmarks_shape", "landmarks_frames") and not np.isfinite(array).all():
        notes.append(
          Note(
            "landmarks_not_finite",
            f"{file}: {int((~np.isfinite(array)).sum())} coordinates are not finite - expected "
            "pixels - leave the file out where no face was found",
            file.name,
            mild,
          )
        )
    notes.append(Note(slug, str(error), file.name, mild))
    return
  _check_points(file, points.reshape(-1, LANDMARKS, 2), notes, mild)


def _numbers(file: Encoded) -> np.ndarray | None:
  """The array of a .npy file as it is; None if there is none."""
  try:
    return None if file.name.endswith(".json") else load_array(file)
  except MediaError:
    return None


def _clip(kind: Kind, seen: Seen | None, array: np.ndarray | None) -> media.Clip | None:
  """The clip that frames are compared with; of one that does not decode, any number is right."""
  if kind == "image":
    return None
  if seen is not None:
    return seen.clip
  frames = len(array) if array is not None and array.ndim else 0
  return media.Clip(np.zeros((0, 1, 1, 3), np.uint8), np.arange(frames), frames)


def _named(message: str, file: Encoded, table, otherwise: str) -> str:
  words = message.replace(file.name, "", 1)
  return next((slug for slug, pattern in table if re.search(pattern, words)), otherwise)


def _sharpened(slug: str, array: np.ndarray, kind: Kind) -> str:
  if slug == "landmarks_shape" and kind == "video" and array.shape[1:] == (LANDMARKS, 2):
    return "landmarks_frames"
  if slug == "landmarks_normalised" and np.ptp(array) == 0:
    return "landmarks_collapsed"
  return slug


def _check_points(file: Encoded, points: np.ndarray, notes: list[Note], mild: bool) -> None:
  """`points` in [0, 1] of the crop, a row of 68 a frame."""
  if not len(points):
    return
  spread = np.ptp(points, axis=1).max(axis=1)
  highest = float(np.abs(points).max() * media.CROP)
  if highest < _SHARES and spread.min() * media.CROP > _SPREAD:
    notes.append(
      Note(
        "landmarks_normalised",
        f"{file}: landmarks up to {highest:.3g} - expected pixels of a {media.CROP}x{media.CROP} "
        f"crop, these look already normalised - multiply by {media.CROP}",
        file.name,
        mild,
      )
    )
    return
  if (few := int((spread < _SPREAD).sum())) > 0:
    notes.append(
      Note(
        "landmarks_collapsed",
        f"{file}: in {few} of {len(points)} frames all points lie within {spread.min():.1%} of the "
        f"crop - expected a face, {_SPREAD:.0%} at least - leave frames without a face out",
        file.name,
        mild,
      )
    )
    return
  middle = points.mean(axis=0)
  across, down = middle[_MOUTH].mean(axis=0) - middle[_EYES].mean(axis=0)
  if abs(across) > 2 * down:  # below zero, too: upside down
    notes.append(
      Note(
        "landmarks_turned",
        f"{file}: the mouth lies {down * media.CROP:.0f} px below and {across * media.CROP:.0f} px "
        "beside the eyes - expected (x, y) of an upright face - swap the axes or turn the crop",
        file.name,
      )
    )
  elif middle[_RIGHT, 0].mean() > middle[_LEFT, 0].mean():
    notes.append(
      Note(
        "landmarks_mirrored",
        f"{file}: points 36..41 lie right of points 42..47 - expected iBUG order, the person's "
        "right eye first - put the points in that order after mirroring a picture",
        file.name,
      )
    )


def check_segmentation(
  file: Encoded, kind: Kind, seen: Seen | None, classes: int, notes: list[Note], mild: bool
) -> None:
  """Notes what is wrong with a class map; arguments as in `check_landmarks`.

  Args:
    classes: that the model has.
  """
  array = _numbers(file) if file.name.lower().endswith(".npy") else None
  try:
    ids = media.read_segmentation(file, _clip(kind, seen, array), classes=256)
  except MediaError as error:
    slug = _named(str(error), file, _MAPS, "segmentation_unreadable")
    if slug == "segmentation_shape" and kind == "video" and array is not None:
      slug = "segmentation_frames" if array.ndim == 3 and array.dtype.kind in "iu" else slug
    notes.append(Note(slug, str(error), file.name, mild))
    return
  highest = int(ids.max(initial=0))
  if highest >= classes:
    notes.append(
      Note(
        "segmentation_classes",
        f"{file}: class ids up to {highest} - expected 0..{classes - 1} - map other label sets to "
        "these classes first",
        file.name,
        mild,
      )
    )
  if ids.size and highest == int(ids.min()):
    notes.append(
      Note(
        "segmentation_blank",
        f"{file}: class {highest} everywhere - expected a face - make it again",
        file.name,
      )
    )
  if seen is not None:
    _check_proportions(file, ids, seen, notes, mild)


def _check_proportions(
  file: Encoded, ids: np.ndarray, seen: Seen, notes: list[Note], mild: bool
) -> None:
  """As rows.py does before it scales a map: a pixel of rounding is no other shape."""
  (y, x), (height, width) = ids.shape[-2:], seen.pixels.shape[1:3]
  if abs(y * width - x * height) > max(width, height):
    notes.append(
      Note(
        "segmentation_size",
        f"{file}: a map of {x}x{y} for a picture of {width}x{height} - expected the same "
        "proportions - make maps from the pictures as they are",
        file.name,
        mild,
      )
    )
