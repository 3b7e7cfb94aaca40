"""How full the rows of a config are. ModelConfig, DataConfig -> Fill.

Rows of a million drawn samples are laid out with the order of training. What a sample takes of a
row follows from the model; how long texts are, and that 15 % of the samples are clips where rows
hold clips, is our summary of FaceInstruct-1M (no index of it is published with lengths).
"""

import dataclasses

import numpy as np

from facejax.config import DataConfig, ModelConfig
from facejax.data.order import Order
from facejax.visual_table import VisualTable

SAMPLES = 1_000_000  # of FaceInstruct-1M, about
_CLIPS = 0.15
_DRAWN = 20_000  # samples of each kind
_ROWS = 400


@dataclasses.dataclass(frozen=True)
class Fill:
  """Averages over rows."""

  samples: float  # a row
  tokens: float  # share of positions that hold a token
  pictures: float  # share of picture slots in use
  clips: float
  pairs: float  # positions that attend to each other in their sample, of a whole row's squared


def _rows(model: ModelConfig, data: DataConfig) -> list[list[np.ndarray]]:
  """What each sample takes of each of many rows: tokens, pictures, clips."""
  table = VisualTable(model, data.images_per_row, data.videos_per_row)
  with_map = "segmentation" in data.modalities
  capacity = (data.row_length, data.images_per_row, data.videos_per_row)
  sizes, weights = [], []
  if data.images_per_row or not data.videos_per_row:
    sizes.append(_samples(table.count("image", with_map) if data.images_per_row else 0, 0, table))
    weights.append(1 - _CLIPS)
  if data.videos_per_row:
    sizes.append(_samples(table.count("video", with_map), 1, table))
    weights.append(_CLIPS)
  for size in sizes:
    np.minimum(size[:, 0], data.row_length, out=size[:, 0])  # a longer one would be refused
  order = Order(sizes, weights, capacity, seed=0)
  return [[sizes[p.source][p.number] for p in order.row(i)] for i in range(_ROWS)]


def measure(model: ModelConfig, data: DataConfig) -> Fill:
  """Lays out rows. Raises ValueError if a picture with a short text does not fit a row."""
  rows = _rows(model, data)
  capacity = (data.row_length, data.images_per_row, data.videos_per_row)
  used = np.array([np.sum(row, axis=0) for row in rows]).mean(0)
  squares = np.mean([sum(int(sample[0]) ** 2 for sample in row) for row in rows])
  share = lambda k: float(used[k] / capacity[k]) if capacity[k] else 0.0
  return Fill(
    samples=float(np.mean([len(row) for row in rows])),
    tokens=share(0),
    pictures=share(1),
    clips=share(2),
    pairs=float(squares / data.row_length**2),
  )


def tiles(model: ModelConfig, data: DataConfig, tile: int) -> float:
  """Share of the tiles on and below the diagonal in which some query and key share a sample.

  That of the fullest of many rows: the devices of a pod wait for the slowest one. A tile spans the
  samples from its first to its last position; padding counts as one more.
  """
  count = -(-data.row_length // tile)
  at = np.arange(count * tile)
  shares = []
  for row in _rows(model, data):
    ends = np.cumsum([int(sample[0]) for sample in row])
    sample = np.searchsorted(ends, at, side="right").reshape(count, tile)
    low, high = sample.min(1), sample.max(1)
    meet = (low[:, None] <= high[None]) & (low[None] <= high[:, None])
    shares.append(np.tril(meet).sum() / (count * (count + 1) / 2))
  return float(max(shares))


def _samples(visual: int, clip: int, table: VisualTable) -> np.ndarray:
  """Tokens, pictures and clips of drawn samples: system turn, question, answer."""
  draw = np.random.default_rng(1 + clip)
  answers = np.clip(draw.lognormal(np.log(35), 0.8, _DRAWN), 5, 160)
  text = 35 + draw.integers(12, 27, _DRAWN) + answers.astype(np.int64)
  picture = int(not clip and table.images > 0)
  kinds = np.broadcast_to(np.array([picture, clip]), (_DRAWN, 2))
  return np.concatenate([(visual + text)[:, None], kinds], axis=1)
