"""The 19 classes of CelebAMask-HQ face parsing, and colours to draw them with.

Left and right are the subject's: `l_eye` is the subject's left eye, on the image's right.
"""

import numpy as np

# Index = class id. `eye_g` is eyeglasses, `ear_r` an earring, `neck_l` a necklace.
CLASSES: tuple[str, ...] = (
  "background",
  "skin",
  "nose",
  "eye_g",
  "l_eye",
  "r_eye",
  "l_brow",
  "r_brow",
  "l_ear",
  "r_ear",
  "mouth",
  "u_lip",
  "l_lip",
  "hair",
  "hat",
  "ear_r",
  "neck_l",
  "neck",
  "cloth",
)
NUM_CLASSES = len(CLASSES)
CLASS_ID: dict[str, int] = {name: index for index, name in enumerate(CLASSES)}

# [19, 3] uint8 RGB, pairwise distinct; warm for skin and lips, cool for accessories.
PALETTE: np.ndarray = np.array(
  [
    (24, 24, 28),
    (236, 188, 150),
    (250, 150, 90),
    (60, 220, 235),
    (70, 110, 250),
    (30, 60, 180),
    (130, 90, 40),
    (95, 60, 20),
    (255, 215, 90),
    (215, 170, 50),
    (120, 10, 30),
    (235, 60, 90),
    (190, 30, 110),
    (75, 45, 75),
    (40, 160, 90),
    (230, 240, 60),
    (170, 250, 170),
    (200, 150, 125),
    (110, 120, 140),
  ],
  np.uint8,
)
PALETTE.flags.writeable = False

# MIRROR_CLASS[c] is what class c becomes when the image is flipped left to right.
MIRROR_CLASS: np.ndarray = np.array(
  [0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18], np.uint8
)
MIRROR_CLASS.flags.writeable = False


def colourise(segmentation: np.ndarray) -> np.ndarray:
  """Paints a map of class ids: [..., Y, X] ints in 0..18 -> [..., Y, X, 3] uint8 RGB."""
  _check_ids(segmentation)
  return PALETTE[segmentation]


def mirror(segmentation: np.ndarray) -> np.ndarray:
  """Flips a map left to right and swaps the subject's left and right: [..., Y, X] -> same."""
  _check_ids(segmentation)
  return MIRROR_CLASS[segmentation[..., ::-1]]


def _check_ids(segmentation: np.ndarray) -> None:
  if not np.issubdtype(segmentation.dtype, np.integer):
    raise ValueError(
      f"segmentation map has dtype {segmentation.dtype} - expected integer class ids - "
      "take the argmax of scores first"
    )
  if segmentation.size and not 0 <= segmentation.min() <= segmentation.max() < NUM_CLASSES:
    raise ValueError(
      f"segmentation map holds ids {segmentation.min()}..{segmentation.max()} - expected "
      f"0..{NUM_CLASSES - 1} (CelebAMask-HQ) - map other label sets to these classes first"
    )
