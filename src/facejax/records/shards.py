"""The shards of a built source: record number -> record, whichever shard it is in."""

import bisect
import collections
import itertools
import pathlib
import threading
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from facejax.records.builder import SPLIT

# Files that a source keeps open. Systems allow a process 1024 by default, and a mixture has several
# sources; a million samples are 245 shards. Above that the oldest is closed, and opening it again
# costs up to a millisecond.
OPEN = 256


class Shards:
  """Records by number. May be read by many threads."""

  def __init__(self, folder: pathlib.Path):
    """Reads TFDS's description of the folder; a shard is opened when a record of it is read."""
    info = tfds.builder_from_directory(folder).info
    split = info.splits[SPLIT]
    self._features = info.features
    self._paths = [str(path) for path in split.filepaths]
    self._ends = list(itertools.accumulate(split.shard_lengths))
    self._lock = threading.Lock()
    self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()

  def __getitem__(self, record: int) -> dict[str, Any]:
    """Reads a record as tfds gives it. Raises what array_record and the parser do."""
    shard = bisect.bisect_right(self._ends, record)
    start = self._ends[shard - 1] if shard else 0
    (data,) = self._reader(shard).read([record - start])
    return self._features.deserialize_example_np(data)

  def _reader(self, shard: int) -> Any:
    with self._lock:
      reader = self._readers.pop(shard, None)
      if reader is None:
        # As TFDS opens it: without reading ahead, which random reads have no use for.
        reader = array_record_module.ArrayRecordReader(
          self._paths[shard], options="readahead_buffer_size:0", file_reader_buffer_size=32768
        )
      self._readers[shard] = reader
      if len(self._readers) > OPEN:
        self._readers.popitem(last=False)  # closed when the last thread that reads it is done
      return reader
