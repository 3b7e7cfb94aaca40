"""Step -> Batch: a pure function of (data, seed, step), whatever the hosts, workers or history.

  step, row -> sample   Grain's seeded shuffle, another permutation in each epoch
  sample    -> row      decoded by the source, laid out by rows.py
  rows      -> batch    stacked; NumPy, uint8 pixels; nothing is normalised on the host

The Grain graph has no filter and packs nothing at run time, so the step number is the data
position: a resumed run starts at its step, and no iterator state is saved.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import grain
import jax
from absl import flags

from facejax.config import MODALITIES, DataConfig, ModelConfig
from facejax.data import chat
from facejax.data.bpe import BpeTokenizer
from facejax.data.llava import LlavaSource
from facejax.data.media import MediaError
from facejax.data.rows import Row, RowFormat, collate, empty, encode
from facejax.data.sources import Source, SyntheticSource
from facejax.data.tokenizer import TextTokenizer, Tokenizer
from facejax.types import Batch, Kind, Refusal
from facejax.visual_table import VisualTable

_THREADS = 8  # decoding at a time, in each process
_AHEAD = 2  # batches that are decoded before they are asked for


def load_tokenizer(name: str) -> TextTokenizer:
  """The packaged tokenizer for "demo", else the one of that file or folder.

  A folder with a tokenizer.model is a SentencePiece one, as LLaMA's are; else one with a
  tokenizer.json or a vocab.json is a byte-level one, as Qwen2's are.
  """
  if name == "demo":
    return Tokenizer.demo()
  path = pathlib.Path(name)
  has = lambda *files: any((path / file).is_file() for file in files)
  if path.suffix == ".json" or (has("tokenizer.json", "vocab.json") and not has("tokenizer.model")):
    return BpeTokenizer.load(path)
  return Tokenizer.load(path)


def row_format(
  model: ModelConfig, data: DataConfig, modalities: tuple[str, ...] = MODALITIES
) -> RowFormat:
  """How rows are laid out for a model; modalities are narrowed to those that `data` reads.

  Raises ValueError if the tokenizer is not the decoder's, or lacks the template's tokens.
  """
  tokenizer = load_tokenizer(data.tokenizer)
  tokenizer.check_vocab(model.decoder.vocab)
  template = chat.TEMPLATES[data.template]
  template.check(tokenizer)
  return RowFormat(
    table=VisualTable(model, data.images_per_row, data.videos_per_row),
    length=data.row_length,
    tokenizer=tokenizer,
    modalities=tuple(name for name in data.modalities if name in modalities),
    resize=data.resize,
    template=template,
    antialias=data.antialias,
    tiles=(data.min_tiles, data.max_tiles),
  )


def make_source(form: RowFormat, data: DataConfig) -> Source:
  """The source that the config names."""
  model = form.table.model
  if data.source == "llava":
    return LlavaSource(data.llava, form, data.max_refused)
  kinds: tuple[Kind, ...] = ("image", "video")
  kinds = tuple(kind for kind in kinds if form.table.slots(kind))
  if not kinds:
    raise ValueError(
      "data.images_per_row=0 and data.videos_per_row=0 - a drawn face needs a slot - raise one"
    )
  return SyntheticSource(data.synthetic, model.image.image_size, data.seed, kinds, model.frames)


class Pipeline:
  """The batches of a run or a stage.

  Attributes:
    form: how a row is laid out; generation uses it too.
    source: where samples come from.
    local_rows: rows of a batch that this process reads.
  """

  def __init__(
    self,
    model: ModelConfig,
    data: DataConfig,
    rows: int,
    modalities: tuple[str, ...] = MODALITIES,
    *,
    source: Source | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
  ):
    """Opens the data and checks it.

    Args:
      model: sizes of what rows hold.
      data: which samples, and how they are laid out.
      rows: a step, over all processes.
      modalities: of data.modalities, those that are read.
      source: other samples than those that `data` names.
      process_index: this process; jax's if None. Process p reads the p-th block of the rows.
      process_count: of all processes; jax's if None.

    Raises:
      ValueError: rows do not divide over the processes, wrong tokenizer, or unusable data.
    """
    self.form = row_format(model, data, modalities)
    self.source = make_source(self.form, data) if source is None else source
    self._data = data
    self._rows = rows
    self._process = jax.process_index() if process_index is None else process_index
    processes = jax.process_count() if process_count is None else process_count
    if rows % processes:
      raise ValueError(
        f"rows={rows} a step do not divide over {processes} processes - expected a multiple - "
        "change the stage's rows"
      )
    self.local_rows = rows // processes
    if not len(self.source):
      raise ValueError("the source has no usable sample (0) - check the index in data.llava.index")
    self._order = grain.MapDataset.range(len(self.source)).shuffle(data.seed).repeat()

  @property
  def samples(self) -> int:
    """Usable samples: rows of one epoch."""
    return len(self.source)

  @property
  def refusals(self) -> tuple[Refusal, ...]:
    """Samples that were found unusable before the first step."""
    return self.source.refusals

  def name(self, sample_id: int) -> str:
    """What people call the sample of a `Batch.sample_id`."""
    return self.source.name(sample_id)

  def fingerprint(self) -> dict:
    """What batches hold, as JSON values: batch(step) is equal wherever this is equal.

    Hosts, workers, paths and the number of samples that may be refused do not enter.
    """
    form, model = self.form, self.form.table.model
    kinds: tuple[Kind, ...] = ("image", "video")
    sizes = {
      kind: {
        "slots": form.table.slots(kind),
        "frames": form.table.frames(kind),
        "size": model.encoder(kind).image_size,
        "tokens": form.table.count(kind, with_map=False),
        "tokens_with_map": form.table.count(kind, with_map=True),
      }
      for kind in kinds
    }
    return {
      "samples": self.source.fingerprint(),
      "seed": self._data.seed,
      "rows": self._rows,
      "row_length": form.length,
      "reads": sorted(form.reads),
      "resize": form.resize,
      "template": form.template.name,
      "tokenizer": form.tokenizer.fingerprint,
      "map_size": model.segmentation.size if "segmentation" in form.reads else 0,
      # Named only where they differ from what all runs did before there was a choice.
      **({} if form.antialias else {"antialias": False}),
      **({} if form.tiles == (1, 1) else {"tiles": list(form.tiles)}),
      **sizes,
    }

  def batch(self, step: int) -> tuple[Batch, tuple[Refusal, ...]]:
    """This process's rows of a step, and the samples among them that could not be decoded.

    Such a sample's row is empty: padding without loss, and no other sample takes its place.
    """
    first = step * self.local_rows
    return _collect([self._row(first + i) for i in range(self.local_rows)])

  def batches(self, start: int, stop: int) -> Iterator[tuple[Batch, tuple[Refusal, ...]]]:
    """batch(start), ..., batch(stop - 1), decoded ahead by threads or by data.workers processes.

    With workers, the calling script needs an `if __name__ == "__main__":` guard, as they import it.
    """
    rows = grain.MapDataset.range(start * self.local_rows, stop * self.local_rows).map(self._row)
    ahead = max(_AHEAD * self.local_rows, _THREADS)
    ready = rows.to_iter_dataset(grain.ReadOptions(_THREADS, ahead))
    if self._data.workers:
      if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which only an absl app parses
        flags.FLAGS.mark_as_parsed()
      ready = ready.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(self._data.workers))
    block: list[tuple[Row, Refusal | None]] = []
    with contextlib.closing(iter(ready)) as stream:  # ends threads and processes on a break too
      for row in stream:
        block.append(row)
        if len(block) == self.local_rows:
          yield _collect(block)
          block = []

  def _row(self, index: int) -> tuple[Row, Refusal | None]:
    """Row `index` of all rows that this process ever reads."""
    step, row = divmod(index, self.local_rows)
    sample = int(self._order[step * self._rows + self._process * self.local_rows + row])
    try:
      return encode([self.source[sample]], [sample], self.form), None
    except MediaError as error:
      return empty(self.form), Refusal(self.source.name(sample), str(error))


def _collect(block: list[tuple[Row, Refusal | None]]) -> tuple[Batch, tuple[Refusal, ...]]:
  batch = collate([row for row, _ in block])
  return batch, tuple(refusal for _, refusal in block if refusal)
