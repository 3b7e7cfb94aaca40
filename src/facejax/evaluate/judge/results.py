"""Ratings -> means by system, criterion and task, paired differences, agreement, failures.

The denominator is the items, always. An answer that a system did not give counts as the lowest
rating. A rating that the judge did not give is missing: it is counted by reason, the means say of
how many items they are, and what they would be if all that is missing were the lowest or highest
rating. All intervals are 95 % percentile bootstraps over items, or clusters of items.
"""

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from facejax.evaluate.intervals import intervals
from facejax.evaluate.judge import agreement
from facejax.evaluate.judge.items import Item
from facejax.evaluate.judge.requests import SCALE, hide, said
from facejax.evaluate.metrics import Metric

MEAN = "mean"  # of the criteria; ours
LISTED = 20
_EQUAL = 1e-9  # ratings that differ by less


class _Ratings(NamedTuple):
  """What was rated; S systems, n items, C criteria and their mean.

  Attributes:
    each: as the judge gave it.
    scores: of an item, the mean over its repeats; the lowest where there is no answer.
    silent: no answer.
    places: how far a rating is from its request's mean, by item and place: sums.
    placed: requests behind them.
  """

  each: Float[np.ndarray, "S n repeats C"]
  scores: Float[np.ndarray, "S n C"]
  silent: Bool[np.ndarray, "S n"]
  places: Float[np.ndarray, "n S C"]
  placed: Float[np.ndarray, "n"]


class _Draws(NamedTuple):
  """How intervals are drawn."""

  n: int
  resamples: int
  seed: int
  clusters: list

  def of(self, metrics: Mapping[Any, Metric]) -> dict[Any, dict[str, Any]]:
    """Value and interval of each metric that is defined."""
    found = intervals(metrics, *self)
    return {name: interval._asdict() for name, interval in found.items()}


def summarise(
  items: Sequence[Item], records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
  """The results, as JSON values.

  Args:
    items: all of them.
    records: of ratings.jsonl.
    settings: with criteria, repeats, resamples, seed, hidden, each.

  Returns:
    `n`; `systems` {name: {rated, no_answer, scores, tasks}}; `differences`, second minus first;
    `agreement`, `places` by criterion; `requests`, `failed`, `named` with counts; `settings`.
  """
  systems, criteria = list(items[0].answers), [*settings["criteria"], MEAN]
  ratings = _ratings(items, records, systems, settings)
  draws = _Draws(
    len(items),
    settings["resamples"],
    settings["seed"],
    [(item.task, item.cluster) for item in items],
  )
  tasks = np.array([item.task for item in items])
  scores = _scores(ratings, systems, criteria, tasks, draws)
  states = collections.Counter(record["state"] for record in records)
  return {
    "n": len(items),
    "systems": {
      name: _system(ratings, s, name, scores, criteria, tasks) for s, name in enumerate(systems)
    },
    "differences": _differences(ratings.scores, systems, criteria, draws),
    "agreement": _agreement(ratings, criteria, draws),
    "places": _places(ratings, systems, criteria, draws),
    "balanced": bool(settings["each"] or settings["repeats"] % len(systems) == 0),
    "requests": {"all": len(records), **{state: states[state] for state in sorted(states)}},
    "failed": _failed(records),
    "named": _named(items, systems, settings["hidden"]),
    "settings": dict(settings),
  }


def _ratings(items, records, systems, settings) -> _Ratings:
  """Records as arrays."""
  criteria = settings["criteria"]
  at, row = (
    {item.id: i for i, item in enumerate(items)},
    {name: s for s, name in enumerate(systems)},
  )
  shape = (len(systems), len(items), settings["repeats"], len(criteria) + 1)
  each = np.full(shape, np.nan)
  places, placed = np.zeros((len(items), len(systems), shape[-1])), np.zeros(len(items))
  for record in records:
    if record["ratings"] is None:
      continue
    item, found = at[record["id"]], []
    for name in record["order"]:
      values = [float(record["ratings"][name][criterion]) for criterion in criteria]
      found.append([*values, sum(values) / len(values)])
      each[row[name], item, record["repeat"]] = found[-1]
    if len(found) == len(systems):
      places[item] += np.array(found) - np.mean(found, axis=0)
      placed[item] += 1
  silent = np.array([[not item.answers[name] for item in items] for name in systems])
  count = (~np.isnan(each)).sum(2)
  scores = np.where(count > 0, np.nansum(each, 2) / np.maximum(count, 1), np.nan)
  scores[silent] = SCALE[0]
  return _Ratings(each, scores, silent, places, placed)


def _mean(values: Float[np.ndarray, "n"]) -> Metric:
  """Of those that are there."""
  there = ~np.isnan(values)
  return _ratio(np.where(there, values, 0.0), there.astype(float))


def _ratio(above: Float[np.ndarray, "n"], below: Float[np.ndarray, "n"]) -> Metric:
  """Weighted sum of one over that of the other; NaN where that is 0."""

  def metric(weights: Any) -> Any:
    size = weights @ below
    return np.divide(weights @ above, size, out=np.full(len(weights), np.nan), where=size > 0)

  return metric


def _scores(ratings: _Ratings, systems, criteria, tasks, draws: _Draws) -> dict[Any, dict]:
  """Means by (system, task, criterion); "" is all tasks."""
  metrics = {}
  for (s, name), (c, criterion) in itertools.product(enumerate(systems), enumerate(criteria)):
    values = ratings.scores[s, :, c]
    metrics[name, "", criterion] = _mean(values)
    for task in dict.fromkeys(tasks):
      metrics[name, str(task), criterion] = _mean(np.where(tasks == task, values, np.nan))
  return draws.of(metrics)


def _system(ratings: _Ratings, s: int, name: str, scores, criteria, tasks) -> dict[str, Any]:
  """What results say of a system."""
  values = ratings.scores[s]
  there = ~np.isnan(values[:, 0])
  main = {}
  for c, criterion in enumerate(criteria):
    found = scores.get((name, "", criterion))
    ends = [float(np.where(there, values[:, c], end).mean()) for end in SCALE]
    main[criterion] = found and {
      **found,
      "n": int(there.sum()),
      "if_missing_lowest": ends[0],
      "if_missing_highest": ends[1],
    }
  return {
    "rated": int(there.sum()),
    "missing": int((~there).sum()),
    "no_answer": int(ratings.silent[s].sum()),
    "scores": main,
    "tasks": {
      str(task): {
        "items": int((tasks == task).sum()),
        "rated": int((there & (tasks == task)).sum()),
        **{criterion: scores.get((name, str(task), criterion)) for criterion in criteria},
      }
      for task in dict.fromkeys(tasks)
    },
  }


def _differences(scores, systems, criteria, draws: _Draws) -> list[dict[str, Any]]:
  """Of each two systems, over the items that have a rating of both."""
  made = []
  for (a, first), (b, second) in itertools.combinations(enumerate(systems), 2):
    gap = scores[b] - scores[a]
    found = draws.of({criterion: _mean(gap[:, c]) for c, criterion in enumerate(criteria)})
    told = {}
    for c, criterion in enumerate(criteria):
      known = gap[~np.isnan(gap[:, c]), c]
      higher = [int((known < -_EQUAL).sum()), int((known > _EQUAL).sum())]
      told[criterion] = found.get(criterion) and {
        **found[criterion],
        "n": len(known),
        "first_higher": higher[0],
        "second_higher": higher[1],
        "equal": len(known) - sum(higher),
      }
    made.append({"first": first, "second": second, "scores": told})
  return made


def _agreement(ratings: _Ratings, criteria, draws: _Draws) -> dict[str, Any]:
  """Krippendorff's alpha of the repeats; None where it is undefined."""
  systems, n, repeats, _ = ratings.each.shape
  rows = np.tile(np.arange(n), systems)
  metrics, units = {}, 0
  for c, criterion in enumerate(criteria):
    flat = ratings.each[..., c].reshape(systems * n, repeats)
    units = int(((~np.isnan(flat)).sum(1) > 1).sum())
    alpha = agreement.weighted(flat)
    metrics[criterion] = lambda weights, alpha=alpha: alpha(weights[:, rows])
  found = draws.of(metrics)
  return {
    "statistic": "Krippendorff's alpha, interval",
    "units": units,
    "repeats": repeats,
    "alpha": {criterion: found.get(criterion) for criterion in criteria},
  }


def _places(ratings: _Ratings, systems, criteria, draws: _Draws) -> list[dict[str, Any]] | None:
  """How much more a place gets than its request's mean; None where there is one place."""
  if len(systems) < 2 or not ratings.placed.any():
    return None
  metrics = {
    (place, criterion): _ratio(ratings.places[:, place, c], ratings.placed)
    for place in range(len(systems))
    for c, criterion in enumerate(criteria)
  }
  found = draws.of(metrics)
  return [
    {criterion: found.get((place, criterion)) for criterion in criteria}
    for place in range(len(systems))
  ]


def _failed(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Requests without a rating, by reason; failed.jsonl has all."""
  odd = [r for r in records if r["state"] in ("rejected", "unanswered")]
  return {
    "count": len(odd),
    "items": len({r["id"] for r in odd}),
    "reasons": dict(collections.Counter(r["reason"] for r in odd).most_common()),
    "first": [{k: r[k] for k in ("id", "repeat", "state", "reason")} for r in odd[:LISTED]],
  }


def _named(items: Sequence[Item], systems, hidden) -> dict[str, Any]:
  """Answers that hold a system's name, by which a judge might know it."""
  finds = said(systems)
  found = [
    {"id": item.id, "system": name}
    for item in items
    for name, text in item.answers.items()
    if finds.search(hide(text, hidden))
  ]
  return {"count": len(found), "first": found[:LISTED]}
