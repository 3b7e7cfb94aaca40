"""Position embeddings for another picture size. [1 + n*n E] -> [1 + m*m E].

Bicubic with a = -0.75, corners not aligned, no antialias: what torch's interpolate does, and with
it CLIP's and InternVL's code when a picture has not the size that the encoder was made for.
"""

import math

import numpy as np

_A = -0.75  # torch's; Pillow and an antialiased resize use -0.5


def positions(table: np.ndarray, count: int) -> np.ndarray:
  """A table of `count` rows, float32; the first, the class token's, stays as it is.

  Raises ValueError unless both counts are one more than a square.
  """
  old, new = math.isqrt(len(table) - 1), math.isqrt(count - 1)
  if old**2 + 1 != len(table) or new**2 + 1 != count:
    raise ValueError(f"positions: {len(table)} and {count} rows, expected squares and one more")
  weights = _weights(old, new)
  grid = np.asarray(table[1:], np.float32).reshape(old, old, -1)
  rows = np.einsum("yi,ije->yje", weights, grid)
  grid = np.einsum("xj,yje->yxe", weights, rows).reshape(new * new, -1)
  return np.concatenate([np.asarray(table[:1], np.float32), grid]).astype(np.float32)


def _weights(old: int, new: int) -> np.ndarray:
  """[new old]: how much of each old cell a new one takes; at the edge the last cell repeats."""
  weights = np.zeros((new, old))
  for i in range(new):
    at = (i + 0.5) * old / new - 0.5
    first = math.floor(at)
    for j in range(first - 1, first + 3):
      weights[i, min(max(j, 0), old - 1)] += _cubic(abs(at - j))
  return weights


def _cubic(x: float) -> float:
  """Keys' kernel at a distance of x cells."""
  if x <= 1:
    return ((_A + 2) * x - (_A + 3)) * x * x + 1
  if x < 2:
    return ((x - 5) * x + 8) * x * _A - 4 * _A
  return 0.0
