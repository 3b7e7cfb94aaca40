"""Draws labelled faces and clips: (seed, split) -> pixels, landmarks, class map, labels.

A deterministic, parametric renderer, used wherever facejax needs faces without a download. One set
of 3D points (faces/geometry.py) is posed and projected once, and the pixels, the 68 landmarks and
the class map all come from it. The same seed gives the same bytes in any process and any order.

    seed -> scene.sample -> Scene -> render -> Face(image, landmarks, segmentation, labels)
"""

from dataclasses import dataclass, replace

import numpy as np

from facejax.faces import accessories, geometry, hair, manipulation, painting, shading, wrinkles
from facejax.faces.canvas import Canvas
from facejax.faces.scene import Labels, Scene, sample

__all__ = ["Clip", "Face", "Labels", "clip", "face", "render"]

MIN_SIZE = 48  # pixels; below it eyes and lips merge
MIN_FRAMES = 2


@dataclass(frozen=True)
class Face:
  """One rendered face.

  `image` is [Y X 3] uint8 RGB, `landmarks` [68 2] float32 pixels (x, y) with the first pixel's
  centre at (0.5, 0.5), `segmentation` [Y X] uint8 class ids of faces/segmentation.py.
  """

  image: np.ndarray
  landmarks: np.ndarray
  segmentation: np.ndarray
  labels: Labels


@dataclass(frozen=True)
class Clip:
  """A short video of one face whose expression grows from neutral to its apex.

  `image` is [T Y X 3] uint8, `landmarks` [T 68 2] float32 pixels, `segmentation` [T Y X] uint8,
  `onset` [T] float32: the share of the apex intensities that each frame shows, rising 0..1.
  `labels` are those of the apex; its angles are the last frame's.
  """

  image: np.ndarray
  landmarks: np.ndarray
  segmentation: np.ndarray
  onset: np.ndarray
  labels: Labels


def face(seed: int, *, size: int = 112, split: str = "train") -> Face:
  """Draws the face of a seed.

  Args:
    seed: sample number, 0 or more.
    size: height and width in pixels, 48 or more.
    split: "train", "validation" or "test"; no identity is in two splits.

  Raises:
    ValueError: unknown split, negative seed, or a size below 48.
  """
  return render(sample(seed, split), size=size)


def clip(seed: int, *, frames: int = 8, size: int = 112, split: str = "train") -> Clip:
  """Draws a video of `frames` frames of the seed's scene: onset to apex, with a little motion.

  The expression rises from 0 in the first frame to the apex at three quarters of the clip and
  holds. The head turns by up to 6 degrees. Arguments and errors are those of `face`; fewer than 2
  frames is a ValueError too.
  """
  if frames < MIN_FRAMES:
    raise ValueError(
      f"clip of {frames} frames - expected {MIN_FRAMES} or more - use face() for a single image"
    )
  scene = sample(seed, split)
  rng = np.random.default_rng([9, scene.noise_seed])
  turn, nod, tilt = rng.uniform(-6, 6), rng.uniform(-3, 3), rng.uniform(-2, 2)
  time = np.linspace(0, 1, frames)
  onset = np.clip(time / 0.75, 0, 1)
  onset = onset * onset * (3 - 2 * onset)
  drawn = []
  for index, (t, share) in enumerate(zip(time.tolist(), onset.tolist(), strict=True)):
    pose = scene.pose._replace(
      yaw=scene.pose.yaw + turn * (t - 0.5),
      pitch=scene.pose.pitch + nod * (t - 0.5),
      roll=scene.pose.roll + tilt * (t - 0.5),
    )
    units = {unit: value * share for unit, value in scene.action_units.items()}
    drawn.append(render(replace(scene, pose=pose, action_units=units), size=size, frame=index))
  labels = replace(drawn[-1].labels, action_units=dict(scene.action_units))
  return Clip(
    image=np.stack([one.image for one in drawn]),
    landmarks=np.stack([one.landmarks for one in drawn]),
    segmentation=np.stack([one.segmentation for one in drawn]),
    onset=onset.astype(np.float32),
    labels=labels,
  )


def located(landmarks: np.ndarray, seed: int, noise: float) -> np.ndarray:
  """Landmarks [T 68 2] as a detector would give them, float32.

  Each coordinate is off by N(0, noise), in the unit of `landmarks`, point by point and frame by
  frame: exact points would tell an age to 1.4 years by shifts that no detector sees (ridge
  regression on 2,400 faces; 3.0 years at 0.25 pixels of 256, 4.4 at 0.5, 6.0 at 1).
  """
  rng = np.random.default_rng((seed, landmarks.size))
  return (landmarks + rng.normal(0, noise, landmarks.shape)).astype(np.float32)


def render(scene: Scene, *, size: int = 112, frame: int = 0) -> Face:
  """Draws a scene. Frames of one scene differ in sensor noise only (`frame` 0, 1, ...).

  Raises:
    ValueError: a size below 48.
  """
  if size < MIN_SIZE:
    raise ValueError(f"size is {size} pixels - expected {MIN_SIZE} or more - render larger, resize")
  points = geometry.express(_neutral(scene), scene.action_units)
  pose = scene.pose._replace(
    scale=scene.pose.scale * size,
    centre=(scene.pose.centre[0] * size, scene.pose.centre[1] * size),
  )
  canvas = Canvas(size, pose)
  _draw(canvas, scene, points)
  segmentation = np.asarray(canvas.map).copy()
  picture = _light(canvas, scene, points, segmentation)
  image = shading.photograph(picture, scene.sensor, scene.noise_seed + frame)
  landmarks = canvas.at(points[:68]).astype(np.float32)
  return Face(image, landmarks, segmentation, scene.labels)


def _neutral(scene: Scene) -> np.ndarray:
  age = min(max(scene.age + scene.identity.looks_older[1], 5.0), 80.0)
  return geometry.head(scene.identity.shape, age)


def _draw(canvas: Canvas, scene: Scene, points: np.ndarray) -> None:
  """Back to front."""
  hair.draw_back_hair(canvas, scene, points)
  painting.draw_body(canvas, scene, points)
  painting.draw_skin(canvas, scene, points)
  wrinkles.draw_spots(canvas, scene)
  wrinkles.draw_wrinkles(canvas, scene, points)
  hair.draw_facial_hair(canvas, scene, points)
  painting.draw_nose(canvas, scene, points)
  painting.draw_mouth(canvas, scene, points)
  painting.draw_eyes(canvas, scene, points)
  hair.draw_front_hair(canvas, scene, points)
  painting.draw_brows(canvas, scene, points)
  accessories.draw_hat(canvas, scene, points)
  accessories.draw_glasses(canvas, scene, points)
  accessories.draw_occluder(canvas, scene, points)


def _light(
  canvas: Canvas, scene: Scene, points: np.ndarray, segmentation: np.ndarray
) -> np.ndarray:
  """Lights the flat colours, pastes the donor's face if there is one, adds the background."""
  flat, cover = canvas.pixels()
  relief = shading.Relief(scene, points, canvas.pose, canvas.size)
  factor, shine = relief.shade(scene.light, scene.light.x, scene.light.y)
  tint = np.array(scene.light.tint, np.float32)[:, None, None]
  flat = flat * shading.skin_grain(scene, canvas.size)
  lit = factor * tint
  lit *= flat
  lit += shine * (np.float32(40) * cover)
  if scene.seam is not None:
    mask = manipulation.paste_mask(canvas, scene.seam, points, segmentation)
    donor_factor, donor_shine = relief.shade(scene.light, *scene.seam.light)
    donor = manipulation.donor_pixels(scene.seam, flat, mask, donor_factor / factor)
    donor *= donor_factor * tint
    donor += donor_shine * np.float32(40)
    lit += mask * (donor - lit)
    lit = manipulation.bordered(scene.seam, lit, mask, canvas.pose.scale)
  behind = shading.background(scene, canvas.size)
  behind *= 1 - cover
  lit += behind
  return lit
