"""Every metric by group, the worst group, and how far it is from the best, with intervals.

    by_group   records -> {group: {n, metric: interval}}
    gaps       the same -> {metric: worst group, best group, gap with its interval}

The worst and the best group are picked by their values, and the interval is that of the gap between
these two: over many small groups some gap always shows, so an interval that barely excludes zero
proves little. Groups of fewer than LEAST items are shown, and are never picked (our choice).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from facejax.evaluate.intervals import intervals
from facejax.evaluate.metrics import Metric

# Truths, parsed answers -> metrics by name.
Scorer = Callable[[Sequence, Sequence], Mapping[str, Metric]]

LEAST = 30  # items
LESS_IS_BETTER = ("age_mae", "age_mae_answered")
AGE_BANDS = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70 or more")


def age_band(years: float) -> str:
  """FairFace's bands: by decades, children apart."""
  starts = (0, 3, 10, 20, 30, 40, 50, 60, 70)
  return AGE_BANDS[sum(years >= start for start in starts) - 1]


def by_group(
  scorer: Scorer,
  records: Sequence[Mapping],
  kind: str,
  resamples: int,
  seed: int,
  cluster: str = "",
) -> dict[str, dict[str, Any]]:
  """Metrics of each group of a kind, in the order of their names, age bands by age.

  Args:
    scorer: makes the metrics of some records.
    records: with truth, parsed and groups.
    kind: of the groups, such as "gender"; records without it are in none.
    resamples: behind an interval.
    seed: of the resamples.
    cluster: as in Benchmark.
  """
  members = split(records, kind)
  made = {}
  for name, places in members.items():
    own = [records[i] for i in places]
    scores = scorer([r["truth"] for r in own], [r["parsed"] for r in own])
    found = intervals(scores, len(own), resamples, seed, clusters(own, cluster))
    failed = sum(r["parsed"] is None for r in own)
    made[name] = {
      "n": len(own),
      "parse_failures": failed,
      **{metric: interval._asdict() for metric, interval in found.items()},
    }
  return made


def split(records: Sequence[Mapping], kind: str) -> dict[str, list[int]]:
  """Places of the members of each group of a kind."""
  members: dict[str, list[int]] = {}
  for place, record in enumerate(records):
    if kind in record["groups"]:
      members.setdefault(record["groups"][kind], []).append(place)
  known = {name: i for i, name in enumerate(AGE_BANDS)}
  return dict(sorted(members.items(), key=lambda item: (known.get(item[0], -1), item[0])))


def clusters(records: Sequence[Mapping], cluster: str) -> list[str] | None:
  """What intervals() takes: the cluster of each record, or None."""
  return [r["groups"].get(cluster, r["id"]) for r in records] if cluster else None


def gaps(
  scorer: Scorer,
  records: Sequence[Mapping],
  kind: str,
  resamples: int,
  seed: int,
  cluster: str = "",
) -> dict[str, dict[str, Any]]:
  """{metric: {worst, best, gap: interval}} of groups of a kind, each arguments as of by_group.

  A gap is how much better the best is, in the metric's unit. Metrics with fewer than two groups of
  LEAST items are left out.
  """
  members = {g: p for g, p in split(records, kind).items() if len(p) >= LEAST}
  own: dict[str, Mapping[str, Metric]] = {}
  for name, places in members.items():
    chosen = [records[i] for i in places]
    own[name] = scorer([r["truth"] for r in chosen], [r["parsed"] for r in chosen])
  metrics = dict.fromkeys(metric for scores in own.values() for metric in scores)
  found: dict[str, dict[str, Any]] = {}
  differences: dict[str, Metric] = {}
  for metric in metrics:
    values = {g: float(s[metric](np.ones((1, len(members[g]))))[0]) for g, s in own.items()}
    values = {g: v for g, v in values.items() if np.isfinite(v)}
    if len(values) < 2:
      continue
    sign = -1 if metric in LESS_IS_BETTER else 1
    worst, best = sorted(values, key=lambda g: sign * values[g])[:: len(values) - 1]
    found[metric] = {"worst": worst, "best": best}
    differences[metric] = _difference(
      own[best][metric], members[best], own[worst][metric], members[worst], sign
    )
  made = intervals(differences, len(records), resamples, seed, clusters(records, cluster))
  return {m: {**found[m], "gap": made[m]._asdict()} for m in found if m in made}


def _difference(
  best: Metric, there: list[int], worst: Metric, here: list[int], sign: int
) -> Metric:
  return lambda weights: sign * (best(weights[:, there]) - worst(weights[:, here]))
