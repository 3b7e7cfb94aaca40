"""Predictions -> the results of a benchmark: a dict of JSON values, with intervals.

The denominator is the benchmark's items, always: an item that could not be asked, or whose answer
states no label, counts as the worst answer, and both are counted beside the scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facejax.evaluate import fairness, metrics
from facejax.evaluate.intervals import intervals
from facejax.evaluate.protocol import Benchmark
from facejax.evaluate.scores import MAIN, score

LISTED = 20  # ids that results name; predictions.jsonl has all


def summarise(
  benchmark: Benchmark,
  records: Sequence[Mapping[str, Any]],
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """The results of a benchmark's records, one an item.

  Args:
    benchmark: what was asked.
    records: of predictions.jsonl; their order does not matter.
    resamples: behind a 95 % interval.
    seed: of the resamples.

  Returns:
    `scores` {metric: {value, low, high, n}}; `each` {what: {name: ...}}; `groups`
    {kind: {group: ...}}; `fairness` {kind: {groups, gaps}}; `confusion`; `parse_failures`,
    `not_asked`, `cut`, `left_out` and `notes` with counts; `n`.

  Raises:
    ValueError: records lack an item, or hold another: the denominator would change.
  """
  ordered = _in_order(benchmark, records)
  truths, parsed = [r["truth"] for r in ordered], [r["parsed"] for r in ordered]
  scores = score(benchmark.task, truths, parsed, benchmark.classes)
  clusters = fairness.clusters(ordered, benchmark.cluster)
  named = {("", name): m for name, m in scores.main.items()}
  named |= {(what, k): m for what, each in scores.each.items() for k, m in each.items()}
  found = intervals(named, len(ordered), resamples, seed, clusters)
  pick = lambda what: {n: x._asdict() for (own, n), x in found.items() if own == what}
  scorer = lambda truths, parsed: score(benchmark.task, truths, parsed, benchmark.classes).main
  rest = (resamples, seed, benchmark.cluster)
  return {
    "benchmark": benchmark.name,
    "n": len(ordered),
    "main": MAIN[benchmark.task][0],
    "scores": pick(""),
    "each": {what: pick(what) for what in scores.each},
    "confusion": scores.confusion,
    "groups": {k: fairness.by_group(scorer, ordered, k, *rest) for k in benchmark.breakdowns},
    "fairness": {kind: _by_person(scorer, ordered, kind, rest) for kind in benchmark.people()},
    "parse_failures": _failures(ordered, rest, clusters),
    "not_asked": _listed(r for r in ordered if r.get("error")),
    "cut": sum(not r["stopped"] and not r.get("error") for r in ordered),
    "left_out": _listed({"id": r.id, "error": r.reason} for r in benchmark.left_out),
    "notes": _listed({"id": r.id, "error": r.reason} for r in benchmark.notes),
  }


def _in_order(benchmark: Benchmark, records: Sequence[Mapping[str, Any]]) -> list[Mapping]:
  """The records in the order of the items. Raises ValueError unless there is one each."""
  by_id = {r["id"]: r for r in records}
  wanted = [item.id for item in benchmark.items]
  lacks, others = sorted(set(wanted) - set(by_id)), sorted(set(by_id) - set(wanted))
  if lacks or others or len(by_id) < len(records):
    raise ValueError(
      f"{benchmark.name}: {len(records)} records for {len(wanted)} items; {len(lacks)} have none "
      f"{lacks[:3]}, {len(others)} are of no item {others[:3]} - expected one each - run it again"
    )
  return [by_id[name] for name in wanted]


def _by_person(scorer: fairness.Scorer, records: Sequence[Mapping], kind: str, rest: tuple) -> dict:
  """Groups of people, the gaps between them, and how many items do not say it."""
  return {
    "groups": fairness.by_group(scorer, records, kind, *rest),
    "gaps": fairness.gaps(scorer, records, kind, *rest),
    "without": sum(kind not in r["groups"] for r in records),
  }


def _failures(records: Sequence[Mapping], rest: tuple, clusters: list[str] | None) -> dict:
  """How many answers state no label, and their share in per cent."""
  resamples, seed, _ = rest
  failed = np.array([r["parsed"] is None for r in records])
  mean = metrics.mean(failed)
  share = intervals({"share": lambda w: 100 * mean(w)}, len(records), resamples, seed, clusters)
  return {"count": int(failed.sum()), **share["share"]._asdict()}


def _listed(refused) -> dict[str, Any]:
  """How many, and the first of them."""
  all_ = [{"id": r["id"], "why": r["error"]} for r in refused]
  return {"count": len(all_), "first": all_[:LISTED]}
