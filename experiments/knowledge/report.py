"""Scores -> figures with intervals -> tables of README.md."""

from pathlib import Path

import numpy as np

from facejax.evaluate import metrics
from facejax.knowledge import consistency
from facejax.knowledge.rules import RuleSet

RARE = 0.16  # labels with up to this prevalence in training
RESAMPLES = 400
COLUMNS = {
  "accuracy": "mean accuracy",
  "rare_f1": "macro F1, rare labels",
  "violations": "answers that break a rule",
  "ece": "ECE",
  "false": "answers that state something false",
}
MARKS = ("<!-- tables: written by run.py -->", "<!-- end of tables -->")


class Judge:
  """Judges scores [n N] of the test faces."""

  def __init__(self, rules: RuleSet, truth: np.ndarray, train: np.ndarray):
    self._rules, self._truth = rules, truth
    self._rare = consistency.rare(train.mean(0), RARE)
    self.rare_names = [rules.labels.labels[i] for i in self._rare]

  def _metrics(self, made: np.ndarray | tuple[np.ndarray, np.ndarray]) -> dict:
    """Of scores, or of scores and the decisions that come with them."""
    scores, values = made if isinstance(made, tuple) else (made, None)
    truth = self._truth
    if values is None:
      values = consistency.decided(scores, self._rules.labels)
    return {
      "accuracy": consistency.accuracy(truth, values),
      "rare_f1": consistency.rare_f1(truth, values, self._rare),
      "violations": consistency.violation_rate(values, self._rules),
      "ece": consistency.calibration_error(truth, scores),
      "false": consistency.hallucination(truth, values),
    }

  def table(self, result: dict[str, list], against: str) -> dict:
    """Row -> figure -> mean over seeds, and its difference to a row; intervals over faces."""
    judged = {name: [self._metrics(s) for s in seeds] for name, seeds in result.items()}
    rows: dict = {}
    for name, seeds in judged.items():
      rows[name] = {}
      for key in COLUMNS:
        mean = lambda w, own=seeds, key=key: np.mean([m[key](w) for m in own], 0)
        base = lambda w, own=judged[against], key=key: np.mean([m[key](w) for m in own], 0)
        more = lambda w, mean=mean, base=base: mean(w) - base(w)
        rows[name][key] = self._bootstrap(mean)
        rows[name][key]["seeds"] = [round(float(m[key](self._one)[0]), 4) for m in seeds]
        if name != against:
          rows[name][f"{key}_difference"] = self._bootstrap(more)
    return rows

  @property
  def _one(self) -> np.ndarray:
    return np.ones((1, len(self._truth)))

  def _bootstrap(self, metric) -> dict:
    found = metrics.bootstrap(metric, len(self._truth), RESAMPLES, 0)
    return {key: round(float(value), 4) for key, value in found._asdict().items()}


def markdown(title: str, rows: dict) -> str:
  """A table: values, and beside a difference whose interval excludes 0 an arrow."""
  lines = [f"**{title}**", "", "| | " + " | ".join(COLUMNS.values()) + " |"]
  lines.append("|---|" + "---|" * len(COLUMNS))
  for name, row in rows.items():
    cells = [_cell(row[key], row.get(f"{key}_difference")) for key in COLUMNS]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def _cell(value: dict, difference: dict | None) -> str:
  text = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**value)
  if difference is None or difference["low"] <= 0 <= difference["high"]:
    return text
  return text + (" ↑" if difference["value"] > 0 else " ↓")


def write_page(path: Path, tables: dict) -> None:
  """Puts the tables between the marks of the page."""
  text = path.read_text() if path.exists() else "\n".join(MARKS) + "\n"
  front, rest = text.split(MARKS[0])
  back = rest.split(MARKS[1])[1]
  made = "\n\n".join(markdown(title, rows) for title, rows in tables.items())
  path.write_text(f"{front}{MARKS[0]}\n\n{made}\n\n{MARKS[1]}{back}")
