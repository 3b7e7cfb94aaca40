"""A sample as it is stored: encoded files and what is said about them. Nothing is decoded here.

Layout     a released folder, opened: index -> RawSample            layouts/
store      RawSample -> a record of an ArrayRecord shard -> RawSample
Sample     what a row is made of: decoded                           decode
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from facejax.types import Kind, Turn


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A file as it is: its bytes are kept, so that nothing is encoded twice.

  Attributes:
    name: path inside its source, for messages; the suffix says the format.
    data: content.
  """

  name: str
  data: bytes


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

  def __getitem__(self, index: int) -> RawSample:
    """Reads a sample's files. Raises MediaError or ValueError, naming the sample and the file."""
    ...
