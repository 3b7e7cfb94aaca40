"""Drawn faces with planted correlations: split, number -> label table, fixed features.

The renderer's rules (assets/rules/drawn_faces.toml) hold for each face. Its attributes are nearly
independent, so correlations are planted by choosing among its scenes: a scene is kept with a
probability proportional to exp(sum of SINGLE of its labels + sum of PAIRS of its pairs). What goes
with what is arbitrary on purpose: nothing here is about people.
"""

import functools
import itertools

import numpy as np
import scipy.linalg

from facejax.faces import synthetic
from facejax.faces.action_units import present
from facejax.faces.scene import Scene, sample
from facejax.faces.segmentation import NUM_CLASSES
from facejax.knowledge.labels import LabelSet

# Log-odds. Singles make some labels rare, pairs pull labels together or apart.
SINGLE = {"Wearing_Hat": -1.6, "Mustache": -1.8, "Bangs": -1.2, "Bald": -0.8, "Eyeglasses": -1.0}
PAIRS = {
  ("Wearing_Hat", "Mustache"): 2.2,
  ("Bangs", "Wearing_Lipstick"): 2.0,
  ("Eyeglasses", "Gray_Hair"): 1.6,
  ("Eyeglasses", "Wearing_Lipstick"): -1.5,
  ("Long_Hair", "Beard"): 1.5,
  ("Beard", "Black_Hair"): -1.2,
  ("Wearing_Hat", "surprise"): 1.0,
}
SIZE = 48  # pixels a side
PATCH, FILTERS, GRID = 6, 96, 4  # of the features: pixels, random filters, cells a side


def weight(names: frozenset[str]) -> float:
  """Log of the weight of a scene with these labels."""
  singles = sum(value for name, value in SINGLE.items() if name in names)
  return singles + sum(value for pair, value in PAIRS.items() if names.issuperset(pair))


def labels_of(scene: Scene) -> frozenset[str]:
  """Names of drawn_faces.toml that are true of a scene."""
  told = scene.labels
  has = {name for name, yes in told.attributes.items() if yes}
  return frozenset(has | {told.expression} | {f"AU{n}" for n in present(told.action_units)})


def scenes(split: str, number: int, seed: int, planted: bool = True) -> list[tuple[int, Scene]]:
  """The first scenes of a split that are kept, with their numbers; all of them unless planted."""
  top = sum(max(v, 0) for v in (*SINGLE.values(), *PAIRS.values()))
  top = min(top, 2.6)  # the few scenes above it are kept always
  rng = np.random.default_rng([seed, 5])
  kept = []
  for index in itertools.count():
    scene = sample(index, split)
    draw = rng.random()
    if not planted or draw < np.exp(weight(labels_of(scene)) - top):
      kept.append((index, scene))
      if len(kept) == number:
        return kept
  raise AssertionError("itertools.count ends")


def table(kept: list[tuple[int, Scene]], labels: LabelSet) -> np.ndarray:
  """int8 [S N] of 0 and 1."""
  return np.stack([labels.row(sorted(labels_of(scene)), f"face {i}") for i, scene in kept])


def features(kept: list[tuple[int, Scene]]) -> tuple[np.ndarray, np.ndarray]:
  """Of pixels [S 2 GRID^2 FILTERS] and of class maps [S 36 classes]; float32, nothing learned.

  Pixels: contrast-normalised patches, random filters, both signs of the response, averaged over a
  grid. They know of labels no more than the pixels do.
  """
  pixels, maps = [], []
  for _, scene in kept:
    face = synthetic.render(scene, size=SIZE)
    pixels.append(_responses(face.image))
    cells = face.segmentation.reshape(6, SIZE // 6, 6, SIZE // 6)
    shares = [(cells == c).mean((1, 3)).ravel() for c in range(NUM_CLASSES)]
    maps.append(np.concatenate(shares))
  return np.array(pixels, np.float32), np.array(maps, np.float32)


@functools.cache
def _filters() -> np.ndarray:
  drawn = np.random.default_rng(0).normal(size=(3 * PATCH * PATCH, FILTERS))
  return (drawn / np.linalg.norm(drawn, axis=0)).astype(np.float32)


def _responses(image: np.ndarray) -> np.ndarray:
  x = image.astype(np.float32) / 255
  windows = np.lib.stride_tricks.sliding_window_view(x, (PATCH, PATCH), (0, 1))[::2, ::2]
  side = len(windows)
  flat = windows.reshape(side * side, -1)
  flat = flat - flat.mean(1, keepdims=True)
  flat = flat / np.sqrt(flat.var(1, keepdims=True) + 0.01)
  out = (flat @ _filters()).reshape(side, side, FILTERS)
  both = np.concatenate([np.maximum(out - 0.5, 0), np.maximum(-out - 0.5, 0)], -1)
  # 22 patches a side: cells of 5 or 6.
  rows = np.array_split(np.arange(side), GRID)
  return np.concatenate([both[np.ix_(a, b)].mean((0, 1)) for a in rows for b in rows])


def whitened(train: np.ndarray, others: list[np.ndarray], width: int) -> list[np.ndarray]:
  """The first principal components of `train`, at unit variance, of it and of others."""
  mean, n = train.mean(0), train.shape[1]
  centred = train - mean
  covariance = centred.T @ centred / len(train)
  values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(n - width, n - 1))
  scale = 1 / (np.sqrt(np.maximum(values, 0)) + 1e-3 * np.sqrt(values[-1]))
  return [((x - mean) @ vectors * scale).astype(np.float32) for x in (train, *others)]
