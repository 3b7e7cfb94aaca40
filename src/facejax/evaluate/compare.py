"""Two runs of one benchmark, item by item: is one better, and by how much.

    McNemar's exact test   of the items that one has right and the other wrong (two-sided binomial)
    paired bootstrap       of the difference of the main metric, second minus first; items, or
                           clusters, are drawn once for both

Both are about these items: another model of the same recipe differs, too.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facejax.evaluate import predictions
from facejax.evaluate.fairness import clusters as clusters_of
from facejax.evaluate.intervals import intervals, resampled
from facejax.evaluate.scores import MAIN, WORDS, right, score

_LISTED = 5


def folders(first: Path, second: Path, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
  """Compares the predictions of two folders, each of one benchmark by one model.

  Raises FileNotFoundError without predictions, ValueError where they are not of the same items.
  """
  (one, a), (two, b) = predictions.read(first), predictions.read(second)
  for name in ("benchmark", "task", "classes", "items_sha256", "parser"):
    if one.get(name) != two.get(name):
      raise ValueError(
        f"{first} and {second} differ in {name}: {one.get(name)!r} and {two.get(name)!r} - "
        "expected two runs of the same items - run one of them again"
      )
  found = pairs(one["task"], one["classes"], a, b, resamples, seed, one.get("cluster", ""))
  return {
    "benchmark": one["benchmark"],
    "first": str(first),
    "second": str(second),
    "checkpoints": [one.get("checkpoint"), two.get("checkpoint")],
    **found,
  }


def pairs(
  task: str,
  classes: Sequence,
  first: Sequence[Mapping],
  second: Sequence[Mapping],
  resamples: int = 1000,
  seed: int = 0,
  cluster: str = "",
) -> dict[str, Any]:
  """Compares records of two runs; a difference is second minus first, in the metric's unit.

  Raises ValueError where the runs hold other items or other truths: naming the first of them.
  """
  a, b = {r["id"]: r for r in first}, {r["id"]: r for r in second}
  odd = sorted(a.keys() ^ b.keys())
  odd += [name for name in sorted(a.keys() & b.keys()) if a[name]["truth"] != b[name]["truth"]]
  if odd or not a:
    raise ValueError(
      f"{len(odd)} of {len(a.keys() | b.keys())} items are in one run only, or have another truth "
      f"there: {', '.join(odd[:_LISTED])} - expected the same items - finish both runs"
    )
  names = sorted(a)
  one, two = [a[n] for n in names], [b[n] for n in names]
  truths = [r["truth"] for r in one]
  hits = [
    [right(task, t, r["parsed"]) for t, r in zip(truths, run, strict=True)] for run in (one, two)
  ]
  only = [sum(x and not y for x, y in zip(*order, strict=True)) for order in (hits, hits[::-1])]
  main, less = MAIN[task]
  own = [score(task, truths, [r["parsed"] for r in run], classes).main[main] for run in (one, two)]
  clusters = clusters_of(one, cluster)
  difference = intervals(
    {"difference": lambda w: own[1](w) - own[0](w)}, len(names), resamples, seed, clusters
  )
  ones = np.ones((1, len(names)))
  return {
    "n": len(names),
    "metric": main,
    "less_is_better": less,
    "values": [float(metric(ones)[0]) for metric in own],
    "difference": difference["difference"]._asdict() if difference else None,
    "share_better": _share(own, len(names), resamples, seed, clusters, less),
    "right_only": only,
    "mcnemar_p": mcnemar(*only),
  }


def _share(own, n, resamples, seed, clusters, less) -> float:
  """Share of resamples in which the second run is better; ties count half."""
  better = []
  for weights in resampled(n, resamples, seed, clusters):
    difference = (own[1](weights) - own[0](weights)) * (-1 if less else 1)
    better.append((difference > 0) + 0.5 * (difference == 0))
  return float(np.concatenate(better).mean())


def mcnemar(only_first: int, only_second: int) -> float:
  """Two-sided exact p of as uneven a split, or more so, if both were right equally often."""
  n, least = only_first + only_second, min(only_first, only_second)
  tail = sum(math.comb(n, k) for k in range(least + 1))
  return min(1.0, 2 * tail / 2**n)


def text(found: Mapping[str, Any]) -> str:
  """A comparison in words."""
  metric, (first, second) = found["metric"], found["values"]
  lines = [
    f"{found['benchmark']}, {found['n']} items, {WORDS.get(metric, metric)}"
    + ("; less is better" if found["less_is_better"] else ""),
    f"  {found['first']}: {first:.2f}",
    f"  {found['second']}: {second:.2f}",
  ]
  if found["difference"]:
    lines.append(
      "  second - first: {value:.2f} [{low:.2f}, {high:.2f}]".format(**found["difference"])
    )
  lines.append(f"  second better in {found['share_better']:.1%} of paired resamples")
  one, two = found["right_only"]
  lines.append(
    f"  right in one only: {one} and {two} items, McNemar's exact p = {found['mcnemar_p']:.3g}"
  )
  return "\n".join(lines)
