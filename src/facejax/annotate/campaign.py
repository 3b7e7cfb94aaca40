"""A recipe, its services and an output folder -> results and a report. What the command calls."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from facejax.annotate import output, prompts
from facejax.annotate.asking import Asker, Patience
from facejax.annotate.endpoint import Endpoint, Service
from facejax.annotate.journal import Journal
from facejax.annotate.ledger import Cap, Ledger
from facejax.annotate.report import report
from facejax.annotate.runner import Rules, Runner
from facejax.annotate.unit import Recipe, Result

_HEADER = "Idempotency-Key"


@dataclasses.dataclass(frozen=True)
class Terms:
  """How a recipe is run.

  Attributes:
    rules: what is sent and kept.
    patience: how often and how long is asked.
    cap: over all runs on an output.
    concurrency: units under way at a time.
    idempotent: the endpoint bills requests of one Idempotency-Key once. The header is sent in any
      case; this says whether the budget may count on it.
    currency: of the prices, for the report.
    assistant: who answers in dataset.json: "gpt" (LLaVA) or "assistant" (FairFaceGPT as released).
    text_files: answers as the released FairFaceGPT code leaves them, as well.
  """

  rules: Rules = dataclasses.field(default_factory=Rules)
  patience: Patience = dataclasses.field(default_factory=Patience)
  cap: Cap = dataclasses.field(default_factory=Cap)
  concurrency: int = 16
  idempotent: bool = False
  currency: str = "USD"
  assistant: str = "gpt"
  text_files: bool = False


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

  Raises:
    ModuleNotFoundError: openai is not installed.
    ValueError: no API key, a damaged journal, or another run on `out`.
  """
  began, began_at = time.monotonic(), time.time()
  async with contextlib.AsyncExitStack() as stack:
    ends = [await stack.enter_async_context(Endpoint(s, _HEADER)) for s in services]
    journal = stack.enter_context(contextlib.closing(Journal(out)))
    ledger = Ledger(terms.cap, terms.idempotent)
    runs = _replay(journal, ledger)
    places = [(service.model, service.place()) for service in services]
    journal.run(recipe=recipe.name, units=len(recipe.units), models=places, time=began_at)
    ledger.replay({"kind": "run"})
    before = ledger.requests
    asker = Asker(journal, ledger, terms.patience)
    runner = Runner(recipe, asker, ends[0], ends[1] if len(ends) > 1 else None, terms.rules)
    bar = stack.enter_context(_bar(recipe))
    results = await runner.run(terms.concurrency, lambda: _advance(bar, ledger, terms))
    seconds, sent = time.monotonic() - began, ledger.requests - before
    found = report(
      results,
      ledger,
      terms.cap,
      recipe=recipe.name,
      models=places,
      currency=terms.currency,
      idempotent=terms.idempotent,
      runs=runs + 1,
      torn_bytes=journal.torn,
      stopped=asker.stopped,
      seconds=seconds,
      sent=sent,
      per_second=sent / seconds,
    )
    _write(out, recipe, results, found, terms)  # while the journal is locked
  return Done(results, found, runner.error)


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


def _write(
  out: pathlib.Path, recipe: Recipe, results: list[Result], found: dict[str, Any], terms: Terms
) -> None:
  output.replace(out / "report.json", [json.dumps(found, indent=1) + "\n"])
  output.write(out, recipe, results, terms.assistant)
  if terms.text_files:
    output.write_text_files(out / "ChatGPT", recipe, results)


def _bar(recipe: Recipe) -> tqdm:
  often = 0.2 if sys.stderr.isatty() else 60.0  # seconds; a log file is no terminal
  return tqdm(total=len(recipe.units), desc=recipe.name, unit="unit", mininterval=often)


def _advance(bar: tqdm, ledger: Ledger, terms: Terms) -> None:
  bar.set_postfix_str(f"{ledger.spent:.2f} {terms.currency}", refresh=False)
  bar.update()


def _replay(journal: Journal, ledger: Ledger) -> int:
  """Earlier runs, into the ledger; how many there were."""
  runs = 0
  for record in journal.replay():
    ledger.replay(record)
    runs += record["kind"] == "run"
  return runs
