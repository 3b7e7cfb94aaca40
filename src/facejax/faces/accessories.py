"""Draws what is worn or held in front of the face: glasses, hats and occluders.

CelebAMask-HQ has no class for foreign objects: hands and blocks are background in the map.
"""

import numpy as np

from facejax.faces import geometry
from facejax.faces.canvas import Canvas, blend, scaled
from facejax.faces.geometry import SKULL, smooth
from facejax.faces.hair import draw_lock_of_hair
from facejax.faces.painting import points_of, skin_colour
from facejax.faces.scene import Scene

_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def _lens(style: int) -> np.ndarray:
  """The rim of the left lens about the eye's middle: [24, 3] face units."""
  power, wide, tall = ((1.0, 0.30, 0.29), (0.45, 0.34, 0.22), (0.7, 0.35, 0.27))[style]
  x, y = np.cos(_TURN), np.sin(_TURN)
  rim = np.stack((np.sign(x) * np.abs(x) ** power * wide, np.sign(y) * np.abs(y) ** power * tall))
  if style == 2:
    rim[1] *= np.where(rim[1] < 0, 0.75, 1.0)
  return np.concatenate((rim, np.zeros((1, 24)))).T


def draw_glasses(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Rims, bridge and temples. In the map the lenses are glasses, but eyes behind them stay eyes."""
  if not scene.attributes["Eyeglasses"]:
    return
  colour, width = scene.style.frame_colour, (0.045, 0.06, 0.075)[scene.style.glasses]
  rim = _lens(scene.style.glasses)
  middles = p[[geometry.RIGHT_IRIS, geometry.LEFT_IRIS]] + (0, 0.04, 0.22)
  for middle, ear, side in ((middles[0], p[0], -1), (middles[1], p[16], 1)):
    ring = rim * (side, 1, 1) + middle
    closed = np.concatenate((ring, ring[:1]))
    eye = p[36:42] if side < 0 else p[42:48]
    canvas.fill(ring, None, "eye_g")
    canvas.fill(
      np.concatenate((smooth(eye[0:4]), smooth(eye[[3, 4, 5, 0]]))),
      None,
      "r_eye" if side < 0 else "l_eye",
    )
    canvas.line(closed, colour, width, "eye_g")
    glint = middle + points_of((-0.16, -0.05, 0), (-0.06, -0.17, 0))
    canvas.line(glint, (248, 250, 255), 0.035)
    hinge = ring[0] * (1, 1, 1) - (0, 0.06, 0)
    canvas.line(np.stack((hinge, ear - (0, 0.02, 0))), colour, width * 0.8, "eye_g")
  left, right = middles[0] + (rim[0, 0] * 0.95, -0.06, 0), middles[1] - (rim[0, 0] * 0.95, 0.06, 0)
  arch = np.stack((left, (left + right) / 2 - (0, 0.04, 0), right))
  canvas.line(smooth(arch), colour, width, "eye_g")


def draw_hat(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """A cap with a peak, a beanie with a cuff, or a hat with a brim."""
  if not scene.attributes["Wearing_Hat"]:
    return
  colour, kind = scene.style.hat_colour, scene.style.hat
  low = p[72, 1] * 0.62
  middle = np.array((0.0, low, -0.15))
  skull = p[SKULL]
  dome = skull[skull[:, 1] < low + 0.25]
  dome = middle + (dome - middle) * (1.20, 1.22 if kind else 1.16, 1)
  dome = np.concatenate((points_of((-1.12, low, -0.15)), dome, points_of((1.12, low, -0.15))))
  canvas.fill(smooth(dome), colour, "hat")
  dark = scaled(colour, 0.66) if sum(colour) > 150 else blend(colour, (255, 255, 255), 0.25)
  if kind == 0:
    peak = points_of(
      (-0.85, low - 0.04, 0.2), (-0.45, low + 0.02, 0.55), (0, low + 0.05, 0.65),
      (0.45, low + 0.02, 0.55), (0.85, low - 0.04, 0.2), (0.55, low - 0.16, 0.25),
      (0, low - 0.20, 0.3), (-0.55, low - 0.16, 0.25),
    )  # fmt: skip
    canvas.fill(smooth(peak, closed=True), dark, "hat")
    canvas.line(points_of((0, low - 0.2, 0.2), (0, p[72, 1] * 1.12, -0.1)), dark, 0.03)
  elif kind == 1:
    cuff = points_of(
      (-1.14, low + 0.03, -0.1), (-0.55, low - 0.02, 0.2), (0, low - 0.03, 0.25),
      (0.55, low - 0.02, 0.2), (1.14, low + 0.03, -0.1),
    )  # fmt: skip
    band = np.concatenate((smooth(cuff), smooth(cuff - (0, 0.24, 0))[::-1]))
    canvas.fill(band, dark, "hat")
    for x in np.linspace(-0.95, 0.95, 11):
      canvas.line(points_of((x, low - 0.22, 0.1), (x, low - 0.03, 0.1)), colour, 0.025)
  else:
    brim = np.stack(
      (1.62 * np.cos(_TURN), low - 0.03 + 0.11 * np.sin(_TURN), 0.3 * np.sin(_TURN)), 1
    )
    canvas.fill(brim, scaled(colour, 0.88), "hat")
    canvas.line(points_of((-1.02, low - 0.14, 0.1), (0, low - 0.12, 0.2), (1.02, low - 0.14, 0.1)),
                dark, 0.10)  # fmt: skip


def draw_occluder(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """A hand, a block, a scarf or a lock of hair.

  Each leaves one eye, one brow and half of the mouth at least, so symmetric labels stay visible.
  """
  kind = scene.style.occluder
  if kind == "hand":
    _hand(canvas, scene)
  elif kind == "block":
    _block(canvas, scene)
  elif kind == "scarf":
    _scarf(canvas, scene, p)
  elif kind == "strand":
    draw_lock_of_hair(canvas, scene, p)


def _hand(canvas: Canvas, scene: Scene) -> None:
  side, skin = scene.style.occluder_side, scaled(skin_colour(scene), 0.97)
  palm = points_of(
    (0.75, 1.9, 0.4), (0.50, 1.30, 0.5), (0.55, 0.98, 0.5), (1.02, 0.92, 0.4), (1.18, 1.2, 0.3),
    (1.25, 1.9, 0.3),
  ) * (side, 1, 1)  # fmt: skip
  edge = scaled(skin, 0.62)
  for x, tip in ((0.56, 0.62), (0.70, 0.42), (0.85, 0.38), (0.99, 0.52)):
    finger = points_of((x, 1.1, 0.5), (x + 0.02, tip, 0.5)) * (side, 1, 1)
    for width, colour in ((0.17, edge), (0.135, skin)):
      canvas.line(finger, colour, width, "background")
      canvas.disc(finger[1], width / 2, colour, "background")
  canvas.fill(smooth(palm, closed=True), skin, "background")


def _block(canvas: Canvas, scene: Scene) -> None:
  rng = np.random.default_rng([5, scene.noise_seed])
  side, colour = scene.style.occluder_side, scene.style.occluder_colour
  middle = np.array((rng.uniform(0.55, 0.85) * side, rng.choice((-0.1, 0.6, 0.95)), 0.4))
  wide, tall, turn = rng.uniform(0.22, 0.34), rng.uniform(0.3, 0.45), rng.uniform(-0.4, 0.4)
  corners = np.array(((-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)))
  spin = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
  box = np.concatenate((corners @ spin.T, np.zeros((4, 1))), 1)
  canvas.fill(box + middle, colour, "background")
  canvas.fill(box * (0.6, 0.25, 1) + middle, blend(colour, (255, 255, 255), 0.5))


def _scarf(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  colour = scene.style.occluder_colour
  top = p[57, 1] + 0.16
  edge = points_of(
    (-1.3, top + 0.05, 0), (-0.8, top + 0.02, 0.2), (0, top + 0.08, 0.3), (0.8, top + 0.02, 0.2),
    (1.3, top + 0.05, 0),
  )  # fmt: skip
  low = points_of((1.4, 2.6, 0), (-1.4, 2.6, 0))
  canvas.fill(np.concatenate((smooth(edge), low)), colour, "cloth")
  for drop in (0.14, 0.3):
    fold = smooth(edge * (0.95, 1, 1) + (0, drop, 0))
    canvas.line(fold, scaled(colour, 0.75), 0.045)
