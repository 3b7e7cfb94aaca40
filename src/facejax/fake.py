"""Random batches with valid content, for tests and first runs. config, sizes, seed -> Batch."""

import jax.numpy as jnp
import numpy as np

from facejax.config import ModelConfig
from facejax.knowledge import rules
from facejax.types import LANDMARKS, Batch, Kind, Media
from facejax.visual_table import VisualTable


def _media(
  model: ModelConfig, rows: int, slots: int, kind: Kind, seed: int
) -> tuple[Media, np.ndarray]:
  """`slots` random pictures or clips a row, and which have maps [rows slots].

  About a quarter of all landmarks and maps are absent: landmarks by frame, maps by medium.
  """
  draw = np.random.default_rng([seed, kind == "video"])
  vit, seg = model.encoder(kind), model.segmentation
  lead = (rows, slots, 1 if kind == "image" else model.frames)
  pixels = draw.integers(0, 256, (*lead, vit.image_size, vit.image_size, 3), np.uint8)
  landmarks = draw.uniform(0.1, 0.9, (*lead, LANDMARKS, 2)).astype(np.float32)
  maps = draw.integers(0, seg.classes, (*lead, seg.size, seg.size), np.uint8)
  with_landmarks = draw.random(lead) < 0.75
  with_map = draw.random(lead[:2]) < 0.75
  labels = None
  if model.labels:
    labels = draw.integers(-1, 2, (*lead[:2], len(rules.load(model.labels.rules).labels)), np.int8)
  media = Media(
    pixels=jnp.asarray(pixels),
    landmarks=jnp.asarray(landmarks * with_landmarks[..., None, None]),
    landmarks_valid=jnp.asarray(with_landmarks),
    segmentation=jnp.asarray(maps * with_map[..., None, None, None].astype(np.uint8)),
    segmentation_valid=jnp.asarray(np.broadcast_to(with_map[..., None], lead)),
    labels=None if labels is None else jnp.asarray(labels),
  )
  return media, with_map


def _segments(draw: np.random.Generator, least: int, row_length: int) -> np.ndarray:
  """Segment ids and positions [2 row_length] of a row with two segments of random length."""
  first = least + draw.integers(0, (row_length - least) // 3 + 1)
  second = draw.integers(0, (row_length - least) // 3 + 1)
  at = np.arange(row_length)
  segment = np.where(at < first, 1, np.where(at < first + second, 2, 0))
  return np.stack([segment, np.choose(segment, [0, at, at - first])]).astype(np.int32)


def fake_batch(
  model: ModelConfig, rows: int, row_length: int, images: int = 1, videos: int = 0, seed: int = 0
) -> Batch:
  """Rows of two segments: all media between two text tokens, then text alone; then padding.

  Raises ValueError if the media do not fit in row_length.
  """
  draw = np.random.default_rng(seed)
  table = VisualTable(model, images, videos)
  kinds: tuple[Kind, ...] = ("image", "video")
  media = {kind: _media(model, rows, table.slots(kind), kind, seed) for kind in kinds}
  index = np.full((rows, row_length), -1, np.int32)
  layout = np.zeros((2, rows, row_length), np.int32)
  for row in range(rows):
    visual = np.concatenate(
      [np.zeros(0, np.int32)]
      + [
        table.indices(kind, slot, bool(media[kind][1][row, slot]))
        for kind in kinds
        for slot in range(table.slots(kind))
      ]
    )
    if len(visual) + 2 > row_length:
      raise ValueError(
        f"fake_batch: row_length={row_length} cannot hold {len(visual)} visual tokens and 2 of text"
      )
    index[row, 1 : 1 + len(visual)] = visual
    layout[:, row] = _segments(draw, len(visual) + 2, row_length)
  segments, positions = layout
  text = (segments > 0) & (index < 0)
  tokens = np.where(text, draw.integers(1, model.decoder.vocab, text.shape), 0).astype(np.int32)
  same = np.pad((segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0), ((0, 0), (0, 1)))
  following = lambda x: np.roll(x, -1, axis=1)
  return Batch(
    tokens=jnp.asarray(tokens),
    targets=jnp.asarray(np.where(same, following(tokens), 0)),
    loss_weights=jnp.asarray(same & following(text), jnp.float32),
    positions=jnp.asarray(positions),
    segment_ids=jnp.asarray(segments),
    visual_index=jnp.asarray(index),
    sample_id=jnp.asarray(np.where(segments > 0, 2 * np.arange(rows)[:, None] + segments - 1, -1)),
    images=media["image"][0],
    videos=media["video"][0],
  )
