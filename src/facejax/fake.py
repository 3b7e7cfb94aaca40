"""Random batches with valid content, for tests and first runs. config, sizes, seed -> Batch."""

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import ModelConfig
from facejax.types import LANDMARKS, Batch, Kind, Media
from facejax.visual_table import VisualTable


def _media(model: ModelConfig, rows: int, slots: int, kind: Kind, seed: int = 0) -> Media:
  """`slots` random pictures or clips a row; about a quarter of landmarks and maps are absent."""
  draw = np.random.default_rng([seed, kind == "video"])
  vit, seg = model.encoder(kind), model.segmentation
  lead = (rows, slots, 1 if kind == "image" else model.frames)
  pixels = draw.integers(0, 256, (*lead, vit.image_size, vit.image_size, 3), np.uint8)
  landmarks = draw.uniform(0.1, 0.9, (*lead, LANDMARKS, 2)).astype(np.float32)
  maps = draw.integers(0, seg.classes, (*lead, seg.size, seg.size), np.uint8)
  with_landmarks = draw.random(lead) < 0.75
  with_map = np.broadcast_to(draw.random((*lead[:2], 1)) < 0.75, lead)  # of all frames, or of none
  return Media(
    pixels=pixels,
    landmarks=landmarks * with_landmarks[..., None, None],
    landmarks_valid=with_landmarks,
    segmentation=maps * with_map[..., None, None].astype(np.uint8),
    segmentation_valid=with_map,
  )


def fake_batch(
  model: ModelConfig, rows: int, row_length: int, images: int = 1, videos: int = 0, seed: int = 0
) -> Batch:
  """Rows of two segments: all media between two text tokens, then text alone; then padding.

  Raises ValueError if the media do not fit in row_length.
  """
  draw = np.random.default_rng(seed)
  table = VisualTable(model, images, videos)
  media: dict[Kind, Media] = {
    kind: _media(model, rows, table.slots(kind), kind, seed) for kind in ("image", "video")
  }
  ids = {
    name: np.zeros((rows, row_length), np.int32) for name in ("tokens", "positions", "segments")
  }
  index = np.full((rows, row_length), -1, np.int32)
  for row in range(rows):
    order = [
      table.indices(kind, slot, bool(media[kind].segmentation_valid[row, slot].all()))
      for kind in media
      for slot in range(table.slots(kind))
    ]
    visual = np.concatenate([np.zeros(0, np.int32), *order])
    if len(visual) + 2 > row_length:
      raise ValueError(
        f"fake_batch: row_length={row_length} cannot hold {len(visual)} visual tokens and 2 of text"
      )
    index[row, 1 : 1 + len(visual)] = visual
    left = row_length - len(visual) - 2
    start = 0
    lengths = (
      len(visual) + 2 + int(draw.integers(0, left // 3 + 1)),
      int(draw.integers(0, left // 3 + 1)),
    )
    for segment, length in enumerate(lengths, 1):
      ids["segments"][row, start : start + length] = segment
      ids["positions"][row, start : start + length] = np.arange(length)
      start += length
  text = (ids["segments"] > 0) & (index < 0)
  tokens = np.where(text, draw.integers(1, model.decoder.vocab, text.shape), 0).astype(np.int32)
  same = np.pad(ids["segments"][:, 1:] == ids["segments"][:, :-1], ((0, 0), (0, 1)))
  targets = np.where(same, np.roll(tokens, -1, axis=1), 0)
  scored = same & np.roll(text, -1, axis=1)
  batch = Batch(
    tokens=tokens,
    targets=targets,
    loss_weights=scored.astype(np.float32),
    positions=ids["positions"],
    segment_ids=ids["segments"],
    visual_index=index,
    sample_id=np.where(ids["segments"] > 0, ids["segments"] - 1, -1),
    images=media["image"],
    videos=media["video"],
  )
  return jax.tree.map(jnp.asarray, batch)
