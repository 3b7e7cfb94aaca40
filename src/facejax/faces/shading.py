"""Light on the head, the background, and the camera: flat colours -> a picture.

The relief is a sum of separable Gaussians, so its slopes are two small matrix products
[Y K] @ [K X] rather than one full-resolution pass per bump.
"""

import functools
import io
import math

import numpy as np
from PIL import Image

from facejax.faces import geometry
from facejax.faces.geometry import Pose, project
from facejax.faces.scene import Light, Scene, Sensor

# Bumps: place (landmark indices averaged, plus an offset), spread x and y, height; face units.
_BUMPS = (
  ((27, 28), (0, 0), 0.10, 0.26, 0.10),  # bridge
  ((30,), (0, -0.02), 0.13, 0.12, 0.16),  # tip of the nose
  ((31,), (0, -0.04), 0.08, 0.08, 0.05),
  ((35,), (0, -0.04), 0.08, 0.08, 0.05),
  ((37, 38, 40, 41), (0, -0.03), 0.24, 0.14, -0.10),  # eye sockets
  ((43, 44, 46, 47), (0, -0.03), 0.24, 0.14, -0.10),
  ((19,), (0, 0.02), 0.32, 0.09, 0.05),  # brow ridge
  ((24,), (0, 0.02), 0.32, 0.09, 0.05),
  ((41, 48), (-0.10, -0.02), 0.30, 0.24, 0.12),  # cheeks
  ((46, 54), (0.10, -0.02), 0.30, 0.24, 0.12),
  ((8, 57), (0, 0.02), 0.20, 0.12, 0.06),  # chin
  ((57,), (0, 0.11), 0.22, 0.05, -0.035),  # under the lip
  ((51,), (0, 0.02), 0.26, 0.05, 0.04),  # lips
  ((57,), (0, -0.04), 0.24, 0.05, 0.05),
  ((19, 24), (0, -0.45), 0.60, 0.30, 0.06),  # forehead
)


_AVERAGE = np.zeros((len(_BUMPS), geometry.NUM_POINTS))
for _row, (_ids, *_) in enumerate(_BUMPS):
  _AVERAGE[_row, list(_ids)] = 1 / len(_ids)
_SHIFT = np.array([(*shift, 0.0) for _, shift, *_ in _BUMPS])
_SPREAD = np.array([(x, y) for _, _, x, y, _ in _BUMPS], np.float32)
_HEIGHT = np.array([height for *_, height in _BUMPS], np.float32)


class Relief:
  """Slopes of one head's surface on the pixel grid: depends on the pose, not on the light."""

  def __init__(self, scene: Scene, points: np.ndarray, pose: Pose, size: int):
    xy = project(_AVERAGE @ points + _SHIFT, pose) / pose.scale
    height = _HEIGHT.copy()
    # Smiles and cheek raisers round the cheeks.
    height[8:10] *= 1 + 0.5 * max(scene.action_units.get(6, 0), scene.action_units.get(12, 0))
    grid = (np.arange(size) + 0.5) / pose.scale
    dx = ((grid - xy[:, :1]) / _SPREAD[:, :1]).astype(np.float32)
    dy = ((grid - xy[:, 1:]) / _SPREAD[:, 1:]).astype(np.float32)
    gx, gy = np.exp(-(dx**2)), np.exp(-(dy**2)) * height[:, None]
    slope_x = gy.T @ (gx * dx * (-2 / _SPREAD[:, :1]))
    slope_y = (gy * dy * (-2 / _SPREAD[:, 1:])).T @ gx
    middle = project(np.array([[0.0, 0.1, -0.1]]), pose)[0] / pose.scale
    # The head itself: a flattened ball, 1.25 wide and 1.6 tall, flat beyond its rim.
    u = np.clip((grid - middle[0]) / 1.25, -0.85, 0.85).astype(np.float32)
    v = np.clip((grid - middle[1]) / 1.6, -0.85, 0.85).astype(np.float32)
    steep = 1 / np.sqrt(np.maximum((1 - u**2)[None] - (v**2)[:, None], 0.12))
    self._normal_x = (0.8 * u)[None] * steep - slope_x
    self._normal_y = (0.62 * v)[:, None] * steep - slope_y
    self._length = np.sqrt(self._normal_x**2 + self._normal_y**2 + 1)

  def shade(self, light: Light, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor [Y X] about 0.4..1.2 and highlight [Y X] 0..0.2 for light from (x, y)."""
    z = math.sqrt(max(1 - x * x - y * y, 0.15))
    facing = (self._normal_x * x + self._normal_y * y + z) / self._length
    facing = np.maximum(facing, 0)
    shine = np.clip(facing - 0.93, 0, 1) * 3
    # Normalised so that a frontal surface keeps its colour for any direction of the light. Head
    # room of 15 %: the lightest skin must not clip, or bright seams would vanish on it.
    level = 0.25 * (1 - z) * light.diffuse + 0.4 * light.ambient + 0.372
    factor = np.float32(0.85) * (level + light.diffuse * facing)
    return factor, shine


def background(scene: Scene, size: int) -> np.ndarray:
  """A gradient with soft blobs and a little cloth-like grain: [3 Y X] float32, about 0..255."""
  rng = np.random.default_rng([6, scene.noise_seed])
  # Partly gray: fully saturated walls are rare.
  first, second = rng.uniform(25, 230, (2, 3)) * 0.6 + rng.uniform(25, 230, (2, 1)) * 0.4
  angle = rng.uniform(0, 2 * np.pi)
  t = np.linspace(-0.5, 0.5, size)
  count = int(rng.integers(2, 7))
  places, spreads = rng.uniform(-0.5, 0.5, (2, count, 1)), rng.uniform(0.05, 0.3, (2, count, 1))
  strength = rng.uniform(-50, 50, (3, count, 1))
  blob_x, blob_y = np.exp(-(((t - places) / spreads) ** 2))
  # Gradient and blobs are sums of products of a row and a column: one matrix product per channel.
  step, flat = (second - first)[:, None, None], np.ones((3, 1, size))
  columns = np.concatenate((flat, step * t * np.sin(angle), strength * blob_y), 1)
  rows = np.concatenate(
    ((first + second)[:, None, None] / 2 + step * t * np.cos(angle), flat, [blob_x] * 3), 1
  )
  image = columns.astype(np.float32).transpose(0, 2, 1) @ rows.astype(np.float32)
  coarse = Image.fromarray(
    rng.standard_normal((14, 14), np.float32) * np.float32(rng.uniform(0, 14))
  )
  image += np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR))
  return image


def skin_grain(scene: Scene, size: int) -> np.ndarray:
  """Unevenness of the skin that grows with age: factors [Y X] about 1, float32."""
  rng = np.random.default_rng([7, scene.noise_seed])
  old = geometry.ageing(scene.age + scene.identity.looks_older[2])
  coarse = rng.standard_normal((size // 2, size // 2), np.float32)
  grain = Image.fromarray(coarse).resize((size, size), Image.Resampling.BILINEAR)
  return 1 + np.float32(0.006 + 0.05 * old) * np.asarray(grain)


@functools.lru_cache(maxsize=4)
def _noise_bank(count: int) -> np.ndarray:
  """Standard normal numbers, [4 * count]: a picture's noise starts at a random place in it."""
  bank = np.random.default_rng([10]).standard_normal(4 * count, np.float32)
  bank.flags.writeable = False
  return bank


def photograph(picture: np.ndarray, sensor: Sensor, seed: int) -> np.ndarray:
  """What a camera makes of a picture [3 Y X] in 0..255: [Y X 3] uint8.

  Blur, contrast, noise and JPEG. The picture is float32 and is overwritten.
  """
  rng = np.random.default_rng([8, seed])
  if sensor.blur > 0.25:
    # A separable [b, 1 - 2b, b] kernel; the border keeps its own value.
    b = np.float32(0.3 * sensor.blur)
    picture[:, 1:-1] += b * (picture[:, :-2] + picture[:, 2:] - 2 * picture[:, 1:-1])
    picture[..., 1:-1] += b * (picture[..., :-2] + picture[..., 2:] - 2 * picture[..., 1:-1])
  # 0.3 ms of normal numbers a face saved: a slice of a fixed bank, at a random start and sign.
  start = int(rng.integers(3 * picture.size))
  noise = _noise_bank(picture.size)[start : start + picture.size].reshape(picture.shape)
  noise = noise * np.float32(sensor.noise if rng.random() < 0.5 else -sensor.noise)
  noise += np.float32(118 * (1 - sensor.gain))
  picture *= np.float32(sensor.gain)
  picture += noise
  pixels = np.clip(picture, 0, 255, out=picture).astype(np.uint8)
  pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))
  if not sensor.jpeg:
    return pixels
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "JPEG", quality=sensor.jpeg)
  return np.array(Image.open(buffer))
