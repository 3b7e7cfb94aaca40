"""Lines and spots of the skin: those of age, and those that action units fold into it.

A line's strength in 0..1 is the darkest of its causes; lines weaker than 0.04 are not drawn.
"""

import numpy as np

from facejax.faces import geometry
from facejax.faces.canvas import Canvas, blend, scaled
from facejax.faces.geometry import smooth
from facejax.faces.painting import mirrored, points_of, skin_colour
from facejax.faces.scene import Scene


class _Pen:
  """Draws folds on both sides of the face with the skin's own shadow colour."""

  def __init__(self, canvas: Canvas, scene: Scene):
    self._canvas = canvas
    self._skin = skin_colour(scene)
    self._dark = scaled(self._skin, 0.50)

  def fold(self, points: np.ndarray, strength: float, width: float = 0.03) -> None:
    """One curve [N, 3]; strength 0..1."""
    if strength > 0.04:
      self._canvas.line(smooth(points), blend(self._skin, self._dark, min(strength, 1)), width)


def draw_wrinkles(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Forehead, frown, nose, eye, cheek and mouth lines, at the landmarks' own places."""
  pen = _Pen(canvas, scene)
  old = geometry.ageing(scene.age + scene.identity.looks_older[0])
  au = scene.action_units
  _forehead(pen, p, old, au)
  _eyes(pen, p, old, au)
  _cheeks(pen, p, old, au)


def _forehead(pen: _Pen, p: np.ndarray, old: float, au) -> None:
  raised = max(au.get(1, 0.0), au.get(2, 0.0))
  top = p[72, 1]
  for line, (level, first) in enumerate(((0.80, 0.0), (0.62, 0.25), (0.44, 0.1))):
    # Lines come one after another with age: at 20, 35 and 26 years.
    strength = max((old - first) / (1 - first), 0.0) * 0.85
    strength = max(strength, 0.45 * raised if line < 2 else 0.0)
    y = top + (p[19, 1] - top) * level
    wide = 0.52 + 0.05 * line
    row = points_of(
      (-wide, y + 0.03, 0.05), (-wide / 2, y, 0.2), (0, y + 0.02, 0.25), (wide / 2, y, 0.2),
      (wide, y + 0.03, 0.05),
    )  # fmt: skip
    pen.fold(row, strength)
  frown = max(0.95 * au.get(4, 0.0) * (1 - 0.4 * au.get(1, 0.0)), 0.5 * max(old - 0.35, 0))
  for brow, side in ((21, 1), (22, -1)):
    line = p[brow] + points_of((0.09, -0.10, 0), (0.10, 0.02, 0), (0.075, 0.13, 0)) * (side, 1, 1)
    pen.fold(line, frown, 0.035)
  nose = au.get(9, 0.0)
  for level in (0.25, 0.5, 0.75):
    middle = p[27] + (p[28] - p[27]) * (level * 1.6)
    across = middle + points_of((-0.12, -0.035, -0.08), (0, 0.01, 0), (0.12, -0.035, -0.08))
    pen.fold(across, nose, 0.032)


def _eyes(pen: _Pen, p: np.ndarray, old: float, au) -> None:
  cheek, tight = au.get(6, 0.0), au.get(7, 0.0)
  for corner, side in ((36, -1), (45, 1)):
    for rise, first in ((0.02, 0.0), (-0.09, 0.2), (0.12, 0.35)):
      strength = max(0.9 * max(old - first, 0) / (1 - first), 0.6 * cheek)
      feet = p[corner] + points_of(
        (0.07, rise * 0.4, -0.04), (0.15, rise, -0.08), (0.205, rise * 1.7, -0.12)
      ) * (side, 1, 1)
      pen.fold(feet, strength, 0.026)
  for outer, low1, low2, inner in ((36, 41, 40, 39), (45, 46, 47, 42)):
    drop = np.array((0, 0.085 + 0.05 * old, -0.02))
    bag = np.stack((p[outer] + drop * 0.9, p[low1] + drop, p[low2] + drop, p[inner] + drop * 0.9))
    pen.fold(bag, max(0.8 * old, 0.55 * cheek, 0.45 * tight), 0.03)


def _cheeks(pen: _Pen, p: np.ndarray, old: float, au) -> None:
  folded = max(0.55 * au.get(12, 0.0), 0.6 * au.get(10, 0.0), 0.6 * au.get(9, 0.0))
  smile = au.get(12, 0.0)
  for wing, corner, side in ((31, 48, -1), (35, 54, 1)):
    start = p[wing] + np.array((0.07 * side, -0.05, 0))
    end = p[corner] + np.array((0.13 * side, -0.02 + 0.06 * old, -0.06))
    middle = (start + end) / 2 + np.array(((0.035 + 0.05 * smile) * side, -0.03, 0))
    pen.fold(np.stack((start, middle, end)), 0.9 * max(0.1 + 0.9 * old, folded) - 0.09, 0.036)
    line = p[corner] + points_of((0.05, 0.06, 0), (0.075, 0.17, -0.02), (0.06, 0.27, -0.04)) * (
      side, 1, 1,
    )  # fmt: skip
    pen.fold(line, max(old - 0.3, 0) * 1.1, 0.032)
  chin = au.get(17, 0.0)
  below = (p[57] + p[8]) / 2
  arc = below + points_of((-0.17, 0.05, -0.05), (0, -0.04, 0.05), (0.17, 0.05, -0.05))
  pen.fold(arc, 0.85 * chin, 0.04)
  for level in (0.16, 0.28):
    pen.fold(
      p[8] + points_of((-0.45, level - 0.08, -0.3), (0, level, -0.2), (0.45, level - 0.08, -0.3)),
      max(old - 0.25, 0),
      0.03,
    )
  for x in (-0.16, -0.05, 0.07, 0.17):
    above = np.array((x, p[50, 1] - 0.03, p[50, 2]))
    pen.fold(np.stack((above - (0, 0.06, 0), above)), max(old - 0.55, 0), 0.022)


def draw_spots(canvas: Canvas, scene: Scene) -> None:
  """Age spots: their number grows from 0 at 35 years to 26 at 80; freckles for some children."""
  rng = np.random.default_rng([3, scene.identity.texture])
  old = geometry.ageing(scene.age + scene.identity.looks_older[2])
  skin = skin_colour(scene)
  places = rng.uniform((-0.85, -0.95), (0.85, 1.1), (26, 2))
  sizes = rng.uniform(0.014, 0.034, 26)
  for (x, y), size in zip(places[: round(26 * max(old - 0.25, 0) / 0.75)], sizes, strict=False):
    if abs(x) < 0.85 - 0.35 * max(y, 0) and not (abs(y) < 0.15 and abs(x) < 0.65):
      canvas.disc(np.array((x, y, 0.1)), float(size), blend(skin, scaled(skin, 0.55), 0.75))
  if rng.random() < 0.3 and scene.age < 30:
    for x, y in rng.uniform((0.16, 0.2), (0.62, 0.5), (9, 2)):
      for spot in (points_of((x, y, 0.15)), mirrored(points_of((x + 0.03, y - 0.02, 0.15)))):
        canvas.disc(spot[0], 0.012, scaled(skin, 0.72))
