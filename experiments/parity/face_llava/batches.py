"""A case of e2e.npz -> the Batch that the library makes of its conversations and media."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from face_llava import vision
from face_llava.folder import Folder, Model
from facejax.data import chat, rows
from facejax.types import Batch, Kind, Medium, Sample, Turn
from facejax.visual_table import VisualTable

IGNORED, VISUAL = -100, -200  # as labels and as an id of the references


def turns(conversation: Sequence[dict[str, str]]) -> tuple[Turn, ...]:
  """A conversation of the LLaVA format."""
  return tuple(Turn(turn["from"], turn["value"]) for turn in conversation)


def conversations(folder: Folder, case: str) -> list[int]:
  """Which sample of conversations.json each row of a case is, found by its ids.

  Raises ValueError if a row is none of them.
  """
  samples = [s["legacy_false"]["input_ids"] for s in folder.conversations["samples"]]
  ids, real = (folder.e2e[f"{case}.{name}"] for name in ("input_ids", "attention_mask"))
  found = [
    next((n for n, s in enumerate(samples) if s == row[keep > 0].tolist()), None)
    for row, keep in zip(ids, real, strict=True)
  ]
  if None in found:
    raise ValueError(
      f"{folder.path / 'e2e.npz'}: row {found.index(None)} of {case}.input_ids is no sample of "
      "conversations.json - the case cannot be built - copy both files again"
    )
  return [n for n in found if n is not None]


def whole(folder: Folder, model: Model, case: str) -> Batch:
  """The rows of a case, padded on the right, nothing cut."""
  samples = folder.conversations["samples"]
  texts = [turns(samples[n]["conversations"]) for n in conversations(folder, case)]
  return build(folder, model, texts, landmarks="nolm" not in case)


def arrange(folder: Folder, case: str, batch: Batch) -> Batch:
  """The same rows with the length and the padding side of the case."""
  if case.startswith("truncated"):
    # The library refuses a sample that does not fit; the official code cuts it behind the splice.
    return cut(batch, int(folder.e2e[f"{case}.spliced.shape"][1]))
  return shift(batch) if case.startswith("left") else batch


def build(
  folder: Folder,
  model: Model,
  texts: Sequence[tuple[Turn, ...]],
  landmarks: bool,
  template: chat.Template = chat.VICUNA,
  prompt: bool = False,
) -> Batch:
  """Lays conversations out, one a row; the n-th placeholder of a kind takes the n-th medium."""
  counters = {kind: itertools.count() for kind in vision.KINDS}
  owners = [[(kind, next(counters[kind])) for kind in rows.placeholders(text)] for text in texts]
  samples = [
    Sample(f"row {n}", text, tuple(_medium(folder, model, k, i, landmarks) for k, i in owner))
    for n, (text, owner) in enumerate(zip(texts, owners, strict=True))
  ]
  count = lambda kind: max(sum(k == kind for k, _ in owner) for owner in owners)
  table = VisualTable(model.config, count("image"), count("video"))
  form = rows.RowFormat(table, 2**31 - 1, folder.tokenizer, resize="crop", template=template)
  outlines = [[form.outline(medium) for medium in s.media] for s in samples]
  texted = [
    form.text(s.id, s.conversation, o, prompt) for s, o in zip(samples, outlines, strict=True)
  ]
  longest = max(len(text) for text in texted)
  form = dataclasses.replace(form, length=longest)
  batch = rows.collate([rows.encode([s], [n], form, prompt) for n, s in enumerate(samples)])
  return dataclasses.replace(
    batch,
    images=_with_pixels(folder, batch.images, owners, "image"),
    videos=_with_pixels(folder, batch.videos, owners, "video"),
  )


def _medium(folder: Folder, model: Model, kind: Kind, number: int, landmarks: bool) -> Medium:
  """A medium with its points; the numbers of its pixels come later, as they are no uint8."""
  points = vision.landmarks(folder, kind)
  if number >= len(points):
    raise ValueError(f"{folder.path / 'inputs.npz'} has no {kind} {number} - it needs one more")
  size = model.config.encoder(kind).image_size
  pixels = np.zeros((points.shape[1], size, size, 3), np.uint8)
  return Medium(kind, pixels, np.asarray(points[number]) if landmarks else None)


def _with_pixels(folder: Folder, media: Any, owners: Any, kind: Kind) -> Any:
  stored = np.asarray(vision.pixels(folder, kind))
  filled = np.zeros(media.pixels.shape, np.float32)
  for row, owner in enumerate(owners):
    for slot, number in enumerate(n for k, n in owner if k == kind):
      filled[row, slot] = stored[number]
  return dataclasses.replace(media, pixels=filled)


_TEXT = ("tokens", "targets", "loss_weights", "positions", "segment_ids", "visual_index")


def cut(batch: Batch, length: int) -> Batch:
  """The first `length` positions of every row; the last of them predicts nothing."""
  parts: Any = {name: np.array(getattr(batch, name)[:, :length]) for name in _TEXT}
  parts["loss_weights"][:, -1] = 0
  return dataclasses.replace(batch, sample_id=batch.sample_id[:, :length], **parts)


def shift(batch: Batch) -> Batch:
  """The same rows with their padding on the left."""
  empty = [(row == 0).sum() for row in batch.segment_ids]
  roll = lambda x: np.stack([np.roll(row, n) for row, n in zip(x, empty, strict=True)])
  parts: Any = {name: roll(getattr(batch, name)) for name in (*_TEXT, "sample_id")}
  return dataclasses.replace(batch, **parts)


def labels(batch: Any) -> np.ndarray:
  """[B L], IGNORED where nothing is supervised: a target stands one position ahead."""
  own = np.where(batch.loss_weights > 0, batch.targets, IGNORED)
  return np.pad(own[:, :-1], ((0, 0), (1, 0)), constant_values=IGNORED)


def collapse(
  values: np.ndarray, visual: np.ndarray, lengths: Sequence[int], mark: int
) -> np.ndarray:
  """One value for each picture or frame: `mark` in place of its `lengths[n]` visual tokens.

  visual says where visual tokens stand. Raises ValueError if they are not as many.
  """
  kept, n, i = [], 0, 0
  while i < len(values):
    if not visual[i]:
      kept.append(values[i])
      i += 1
      continue
    if n == len(lengths) or not visual[i : i + lengths[n]].all():
      raise ValueError(f"visual tokens at {i} are no block of {list(lengths)[n : n + 1]}")
    kept.append(mark)
    i += lengths[n]
    n += 1
  if n != len(lengths):
    raise ValueError(f"{n} blocks of visual tokens, expected {len(lengths)}")
  return np.array(kept)


def blocks(config: Any, text: Sequence[Turn]) -> list[int]:
  """Visual tokens of each picture or frame that a conversation names, in order."""
  table = VisualTable(config, 0, 0)
  frames = {kind: table.frames(kind) for kind in vision.KINDS}
  each = {kind: table.pixel_tokens(kind) // n for kind, n in frames.items()}
  return [each[kind] for kind in rows.placeholders(text) for _ in range(frames[kind])]


def on_device(batch: Batch) -> Batch:
  """The batch as JAX arrays."""
  return jax.tree.map(jax.numpy.asarray, batch)
