"""A label table of records/layouts -> a Benchmark: one question about each medium."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facejax.evaluate import answers
from facejax.evaluate.prompts import prompt
from facejax.evaluate.protocol import Benchmark, Item, MediaFile, from_files
from facejax.records.layouts.table import Row, Table
from facejax.records.raw import RawMedium
from facejax.types import Kind, Refusal

# Answers explain themselves: Face-LLaVA's average some 60 words; its script allows 1,024 tokens.
NEW_TOKENS = 256


class Labelled(NamedTuple):
  """A row of a release: where its medium is, what is true of it, who is in it.

  Attributes:
    id: in the release.
    path: relative to the folder; "" if there is no file.
    truth: as the parser gives it; None: the row has none and is no item.
    groups: see Item.groups.
    error: why it cannot be asked, or has no truth.
  """

  id: str
  path: str
  truth: Any
  groups: Mapping[str, str] = {}
  error: str = ""


@dataclasses.dataclass(frozen=True)
class Form:
  """What all items of a benchmark have in common.

  Attributes:
    name: of the suite.
    task: of scores.py.
    subject: of prompts.py and answers.PARSERS: "expression", "age" and so on.
    classes: of the benchmark.
    kind: of the media.
    wording: of the prompt.
    names: of the classes in a closed prompt; the classes themselves if empty.
    parse: instead of the subject's parser.
    cluster: see Benchmark.
  """

  name: str
  task: str
  subject: str
  classes: tuple[Any, ...]
  kind: Kind
  wording: str
  names: tuple[str, ...] = ()
  parse: Callable[[str], Any] | None = None
  cluster: str = ""


def benchmark(
  form: Form,
  rows: Iterable[Labelled],
  folder: str | Path,
  settings: Mapping[str, Any],
  load: Callable[[Item], tuple[RawMedium, ...]] | None = None,
) -> Benchmark:
  """Rows as items, all asked in the same words.

  Args:
    form: of the benchmark.
    rows: of the release.
    folder: of the media.
    settings: recorded with the predictions.
    load: reads an item's medium; None reads its file.
  """
  asked = prompt(form.subject, form.wording, form.kind, form.names or [*map(str, form.classes)])
  parser = form.parse or answers.PARSERS[form.subject]
  items, left_out = [], []
  for row in rows:
    if row.truth is None:
      left_out.append(Refusal(row.id, row.error or "no label"))
      continue
    media = (MediaFile(form.kind, row.path),) if row.path else ()
    items.append(Item(row.id, asked, media, row.truth, (), dict(row.groups), row.error))
  return Benchmark(
    name=form.name,
    items=items,
    task=form.task,
    classes=form.classes,
    parse=lambda answer, item: parser(answer),
    parser=answers.version(form.subject),
    folder=Path(folder),
    load=load or from_files(Path(folder)),
    settings={"prompt": form.wording, **settings},
    cluster=form.cluster,
    new_tokens=NEW_TOKENS,
    left_out=tuple(left_out),
  )


def of_table(
  table: Table,
  truth: Callable[[Mapping[str, Any]], Any],
  groups: Callable[[Row], Mapping[str, str]] = lambda row: {},
) -> list[Labelled]:
  """The rows of a table; one whose labels are no truth is left out, one without a file is not."""
  return [
    Labelled(r.id, r.path, truth(r.labels) if r.labels else None, groups(r), r.error)
    for r in table.rows
  ]


def table_media(table: Table, kind: Kind) -> Callable[[Item], tuple[RawMedium, ...]]:
  """Reads media as the table does, such as frames of clips; raises as Table.medium does."""
  rows = {row.id: row for row in table.rows}
  return lambda item: (RawMedium(kind, table.medium(rows[item.id])),)
