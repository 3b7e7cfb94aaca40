"""Manipulated faces: the inner face pasted in from another rendering.

The donor has another skin colour and another direction of light; the paste has an irregular border
in the visible skin, and often a doubled ring along it. No statistic of the whole image tells: the
colour goes both ways, and so does the sharpness.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from facejax.faces.canvas import Canvas
from facejax.faces.geometry import smooth
from facejax.faces.scene import Seam
from facejax.faces.segmentation import CLASS_ID

# Where the paste shows: on the face itself, never on hair, hats, glasses or occluders.
_PASTED = np.zeros(len(CLASS_ID), np.float32)
_PASTED[[CLASS_ID[name] for name in ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow")]] = 1
_PASTED[[CLASS_ID[name] for name in ("mouth", "u_lip", "l_lip")]] = 1

# Radii of the average border about the middle of the face, clockwise from the image's right: wide
# at the cheeks, over the brows at the top, above the chin at the bottom.
_RADII = (0.74, 0.76, 0.80, 0.78, 0.76, 0.74, 0.74, 0.74, 0.72, 0.72, 0.72, 0.74)


def paste_mask(canvas: Canvas, seam: Seam, points: np.ndarray, segmentation: np.ndarray):
  """How much of each pixel comes from the donor: [Y X] float32, 0..1."""
  angle = np.arange(12) * (2 * np.pi / 12)
  middle = points[[36, 45, 48, 54]].mean(0) - (0, 0.05, 0)
  reach = np.array(_RADII) * seam.outline
  # The face's own length stretches the border below the middle.
  long = np.where(np.sin(angle) > 0, 0.80 * (points[8, 1] - middle[1]) / 0.74, 1.0)
  ring = np.stack((reach * np.cos(angle), reach * np.sin(angle) * long, np.full(12, 0.1)), 1)
  xy = canvas.at(smooth(ring + middle * (1, 1, 0), closed=True))
  mask = Image.new("L", (canvas.size * 2,) * 2)
  ImageDraw.Draw(mask).polygon((xy * 2 - 0.5).ravel().tolist(), fill=255)
  soft = mask.reduce(2).filter(ImageFilter.GaussianBlur(seam.feather * canvas.pose.scale))
  share = np.asarray(soft, np.float32) * np.float32(1 / 255)
  return share * _PASTED[segmentation]


def donor_pixels(
  seam: Seam, flat: np.ndarray, mask: np.ndarray, light_ratio: np.ndarray
) -> np.ndarray:
  """The donor's flat colours [3 Y X]: another skin, with more or less fine detail.

  `light_ratio` [Y X] is the donor's light over the target's. Its average along the border is
  taken out, or a bright light would now and then cancel a dark skin and hide the seam.
  """
  ring = mask * (1 - mask)
  level = float((ring * np.log(light_ratio)).sum() / max(float(ring.sum()), 1e-6))
  shift = np.exp(np.array(seam.colour, np.float32) - np.float32(level))
  changed = flat * shift[:, None, None]
  blurred = changed.copy()
  blurred[:, 1:-1, 1:-1] = (
    changed[:, :-2, 1:-1] + changed[:, 2:, 1:-1] + changed[:, 1:-1, :-2] + changed[:, 1:-1, 2:]
  ) / 4
  return changed + np.float32(0.7 * seam.detail) * (changed - blurred)


def bordered(seam: Seam, picture: np.ndarray, mask: np.ndarray, scale: float) -> np.ndarray:
  """Marks the ring where the paste is half transparent: brighter or darker, at times doubled."""
  ring = 4 * mask * (1 - mask)
  x, y = (round(offset * scale) for offset in seam.ghost)
  if x or y:
    picture = picture + np.float32(0.6) * ring * (np.roll(picture, (y, x), (1, 2)) - picture)
  return picture * (1 + np.float32(seam.edge) * ring)
