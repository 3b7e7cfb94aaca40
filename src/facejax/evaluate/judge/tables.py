"""Results of a judge -> Markdown, and lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from facejax.evaluate import published
from facejax.evaluate.judge.results import MEAN
from facejax.evaluate.tables import Table, cell, markdown_table

_PUBLISHED = {
  "media_consistency": "video_consistency",
  "truth_consistency": "truth_consistency",
  "completeness": "completeness",
}


def markdown(results: Mapping[str, Any]) -> str:
  """All tables."""
  made = [_systems(results), *_tasks(results)]
  made += [
    table
    for table in (
      _differences(results),
      _agreement(results),
      _places(results),
      _failed(results),
      _published(results),
    )
    if table is not None
  ]
  return "# Rated answers\n\n" + "\n".join(map(markdown_table, made))


def text(results: Mapping[str, Any]) -> str:
  """Means, differences and agreement for a terminal."""
  lines = [_counts(results)]
  for name, system in results["systems"].items():
    lines.append(f"{name}: {system['rated']} of {results['n']} items rated")
    lines += [f"  {c:24}{cell(score)}" for c, score in system["scores"].items()]
  for pair in results["differences"]:
    score = pair["scores"][MEAN]
    lines.append(f"{pair['second']} - {pair['first']}, {MEAN}: {cell(score)}")
  alpha = results["agreement"]["alpha"][MEAN]
  lines.append(f"agreement of repeats (alpha), {MEAN}: {cell(alpha)}")
  return "\n".join(lines)


def _criteria(results: Mapping[str, Any]) -> list[str]:
  return [*results["settings"]["criteria"], MEAN]


def _counts(results: Mapping[str, Any]) -> str:
  """What a reader must know about the denominator."""
  requests, failed = results["requests"], results["failed"]
  told = [f"{results['n']} items, {requests['all']} requests"]
  if failed["count"]:
    reasons = ", ".join(f"{why} {n}" for why, n in failed["reasons"].items())
    told.append(f"{failed['count']} of them, to {failed['items']} items, failed: {reasons}")
  if pending := requests.get("pending"):
    told.append(f"{pending} are not done yet")
  return "; ".join(told)


def _systems(results: Mapping[str, Any]) -> Table:
  criteria, settings = _criteria(results), results["settings"]
  rows = []
  for name, system in results["systems"].items():
    counts = [f"{system['rated']} of {results['n']}", str(system["no_answer"])]
    cells = []
    for criterion in criteria:
      score = system["scores"][criterion]
      cells.append(cell(score) + _bounds(system, score))
    rows.append([name, *counts, *cells])
  note = (
    f"1 to 10, by {settings['model']}, prompt {settings['prompt']['id']} (ours; the paper's is not "
    f"published), {settings['repeats']} ratings of each answer; [95 % bootstrap interval over "
    f"items]. {_counts(results)}. An answer that a system did not give counts as 1. A rating that "
    "the judge did not give is missing; {brackets} say what the mean would be if all that is "
    "missing were 1, or 10."
  )
  if named := results["named"]["count"]:
    first = results["named"]["first"][0]
    note += (
      f" {named} answers hold the name of a system, such as {first['system']}'s to {first['id']}: "
      "the judge may have known it (--hide)."
    )
  return Table("Ratings", ["", "rated", "no answer", *criteria], rows, note=note)


def _bounds(system: Mapping[str, Any], score: Mapping[str, Any] | None) -> str:
  if score is None or not system["missing"]:
    return ""
  return " {{{if_missing_lowest:.2f}, {if_missing_highest:.2f}}}".format(**score)


def _tasks(results: Mapping[str, Any]) -> list[Table]:
  """A table a task, where there are several."""
  criteria = _criteria(results)
  tasks = list(next(iter(results["systems"].values()))["tasks"])
  if len(tasks) < 2:
    return []
  made = []
  for task in tasks:
    rows = []
    for name, system in results["systems"].items():
      of = system["tasks"][task]
      rated = f"{of['rated']} of {of['items']}"
      rows.append([name, rated, *(cell(of[criterion]) for criterion in criteria)])
    made.append(Table(task or "no task", ["", "rated", *criteria], rows))
  return made


def _differences(results: Mapping[str, Any]) -> Table | None:
  rows = [
    [
      f"{pair['second']} - {pair['first']}",
      criterion,
      *(
        [cell(score), *(str(score[k]) for k in ("n", "second_higher", "first_higher", "equal"))]
        if score
        else ["–", "0", "0", "0", "0"]
      ),
    ]
    for pair in results["differences"]
    for criterion, score in pair["scores"].items()
  ]
  header = ["", "criterion", "difference", "items", "higher", "lower", "equal"]
  note = "Over the items of which both have a rating; items are drawn once for both."
  return Table("Differences", header, rows, note=note) if rows else None


def _agreement(results: Mapping[str, Any]) -> Table:
  found = results["agreement"]
  rows = [[criterion, cell(score)] for criterion, score in found["alpha"].items()]
  note = (
    f"{found['statistic']}, of {found['repeats']} ratings each; {found['units']} answers were "
    "rated more than once. 1: the judge repeats itself exactly, 0: no better than ratings drawn "
    "at random. It says nothing about agreement with people. – where nothing could differ."
  )
  return Table("Agreement of repeats", ["", "alpha"], rows, note=note)


def _places(results: Mapping[str, Any]) -> Table | None:
  if results["places"] is None:
    return None
  rows = [
    [str(number), *map(cell, scores.values())] for number, scores in enumerate(results["places"], 1)
  ]
  note = "How much more the answer in a place gets than the mean of its request. " + (
    "Every answer was in every place equally often, so a fixed favour is the same for all systems; "
    "where a request failed, or a system gave no answer, that holds on average."
    if results["balanced"]
    else "Places were drawn by item, so a fixed favour is the same for all systems on average; "
    "with as many repeats as systems it is the same exactly."
  )
  return Table("By place in the request", ["place", *_criteria(results)], rows, note=note)


def _failed(results: Mapping[str, Any]) -> Table | None:
  failed = results["failed"]
  rows = [[r["id"], str(r["repeat"]), r["state"], r["reason"]] for r in failed["first"]]
  note = f"{len(rows)} of {failed['count']}; failed.jsonl has all, with what the judge said."
  header = ["item", "repeat", "state", "reason"]
  return Table("Requests without a rating", header, rows, note=note) if rows else None


def _published(results: Mapping[str, Any]) -> Table:
  criteria = results["settings"]["criteria"]
  rows = []
  for row in published.ratings():
    values = [row["values"][_PUBLISHED[criterion]].get("all") for criterion in criteria]
    cells = ["–" if value is None else f"{value:.2f}" for value in values]
    rows.append([f"{row['model']} (published, not measured by facejax)", *cells, row["source"]])
  note = (
    "By GPT-4o, another prompt and other items: not to be compared with the tables above. – where "
    "the paper rates some tasks only; they are in assets/published/face_llava.json."
  )
  return Table("Published", ["", *criteria, "source"], rows, note=note)
