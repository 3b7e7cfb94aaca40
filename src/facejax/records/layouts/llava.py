"""The official Face-LLaVA (LLaVA) JSON format; data/llava.py has the schema.

Released: the fields of a record and the media paths relative to a folder. Ours: null entries and
lists of several media, class maps, and that a record's other fields become its labels.
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

from facejax.config import MODALITIES, LlavaConfig
from facejax.data import files
from facejax.data.llava import File, Index, Record, parse, read_indexes, record_name
from facejax.data.media import MediaError
from facejax.records.layouts import path
from facejax.records.raw import Encoded, RawMedium, RawSample

_READ = ("id", "image", "video", "landmarks_2d", "segmentation", "conversations")


@dataclasses.dataclass(frozen=True)
class Llava:
  """Index files and the folders of their media.

  Attributes:
    index: JSON files, joined in this order.
    image_folder: of pictures and what lies beside them; "": that of the JSON file.
    video_folder: of clips, likewise.
  """

  index: tuple[str, ...] = path(...)
  image_folder: str = path()
  video_folder: str = path()

  def open(self) -> "LlavaLayout":
    """Reads the index files."""
    config = LlavaConfig(self.index, self.image_folder, self.video_folder)
    return LlavaLayout(read_indexes(config, "index"))


class LlavaLayout:
  """The records of index files, in file order."""

  def __init__(self, indexes: list[Index]):
    self._indexes = indexes
    self._places = [(index, place) for index in indexes for place in range(len(index.records))]

  def __len__(self) -> int:
    return len(self._places)

  def id(self, index: int) -> str:
    """Index file and place in it, and the id that the record gives itself, which may repeat."""
    return record_name(*self._places[index])

  def digest(self) -> str:
    """Of the index files."""
    return hashlib.sha256("\n".join(index.digest for index in self._indexes).encode()).hexdigest()

  def __getitem__(self, index: int) -> RawSample:
    """Reads a sample's files. Raises ValueError or MediaError, naming sample and file."""
    name = self.id(index)
    owner, place = self._places[index]
    raw = owner.records[place]
    record = parse(raw, name, owner.folders, MODALITIES)
    labels = {key: value for key, value in raw.items() if key not in _READ}
    return read_record(record, owner.folders, labels)


def read_record(
  record: Record, folders: dict[str, pathlib.Path], labels: dict[str, Any]
) -> RawSample:
  """Reads the files of a parsed record. Raises MediaError, naming sample and file."""
  try:
    media = tuple(_read(file, folders[file.kind].resolve()) for file in record.files)
  except MediaError as error:
    raise MediaError(f"sample {record.name!r}: {error}") from error
  return RawSample(record.name, record.conversation, media, labels)


def _read(file: File, folder: pathlib.Path) -> RawMedium:
  def encoded(path: pathlib.Path) -> Encoded:
    return Encoded(path.relative_to(folder).as_posix(), files.read(path))

  return RawMedium(
    file.kind,
    encoded(file.path),
    None if file.landmarks is None else encoded(file.landmarks),
    None if file.segmentation is None else encoded(file.segmentation),
  )
