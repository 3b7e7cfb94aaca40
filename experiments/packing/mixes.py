"""Mixes of sample sizes. Drawn, not real: no index of these datasets is published with lengths.

What is known: a picture takes 256 tokens and a clip 8 x 257 (Face-LLaVA), a tile 256 (InternVL);
the released samples whose tokens we know take 311 (picture) and 2118 (clip) with their text, of
which 35 are the system turn. The spread of texts and of picture sizes is ours.
"""

import dataclasses

import numpy as np

from facejax.data import tiles

_SAMPLES = 1_000_000
# Pixels of pictures as face datasets have them: CelebA, CelebA-HQ, FairFace crops, phone, video.
_SIZES = ((178, 218), (1024, 1024), (448, 448), (224, 224), (800, 800), (640, 480), (800, 400))


@dataclasses.dataclass(frozen=True)
class Mix:
  """Sizes of each source's samples (tokens, pictures, clips), shares, and a row's capacity."""

  sizes: tuple[np.ndarray, ...]
  weights: tuple[float, ...]
  capacity: tuple[int, int, int]


def _texts(n: int, seed: int) -> np.ndarray:
  """System turn, question of 12 to 26 tokens, answer of 5 ("60 years old.") to 160 (prose)."""
  rng = np.random.default_rng(seed)
  answers = np.clip(rng.lognormal(np.log(35), 0.8, n), 5, 160)
  return (35 + rng.integers(12, 27, n) + answers).astype(np.int64)


def _stack(tokens: np.ndarray, pictures: np.ndarray | int, clips: int) -> np.ndarray:
  shape = tokens.shape
  return np.stack([tokens, np.broadcast_to(pictures, shape), np.broadcast_to(clips, shape)], 1)


def face_instruct(spread: bool) -> tuple[np.ndarray, np.ndarray]:
  """85 % pictures, 15 % clips; all texts of one length, or drawn."""
  pictures, clips = int(0.85 * _SAMPLES), int(0.15 * _SAMPLES)
  if not spread:
    return _stack(np.full(pictures, 311), 1, 0), _stack(np.full(clips, 2118), 0, 1)
  return (
    _stack(256 + _texts(pictures, 1), 1, 0),
    _stack(8 * 257 + 7 + _texts(clips, 2), 0, 1),
  )


def internvl() -> np.ndarray:
  """Pictures of 1 to 13 tiles (with the thumbnail) by InternVL's rule for their size."""
  grids = [tiles.grid(height, width, 448, 1, 12) for width, height in _SIZES]
  counts = [rows * columns + (rows * columns > 1) for rows, columns in grids]
  taken = np.random.default_rng(3).choice(counts, _SAMPLES)
  return _stack(256 * taken + _texts(_SAMPLES, 4), taken, 0)


_FIXED, _SPREAD = face_instruct(spread=False), face_instruct(spread=True)
ALL = {
  "FaceInstruct, 311 and 2118 tokens": Mix(_FIXED, (85, 15), (4000, 6, 1)),
  "FaceInstruct, drawn texts": Mix(_SPREAD, (85, 15), (4352, 6, 1)),
  "FaceInstruct, drawn texts, long rows": Mix(_SPREAD, (85, 15), (8448, 12, 2)),
  "InternVL, 1 to 13 tiles": Mix((internvl(),), (1,), (8192, 32, 0)),
}


def padded_share(mix: Mix, batch: int, batches: int = 4000) -> float:
  """Useful over computed tokens where each sample has a row as long as its batch's longest.

  Batches are drawn at random: the released grouping sorts by words and mixes pictures with clips.
  """
  rng = np.random.default_rng(5)
  source = rng.choice(len(mix.sizes), (batches, batch), p=np.array(mix.weights) / sum(mix.weights))
  tokens = np.zeros((batches, batch))
  for k, sizes in enumerate(mix.sizes):
    tokens = np.where(source == k, rng.choice(sizes[:, 0], (batches, batch)), tokens)
  return float(tokens.sum() / (tokens.max(1) * batch).sum())
