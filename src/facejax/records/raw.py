"""A sample as it is stored: encoded files and what is said about them.

Layout     a released folder, opened: index -> RawSample            layouts/
store      RawSample -> a record of an ArrayRecord shard -> RawSample
Sample     what a row is made of: decoded                           decode
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from facejax.data import media
from facejax.data.files import Encoded
from facejax.data.media import MediaError
from facejax.types import LANDMARKS, Kind, Medium, Sample, Turn

__all__ = ["Encoded", "Layout", "RawMedium", "RawSample", "decode"]


@dataclasses.dataclass(frozen=True)
class RawMedium:
  """A picture or clip with what lies beside it. None: there is no such file."""

  kind: Kind
  file: Encoded
  landmarks: Encoded | None = None  # .npy or .json, as data/media.py reads
  segmentation: Encoded | None = None  # .png or .npy


@dataclasses.dataclass(frozen=True)
class RawSample:
  """A conversation about its media, which are encoded.

  Attributes:
    id: unique in its source, and the same wherever the source lies.
    conversation: turns; the n-th placeholder stands for the n-th medium.
    media: in the order of their placeholders.
    labels: what the source says of the sample, as JSON values: {"expression": "happy", "age": 31}.
  """

  id: str
  conversation: tuple[Turn, ...]
  media: tuple[RawMedium, ...] = ()
  labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Layout(Protocol):
  """A released layout, opened: its index is read, its media are not."""

  def __len__(self) -> int:
    """Samples, usable or not."""
    ...

  def id(self, index: int) -> str:
    """The sample's id; reads no file."""
    ...

  def digest(self) -> str:
    """Of the index: equal where ids, conversations, labels and names of files are equal."""
    ...

  def __getitem__(self, index: int) -> RawSample:
    """Reads a sample's files. Raises MediaError or ValueError, naming the sample and the file."""
    ...


def decode(raw: RawSample, frames: int) -> Sample:
  """Decodes a sample.

  Args:
    raw: the sample; what its media lack stays None.
    frames: taken from each clip, spread evenly; see media.read_video.

  Raises:
    MediaError: naming the sample and the file: undecodable, or landmarks of a picture that is no
      square crop, which would be scaled by 256 in silence.
    ModuleNotFoundError: a clip, and PyAV is not installed.
  """
  try:
    return Sample(
      raw.id, raw.conversation, tuple(_decode(m, frames) for m in raw.media), raw.labels
    )
  except MediaError as error:
    raise MediaError(f"sample {raw.id!r}: {error}") from error


def _decode(medium: RawMedium, frames: int) -> Medium:
  if medium.kind == "image":
    clip, pixels = None, media.read_image(medium.file)[None]
  else:
    clip = media.read_video(medium.file, frames)
    pixels = clip.pixels
  count, height, width, _ = pixels.shape
  points = maps = None
  if medium.landmarks is not None:
    points = media.read_landmarks(medium.landmarks, clip).reshape(count, LANDMARKS, 2)
    if height != width:
      raise MediaError(
        f"{medium.file} is {width}x{height} px and has landmarks, which are pixels of a square "
        f"face crop of {media.CROP} - crop the face, and give its landmarks in that crop"
      )
  if medium.segmentation is not None:
    maps = media.read_segmentation(medium.segmentation, clip)
    maps = maps.reshape(count, *maps.shape[-2:])
  return Medium(medium.kind, pixels, points, maps)
