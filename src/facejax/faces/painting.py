"""Draws the head: neck, ears, skin, eyes, brows, nose and mouth, in one flat colour each.

Light and relief come later, in faces/shading.py. All curves go through the points of
faces/geometry.py, so the pixels, the class map and the landmarks always agree.
"""

import numpy as np

from facejax.faces import geometry
from facejax.faces.canvas import Canvas, blend, scaled
from facejax.faces.geometry import SKULL, smooth
from facejax.faces.scene import Colour, Scene


def points_of(*points: tuple[float, float, float]) -> np.ndarray:
  """A short way to write a few points: [N, 3]."""
  return np.array(points, float)


def mirrored(points: np.ndarray) -> np.ndarray:
  """The same curve on the other side of the face: [N, 3] -> [N, 3]."""
  return points * (-1, 1, 1)


def outline(p: np.ndarray) -> np.ndarray:
  """The closed outline of the bare head, from the jaw over the crown: [N, 3]."""
  return smooth(np.concatenate((p[0:17], p[SKULL][::-1])), closed=True, steps=3)


def skin_colour(scene: Scene) -> Colour:
  """The skin at the scene's age: it pales and yellows slowly, our choice."""
  old = geometry.ageing(scene.age + scene.identity.looks_older[2])
  child = geometry.childhood(scene.age)
  r, g, b = scene.identity.skin
  grey = (r + g + b) / 3
  faded = blend((r, g, b), (grey * 1.06, grey, grey * 0.86), 0.22 * old)
  return blend(faded, (r * 1.03, g * 0.99, b * 0.99), child)


def lip_colour(scene: Scene) -> Colour:
  """Natural or painted lips."""
  if scene.attributes["Wearing_Lipstick"]:
    return scene.style.lipstick
  r, g, b = skin_colour(scene)
  old = geometry.ageing(scene.age)
  return blend((r * 0.86 + 14, g * 0.58, b * 0.60), (r * 0.9, g * 0.78, b * 0.76), 0.7 * old)


def draw_body(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Neck, clothes, ears, and what hangs on them."""
  skin, style = skin_colour(scene), scene.style
  chin, wide = p[8, 1], 0.62 - 0.14 * geometry.childhood(scene.age)
  neck = points_of((-wide, 0.6, -0.35), (wide, 0.6, -0.35), (wide + 0.05, chin + 0.9, -0.3))
  neck = np.concatenate((neck, points_of((-wide - 0.05, chin + 0.9, -0.3))))
  canvas.fill(neck, scaled(skin, 0.74), "neck")
  top = chin + 0.28
  cloth = points_of(
    (-2.4, top + 0.5, -0.3),
    (-1.3, top + 0.16, -0.3),
    (-wide - 0.04, top, -0.3),
    (0.0, top + 0.32, -0.2),
    (wide + 0.04, top, -0.3),
    (1.3, top + 0.16, -0.3),
    (2.4, top + 0.5, -0.3),
    (2.4, 3.2, -0.3),
    (-2.4, 3.2, -0.3),
  )
  canvas.fill(cloth, style.cloth_colour, "cloth")
  canvas.line(cloth[1:6], scaled(style.cloth_colour, 0.7), 0.05)
  if style.necklace:
    chain = points_of((-wide, top - 0.05, -0.28), (0, top + 0.2, -0.15), (wide, top - 0.05, -0.28))
    canvas.line(smooth(chain), (226, 196, 90), 0.05, "neck_l")
  _draw_ears(canvas, scene, p, skin)


def _draw_ears(canvas: Canvas, scene: Scene, p: np.ndarray, skin: Colour) -> None:
  tall = 1 + 0.18 * geometry.ageing(scene.age) - 0.08 * geometry.childhood(scene.age)
  for side, name, jaw in ((-1, "r_ear", p[0]), (1, "l_ear", p[16])):
    ear = points_of(
      (-0.03, -0.16, 0), (0.10, -0.24, -0.05), (0.17, -0.12, -0.08), (0.13, 0.10, -0.06),
      (0.06, 0.25, -0.03), (-0.05, 0.24, 0),
    )  # fmt: skip
    ear = ear * (side, tall, 1) + jaw + np.array((0, 0.18, 0))
    canvas.fill(smooth(ear, closed=True), scaled(skin, 0.93), name)
    inner = ear[[1, 2, 3, 4]] * (1, 1, 1) - np.array((0.04 * side, 0, 0))
    canvas.line(smooth(inner), scaled(skin, 0.72), 0.03)
    if scene.style.earrings:
      canvas.disc(ear[4] + np.array((0, 0.05, 0.05)), 0.055, (232, 206, 110), "ear_r")


def draw_skin(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """The head's skin and the nose's part of the map."""
  canvas.fill(outline(p), skin_colour(scene), "skin")
  half = 0.6 * (p[35, 0] - p[31, 0]) / 2
  ring = np.concatenate(
    (
      p[[27]] + points_of((-0.07, 0, 0)),
      p[[29]] + points_of((-half, 0, -0.1)),
      p[31:32] + points_of((-0.05, -0.07, 0)),
      p[31:36],
      p[35:36] + points_of((0.05, -0.07, 0)),
      p[[29]] + points_of((half, 0, -0.1)),
      p[[27]] + points_of((0.07, 0, 0)),
    )
  )
  canvas.fill(ring, None, "nose")


def draw_nose(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Nostrils, wings and the shadow under the tip."""
  skin = skin_colour(scene)
  under = np.concatenate((p[31:36], p[33:34] + points_of((0, -0.07, 0.1))))
  canvas.fill(smooth(under, closed=True), scaled(skin, 0.83))
  for wing, near, side in ((31, 32, -1), (35, 34, 1)):
    canvas.disc((p[wing] + p[near]) / 2 + np.array((0, -0.015, 0)), 0.038, scaled(skin, 0.32))
    curve = p[wing] + points_of(
      (0.0, -0.15, 0.02), (0.055 * side, -0.08, 0), (0.05 * side, 0.0, 0), (-0.02 * side, 0.02, 0)
    )
    canvas.line(smooth(curve), scaled(skin, 0.68), 0.03)


def draw_brows(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Eyebrows: a band around the five points, thinning outwards, graying with age."""
  thick = 0.062 * scene.identity.brow_thickness * (1 - 0.25 * geometry.childhood(scene.age))
  hair = blend(scene.style.facial_hair_colour, skin_colour(scene), 0.18)
  profile = thick * np.array((0.35, 0.8, 1.0, 1.1, 1.0))
  for start, name, widths in ((17, "r_brow", profile), (22, "l_brow", profile[::-1])):
    line = p[start : start + 5]
    offset = np.stack((np.zeros(5), widths, np.zeros(5)), 1)
    band = np.concatenate((smooth(line - offset), smooth(line + offset)[::-1]))
    canvas.fill(band, hair, name)


def draw_eyes(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Eyeballs and lids. The iris is drawn whole, and lids of skin then cover what sticks out."""
  skin = skin_colour(scene)
  old = geometry.ageing(scene.age)
  white = blend((246, 244, 242), (226, 212, 196), 0.8 * old)
  for start, iris, name in ((36, geometry.RIGHT_IRIS, "r_eye"), (42, geometry.LEFT_IRIS, "l_eye")):
    ring = p[start : start + 6]
    upper = smooth(ring[0:4])
    lower = smooth(ring[[3, 4, 5, 0]])
    canvas.fill(np.concatenate((upper, lower)), white, name)
    wide = abs(ring[3, 0] - ring[0, 0])
    centre = p[iris] + np.array((0.05, 0.02, 0)) * (*scene.style.gaze, 0)
    radius = 0.245 * wide
    canvas.disc(centre, radius, scaled(scene.identity.iris, 0.55))
    canvas.disc(centre, radius * 0.82, scene.identity.iris)
    canvas.disc(centre, radius * 0.42, (10, 9, 9))
    canvas.disc(centre + radius * np.array((-0.35, -0.4, 0)), radius * 0.24, (250, 250, 252))
    lid = blend(scaled(skin, 0.9), (70, 50, 130), scene.style.eye_shadow)
    above = upper - np.array((0, 0.13, 0)) * np.sin(np.linspace(0, np.pi, len(upper)))[:, None]
    canvas.fill(np.concatenate((upper, above[::-1])), lid)
    below = lower + np.array((0, 0.10, 0)) * np.sin(np.linspace(0, np.pi, len(lower)))[:, None]
    canvas.fill(np.concatenate((lower, below[::-1])), skin)
    canvas.line(lower, scaled(skin, 0.66), 0.02)
    canvas.line(above[2:-2], scaled(skin, 0.68), 0.022)
    canvas.line(upper, (28, 20, 18), 0.035 if scene.style.eye_shadow == 0 else 0.055)


def draw_mouth(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Lips, and teeth and tongue behind them where they part."""
  lip = lip_colour(scene)
  upper_edge, lower_edge = smooth(p[48:55]), smooth(p[[54, 55, 56, 57, 58, 59, 48]])
  inner_upper, inner_lower = smooth(p[60:65]), smooth(p[[64, 65, 66, 67, 60]])
  gap = p[66, 1] - p[62, 1]
  if gap > 0.02:
    canvas.fill(np.concatenate((inner_upper, inner_lower)), (70, 16, 22), "mouth")
    if gap > 0.16:
      tongue = p[66] + points_of((-0.16, 0, 0), (0, -0.3 * gap, 0), (0.16, 0, 0), (0, -0.01, 0))
      canvas.fill(smooth(tongue, closed=True), (176, 78, 84))
    drop = min(0.75 * gap, 0.11)
    inset = inner_upper * (0.9, 1, 1) + p[62] * (0.1, 0, 0)
    teeth = np.concatenate((inset, inset[::-1] + np.array((0, drop, 0)) * _bow(len(inset))))
    yellow = geometry.ageing(scene.age)
    canvas.fill(teeth, blend((246, 244, 238), (222, 206, 168), yellow))
  # Lips last: a polygon covers its border pixels, and thin lips must not lose theirs.
  canvas.fill(np.concatenate((upper_edge, inner_upper[::-1])), scaled(lip, 0.90), "u_lip")
  canvas.fill(np.concatenate((lower_edge, inner_lower[::-1])), lip, "l_lip")
  corner = blend(lip, (60, 24, 22), 0.55)
  canvas.line(np.concatenate((inner_upper, p[64:65])), corner, 0.028)
  canvas.line(smooth(p[56:59]) + np.array((0, 0.03, 0)), scaled(skin_colour(scene), 0.78), 0.03)


def _bow(count: int) -> np.ndarray:
  return np.sqrt(np.sin(np.linspace(0.02, np.pi - 0.02, count)))[:, None]
