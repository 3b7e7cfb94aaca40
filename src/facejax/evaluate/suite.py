"""A model and a benchmark -> predictions.jsonl and results.json, item by item, resumable.

Items are asked in chunks of `rows`, ordered by their media and length, so that a batch wastes
little and few shapes are compiled. Chunks do not depend on what was answered before: a run that was
killed and goes on computes the same batches as one that was not. The next chunk's files are read
while the device answers.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from facejax.config import RunConfig
from facejax.data.media import MediaError
from facejax.data.pipeline import row_format
from facejax.data.rows import RowFormat
from facejax.evaluate.predictions import Predictions
from facejax.evaluate.protocol import Benchmark, Item, missing
from facejax.evaluate.results import summarise
from facejax.generate import Answer, Sampling
from facejax.logs import Progress
from facejax.records.raw import RawSample, decode
from facejax.types import Refusal, Sample, Turn
from facejax.visual_table import VisualTable

RESULTS = "results.json"
MISSING = "missing.jsonl"
_SHOWN = 10  # missing files that an error names
_GREEDY = Sampling()


class Asked(Protocol):
  """What answers: generate.Answerer, or anything like it."""

  def answer(
    self, samples: Sequence[Sample], sampling: Sampling, seed: int = 0
  ) -> Sequence[Answer]:
    """An answer to each sample."""
    ...


@dataclasses.dataclass(frozen=True)
class Model:
  """What is evaluated.

  Attributes:
    config: layout of rows, template and tiling; evaluate.rows are answered at a time.
    answerer: of its parameters.
    checkpoint: where they come from, for records.
    digest: of the parameters.
    stage: whose modalities are read.
  """

  config: RunConfig
  answerer: Asked
  checkpoint: str
  digest: str
  stage: str = ""


@dataclasses.dataclass(frozen=True)
class Terms:
  """How a benchmark is run.

  Attributes:
    sampling: of answers.
    new_tokens: an answer is cut after so many, instead of the sampling's; None: the benchmark's.
    limit: a subset of so many items.
    allow_missing: items without their files count as wrong, instead of stopping the run.
    overwrite: an earlier run's answers go.
    protocol: "zero-shot" or "fine-tuned", as published rows are.
    seed: of draws and resamples.
  """

  sampling: Sampling = _GREEDY
  new_tokens: int | None = None
  limit: int | None = None
  allow_missing: bool = False
  overwrite: bool = False
  protocol: str = "zero-shot"
  seed: int = 0


def evaluate(benchmark: Benchmark, model: Model, out: Path, terms: Terms = Terms()) -> dict:
  """Asks what is not answered yet; writes out/predictions.jsonl and out/results.json.

  Args:
    benchmark: what is asked.
    model: who answers.
    out: folder of this benchmark; a run of the same settings in it goes on.
    terms: how.

  Returns:
    See results.summarise, with `settings`, `speed` and `protocol`.

  Raises:
    FileNotFoundError: files of items are missing, all of them listed in out/missing.jsonl.
    ValueError: another run's folder.
  """
  benchmark = ready(benchmark, out, terms)
  header = settings(benchmark, model.config, model.stage, terms) | {"checkpoint": model.digest}
  form = row_format(model.config.model, model.config.data)
  with Predictions(out, header, overwrite=terms.overwrite) as predictions:
    items = {item.id: item for item in benchmark.items}
    predictions.forget(lambda r: r.get("unread", False) and not items[r["id"]].error)
    predictions.reread(lambda record: _parsed(benchmark, items[record["id"]], record))
    started, before = time.monotonic(), len(predictions.records)
    _answer_all(
      _Asker(benchmark, model, form, _sampling(benchmark, terms), terms.seed), predictions
    )
    asked, seconds = len(predictions.records) - before, time.monotonic() - started
    results = summarise(
      benchmark,
      list(predictions.records.values()),
      model.config.evaluate.bootstrap,
      terms.seed,
    )
  results["settings"] = predictions.header
  results["protocol"] = terms.protocol
  results["speed"] = {"asked": asked, "seconds": round(seconds, 2)}
  partial = out / f"{RESULTS}.tmp"
  partial.write_text(json.dumps(results, indent=1) + "\n")
  partial.replace(out / RESULTS)
  return results


def settings(benchmark: Benchmark, config: RunConfig, stage: str, terms: Terms) -> dict[str, Any]:
  """What answers depend on beside the parameters, as JSON values of predictions.jsonl's header."""
  return {
    "benchmark": benchmark.name,
    "items": len(benchmark.items),
    "items_sha256": benchmark.digest(),
    "task": benchmark.task,
    "classes": list(benchmark.classes),
    "cluster": benchmark.cluster,
    "parser": benchmark.parser,
    **{f"benchmark.{name}": value for name, value in benchmark.settings.items()},
    "template": config.data.template,
    "tokenizer": config.data.tokenizer,
    "modalities": list(config.reads(stage)),
    "tiling": {
      "image_size": config.model.image.image_size,
      "resize": config.data.resize,
      "antialias": config.data.antialias,
      "min_tiles": config.data.min_tiles,
      "max_tiles": config.data.max_tiles,
    },
    "frames": config.model.frames,
    "dtype": config.model.dtype,
    "rows": config.evaluate.rows,
    "decoding": {**dataclasses.asdict(_sampling(benchmark, terms)), "seed": terms.seed},
    "limit": terms.limit,
  }


def _sampling(benchmark: Benchmark, terms: Terms) -> Sampling:
  """With the benchmark's length of answers, unless the terms ask for another."""
  return dataclasses.replace(terms.sampling, new_tokens=terms.new_tokens or benchmark.new_tokens)


def ready(benchmark: Benchmark, out: Path, terms: Terms) -> Benchmark:
  """The items that a run asks; those without their files say so.

  Looks for every file, and lists those that are missing in out/missing.jsonl. Raises
  FileNotFoundError if there are any, unless the terms allow it.
  """
  benchmark = benchmark.limited(terms.limit)
  lacks = missing(benchmark)
  out.mkdir(parents=True, exist_ok=True)
  path = out / MISSING
  path.unlink(missing_ok=True)
  if not lacks:
    return benchmark
  path.write_text("".join(json.dumps(dataclasses.asdict(refusal)) + "\n" for refusal in lacks))
  if not terms.allow_missing:
    lines = [f"{refusal.id}: {refusal.reason}" for refusal in lacks[:_SHOWN]]
    raise FileNotFoundError(
      f"{benchmark.name}: {len(lacks)} of {len(benchmark.items)} items lack a file:\n  "
      + "\n  ".join(lines)
      + f"\nAll are in {path}. Complete {benchmark.folder}, or count them as wrong with "
      "--allow-missing."
    )
  reasons = {refusal.id: refusal.reason for refusal in lacks}
  items = [dataclasses.replace(i, error=i.error or reasons.get(i.id, "")) for i in benchmark.items]
  return dataclasses.replace(benchmark, items=items)


def chunks(items: Sequence[Item], rows: int) -> Iterator[list[Item]]:
  """The items that can be asked, `rows` at a time; a pure function of both."""
  asked = [item for item in items if not item.error]
  kinds = lambda item: tuple(sorted(medium.kind for medium in item.media))
  asked.sort(key=lambda item: (kinds(item), len(item.prompt), item.id))
  for start in range(0, len(asked), rows):
    yield asked[start : start + rows]


def _answer_all(asker: "_Asker", predictions: Predictions) -> None:
  """Answers chunk by chunk what the predictions lack."""
  benchmark = asker.benchmark
  predictions.add(
    {**asker.record(item, None, item.error), "unread": True}
    for item in benchmark.items
    if item.error
  )
  lacks = lambda part: any(item.id not in predictions.records for item in part)
  parts = enumerate(chunks(benchmark.items, asker.model.config.evaluate.rows))
  left = [(number, part) for number, part in parts if lacks(part)]
  with (
    Progress(benchmark.name, len(predictions.records), len(benchmark.items)) as progress,
    ThreadPoolExecutor(1) as reader,
  ):
    coming = [reader.submit(asker.read, part) for _, part in left[:1]]
    for place, (number, part) in enumerate(left):
      samples = coming.pop().result()
      coming += [reader.submit(asker.read, part) for _, part in left[place + 1 : place + 2]]
      predictions.add(asker.answer(number, part, samples))
      progress.advance(len(predictions.records))
      if place % max(1, len(left) // 10) == 0 or place + 1 == len(left):
        progress.show(len(predictions.records), "answers")


@dataclasses.dataclass(frozen=True)
class _Asker:
  """One model asked one benchmark."""

  benchmark: Benchmark
  model: Model
  form: RowFormat
  sampling: Sampling
  seed: int

  def read(self, part: Sequence[Item]) -> list[Sample | Refusal]:
    """The decoded items of a chunk."""
    return [self._sample(item) for item in part]

  def _sample(self, item: Item) -> Sample | Refusal:
    """The decoded item, or why it cannot be asked: damaged media, or more than fits the model."""
    model = self.form.table.model
    room = model.decoder.max_length - self.sampling.new_tokens + 1
    try:
      raw = RawSample(item.id, (Turn("human", item.prompt),), self.benchmark.load(item))
      sample = decode(raw, model.frames)
      outline = [self.form.outline(medium) for medium in sample.media]
      count = lambda kind: sum(m.pictures for m in outline if m.kind == kind)
      table = VisualTable(model, count("image"), count("video"))
      wide = dataclasses.replace(self.form, table=table, length=2**31 - 1)
      length = len(wide.text(sample.id, sample.conversation, outline, prompt=True))
    except (MediaError, ValueError) as error:
      return Refusal(item.id, str(error))
    if length <= room:
      return sample
    return Refusal(
      item.id,
      f"the prompt with {len(item.media)} media takes {length} tokens, the model has room for "
      f"{room} beside the answer",
    )

  def answer(
    self, number: int, part: Sequence[Item], samples: Sequence[Sample | Refusal]
  ) -> list[dict[str, Any]]:
    """The records of chunk `number`; what cannot be asked has its reason.

    Draws depend on the chunk and the place in it, not on what was answered before.
    """
    asked = [sample for sample in samples if isinstance(sample, Sample)]
    seed = self.seed * 1_000_003 + number
    answers = iter(self.model.answerer.answer(asked, self.sampling, seed) if asked else ())
    return [
      self.record(item, next(answers), "")
      if isinstance(sample, Sample)
      else self.record(item, None, sample.reason)
      for item, sample in zip(part, samples, strict=True)
    ]

  def record(self, item: Item, answer: Answer | None, error: str) -> dict[str, Any]:
    """What predictions.jsonl says of an item."""
    record: dict[str, Any] = {
      "id": item.id,
      "question": item.prompt,
      "media": [list(medium) for medium in item.media],
      "prompt": self.form.template.asked(item.prompt),
      "answer": answer.text if answer else "",
      "stopped": bool(answer and answer.stopped),
      "parsed": self.benchmark.parse(answer.text, item) if answer else None,
      "truth": item.truth,
      "groups": dict(item.groups),
    }
    if item.choices:
      record["choices"] = list(item.choices)
    return {**record, "error": error} if error else record


def _parsed(benchmark: Benchmark, item: Item, record: Mapping[str, Any]) -> Any:
  return None if record.get("error") else benchmark.parse(record["answer"], item)


def digest_of(manifest: Mapping[str, str]) -> str:
  """A short name of parameters: of bases.manifest(), their shapes, types and 256 numbers each."""
  return hashlib.sha256(json.dumps(dict(sorted(manifest.items()))).encode()).hexdigest()[:16]
