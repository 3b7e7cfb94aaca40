"""Samples -> one row of a batch: text laid out with its visual tokens, media in their slots.

A row holds one sample or several. Two samples, a picture of two tokens in each, L = 12:

  tokens          1   0   0   7   2   1   9   0   0   8   2   .
  visual_index   -1   0   1  -1  -1  -1  -1   2   3  -1  -1  -1   the second has the second slot
  segment_ids     1   1   1   1   1   2   2   2   2   2   2   0
  positions       0   1   2   3   4   0   1   2   3   4   5   0
  targets         0   0   7   2   .   9   0   0   8   2   .   .   none across the seam
  loss_weights    0   0   1   1   0   0   0   0   1   1   0   0

Nothing is cut and nothing guessed: a sample that does not fit is an error that names it.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from facejax.config import MODALITIES
from facejax.data import chat, resize
from facejax.data.media import MediaError
from facejax.data.tiles import Tiling
from facejax.data.tokenizer import TextTokenizer
from facejax.knowledge import rules
from facejax.knowledge.labels import UNKNOWN, LabelSet
from facejax.knowledge.tables import known
from facejax.types import LANDMARKS, Batch, Kind, Media, Medium, Sample, Turn
from facejax.visual_table import VisualTable

Row = Batch  # without its B axis, in NumPy

KINDS: tuple[Kind, ...] = ("image", "video")  # the order of slot counts
_PLACEHOLDER = re.compile("<(image|video)>")


class Outline(NamedTuple):
  """What the number of a medium's tokens depends on.

  Attributes:
    kind: picture or clip.
    mapped: it has a class map that is read.
    pictures: slots it takes: 1, or its tiles and their thumbnail.
  """

  kind: Kind
  mapped: bool = False
  pictures: int = 1


@dataclasses.dataclass(frozen=True)
class RowFormat:
  """How samples are laid out; the same for all rows of a run.

  Attributes:
    table: the row's media slots and the model they are for.
    length: tokens a row, visual tokens included.
    tokenizer: of the text.
    modalities: optional inputs that are read; others are dropped here, wherever they come from.
    resize: of a non-square picture, as in DataConfig.
    template: how a conversation is written out.
    antialias: of pictures, as in DataConfig.
    tiles: pieces that a picture is cut into, at least and at most.
  """

  table: VisualTable
  length: int
  tokenizer: TextTokenizer
  modalities: tuple[str, ...] = MODALITIES
  resize: str = "pad"
  template: chat.Template = chat.VICUNA
  antialias: bool = True
  tiles: tuple[int, int] = (1, 1)

  @property
  def capacity(self) -> tuple[int, int, int]:
    """What a row holds: tokens, pictures, clips."""
    return self.length, self.table.images, self.table.videos

  @property
  def largest(self) -> tuple[int, int, int]:
    """What one sample may take of a row."""
    return min(self.length, self.table.model.decoder.longest), *self.capacity[1:]

  @functools.cached_property
  def tiling(self) -> Tiling:
    """How pictures are cut into tiles of the encoder's size."""
    return Tiling(self.table.model.image.image_size, *self.tiles, self.antialias)

  @functools.cached_property
  def labels(self) -> LabelSet | None:
    """Labels that the model scores."""
    config = self.table.model.labels
    return rules.load(config.rules).labels if config else None

  @property
  def reads(self) -> tuple[str, ...]:
    """The optional inputs that are used; maps only if the model has a part for them."""
    absent = "segmentation" if self.table.model.segmentation.mode == "off" else None
    return tuple(name for name in self.modalities if name != absent)

  def text(
    self,
    sample: str,
    conversation: Sequence[Turn],
    media: Sequence[Outline],
    prompt: bool = False,
  ) -> chat.Encoded:
    """Lays out a conversation; needs no decoded media, so it also checks an index file.

    Args:
      sample: id for error messages.
      conversation: its turns; with `prompt` the last one is the question to answer.
      media: what is known of each medium without its pixels; see `outline`.
      prompt: nothing is supervised, the sequence ends where the answer starts.

    Raises:
      ValueError: media and placeholders differ, too many media or tokens for a row, or what
        data/chat.py refuses: an unanswered question, an empty answer, an unknown role.
    """
    self._check_media(sample, conversation, media)
    lengths = [self.count(medium) for medium in media]
    frames = self.table.model.frames
    if not prompt:
      encoded = chat.encode(
        conversation, self.tokenizer, self.template, lengths, frames=frames, sample=sample
      )
    else:
      if not conversation or conversation[-1].role != "human":
        raise ValueError(
          f"sample {sample!r}: the last of {len(conversation)} turns is no question - a prompt "
          "ends with a human turn - drop the answer"
        )
      *history, question = conversation
      encoded = chat.prompt(
        question.text,
        self.tokenizer,
        self.template,
        lengths,
        history=history,
        frames=frames,
        sample=sample,
      )
    decoder = self.table.model.decoder
    if not prompt and len(encoded) > decoder.longest:  # generate.py leaves room for the answer
      raise ValueError(
        f"sample {sample!r} takes {len(encoded)} tokens ({sum(lengths)} of them visual), the "
        f"decoder was made for {decoder.max_length} times rope_factor={decoder.rope_factor:g} - "
        "shorten the sample"
      )
    if len(encoded) > self.length:
      raise ValueError(
        f"sample {sample!r} takes {len(encoded)} tokens ({sum(lengths)} of them visual), a row has "
        f"{self.length} - raise data.row_length or shorten the sample"
      )
    return encoded

  def outline(self, medium: Medium) -> Outline:
    """What `text` asks of a decoded medium."""
    media = self.selected(medium)
    pictures = self.pictures(medium.kind, *medium.pixels.shape[1:3])
    return Outline(medium.kind, media.segmentation is not None, pictures)

  def pictures(self, kind: Kind, height: int, width: int) -> int:
    """Slots that a medium of this size takes."""
    return 1 if kind == "video" or self.tiles[1] == 1 else self.tiling.count(height, width)

  def count(self, medium: Outline) -> int:
    """Visual tokens of a medium, over all its tiles and frames."""
    tiles = (medium.pictures - 1) * self.table.count("image", with_map=False)
    return tiles + self.table.count(medium.kind, medium.mapped)

  def _check_media(
    self, sample: str, conversation: Sequence[Turn], media: Sequence[Outline]
  ) -> None:
    asked, kinds = placeholders(conversation), [medium.kind for medium in media]
    if asked != kinds:
      raise ValueError(
        f"sample {sample!r}: the questions have the placeholders [{', '.join(asked)}] but the "
        f"media are [{', '.join(kinds)}] - the n-th placeholder stands for the n-th medium - "
        "add or remove placeholders or files"
      )
    for kind, taken in zip(KINDS, slots(media), strict=True):
      if taken > self.table.slots(kind):
        tiles = f" in {taken} tiles and thumbnails" if taken > kinds.count(kind) else ""
        raise ValueError(
          f"sample {sample!r} has {kinds.count(kind)} {kind}(s){tiles}, a row has "
          f"{self.table.slots(kind)} {kind} slot(s) - raise data.{kind}s_per_row"
          + (" or lower data.max_tiles" if tiles else "")
        )

  def selected(self, medium: Medium) -> Medium:
    """The medium without the modalities that are not read: the one place that drops them."""
    return dataclasses.replace(
      medium,
      landmarks=medium.landmarks if "landmarks" in self.reads else None,
      segmentation=medium.segmentation if "segmentation" in self.reads else None,
    )


def slots(media: Sequence[Outline]) -> tuple[int, int]:
  """Picture and clip slots that media take."""
  pictures, clips = (sum(m.pictures for m in media if m.kind == kind) for kind in KINDS)
  return pictures, clips


def placeholders(conversation: Sequence[Turn]) -> list[Kind]:
  """The kinds of media that the questions name, in order."""
  texts = [turn.text for turn in conversation if turn.role != "gpt"]
  return [kind for text in texts for kind in _PLACEHOLDER.findall(text)]


def _full(shape: int | tuple[int, ...], value: int, dtype: type) -> Any:
  """np.full. `Any`, as batches are NumPy until the step and types.py says jax.Array."""
  return np.full(shape, value, dtype)


def empty(form: RowFormat) -> Row:
  """A row of padding: segment 0 everywhere, no loss, media slots of zeros."""
  return Batch(
    tokens=_full(form.length, form.tokenizer.pad_id, np.int32),
    targets=_full(form.length, form.tokenizer.pad_id, np.int32),
    loss_weights=_full(form.length, 0, np.float32),
    positions=_full(form.length, 0, np.int32),
    segment_ids=_full(form.length, 0, np.int32),
    visual_index=_full(form.length, -1, np.int32),
    sample_id=_full(form.length, -1, np.int32),
    images=_empty_media(form, "image"),
    videos=_empty_media(form, "video"),
  )


def _empty_media(form: RowFormat, kind: Kind) -> Media:
  model = form.table.model
  slots = (form.table.slots(kind), form.table.frames(kind))
  size, map_size = model.encoder(kind).image_size, model.segmentation.size
  return Media(
    pixels=_full((*slots, size, size, 3), 0, np.uint8),
    landmarks=_full((*slots, LANDMARKS, 2), 0, np.float32),
    landmarks_valid=_full(slots, False, np.bool_),
    segmentation=_full((*slots, map_size, map_size), 0, np.uint8),
    segmentation_valid=_full(slots, False, np.bool_),
    labels=_full((slots[0], len(form.labels)), UNKNOWN, np.int8) if form.labels else None,
  )


def encode(
  samples: Sequence[Sample], ids: Sequence[int], form: RowFormat, prompt: bool = False
) -> Row:
  """Lays samples out behind each other in one row.

  Args:
    samples: they share the row's tokens and media slots; each sees itself alone.
    ids: index of each sample in its source.
    form: the layout.
    prompt: the samples are questions to answer; see RowFormat.text.

  Raises:
    ValueError: a sample does not fit, naming it; see RowFormat.text.
    MediaError: a medium or a label holds what the model cannot take.
  """
  row = empty(form)
  start = 0
  used: dict[Kind, int] = dict.fromkeys(KINDS, 0)
  for segment, (sample, index) in enumerate(zip(samples, ids, strict=True), 1):
    outline = [form.outline(medium) for medium in sample.media]
    text = form.text(sample.id, sample.conversation, outline, prompt)
    stop = start + len(text)
    if stop > form.length:
      raise ValueError(
        f"sample {sample.id!r} takes {len(text)} tokens, the row has {form.length - start} left of "
        f"{form.length} - put it in another row or raise data.row_length"
      )
    indices = [np.zeros(0, np.int32)]
    for whole in sample.media:
      for medium in form.tiling.cut(form.selected(whole)):
        slot = used[medium.kind]
        indices.append(form.table.indices(medium.kind, slot, medium.segmentation is not None))
        _place(medium, row, slot, form, sample.id)
        used[medium.kind] += 1
    if form.labels and len(sample.media) == 1:  # of several pictures, which do they describe?
      values = row.images.labels if medium.kind == "image" else row.videos.labels
      assert values is not None
      values[slot] = _labels(sample, form.labels)  # of tiles: beside the thumbnail
    _write(row, slice(start, stop), text, np.concatenate(indices))
    row.segment_ids[start:stop] = segment
    row.sample_id[start:stop] = index
    start = stop
  return row


def _labels(sample: Sample, labels: LabelSet) -> np.ndarray:
  try:
    return known(sample.labels, labels)
  except ValueError as error:
    raise MediaError(f"sample {sample.id!r}: {error} - correct its labels") from error


def _write(row: Row, span: slice, text: chat.Encoded, indices: np.ndarray) -> None:
  """Writes one segment's tokens; its last position predicts nothing."""
  row.tokens[span] = text.tokens
  row.targets[span.start : span.stop - 1] = text.tokens[1:]
  row.loss_weights[span.start : span.stop - 1] = text.supervised[1:]
  row.positions[span] = np.arange(len(text))
  visual = text.visual >= 0
  row.visual_index[span][visual] = indices[text.visual[visual]]


def _place(medium: Medium, row: Row, slot: int, form: RowFormat, sample: str) -> None:
  """Puts a medium into its slot, at the model's sizes."""
  slots = row.images if medium.kind == "image" else row.videos
  frames, height, width, _ = medium.pixels.shape
  if frames != form.table.frames(medium.kind):
    raise MediaError(
      f"sample {sample!r}: {medium.kind} of {frames} frames - the model takes "
      f"{form.table.frames(medium.kind)} - choose the frames where the sample is read"
    )
  size = slots.pixels.shape[-2]
  slots.pixels[slot] = resize.resize(medium.pixels, size, form.resize, form.antialias)
  if medium.landmarks is not None:
    slots.landmarks[slot] = resize.resize_landmarks(
      medium.landmarks, (height, width), size, form.resize
    )
    slots.landmarks_valid[slot] = True
  if medium.segmentation is not None:
    _check_map(medium, form, sample)
    size = slots.segmentation.shape[-1]
    for frame, ids in enumerate(medium.segmentation):
      slots.segmentation[slot, frame] = resize.resize_segmentation(ids, size, form.resize)
    slots.segmentation_valid[slot] = True


def _check_map(medium: Medium, form: RowFormat, sample: str) -> None:
  assert medium.segmentation is not None
  frames, y, x = medium.segmentation.shape
  _, height, width, _ = medium.pixels.shape
  classes = form.table.model.segmentation.classes
  if medium.segmentation.max(initial=0) >= classes:
    raise MediaError(
      f"sample {sample!r}: segmentation map with class {medium.segmentation.max()} - expected "
      f"0 to {classes - 1} - map the classes or set model.segmentation.classes"
    )
  # A map may be coarser or finer than its picture; a pixel of rounding is no other shape.
  if frames != len(medium.pixels) or abs(y * width - x * height) > max(width, height):
    raise MediaError(
      f"sample {sample!r}: segmentation map of {frames} x {y} x {x} for {medium.kind} pixels of "
      f"{len(medium.pixels)} x {height} x {width} - expected one map a frame with the same "
      "proportions - make the maps from the pictures as they are"
    )


def collate(rows: Sequence[Row]) -> Batch:
  """Stacks rows along a new B axis; still NumPy, pixels still uint8."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
