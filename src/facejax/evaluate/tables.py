"""Results of a suite -> tables as text, Markdown, HTML and JSON; published rows are marked.

out/BENCHMARK/results.json  ->  out/results.json, out/results.md, out/results.html
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from facejax.evaluate import published
from facejax.evaluate.fairness import LEAST
from facejax.evaluate.scores import WORDS

_PUBLISHED = "published, not measured by facejax"
_STYLE = (
  "body{font:15px/1.45 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}"
  "table{border-collapse:collapse;margin:.6rem 0}th,td{border:1px solid #bbb;padding:.2rem .5rem;"
  "text-align:left}td{font-variant-numeric:tabular-nums}tr.published{color:#555;font-style:italic}"
)


class Table(NamedTuple):
  """A table: header, rows of text, and which rows are published ones."""

  title: str
  header: list[str]
  rows: list[list[str]]
  published: frozenset[int] = frozenset()
  note: str = ""


def tables(results: Mapping[str, Any]) -> list[Table]:
  """All tables of one benchmark's results."""
  made = [_main(results)]
  for what, each in results["each"].items():
    rows = [[name, cell(interval)] for name, interval in each.items()]
    made.append(Table(f"{what} of each", ["", what], rows))
  for kind, groups in results["groups"].items():
    table = _groups(f"by {kind}", groups)
    sub_tasks = results["benchmark"] == "facexbench" and kind == "sub-task"
    made.append(_beside_sub_tasks(table) if sub_tasks else table)
  for kind, found in results["fairness"].items():
    made.append(_groups(f"by {kind} of the person", found["groups"]))
    made.append(_gaps(kind, found))
  if results["confusion"]:
    made.append(_confusion(results["confusion"]))
  return made


def cell(interval: Mapping | None) -> str:
  """A value with its interval; a dash for none."""
  return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**interval) if interval else "–"


def _main(results: Mapping[str, Any]) -> Table:
  """The run above what is published."""
  metrics = list(results["scores"])
  name, protocol = results["benchmark"], results["protocol"]
  rows = published.rows(name)
  others = [k for k in dict.fromkeys(k for r in rows for k in r.values) if k not in metrics]
  header = ["", "setting", "items", *(WORDS.get(m, m) for m in metrics), *others]
  if rows:
    header.append("source")
  by_category = results["groups"].get("category", {})
  own = [
    "this run",
    protocol,
    str(results["n"]),
    *(cell(results["scores"][m]) for m in metrics),
    *(cell(by_category.get(name, {}).get("accuracy")) for name in others),
    *(["measured here"] if rows else []),
  ]
  body = [own]
  for row in rows:
    values = [row.values.get(m) for m in (*metrics, *others)]
    cells = ["–" if x is None else f"{x:.2f}" for x in values]
    items = str(row.questions) if row.questions else "?"
    body.append(
      [f"{row.model} ({_PUBLISHED})", row.setting, items, *cells, f"{row.source} ({row.tag})"]
    )
  return Table(name, header, body, frozenset(range(1, len(body))), _note(results))


def _note(results: Mapping[str, Any]) -> str:
  """What a reader must know about the denominator."""
  failed, told = results["parse_failures"], []
  told.append(
    f"{failed['count']} of {results['n']} answers state no label ({failed['value']:.2f} % "
    f"[{failed['low']:.2f}, {failed['high']:.2f}]); they count as the worst that they could be."
  )
  for key, words in (
    ("not_asked", "items could not be asked and count so, too"),
    ("left_out", "rows of the release have no usable truth and are no items"),
    ("notes", "items are odd and count as they are"),
  ):
    if count := results[key]["count"]:
      first = "; ".join(f"{r['id']}: {r['why']}" for r in results[key]["first"][:3])
      told.append(f"{count} {words}, such as {first}.")
  if results["cut"]:
    told.append(f"{results['cut']} answers were cut at the length limit.")
  told.append("[95 % bootstrap interval].")
  if published.rows(results["benchmark"]) and results["benchmark"] != "facexbench":
    told += [f"Of published rows: {note}" for note in published.notes()]
  return " ".join(told)


def _groups(title: str, groups: Mapping[str, Mapping]) -> Table:
  outside = ("n", "parse_failures")
  metrics = list(dict.fromkeys(m for g in groups.values() for m in g if m not in outside))
  rows = [
    [name, str(group["n"]), *(cell(group.get(m)) for m in metrics), str(group["parse_failures"])]
    for name, group in groups.items()
  ]
  return Table(title, ["", "n", *(WORDS.get(m, m) for m in metrics), "no label"], rows)


def _beside_sub_tasks(table: Table) -> Table:
  """The table with FaceLLM's published figures in columns of their own."""
  tasks = published.sub_tasks()
  models = list(dict.fromkeys(m for task in tasks.values() for m in task["percent"]))
  header = [*table.header, *(f"{m} (published)" for m in models)]
  percent = lambda task, m: f"{tasks[task]['percent'][m]:.1f}" if task in tasks else "–"
  rows = [[*row, *(percent(row[0], m) for m in models)] for row in table.rows]
  return table._replace(header=header, rows=rows)


def _gaps(kind: str, found: Mapping[str, Any]) -> Table:
  rows = [
    [WORDS.get(metric, metric), gap["worst"], gap["best"], cell(gap["gap"])]
    for metric, gap in found["gaps"].items()
  ]
  note = (
    f"Groups of at least {LEAST} items. Worst and best are picked by their values: over many small "
    "groups some gap always shows."
  )
  if found["without"]:
    note += f" {found['without']} items do not say it."
  return Table(f"gaps by {kind} of the person", ["", "worst", "best", "gap"], rows, note=note)


def _confusion(confusion: Mapping[str, Any]) -> Table:
  names = confusion["classes"]
  rows = [
    [name, *map(str, counts)] for name, counts in zip(names, confusion["matrix"], strict=True)
  ]
  note = "Rows are true, columns stated; no label includes classes that the benchmark has not."
  return Table("confusions", ["", *names, "no label"], rows, note=note)


def text(results: Mapping[str, Any]) -> str:
  """The main scores and the gaps as lines for a terminal."""
  made = [f"{results['benchmark']}, {results['n']} items, {results['protocol']}"]
  for metric, interval in results["scores"].items():
    made.append(f"  {WORDS.get(metric, metric):38}{cell(interval)}")
  for kind, found in results["fairness"].items():
    main = found["gaps"].get(results["main"])
    if main:
      made.append(f"  worst by {kind:29}{main['worst']}, {cell(main['gap'])} behind {main['best']}")
  made.append(f"  answers without a label{'':15}{results['parse_failures']['count']}")
  if count := results["not_asked"]["count"]:
    made.append(f"  not asked, counted as wrong{'':11}{count}")
  return "\n".join(made)


def markdown(results: Mapping[str, Any]) -> str:
  """All tables of a benchmark."""
  return "\n".join(map(markdown_table, tables(results)))


def markdown_table(table: Table) -> str:
  """A table under its title, above its note."""
  clean = lambda cell: cell.replace("|", "\\|").replace("\n", " ")
  lines = [table.header, ["---"] * len(table.header), *table.rows]
  body = "\n".join("| " + " | ".join(map(clean, line)) + " |" for line in lines)
  return f"## {table.title}\n\n{body}\n" + (f"\n{table.note}\n" if table.note else "")


def page(all_results: Sequence[Mapping[str, Any]]) -> str:
  """All tables of all benchmarks as one HTML page."""
  parts = []
  for results in all_results:
    parts.append(f"<h1>{html.escape(results['benchmark'])}</h1>")
    parts += [_html(table) for table in tables(results)]
    told = html.escape(json.dumps(results["settings"], indent=1))
    parts.append(f"<details><summary>settings</summary><pre>{told}</pre></details>")
  body = "\n".join(parts)
  return (
    f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>results</title>'
    f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
  )


def _html(table: Table) -> str:
  cells = lambda tag, row: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
  rows = [
    f"<tr{' class=published' if i in table.published else ''}>{cells('td', row)}</tr>"
    for i, row in enumerate(table.rows)
  ]
  lines = "\n".join(rows)
  return (
    f"<h2>{html.escape(table.title)}</h2>\n<table><tr>{cells('th', table.header)}</tr>\n{lines}\n"
    f"</table>\n<p><small>{html.escape(table.note)}</small></p>"
  )


def write(out: Path) -> list[Path]:
  """Writes the tables of all benchmarks in a folder: results.json, .md and .html.

  Raises FileNotFoundError if no benchmark has results there.
  """
  read = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("*/results.json"))]
  found = [results for results in read if "benchmark" in results]
  if not found:
    raise FileNotFoundError(f"no results in {out} - expected {out}/BENCHMARK/results.json")
  texts = {
    "results.json": json.dumps({r["benchmark"]: r for r in found}, indent=1) + "\n",
    "results.md": "\n".join(f"# {r['benchmark']}\n\n{markdown(r)}" for r in found),
    "results.html": page(found),
  }
  written = []
  for name, content in texts.items():
    (out / name).write_text(content, encoding="utf-8")
    written.append(out / name)
  return written
