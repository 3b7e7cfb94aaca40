"""FaceInsight's two modes on held-out drawn faces. parameters -> scores of labels -> results.

    "answers"  training_free: no gradient step. The model's own yes and no to each label, the
               prevalences and couplings of the training labels, and the rules.
    "head"     fine_tuned: the label head that was trained beside the language model, and the rules.

The paper has both regimes and says of neither how scores are computed. One row of the results for
each way of combining, so that what a part brings shows.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from facejax.config import RunConfig
from facejax.config_checks import one_of
from facejax.data.pipeline import open_source, row_format
from facejax.data.sources import Source
from facejax.evaluate import metrics
from facejax.evaluate.metrics import Metric
from facejax.generate import Answerer
from facejax.knowledge import asking, consistency, prepare, rules, tables, training_free
from facejax.knowledge.projection import Projection
from facejax.knowledge.rules import RuleSet
from facejax.knowledge.telling import SOURCES
from facejax.types import Sample

HEADLINES = {
  "accuracy": "mean accuracy",
  "macro_f1": "macro F1",
  "violations": "break a rule",
  "ece": "ECE",
  "false": "state something false",
}
ASKED = 100  # faces at most: "answers" takes a prompt for each of their labels

# A way's scores, and its decisions where they are not those of consistency.decided.
Judged = tuple[Float[np.ndarray, "n N"], Int8[np.ndarray, "n N"] | None]


def evaluate(
  config: RunConfig,
  params: Any,
  source: str,
  out_dir: str | Path,
  *,
  modalities: Sequence[str] | None = None,
  of: str = "",
) -> dict:
  """Scores the labels of drawn faces and writes out_dir/results.json; taken from there if it is so.

  Args:
    config: its model has labels; evaluate says which faces, data which training labels are counted.
    params: of config.model.
    source: "head", or "answers": of the first ASKED faces.
    out_dir: made if needed.
    modalities: optional inputs that the model sees; None: all of config.data.
    of: what the parameters are; recorded.

  Returns:
    `rows`: {way: {metric of HEADLINES: {value, low, high, n}}}; `settings`, `seconds`.

  Raises:
    ValueError: a model without labels, an unknown source; or what Answerer refuses.
  """
  one_of("source", source, SOURCES)
  head = config.model.labels
  if head is None:
    raise ValueError("the model has labels=None - expected a LabelsConfig, whose labels are scored")
  started = time.monotonic()
  if modalities is not None:
    kept = tuple(name for name in config.data.modalities if name in modalities)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, modalities=kept))
  known = rules.load(head.rules)
  n = config.evaluate.faces if source == "head" else min(config.evaluate.faces, ASKED)
  settings = {
    "of": of,
    "source": source,
    "faces": n,
    "split": config.evaluate.split,
    "modalities": list(config.data.modalities),
    "rules": head.rules,
  }
  path = Path(out_dir) / "results.json"
  if found := _finished(path, settings):
    return found
  samples, truth = _faces(config, known, n)
  answerer = Answerer(config, params)
  if source == "head":
    ways = of_head(answerer.label_scores(samples), known)
  else:
    counts = prepare.counted(_training(config), known.labels, None)
    statistics = training_free.statistics(counts, known.labels)
    ways = of_answers(asking.yes(answerer, samples, known.labels), statistics, known)
  boot = lambda metric: metrics.bootstrap(metric, n, config.evaluate.bootstrap, config.seed)
  rows = {
    way: {key: boot(metric)._asdict() for key, metric in _metrics(truth, made, known).items()}
    for way, made in ways.items()
  }
  results = {"rows": rows, "settings": settings, "seconds": round(time.monotonic() - started, 1)}
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(results, indent=1) + "\n")
  return results


def of_head(scores: Float[np.ndarray, "n N"], known: RuleSet) -> dict[str, Judged]:
  """fine_tuned: the head's scores, and what they are given that the rules hold."""
  scores = np.asarray(scores, np.float64)
  return {"label head": (scores, None), "label head + rules": _on_rules(scores, known)}


def of_answers(
  answers: Float[np.ndarray, "n N"], statistics: training_free.Statistics, known: RuleSet
) -> dict[str, Judged]:
  """training_free: a frozen model's yes and no, and what statistics and rules make of them."""
  matched = training_free.match_prevalence(answers, statistics.prevalence)
  pulled = training_free.refine(matched, statistics)
  return {
    "yes and no": (answers, None),
    "+ prevalence": (matched, None),
    "+ couplings": (training_free.refine(answers, statistics), None),
    "+ rules": _on_rules(answers, known),
    "all three": _on_rules(pulled, known),
  }


def _on_rules(scores: np.ndarray, known: RuleSet) -> Judged:
  project = Projection(known)
  return project.probabilities(scores), project.most_probable(scores).astype(np.int8)


def _metrics(truth: np.ndarray, made: Judged, known: RuleSet) -> dict[str, Metric]:
  scores, values = made
  if values is None:
    values = consistency.decided(scores, known.labels)
  shown = np.flatnonzero((truth == 1).any(0))
  return {
    "accuracy": consistency.accuracy(truth, values),
    "macro_f1": consistency.rare_f1(truth, values, shown),
    "violations": consistency.violation_rate(values, known),
    "ece": consistency.calibration_error(truth, scores),
    "false": consistency.hallucination(truth, values),
  }


def _faces(config: RunConfig, known: RuleSet, n: int) -> tuple[list[Sample], np.ndarray]:
  """Held-out faces, each with a question about something, and their labels."""
  drawn = dataclasses.replace(config.data.synthetic, split=config.evaluate.split, faces=n)
  data = dataclasses.replace(config.data, synthetic=drawn)
  source = open_source("synthetic", row_format(config.model, data), data)
  samples = [source[i] for i in range(n)]
  asked = [dataclasses.replace(s, conversation=s.conversation[:1]) for s in samples]
  return asked, np.stack([tables.known(s.labels, known.labels) for s in samples])


def _training(config: RunConfig) -> list[Source]:
  form = row_format(config.model, config.data)
  return [open_source(name, form, config.data) for name in config.data.sources]


def _finished(path: Path, settings: Mapping[str, Any]) -> dict | None:
  try:
    found = json.loads(path.read_text())
  except (FileNotFoundError, ValueError):
    return None
  return found if found.get("settings") == settings else None


def table(results: Mapping[str, Any]) -> str:
  """Rows as text: value [low, high] of each metric."""
  cell = "{value:.3f} [{low:.3f}, {high:.3f}]".format
  rows = [["", *HEADLINES.values()]]
  rows += [[way, *(cell(**own[key]) for key in HEADLINES)] for way, own in results["rows"].items()]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  line = lambda row: "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip()
  return "\n".join(line(row) for row in rows)
