"""What is examined: a sample whose files may be missing, damaged, or nothing of the kind."""

import dataclasses
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from facejax.data.files import LIMITS, Encoded
from facejax.doctor.findings import Note
from facejax.types import Kind, Turn

# Words in the name of a source or split that say: held out. All else is trained on.
_HELD_OUT = ("test", "val", "valid", "validation", "dev", "eval", "heldout", "held_out")


class Stored(NamedTuple):
  """A file of a sample: where it lies, or its bytes. Neither: its path was refused."""

  name: str
  path: Path | None = None
  data: bytes | None = None

  @classmethod
  def of(cls, file: Encoded | None) -> "Stored | None":
    """A file that a store or layout gave."""
    return None if file is None else cls(file.name, data=file.data)


class Piece(NamedTuple):
  """A picture or clip with what lies beside it; None: there is no such file."""

  kind: Kind
  file: Stored
  landmarks: Stored | None = None
  segmentation: Stored | None = None


@dataclasses.dataclass(frozen=True)
class Case:
  """A sample as far as it could be read.

  Attributes:
    id: what people call it.
    turns: of its conversation; those that are no turns are left out and noted. None: there is no
      conversation to look at.
    media: in the order of their placeholders.
    labels: what its source says of it.
    split: of the data: "train", "test", ...
    own_id: what the record calls itself; "" if nothing.
    notes: what was found while it was read.
    readable: False: there is nothing to examine but the notes.
  """

  id: str
  turns: tuple[Turn, ...] | None = ()
  media: tuple[Piece, ...] = ()
  labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  split: str = "train"
  own_id: str = ""
  notes: tuple[Note, ...] = ()
  readable: bool = True


class Reader(Protocol):
  """Turns payloads into cases, in a worker process; picklable."""

  def read(self, place: int, payload: bytes) -> Case:
    """The sample at `place`. Never raises for damaged data: it notes."""
    ...


class Subject(Protocol):
  """A dataset to be examined. Opening it reads no sample.

  Attributes:
    name: for the report.
    path: file or folder.
    reader: of its payloads.
    notes: about the dataset as a whole; they belong to no sample.
  """

  name: str
  path: Path
  reader: Reader
  notes: tuple[Note, ...]

  def __len__(self) -> int:
    """Samples, usable or not."""
    ...

  def payload(self, place: int) -> bytes:
    """What the reader needs beside the place; few bytes, for they go through a pipe."""
    ...


def split_of(name: str) -> str:
  """The split that a file's or folder's name speaks of: "train_v2" -> train, "my-val" -> val."""
  words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
  return next((word for word in words if word in _HELD_OUT), "train")


def held_out(split: str) -> bool:
  """Whether a split is not trained on."""
  return split_of(split) != "train"


def unread(stored: Stored) -> Note | None:
  """Why a file is not even opened."""
  name = stored.name
  if stored.path is not None:
    try:
      about = os.stat(stored.path)
    except (FileNotFoundError, NotADirectoryError):
      return Note("missing_file", f"{name}: no such file - check the folder and the index", name)
    if not stat.S_ISREG(about.st_mode):
      return Note("not_a_file", f"{name} is no plain file - expected a file - replace it", name)
    size = about.st_size
  elif stored.data is not None:
    size = len(stored.data)
  else:
    return None
  if not size:
    return Note(
      "empty_file", f"{name}: 0 bytes - expected a file with content - copy it again", name
    )
  if size > LIMITS.max_bytes:
    return Note(
      "oversized_file",
      f"{name}: {size} bytes - at most {LIMITS.max_bytes} are read - shrink it",
      name,
    )
  return None
