"""Draws hair: behind the head, on it, over the forehead, and on the chin and upper lip."""

import numpy as np

from facejax.faces.canvas import Canvas, blend, scaled
from facejax.faces.geometry import SKULL, smooth
from facejax.faces.painting import points_of
from facejax.faces.scene import Colour, Scene

# How far each style stands off the skull, as a factor about the head's middle.
_VOLUME = {"short": 1.09, "curly": 1.20, "long": 1.12}


def _texture(scene: Scene) -> np.random.Generator:
  return np.random.default_rng([4, scene.identity.texture])


def _strands(
  canvas: Canvas, ends: tuple[np.ndarray, np.ndarray], shares: np.ndarray, colours: list[Colour]
) -> None:
  """Lines from roots [N, 3] to tips [N, 3], each over its own part (from, to) [N, 2] in 0..1."""
  root, tip = ends
  along = shares[:, :, None] * (tip - root)[:, None] + root[:, None]
  canvas.strands(along, colours, 0.028)


def _crown(p: np.ndarray, scene: Scene) -> np.ndarray:
  """The hair's outer edge from the right temple to the left: [N, 3]."""
  middle = np.array((0.0, -0.3, -0.15))
  temple = points_of((0, 0.42, 0)) * (1, 1, 1)
  skull = np.concatenate((p[SKULL][:1] + temple, p[SKULL], p[SKULL][-1:] + temple))
  edge = middle + (smooth(skull, steps=5) - middle) * _VOLUME[scene.style.hair]
  if scene.style.hair == "curly":
    wave = 1 + 0.045 * np.sin(np.linspace(0, 17 * np.pi, len(edge)))
    edge = middle + (edge - middle) * wave[:, None]
  return edge


def draw_back_hair(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """What hangs behind the head: long hair only."""
  if scene.style.hair != "long":
    return
  hair = scaled(scene.style.hair_colour, 0.72)
  low = p[8, 1] + 0.35
  side = points_of((-1.10, -0.5, -0.4), (-1.22, 0.3, -0.4), (-1.26, 1.0, -0.4), (-1.16, low, -0.4))
  curve = smooth(side)
  ring = np.concatenate((curve, (curve * (-1, 1, 1))[::-1]))
  canvas.fill(ring, hair, "hair")


def draw_front_hair(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """The cap of hair with its strands, side locks of long hair, and bangs."""
  if scene.style.hair == "bald":
    return
  rng = _texture(scene)
  colour = scene.style.hair_colour
  edge = _crown(p, scene)
  top = p[72, 1]
  parting = rng.uniform(-0.3, 0.3)
  low = p[0, 1] + (0.28 if scene.style.hair == "short" else 0.45)
  line = points_of(
    (-0.99, low, -0.25), (-0.93, -0.28, -0.2), (-0.80, top * 0.60, -0.1),
    (-0.42, top * 0.71, 0.05), (parting, top * 0.77, 0.05), (0.42, top * 0.71, 0.05),
    (0.80, top * 0.60, -0.1), (0.93, -0.28, -0.2), (0.99, low, -0.25),
  )  # fmt: skip
  hairline = smooth(line, steps=5)
  canvas.fill(np.concatenate((edge, hairline[::-1])), colour, "hair")
  inner = hairline[np.linspace(0, len(hairline) - 1, len(edge)).astype(int)]
  place = (rng.uniform(0.04, 0.96, 22) * (len(edge) - 1)).astype(int)
  shares = rng.uniform((0.02, 0.7), (0.3, 0.97), (22, 2))
  shades = [scaled(colour, shade) for shade in rng.uniform(0.72, 1.28, 22).tolist()]
  _strands(canvas, (edge[place], inner[place]), shares, shades)
  if scene.style.hair == "long":
    _side_locks(canvas, scene, p)
  if scene.attributes["Bangs"]:
    _bangs(canvas, scene, p, rng)


def _side_locks(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  colour = scene.style.hair_colour
  low = p[8, 1] + 0.35
  outer = points_of(
    (-1.14, -0.55, -0.2), (-1.21, 0.2, -0.2), (-1.24, 1.0, -0.2), (-1.14, low, -0.2)
  )
  inner = points_of((-0.80, low, -0.2), (-0.96, 1.0, -0.2), (-0.99, 0.3, -0.2), (-0.94, -0.4, -0.2))
  for side in (-1, 1):
    turn = (-side, 1, 1)
    lock = np.concatenate((smooth(outer), smooth(inner))) * turn
    canvas.fill(lock, scaled(colour, 0.94), "hair")
    for share, shade in ((0.3, 0.75), (0.6, 1.2), (0.85, 0.8)):
      strand = outer * (1 - share) + inner[::-1] * share
      canvas.line(smooth(strand) * turn, scaled(colour, shade), 0.03)


def _bangs(canvas: Canvas, scene: Scene, p: np.ndarray, rng: np.random.Generator) -> None:
  colour = scene.style.hair_colour
  top = p[72, 1]
  level = top + (-0.42 - top) * 0.84
  x = np.linspace(-0.90, 0.90, 15)
  jag = np.where(np.arange(15) % 2 == 0, 0.07, -0.07) + rng.uniform(-0.03, 0.03, 15)
  fringe = np.stack((x, level + jag - 0.1 * x**2, np.full(15, 0.12)), 1)
  back = np.stack((x[::-1] * 0.95, np.full(15, top * 0.93) * (1 - 0.3 * x**2), np.zeros(15)), 1)
  canvas.fill(np.concatenate((fringe, back)), scaled(colour, 0.95), "hair")
  dark, bright = scaled(colour, 0.72), scaled(colour, 1.2)
  shares = np.full((15, 2), (0.0, 0.9))
  _strands(canvas, (back[::-1], fringe), shares, [bright, dark] * 7 + [bright])


def draw_facial_hair(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """Beard along the jaw and chin, moustache between nose and upper lip.

  Both count as skin in the map, as in CelebAMask-HQ.
  """
  rng = _texture(scene)
  colour = scene.style.facial_hair_colour
  if scene.attributes["Beard"]:
    goatee = rng.random() < 0.35
    jaw = p[5:12] if goatee else p[1:16]
    below = p[57, 1] + 0.09
    inner = points_of(
      (-0.82, 0.55, 0.0), (-0.62, 0.84, 0.1), (-0.47, p[48, 1] + 0.08, 0.15), (-0.28, below, 0.2),
      (0, below + 0.02, 0.25),
    )  # fmt: skip
    inner = inner[3:] if goatee else inner
    ring = np.concatenate((smooth(jaw + np.array((0, 0.03, 0))), smooth(_both(inner))[::-1]))
    canvas.fill(ring, colour, "skin")
    _stubble(canvas, rng, jaw, _both(inner), colour)
  if scene.attributes["Mustache"]:
    upper = p[48:55] + np.array((0, 0.01, 0))
    top = points_of((-0.34, 0.0, 0), (-0.19, -0.10, 0), (0, -0.125, 0), (0.19, -0.10, 0))
    top = np.concatenate((top, points_of((0.34, 0, 0)))) + p[51] * (1, 1, 1)
    top[[0, 4], 1] = p[[48, 54], 1] - 0.01
    top[[0, 4], 0] = p[[48, 54], 0] * 1.02
    canvas.fill(np.concatenate((smooth(upper), smooth(top)[::-1])), colour, "skin")
    along = np.linspace(0.12, 0.88, 9)
    ends = smooth(top)[(along * 16).astype(int)], smooth(upper)[(along * 24).astype(int)]
    shades = [scaled(colour, 0.7 if low else 1.3) for low in (rng.random(9) < 0.5).tolist()]
    _strands(canvas, ends, np.full((9, 2), (0.0, 1.0)), shades)


def _both(half: np.ndarray) -> np.ndarray:
  """Adds the mirror image of a curve that ends on the middle line: [N, 3] -> [2N - 1, 3]."""
  return np.concatenate((half, (half * (-1, 1, 1))[-2::-1]))


def _stubble(canvas: Canvas, rng: np.random.Generator, outer, inner, colour) -> None:
  along = rng.uniform(0.03, 0.97, 30)
  roots = outer[(along * (len(outer) - 1)).astype(int)] * (0.98, 1, 1)
  tips = inner[(along * (len(inner) - 1)).astype(int)]
  shades = [scaled(colour, 0.65 if low else 1.35) for low in (rng.random(30) < 0.5).tolist()]
  shares = rng.uniform(0, 0.6, (30, 1)) + np.array((0, 0.35))
  _strands(canvas, (roots, tips), shares, shades)


def draw_lock_of_hair(canvas: Canvas, scene: Scene, p: np.ndarray) -> None:
  """The occluder "strand": a lock that falls over one eye."""
  side = scene.style.occluder_side
  strand = points_of(
    (0.10, p[72, 1] * 0.95, 0.1), (0.42, -0.55, 0.25), (0.62, 0.0, 0.25), (0.78, 0.55, 0.1),
    (0.70, 0.62, 0.1), (0.40, 0.05, 0.25), (0.12, -0.45, 0.25), (-0.15, p[72, 1] * 0.95, 0.1),
  ) * (side, 1, 1)  # fmt: skip
  colour = scene.style.hair_colour
  canvas.fill(np.concatenate((smooth(strand[:4]), smooth(strand[4:]))), colour, "hair")
  for share in (0.25, 0.5, 0.75):
    middle = smooth(strand[:4] * (1 - share) + strand[:3:-1] * share)
    canvas.line(middle, blend(scaled(colour, 0.7), scaled(colour, 1.25), share), 0.025)
