"""A job, its services and an output folder -> results and a report. What the commands call."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from tqdm import tqdm

from facejax.annotate import output, prompts
from facejax.annotate.asking import Asker, Patience
from facejax.annotate.endpoint import Endpoint, Service
from facejax.annotate.journal import Journal
from facejax.annotate.ledger import Cap, Ledger
from facejax.annotate.report import report
from facejax.annotate.runner import Rules, Runner
from facejax.annotate.unit import Recipe, Result, Unit
from facejax.annotate.workers import Workers

_HEADER = "Idempotency-Key"


@dataclasses.dataclass(frozen=True)
class Pace:
  """How a job is run.

  Attributes:
    patience: how often and how long is asked.
    cap: over all runs on an output.
    concurrency: units under way at a time.
    idempotent: the endpoint bills requests of one Idempotency-Key once. The header is sent in any
      case; this says whether the budget may count on it.
    currency: of the prices, for the report.
  """

  patience: Patience = dataclasses.field(default_factory=Patience)
  cap: Cap = dataclasses.field(default_factory=Cap)
  concurrency: int = 16
  idempotent: bool = False
  currency: str = "USD"


@dataclasses.dataclass(frozen=True)
class Terms(Pace):
  """How a recipe is run.

  Attributes:
    rules: what is sent and kept.
    assistant: who answers in dataset.json: "gpt" (LLaVA) or "assistant" (FairFaceGPT as released).
    text_files: answers as the released FairFaceGPT code leaves them, as well.
  """

  rules: Rules = dataclasses.field(default_factory=Rules)
  assistant: str = "gpt"
  text_files: bool = False


class Job(Protocol):
  """What is to be asked, and what is made of it."""

  @property
  def name(self) -> str:
    """Of the recipe, for journal, report and progress bar."""
    ...

  @property
  def units(self) -> Sequence[Any]:
    """To be settled, in the order of the results."""
    ...

  def settler(self, asker: Asker, ends: Sequence[Endpoint]) -> Callable[[Any], Awaitable[Result]]:
    """Settles a unit through the asker, at the ends of the services; raises its Stopped."""
    ...

  def write(self, out: pathlib.Path, results: list[Result]) -> None:
    """Writes the results, while the output is locked."""
    ...


@dataclasses.dataclass(frozen=True)
class Done:
  """Results in the order of the units, the report, and what failed on this machine, if anything."""

  results: list[Result]
  report: dict[str, Any]
  error: Exception | None


async def annotate(
  recipe: Recipe, services: Sequence[Service], out: pathlib.Path, terms: Terms
) -> Done:
  """Asks for what the journal in `out` does not have, and writes the files of output.py.

  Args:
    recipe: what is asked.
    services: the writer and, where answers are rated, the rater.
    out: the output folder; a run there is continued.
    terms: how.

  Raises as `conduct`.
  """
  return await conduct(_Annotation(recipe, terms), services, out, terms)


async def conduct(job: Job, services: Sequence[Service], out: pathlib.Path, pace: Pace) -> Done:
  """Settles the units of a job, of which the journal in `out` has none, some or all.

  Raises:
    ModuleNotFoundError: openai is not installed.
    ValueError: no API key, a damaged journal, or another run on `out`.
  """
  began, began_at = time.monotonic(), time.time()
  async with contextlib.AsyncExitStack() as stack:
    ends = [await stack.enter_async_context(Endpoint(s, _HEADER)) for s in services]
    journal = stack.enter_context(contextlib.closing(Journal(out)))
    ledger = Ledger(pace.cap, pace.idempotent)
    runs = _replay(journal, ledger)
    places = [(service.model, service.place()) for service in services]
    journal.run(recipe=job.name, units=len(job.units), models=places, time=began_at)
    ledger.replay({"kind": "run"})
    before = ledger.requests
    asker = Asker(journal, ledger, pace.patience)
    workers = Workers(asker, job.settler(asker, ends))
    bar = stack.enter_context(_bar(job))
    advance = lambda: _advance(bar, ledger, pace)
    results = await workers.run(job.units, pace.concurrency, advance)
    seconds, sent = time.monotonic() - began, ledger.requests - before
    found = report(
      results,
      ledger,
      pace.cap,
      recipe=job.name,
      models=places,
      currency=pace.currency,
      idempotent=pace.idempotent,
      runs=runs + 1,
      torn_bytes=journal.torn,
      stopped=asker.stopped,
      seconds=seconds,
      sent=sent,
      per_second=sent / seconds,
    )
    output.replace(out / "report.json", [json.dumps(found, indent=1) + "\n"])
    job.write(out, results)  # while the journal is locked
  return Done(results, found, workers.error)


def plan(recipe: Recipe, services: Sequence[Service], terms: Terms) -> str:
  """What a recipe can cost, without a request: the bounds that the budget works with."""
  writer, *rater = services
  once = 0.0
  for unit in recipe.units:
    frames = 1 if unit.kind == "image" else terms.rules.frames
    once += writer.bound((unit.prompt.system, unit.prompt.filled(unit.facts)), frames)
    for service in rater:
      texts = (prompts.RATER.system, prompts.RATER.text, *unit.facts.values())
      # The answer that is rated has as many tokens as the writer may write.
      once += service.bound(texts, frames) + service.cost(writer.max_tokens, 0)
  times = terms.patience.refusals + 1
  return (
    f"{len(recipe.units)} units, {len(services) * len(recipe.units)} answers: at most "
    f"{once:.2f} {terms.currency}; {times * once:.2f} if each were asked for {times} times"
  )


@dataclasses.dataclass(frozen=True)
class _Annotation:
  """A recipe as a job."""

  recipe: Recipe
  terms: Terms

  @property
  def name(self) -> str:
    return self.recipe.name

  @property
  def units(self) -> Sequence[Unit]:
    return self.recipe.units

  def settler(self, asker: Asker, ends: Sequence[Endpoint]) -> Callable[[Unit], Awaitable[Result]]:
    writer, *rater = ends
    return Runner(asker, writer, rater[0] if rater else None, self.terms.rules).settle

  def write(self, out: pathlib.Path, results: list[Result]) -> None:
    output.write(out, self.recipe, results, self.terms.assistant)
    if self.terms.text_files:
      output.write_text_files(out / "ChatGPT", self.recipe, results)


def _bar(job: Job) -> tqdm:
  often = 0.2 if sys.stderr.isatty() else 60.0  # seconds; a log file is no terminal
  return tqdm(total=len(job.units), desc=job.name, unit="unit", mininterval=often)


def _advance(bar: tqdm, ledger: Ledger, pace: Pace) -> None:
  bar.set_postfix_str(f"{ledger.spent:.2f} {pace.currency}", refresh=False)
  bar.update()


def _replay(journal: Journal, ledger: Ledger) -> int:
  """Earlier runs, into the ledger; how many there were."""
  runs = 0
  for record in journal.replay():
    ledger.replay(record)
    runs += record["kind"] == "run"
  return runs
