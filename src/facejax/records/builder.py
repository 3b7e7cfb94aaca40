"""A stretch of a layout -> a TFDS dataset of ArrayRecord shards. No TensorFlow is imported.

`_generate_examples` gives a generator, or with Beam transforms that do the same in Beam's workers.
Records keep the layout's order. A sample that cannot be read is left out and named.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from facejax.data.media import MediaError
from facejax.records.example import SampleRow, features, row_of, to_example
from facejax.records.raw import Layout
from facejax.records.spec import SourceSpec
from facejax.types import Refusal

SPLIT = "train"  # TFDS wants one; the source's own split is part of its specification


class Part(NamedTuple):
  """What was written.

  Attributes:
    shards: files, in order.
    lengths: records of each.
    rows: of the manifest, in the records' order.
    refusals: samples of the stretch that were left out.
  """

  shards: list[pathlib.Path]
  lengths: list[int]
  rows: list[SampleRow]
  refusals: list[Refusal]


class Records(tfds.core.GeneratorBasedBuilder):
  """Samples start to stop - 1 of a source."""

  VERSION = tfds.core.Version("1.0.0")
  name = "records"
  # Nothing is downloaded. TFDS would look for checksums beside this file, with a package
  # (importlib_resources) that it does not require.
  url_infos = None

  def __init__(
    self,
    source: SourceSpec,
    start: int,
    stop: int,
    *,
    data_dir: str | os.PathLike,
    with_beam: bool = False,
    seen: Callable[[int], None] = lambda index: None,
  ):
    """Prepares to build into data_dir; `seen` is called for every sample but not with Beam."""
    self._source, self._span, self._with_beam, self._seen = source, (start, stop), with_beam, seen
    self.rows: list[SampleRow] = []
    self.refusals: list[Refusal] = []
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"Source {self._source.name}, layout {self._source.layout}.",
      license=self._source.licence,
      features=features(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Any]:
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self):
    return self._transforms() if self._with_beam else self._examples()

  def _examples(self) -> Iterator[tuple[int, dict]]:
    layout = opened(self._source)
    for index in range(*self._span):
      example = read(layout, index)
      if isinstance(example, Refusal):
        self.refusals.append(example)
      else:
        self.rows.append(row_of(example))
        yield index, example
      self._seen(index)

  def _transforms(self):
    import apache_beam as beam

    numbers = beam.Create(range(*self._span))
    return numbers | beam.Reshuffle() | beam.FlatMap(functools.partial(_usable, self._source))


@functools.lru_cache(maxsize=1)
def opened(source: SourceSpec) -> Layout:
  """A source's layout; a process reads an index once."""
  return source.options.open()


def read(layout: Layout, index: int) -> dict[str, Any] | Refusal:
  """A sample's record, or why there is none."""
  try:
    return to_example(index, layout[index])
  except ValueError as error:  # MediaError is one
    return Refusal(layout.id(index), str(error))
  except OSError as error:  # a file without permission, a disk that fails
    return Refusal(layout.id(index), f"sample {layout.id(index)!r}: {error} - check the file")


def _usable(source: SourceSpec, index: int) -> list[tuple[int, dict]]:
  example = read(opened(source), index)
  return [] if isinstance(example, Refusal) else [(index, example)]


def build(
  source: SourceSpec,
  span: tuple[int, int],
  folder: pathlib.Path,
  beam: str | None = None,
  seen: Callable[[int], None] = lambda index: None,
) -> Part:
  """Builds samples span[0] to span[1] - 1 into an empty folder.

  Args:
    source: what to build.
    span: first sample, and the one behind the last.
    folder: it appears complete or not at all, but for TFDS's own "incomplete" folders.
    beam: options of a Beam pipeline, "" for Beam's defaults; None: without Beam. Beam chooses how
      many shards a part has.
    seen: called for each sample; not with Beam.

  Raises:
    ModuleNotFoundError: Beam is asked for and not installed.
  """
  builder = Records(source, *span, data_dir=folder, with_beam=beam is not None, seen=seen)
  config = tfds.download.DownloadConfig(num_shards=1)
  if beam is not None:
    config = _beam_config(beam)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces each part
      builder.download_and_prepare(download_config=config)
  except AssertionError as error:
    if not any(words in str(error) for words in ("No examples were yielded", "Not a single")):
      raise
    return Part([], [], [], _refused(source, range(*span)))
  # TFDS caches each builder for good (its `info` property), and a million rows are a gigabyte.
  rows, builder.rows = builder.rows, []
  refusals = builder.refusals
  if beam is not None:
    rows = [row_of(example) for example in builder.as_data_source(SPLIT)]
    refusals = _refused(source, sorted(set(range(*span)) - {row.place for row in rows}))
  info = builder.info.splits[SPLIT]
  return Part(list(map(pathlib.Path, info.filepaths)), list(info.shard_lengths), rows, refusals)


def _refused(source: SourceSpec, indices) -> list[Refusal]:
  """Asks again those that are missing, for the reason."""
  layout = opened(source)
  answers = [(index, read(layout, index)) for index in indices]
  for index, answer in answers:
    if not isinstance(answer, Refusal):
      raise MediaError(
        f"sample {layout.id(index)!r} could not be read at first and then could - expected files "
        "that stay as they are - build again"
      )
  return [answer for _, answer in answers if isinstance(answer, Refusal)]


def _beam_config(options: str) -> tfds.download.DownloadConfig:
  if importlib.util.find_spec("apache_beam") is None:
    raise ModuleNotFoundError(
      "--beam needs Apache Beam, which is not installed - pip install -e '.[beam]'"
    )
  from apache_beam.options.pipeline_options import PipelineOptions

  return tfds.download.DownloadConfig(beam_options=PipelineOptions(shlex.split(options)))


def write_info(folder: pathlib.Path, source: SourceSpec, lengths: list[int], size: int) -> None:
  """Writes TFDS's own description of shards that lie in `folder`, so that TFDS reads them."""
  builder = Records(source, 0, 0, data_dir=folder)
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=Records.name, split=SPLIT, filetype_suffix="array_record"
  )
  split = tfds.core.SplitInfo(
    name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template
  )
  builder.info.set_splits(tfds.core.splits.SplitDict([split]))
  builder.info.write_to_directory(folder)


def shard_name(shard: int, shards: int) -> str:
  """The file name that TFDS expects of a shard."""
  return f"{Records.name}-{SPLIT}.array_record-{shard:05d}-of-{shards:05d}"
