"""Token counts and places of pictures, clips and maps: the one function of them all."""

import dataclasses

import numpy as np

from facejax.config import ModelConfig
from facejax.types import Kind


@dataclasses.dataclass(frozen=True)
class VisualTable:
  """Which entries of a row's table of visual tokens belong to which medium.

  The one function of token counts: the data pipeline lays out rows with it, the model builds its
  table in this order, the planner counts with it. The table is
  [pictures | frames of clips | maps of pictures | maps of clips], slot by slot.
  """

  model: ModelConfig
  images: int  # picture slots a row
  videos: int  # clip slots a row

  def slots(self, kind: Kind) -> int:
    """Media slots of a kind in a row."""
    return self.images if kind == "image" else self.videos

  def frames(self, kind: Kind) -> int:
    """Frames of a medium."""
    return 1 if kind == "image" else self.model.frames

  def pixel_tokens(self, kind: Kind) -> int:
    """Tokens of a medium's pixels, over all its frames."""
    return self.frames(kind) * self.model.tokens(kind)

  def map_tokens(self, kind: Kind) -> int:
    """Tokens of a medium's segmentation maps, over all its frames; 0 unless mode is "concat"."""
    seg = self.model.segmentation
    return self.frames(kind) * seg.grid**2 if seg.mode == "concat" else 0

  def count(self, kind: Kind, with_map: bool) -> int:
    """Positions that a medium takes in a row. An absent map takes none."""
    return self.pixel_tokens(kind) + (self.map_tokens(kind) if with_map else 0)

  @property
  def size(self) -> int:
    """Entries in a row's table."""
    kinds: tuple[Kind, ...] = ("image", "video")
    return sum(self.slots(k) * self.count(k, True) for k in kinds)

  def indices(self, kind: Kind, slot: int, with_map: bool) -> np.ndarray:
    """The table entries of a medium in reading order, int32: its pixels' tokens, then its maps'.

    Raises ValueError if the row has no such slot.
    """
    if not 0 <= slot < self.slots(kind):
      raise ValueError(
        f"{kind} {slot} does not fit: a row has {self.slots(kind)} {kind} slots; raise "
        f"data.{kind}s_per_row"
      )
    pixels = {"image": 0, "video": self.images * self.pixel_tokens("image")}
    maps = {"image": pixels["video"] + self.videos * self.pixel_tokens("video")}
    maps["video"] = maps["image"] + self.images * self.map_tokens("image")
    span = lambda start, n: np.arange(start + slot * n, start + (slot + 1) * n, dtype=np.int32)
    parts = [span(pixels[kind], self.pixel_tokens(kind))]
    if with_map:
      parts.append(span(maps[kind], self.map_tokens(kind)))
    return np.concatenate(parts)
