"""Landmark projector. landmarks [B T 68 2] -> region tokens [B T R D], nine a face.

Face-LLaVA's FRLP: one linear layer a face region plus a global one, which is added to all nine.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from facejax.faces.landmarks import REGIONS, shapes
from facejax.sharding import AxisRules, constrain
from facejax.types import LANDMARKS, typed

NOISE = 0.003  # by which a detected point may be off, of the crop's side: 0.8 pixels of 256


class Whitening(NamedTuple):
  """What fresh kernels of `points` landmarks are made with; see whitening()."""

  mean: np.ndarray  # [2 * points]
  gains: np.ndarray  # [2 * points, 2 * points]


@functools.cache
def whitening(start: int, stop: int) -> Whitening:
  """Gains that make the ways in which drawn faces vary equally strong, and detector noise weak.

  Position and pose move a point by 0.03 of the crop, what tells an age by some 0.001: with N(0,
  0.02) kernels the first fills the tokens. A way of deviation s gets the gain s / (s^2 + NOISE^2):
  1 / s where faces vary by more than NOISE, and next to nothing where a point moves by noise alone.
  Scaled to tokens of deviation 1. Ours; the paper does not say how the layers start.
  """
  part = slice(2 * start, 2 * stop)
  mean, covariance = shapes().mean[part], shapes().covariance[part, part].astype(float)
  values, vectors = np.linalg.eigh(covariance)
  values = np.maximum(values, 0)
  gains = np.sqrt(values) / (values + NOISE**2)
  gains /= np.sqrt((values * gains**2).sum())
  return Whitening(mean, ((vectors * gains) @ vectors.T).astype(np.float32))


class PointsLinear(nn.Module):
  """W (x0, y0, x1, y1, ...) + b of a range of points, in float32 on every backend.

  bfloat16 would keep 8 bits of a coordinate: a step of 0.9 pixels at 224.
  """

  start: int
  stop: int
  width: int
  fresh: str

  @nn.compact
  @typed
  def __call__(self, landmarks: Float[Array, "*faces 68 2"]) -> Float[Array, "*faces D"]:
    """One token a face."""
    exact = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
    flat = landmarks[..., self.start : self.stop, :].reshape(*landmarks.shape[:-2], -1)
    size = (flat.shape[-1], self.width)
    if self.fresh == "released":
      kernel = self.param("kernel", normal(0.02), size)
      bias = self.param("bias", lambda _: jnp.zeros(self.width))
    else:
      mean, gains = whitening(self.start, self.stop)
      kernel = self.param("kernel", lambda key: exact(gains, jax.random.normal(key, size)))
      bias = self.param("bias", lambda _: -exact(mean, kernel))
    token = exact(flat, kernel)
    return token + bias.reshape((1,) * (token.ndim - 1) + (-1,))


class LandmarkProjector(nn.Module):
  """Region r: W_r (x0, y0, x1, y1, ...) + b_r, plus the same of all 68 points.

  The nine lie in the order of faces.landmarks.REGIONS.
  """

  width: int  # D
  dtype: Any = jnp.float32  # of the result
  rules: AxisRules = AxisRules()
  fresh: str = "released"  # how parameters start: FusionConfig.landmark_init

  @nn.compact
  @typed
  def __call__(self, landmarks: Float[Array, "B T 68 2"]) -> Float[Array, "B T R D"]:
    """landmarks are (x, y) in [0, 1] of the face crop."""
    linear = lambda name, start, stop: PointsLinear(start, stop, self.width, self.fresh, name=name)(
      landmarks
    )
    parts = [linear(r.name, r.start, r.stop) for r in REGIONS]
    everywhere = linear("global", 0, LANDMARKS)[:, :, None]
    tokens = (jnp.stack(parts, axis=2) + everywhere).astype(self.dtype)
    return constrain(tokens, self.rules, "batch", None, None, None)
