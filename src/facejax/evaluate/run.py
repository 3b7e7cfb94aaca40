"""A model and held-out drawn faces -> answers, the labels they state, and metrics.

  face(seed=i, split)  drawn once, asked one question a task
  answers              greedy, a task at a time: a batch stops when its longest answer does
  predictions.jsonl    what was asked, answered, understood and true, a line a question
  results.json         the metrics, each {value, low, high, n}

The test's identities are in no training split. How a failed answer counts is in metrics.py.
"""

import dataclasses
import json
import math
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from facejax.config import MODALITIES, EvaluateConfig, RunConfig, one_of
from facejax.evaluate import metrics
from facejax.evaluate.metrics import Interval
from facejax.faces import questions, synthetic
from facejax.faces.action_units import ACTION_UNITS, EXPRESSIONS
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.parsing import Label
from facejax.generate import Answerer, Sampling
from facejax.types import Medium, Sample, Turn

HEADLINES = {
  "expression_accuracy": "expression accuracy",
  "expression_uar": "expression UAR",
  "au_macro_f1": "action units macro-F1",
  "attribute_accuracy": "attribute accuracy",
  "age_mae": "age MAE (years)",
  "deepfake_accuracy": "deepfake accuracy",
}
VERDICTS = ("real", "fake")
_COLUMN = 22  # characters, the width of "0.812 [0.780, 0.843]" and a gap


class Prediction(NamedTuple):
  """One question: `label` is what the answer states, None if nothing; `truth` is true."""

  seed: int
  sample: str
  task: str
  question: str
  answer: str
  stopped: bool
  label: Label | None
  truth: Label


def evaluate(
  config: RunConfig, params: Any, out_dir: Path, *, modalities: tuple[str, ...]
) -> dict[str, Any]:
  """Asks about drawn faces and scores the answers.

  Args:
    config: config.evaluate says which faces, tasks and how many.
    params: of config.model.
    out_dir: gets predictions.jsonl and results.json.
    modalities: optional inputs that are read, of those in config.data.modalities.

  Returns:
    What results.json holds: for each task its metrics, `expression_accuracy`, `expression_uar`,
    `au_macro_f1`, `au_f1` (a unit's number -> metric), `attribute_accuracy`,
    `attribute_accuracy_each`, `age_mae` (years), `deepfake_accuracy`, each
    {value, low, high, n} with a 95 % interval, null where undefined; `confusion` (task ->
    {labels, counts}; a row a true label, the last column counts answers without a label);
    `parse_failures` (task -> {count, n}); `faces`, `split`, `modalities`, `seconds`, `data`.

  Raises:
    ValueError: unknown task, split or modality; no tasks, faces or bootstrap resamples; or what
      Answerer refuses.
  """
  started = time.monotonic()
  settings = config.evaluate
  _check(settings, modalities)
  reads = tuple(name for name in config.data.modalities if name in modalities)
  data = dataclasses.replace(config.data, modalities=reads)
  answerer = Answerer(dataclasses.replace(config, data=data), params)
  predictions = _ask(answerer, settings, config.model.image.image_size)
  draws = metrics.resamples(settings.faces, settings.bootstrap)
  results: dict[str, Any] = {}
  failures, confusion = {}, {}
  for task in settings.tasks:
    of_task = [p for p in predictions if p.task == task]
    results |= _SCORES[task](of_task, draws)
    failures[task] = {"count": sum(p.label is None for p in of_task), "n": len(of_task)}
    if task in _CLASSES:
      confusion[task] = _confusion(of_task, _CLASSES[task])
  results |= {
    "parse_failures": failures,
    "confusion": confusion,
    "faces": settings.faces,
    "split": settings.split,
    "modalities": list(reads),
    "seconds": round(time.monotonic() - started, 1),
    "data": "synthetic",
  }
  _write(out_dir, predictions, results)
  return results


def _check(settings: EvaluateConfig, modalities: tuple[str, ...]) -> None:
  for task in settings.tasks:
    one_of("evaluate.tasks", task, questions.TASKS)
  for name in modalities:
    one_of("modalities", name, MODALITIES)
  for name in ("faces", "bootstrap"):
    if getattr(settings, name) < 1:
      raise ValueError(f"evaluate.{name}={getattr(settings, name)}: expected at least 1")
  if not settings.tasks or len(set(settings.tasks)) < len(settings.tasks):
    raise ValueError(
      f"evaluate.tasks={settings.tasks}: expected one or more of {', '.join(questions.TASKS)}, "
      "each once"
    )


def _ask(answerer: Answerer, settings: EvaluateConfig, size: int) -> list[Prediction]:
  """Draws the faces, then answers task by task."""
  drawn = [
    _draw(seed, settings.split, size)
    for seed in tqdm.trange(settings.faces, desc="drawing faces", unit="face")
  ]
  sampling = Sampling(new_tokens=settings.new_tokens)
  predictions = []
  total = settings.faces * len(settings.tasks)
  with tqdm.tqdm(total=total, desc="answering", unit="answer") as bar:
    for task in settings.tasks:
      asked = [_question(task, seed) for seed in range(settings.faces)]
      samples = [
        Sample(
          f"synthetic/{settings.split}/{seed}", (Turn("human", f"<image>\n{text}"),), (medium,)
        )
        for seed, (text, (medium, _)) in enumerate(zip(asked, drawn, strict=True))
      ]
      answers = answerer.answer(samples, sampling, progress=bar.update)
      for seed, answer in enumerate(answers):
        label, truth = questions.parse(task, answer.text), questions.truth(task, drawn[seed][1])
        predictions.append(
          Prediction(
            seed, samples[seed].id, task, asked[seed], answer.text, answer.stopped, label, truth
          )
        )
  return predictions


def _draw(seed: int, split: str, size: int) -> tuple[Medium, synthetic.Labels]:
  """The picture as SyntheticSource makes it, without questions."""
  size = max(size, synthetic.MIN_SIZE)
  face = synthetic.face(seed, size=size, split=split)
  points = face.landmarks / np.float32(size)
  return Medium("image", face.image[None], points[None], face.segmentation[None]), face.labels


def _question(task: str, seed: int) -> str:
  """The wording hangs on the face and task alone, so that all runs are asked the same."""
  return questions.question(task, np.random.default_rng((seed, questions.TASKS.index(task))))


def _classes(predictions: list[Prediction], names: tuple) -> tuple[np.ndarray, np.ndarray]:
  """Truth and label of each face as positions in `names`; -1 where there is no label."""
  place = {name: index for index, name in enumerate(names)}
  truth = np.array([place[p.truth] for p in predictions])
  return truth, np.array([-1 if p.label is None else place[p.label] for p in predictions])


def _sets(predictions: list[Prediction], names: tuple) -> tuple[np.ndarray, np.ndarray]:
  """[n names] bool each: who has what, and who is said to; all wrong where there is no label."""
  member = lambda labels: np.array([[name in label for name in names] for label in labels])
  truth = member([p.truth for p in predictions])
  said = member([p.label or () for p in predictions])
  failed = np.array([p.label is None for p in predictions])
  return truth, np.where(failed[:, None], metrics.worst_set(truth), said)


def _expression(predictions: list[Prediction], draws: np.ndarray) -> dict:
  truth, said = _classes(predictions, EXPRESSIONS)
  return {
    "expression_accuracy": _record(metrics.mean(truth == said, draws)),
    "expression_uar": _record(metrics.uar(truth, said, draws)),
  }


def _action_units(predictions: list[Prediction], draws: np.ndarray) -> dict:
  truth, said = _sets(predictions, tuple(ACTION_UNITS))
  occur = [(i, unit) for i, unit in enumerate(ACTION_UNITS) if truth[:, i].any()]
  each = {str(unit): _record(metrics.f1(truth[:, i], said[:, i], draws)) for i, unit in occur}
  return {"au_macro_f1": _record(metrics.macro_f1(truth, said, draws)), "au_f1": each}


def _attributes(predictions: list[Prediction], draws: np.ndarray) -> dict:
  truth, said = _sets(predictions, tuple(ATTRIBUTES))
  right = truth == said
  each = {name: _record(metrics.mean(right[:, i], draws)) for i, name in enumerate(ATTRIBUTES)}
  overall = _record(metrics.attribute_accuracy(truth, said, draws))
  return {"attribute_accuracy": overall, "attribute_accuracy_each": each}


def _age(predictions: list[Prediction], draws: np.ndarray) -> dict:
  truth = np.array([p.truth for p in predictions], np.float64)
  said = np.array([math.nan if p.label is None else p.label for p in predictions], np.float64)
  return {"age_mae": _record(metrics.mean(metrics.age_error(truth, said), draws))}


def _deepfake(predictions: list[Prediction], draws: np.ndarray) -> dict:
  right = np.array([p.label == p.truth for p in predictions])
  return {"deepfake_accuracy": _record(metrics.mean(right, draws))}


_SCORES = {
  "expression": _expression,
  "action_units": _action_units,
  "attributes": _attributes,
  "age": _age,
  "deepfake": _deepfake,
}
# Of tasks with a confusion matrix: what `truth` gives -> how it is called.
_CLASSES: dict[str, dict[Any, str]] = {
  "expression": {name: name for name in EXPRESSIONS},
  "deepfake": dict(zip((False, True), VERDICTS, strict=True)),
}


def _confusion(predictions: list[Prediction], names: Mapping[Any, str]) -> dict:
  truth, said = _classes(predictions, tuple(names))
  counts = metrics.confusion(truth, said, len(names))
  return {"labels": list(names.values()), "counts": counts.tolist()}


def _record(interval: Interval) -> dict:
  """As JSON, which has no NaN."""
  finite = lambda x: None if isinstance(x, float) and math.isnan(x) else x
  return {name: finite(value) for name, value in interval._asdict().items()}


def _write(out_dir: Path, predictions: list[Prediction], results: dict) -> None:
  out_dir.mkdir(parents=True, exist_ok=True)
  with open(out_dir / "predictions.jsonl", "w") as file:
    for prediction in predictions:
      file.write(json.dumps(prediction._asdict(), default=sorted) + "\n")  # sets become lists
  text = json.dumps(results, indent=1, allow_nan=False)
  (out_dir / "results.json").write_text(text + "\n")


def table(runs: dict[str, dict]) -> str:
  """Plain text: a column a run, a row a headline metric with its interval, "-" where not asked.

  Args:
    runs: name -> what `evaluate` returned.
  """
  names = [textwrap.wrap(name, _COLUMN - 2) or [""] for name in runs]
  height = max(map(len, names), default=0)
  rows = [["", *(name[i] if i < len(name) else "" for name in names)] for i in range(height)]
  for key, title in HEADLINES.items():
    if any(key in run for run in runs.values()):
      rows.append([title, *(_cell(run.get(key)) for run in runs.values())])
  rows.append(["answers without a label", *(_failed(run) for run in runs.values())])
  rows.append(
    ["picture and", *(", ".join(r["modalities"]) or "nothing else" for r in runs.values())]
  )
  rows.append(["faces", *(f"{run['faces']} ({run['split']})" for run in runs.values())])
  widths = [max(len(row[i]) for row in rows) for i in range(len(runs) + 1)]
  lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) for r in rows]
  note = "Drawn (synthetic) faces; [95 % bootstrap interval over faces]; MAE: lower is better."
  return "\n".join([*(line.rstrip() for line in lines), note])


def _cell(metric: dict | None) -> str:
  if metric is None or metric["value"] is None:
    return "-"
  return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metric)


def _failed(run: dict) -> str:
  counts = run["parse_failures"].values()
  return f"{sum(c['count'] for c in counts)} of {sum(c['n'] for c in counts)}"
