"""Step -> Batch: a pure function of (data, mixtures, seed, step), whatever the hosts or history.

  step, row -> samples  schedule.py: the mixture of that step, and its order
  samples   -> row      decoded by their sources, laid out behind each other by rows.py
  rows      -> batch    stacked; NumPy, uint8 pixels; nothing is normalised on the host

The Grain graph has no filter and packs nothing at run time, so the step number is the data
position: a resumed run starts at its step, and no iterator state is saved.
"""

import contextlib
import difflib
import gc
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import grain
import jax
import numpy as np
from absl import flags

from facejax.config import MODALITIES, DataConfig, Mixture, ModelConfig
from facejax.data import chat, order
from facejax.data.bpe import BpeTokenizer
from facejax.data.llava import LlavaSource
from facejax.data.media import MediaError
from facejax.data.rows import KINDS, Row, RowFormat, collate, encode, slots
from facejax.data.schedule import Schedule
from facejax.data.sources import Source, SyntheticSource
from facejax.data.tokenizer import TextTokenizer, Tokenizer
from facejax.types import Batch, Refusal, Sample
from facejax.visual_table import VisualTable

_THREADS = 2  # batches that are made at a time, before they are asked for, without workers


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


def open_source(name: str, form: RowFormat, data: DataConfig) -> Source:
  """The source of that name in a mixture. Raises ValueError or FileNotFoundError."""
  if name == "llava":
    return LlavaSource(data.llava, form, data.max_refused)
  if name == "synthetic":
    return _drawn(form, data)
  folder = pathlib.Path(name)
  if not folder.is_dir():
    near = difflib.get_close_matches(name, ("synthetic", "llava"), 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise FileNotFoundError(
      f"data.sources names '{name}', which is no folder{hint} - expected synthetic, llava, or a "
      "folder that facejax data build wrote for one source"
    )
  from facejax.records.store import RecordsSource  # TFDS takes half a second to import

  return RecordsSource(folder, form, data.max_refused)


def _drawn(form: RowFormat, data: DataConfig) -> SyntheticSource:
  kinds = tuple(kind for kind in KINDS if form.table.slots(kind))
  if not kinds:
    raise ValueError(
      "data.images_per_row=0 and data.videos_per_row=0 - a drawn face needs a slot - raise one"
    )
  model = form.table.model
  return SyntheticSource(
    data.synthetic, model.image.image_size, form.length, data.seed, kinds, model.frames
  )


class Pipeline:
  """The batches of a run or a stage.

  Attributes:
    form: how a row is laid out; generation uses it too.
    schedule: which samples stand in which row.
    local_rows: rows of a batch that this process reads.
  """

  def __init__(
    self,
    model: ModelConfig,
    data: DataConfig,
    rows: int,
    modalities: tuple[str, ...] = MODALITIES,
    mixtures: Sequence[Mixture] = (),
    *,
    sources: Mapping[str, Source] | None = None,
    process: tuple[int, int] | None = None,
  ):
    """Opens the data and checks it.

    Args:
      model: sizes of what rows hold.
      data: which samples, and how they are laid out.
      rows: a step, over all processes.
      modalities: of data.modalities, those that are read.
      mixtures: a stage's own, each from its step on; before the first, data's.
      sources: opened ones, by the names that the mixtures give them.
      process: (number of this process, of how many); jax's if None. Process p reads the p-th block
        of the rows.

    Raises:
      ValueError: rows do not divide over the processes, wrong tokenizer, or unusable data.
      FileNotFoundError: a source.
    """
    self.form = row_format(model, data, modalities)
    self._data = data
    self._rows = rows
    self._process, processes = process or (jax.process_index(), jax.process_count())
    if rows % processes:
      raise ValueError(
        f"rows={rows} a step do not divide over {processes} processes - expected a multiple - "
        "change the stage's rows"
      )
    self.local_rows = rows // processes
    if not mixtures or mixtures[0].start:
      mixtures = [Mixture(data.sources, data.weights), *mixtures]
    opened = sources or {}
    self.schedule = Schedule(
      mixtures,
      lambda name: opened[name] if name in opened else open_source(name, self.form, data),
      self.form.capacity,
      data.seed,
      rows,
    )

  @property
  def refusals(self) -> tuple[Refusal, ...]:
    """Samples that were found unusable before the first step."""
    return tuple(r for source in self.schedule.sources.values() for r in source.refusals)

  def name(self, sample_id: int) -> str:
    """What people call the sample of a `Batch.sample_id`."""
    return self.schedule.name(sample_id)

  def drawn(self, step: int) -> float:
    """Samples in this process's rows before a step, nearly: rows hold different numbers."""
    return self.schedule.drawn(step) * self.local_rows / self._rows

  def fingerprint(self) -> dict:
    """What batches hold, as JSON values: batch(step) is equal wherever this is equal.

    Hosts, workers, paths and the number of samples that may be refused do not enter.
    """
    form, model = self.form, self.form.table.model
    sizes = {
      kind: {
        "slots": form.table.slots(kind),
        "frames": form.table.frames(kind),
        "size": model.encoder(kind).image_size,
        "tokens": form.table.count(kind, with_map=False),
        "tokens_with_map": form.table.count(kind, with_map=True),
      }
      for kind in KINDS
    }
    return {
      "mixtures": self.schedule.fingerprint(),
      "order": order.VERSION,
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
      **({"labels": list(form.labels.labels)} if form.labels else {}),
      **sizes,
    }

  def batch(self, step: int) -> tuple[Batch, tuple[Refusal, ...]]:
    """This process's rows of a step, and the samples among them that could not be decoded.

    Such a sample's place in its row stays empty: no other sample takes it.
    """
    first = step * self.local_rows
    return _collect([self._row(first + i) for i in range(self.local_rows)])

  def batches(self, start: int, stop: int) -> Iterator[tuple[Batch, tuple[Refusal, ...]]]:
    """batch(start), ..., batch(stop - 1), decoded ahead by threads or by data.workers processes.

    With workers, the calling script needs an `if __name__ == "__main__":` guard, as they import it.
    """
    # Whole batches: handed over row by row, each costs a worker 3 to 4 ms more of a core.
    steps = grain.MapDataset.range(start, stop).map(self.batch)
    # A worker has no threads besides: pictures are too short a work to share one lock over.
    threads = 0 if self._data.workers else _THREADS
    ready = steps.to_iter_dataset(grain.ReadOptions(threads, threads))
    if self._data.workers:
      if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which only an absl app parses
        flags.FLAGS.mark_as_parsed()
      ready = ready.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(self._data.workers))
    yield from self._made(ready)
    # Grain's iterator is a cycle that holds the last batch of each worker in shared memory; left to
    # the end of the process, Python warns of leaks.
    del ready
    gc.collect()

  def _made(self, ready: grain.IterDataset) -> Iterator[tuple[Batch, tuple[Refusal, ...]]]:
    with contextlib.closing(iter(ready)) as stream:  # ends threads and processes on a break too
      for batch, refused in stream:
        # Out of the shared memory that a worker wrote it to, which goes with the worker.
        yield jax.tree.map(np.array, batch) if self._data.workers else batch, refused

  def _row(self, index: int) -> tuple[Row, list[Refusal]]:
    """Row `index` of all rows that this process ever reads."""
    step, row = divmod(index, self.local_rows)
    samples: list[tuple[int, Sample]] = []
    refused: list[Refusal] = []
    for number in self.schedule.row(step, self._process * self.local_rows + row):
      try:
        samples.append((number, self.schedule.sample(number)))
      except MediaError as error:
        refused.append(Refusal(self.name(number), str(error)))
    return self._laid_out(samples, refused)

  def _laid_out(
    self, samples: list[tuple[int, Sample]], refused: list[Refusal]
  ) -> tuple[Row, list[Refusal]]:
    """The row of these samples, without those whose media the model cannot take."""
    lay = lambda some: encode([sample for _, sample in some], [n for n, _ in some], self.form)
    try:
      return lay(samples), refused
    except MediaError:
      usable = []
    except ValueError as error:  # sizes were checked before the first step
      raise ValueError(self._changed(samples) or str(error)) from error
    for number, sample in samples:  # one by one, to find which it was
      try:
        lay([(number, sample)])
        usable.append((number, sample))
      except MediaError as error:
        refused = [*refused, Refusal(self.name(number), str(error))]
    return lay(usable), refused

  def _changed(self, samples: list[tuple[int, Sample]]) -> str:
    """Says which sample takes more of a row than it did when the run started; "" if none does."""
    for number, sample in samples:
      outline = [self.form.outline(medium) for medium in sample.media]
      text = self.form.text(sample.id, sample.conversation, outline)
      now, then = (len(text), *slots(outline)), self.schedule.size(number)
      if any(a > b for a, b in zip(now, then, strict=True)):
        return (
          f"sample {sample.id!r} takes {now} tokens, pictures and clips of a row, it took {then} "
          "when its source was opened - expected files that do not change during a run - start it "
          "again with --resume, which looks at them anew"
        )
    return ""


def _collect(block: list[tuple[Row, list[Refusal]]]) -> tuple[Batch, tuple[Refusal, ...]]:
  batch = collate([row for row, _ in block])
  return batch, tuple(refusal for _, refused in block for refusal in refused)
