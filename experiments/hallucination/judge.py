"""Descriptions as values of labels, and what is true -> figures with intervals -> a table."""

import numpy as np

from facejax.evaluate import metrics
from facejax.knowledge import consistency
from facejax.knowledge.rules import RuleSet

RESAMPLES = 1000
COLUMNS = {
  "false": "descriptions with something false",
  "violations": "descriptions that break a rule",
  "accuracy": "labels, mean accuracy",
  "recall": "present labels that are stated",
}


def figures(truth: np.ndarray, values: np.ndarray, known: RuleSet) -> dict:
  """The metrics of one set of descriptions; one that states nothing at all is not wrong."""
  stated = np.maximum(values, 0)
  found = ((truth == 1) & (stated == 1)).sum(1).astype(np.float64)
  present = truth.sum(1).astype(np.float64)
  return {
    "false": consistency.hallucination(truth, values),
    "violations": consistency.violation_rate(values, known),
    "accuracy": consistency.accuracy(truth, stated),
    "recall": lambda weights: (weights @ found) / (weights @ present),
  }


def table(
  truth: np.ndarray, answers: dict[str, list[np.ndarray]], known: RuleSet, against: str
) -> dict:
  """Row -> figure: mean over seeds with an interval over faces, and its difference to a row."""
  judged = {row: [figures(truth, values, known) for values in own] for row, own in answers.items()}
  boot = lambda metric: metrics.bootstrap(metric, len(truth), RESAMPLES, 0)._asdict()
  made: dict = {}
  for row, own in judged.items():
    made[row] = {"seeds": len(own)}
    for key in COLUMNS:
      mean = lambda w, own=own, key=key: np.mean([m[key](w) for m in own], 0)
      base = lambda w, key=key: np.mean([m[key](w) for m in judged[against]], 0)
      made[row][key] = boot(mean)
      if row != against:
        made[row][f"{key}_difference"] = boot(lambda w, mean=mean, base=base: mean(w) - base(w))
  return made


def markdown(rows: dict) -> str:
  """The table ; an arrow: the difference's interval excludes 0."""
  lines = ["| | " + " | ".join(COLUMNS.values()) + " | seeds |", "|---" * (len(COLUMNS) + 2) + "|"]
  for row, own in rows.items():
    cells = []
    for key in COLUMNS:
      more = own.get(f"{key}_difference", {"low": 0, "high": 0})
      mark = " ↑" if more["low"] > 0 else " ↓" if more["high"] < 0 else ""
      cells.append("{value:.3f} [{low:.3f}, {high:.3f}]".format(**own[key]) + mark)
    lines.append(f"| {row} | " + " | ".join(cells) + f" | {own['seeds']} |")
  return "\n".join(lines)
