"""Parameters -> answers about held-out drawn faces -> results. Each face is asked every task.

Rows are ordered by task: answers to one task are about as long as each other, so that a batch ends
soon after its first row does. The wording of a question is drawn from (data.seed, face, task): the
same for every set of parameters.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from facejax.config import MODALITIES, RunConfig
from facejax.config_checks import one_of
from facejax.data.pipeline import row_format
from facejax.evaluate import fairness, metrics
from facejax.evaluate.metrics import Metric
from facejax.faces import questions, scene, synthetic
from facejax.faces.action_units import EXPRESSIONS, RENDERED_ACTION_UNITS
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.parsing import MAX_AGE
from facejax.generate import Answer, Answerer, Sampling
from facejax.logs import Progress
from facejax.types import Medium, Sample, Turn

# Luma at which a third and two thirds of the identities are darker.
_TONES = (136.0, 189.0)

HEADLINES = {
  "expression_accuracy": "expression, accuracy",
  "expression_uar": "expression, mean recall",
  "au_macro_f1": "action units, macro F1",
  "attribute_accuracy": "attributes, mean accuracy",
  "age_mae": "age, mean error in years",
  "deepfake_accuracy": "deepfake, accuracy",
}


def evaluate(
  config: RunConfig,
  params: Any,
  out_dir: str | Path,
  *,
  modalities: Sequence[str] | None = None,
  of: str = "",
  name: str = "evaluate",
  mesh: Mesh | None = None,
) -> dict:
  """Answers, scores, and writes predictions.jsonl and results.json into out_dir.

  Args:
    config: the model, and `evaluate`: how many faces of which split, which tasks.
    params: of config.model.
    out_dir: made if needed; an earlier evaluation in it is replaced.
    modalities: optional inputs that the model sees, of those in config.data; None: all of them.
    of: what the parameters are, such as "stage1 at step 150"; recorded, and read by finished().
    name: of the progress line.
    mesh: as in Answerer.

  Returns:
    {metric: {value, low, high, n}} for HEADLINES, of the tasks that were asked; `au_f1` and
    `attribute_accuracy_each` with the same for each label; `confusion`, `parse_failures`,
    `fairness` (see by_groups), `seconds` and what was evaluated. No label: see metrics.py.

  Raises:
    ValueError: an unknown task or modality; or what Answerer refuses.
  """
  started = time.monotonic()
  _check(config, modalities)
  config = _narrowed(config, modalities)
  asked, truths, groups = _questions(config)
  sampling = Sampling(new_tokens=config.evaluate.new_tokens)
  with Progress(name, 0, len(asked)) as progress:
    shown = _Shown(progress, len(asked))
    answers = Answerer(config, params, mesh).answer(asked, sampling, progress=shown)
  records = _records(config, asked, truths, answers, groups)
  results = {
    **score(config, records),
    "fairness": by_groups(config, records),
    "seconds": round(time.monotonic() - started, 1),
    "faces": config.evaluate.faces,
    "split": config.evaluate.split,
    "modalities": list(config.data.modalities),
    "data": "synthetic",
    "settings": _settings(config, of),
  }
  _write(Path(out_dir), results, records)
  return results


def finished(
  config: RunConfig, out_dir: str | Path, *, modalities: Sequence[str] | None = None, of: str
) -> dict | None:
  """The results of the same evaluate() call if out_dir holds them complete, else None."""
  try:
    results = json.loads((Path(out_dir) / "results.json").read_text())
  except (FileNotFoundError, ValueError):
    return None
  same = results.get("settings") == _settings(_narrowed(config, modalities), of)
  return results if same else None


def _narrowed(config: RunConfig, modalities: Sequence[str] | None) -> RunConfig:
  """The config that reads these modalities, and no more than the model was trained with."""
  if modalities is None:
    return config
  reads = tuple(name for name in config.data.modalities if name in modalities)
  return dataclasses.replace(config, data=dataclasses.replace(config.data, modalities=reads))


def _settings(config: RunConfig, of: str) -> dict:
  """What answers and scores depend on, as JSON values."""
  return {
    "of": of,
    "modalities": list(config.data.modalities),
    "seed": config.seed,
    "data.seed": config.data.seed,
    "landmark_noise": config.data.synthetic.landmark_noise,
    **dataclasses.asdict(config.evaluate),
    "tasks": list(config.evaluate.tasks),
  }


def _write(folder: Path, results: Mapping, records: Sequence[Mapping]) -> None:
  """Both files; whenever the process dies, a results.json belongs to the predictions beside it."""
  folder.mkdir(parents=True, exist_ok=True)
  summary, partial = folder / "results.json", folder / "results.json.tmp"
  summary.unlink(missing_ok=True)
  lines = [json.dumps(_plain(record)) + "\n" for record in records]
  (folder / "predictions.jsonl").write_text("".join(lines))
  partial.write_text(json.dumps(results, indent=1) + "\n")
  partial.replace(summary)


def _check(config: RunConfig, modalities: Sequence[str] | None) -> None:
  """Refuses before minutes of answering what would fail behind them."""
  for name in modalities or ():
    one_of("evaluate(modalities=...)", name, MODALITIES)
  for task in config.evaluate.tasks:
    one_of("evaluate.tasks", task, questions.TASKS)


class _Shown:
  """Counts rows for the progress line, and shows it ten times."""

  def __init__(self, progress: Progress, total: int):
    self._progress, self._total = progress, total
    self._done, self._tenth = 0, 0

  def __call__(self, rows: int) -> None:
    self._done += rows
    self._progress.advance(self._done)
    if (tenth := 10 * self._done // self._total) > self._tenth:
      self._tenth = tenth
      self._progress.show(self._done, "answers")


def medium(face: synthetic.Face, seed: int, noise: float) -> Medium:
  """A drawn face with its landmarks in [0, 1], as off as in training, and its class map."""
  landmarks = synthetic.located(face.landmarks[None] / len(face.image), seed, noise)
  return Medium("image", face.image[None], landmarks, face.segmentation[None])


def groups_of(labels: scene.Labels) -> dict[str, str]:
  """The groups of a drawn face: FairFace's age bands, and thirds of how light its skin is.

  Drawn faces have no gender and no race; the skin is the identity's, by Rec. 601 luma.
  """
  red, green, blue = scene.identity(labels.identity).skin
  light = 0.299 * red + 0.587 * green + 0.114 * blue
  tone = "dark" if light < _TONES[0] else "medium" if light < _TONES[1] else "light"
  return {"age": fairness.age_band(labels.age), "skin": tone}


def _questions(config: RunConfig) -> tuple[list[Sample], list[Any], list[dict[str, str]]]:
  """Every task about every face, task by task; true labels; groups by face, each drawn once."""
  size, split = max(config.model.image.image_size, synthetic.MIN_SIZE), config.evaluate.split
  faces = [synthetic.face(i, size=size, split=split) for i in range(config.evaluate.faces)]
  noise = config.data.synthetic.landmark_noise
  media = [medium(face, i, noise) for i, face in enumerate(faces)]
  samples, truths = [], []
  for task in config.evaluate.tasks:
    for i, face in enumerate(faces):
      rng = np.random.default_rng((config.data.seed, i, questions.TASKS.index(task)))
      turn = Turn("human", "<image>\n" + questions.question(task, rng))
      samples.append(Sample(f"synthetic/{split}/{i}/{task}", (turn,), (media[i],)))
      truths.append(questions.truth(task, face.labels))
  return samples, truths, [groups_of(face.labels) for face in faces]


def _records(
  config: RunConfig,
  asked: Sequence[Sample],
  truths: Sequence,
  answers: Sequence[Answer],
  groups: Sequence[Mapping[str, str]],
) -> list[dict]:
  """What predictions.jsonl holds, with sets as sets."""
  template = row_format(config.model, config.data).template
  records = []
  for sample, truth, answer in zip(asked, truths, answers, strict=True):
    *_, face, task = sample.id.split("/")
    parsed = questions.parse(task, answer.text)
    if task == "age" and parsed is not None and parsed > MAX_AGE:  # type: ignore[operator]
      parsed = None  # no age of a person
    question = sample.conversation[0].text
    records.append(
      {
        "face": int(face),
        "task": task,
        "prompt": template.asked(question),
        "answer": answer.text,
        "stopped": answer.stopped,
        "parsed": parsed,
        "truth": truth,
        "groups": groups[int(face)],
      }
    )
  return records


def _plain(record: Mapping) -> dict:
  """A record as JSON values: sets are sorted lists."""
  return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in record.items()}


def score(config: RunConfig, records: Sequence[Mapping]) -> dict:
  """The results of the answers; see evaluate(). A score that is undefined is left out."""

  def intervals(scores: Mapping[Any, Metric], n: int) -> dict:
    made = {
      name: metrics.bootstrap(metric, n, config.evaluate.bootstrap, config.seed)
      for name, metric in scores.items()
    }
    return {name: x._asdict() for name, x in made.items() if np.isfinite(x.value)}

  results: dict[str, Any] = {"parse_failures": {}}
  for task in config.evaluate.tasks:
    own = [r for r in records if r["task"] == task]
    parsed, truth = [r["parsed"] for r in own], [r["truth"] for r in own]
    results["parse_failures"][task] = parsed.count(None)
    scores, extra = _SCORES[task](truth, parsed)
    results |= intervals(scores, len(own))
    for name, each in extra.get("labels", {}).items():
      results[name] = intervals(each, len(own))
    if "confusion" in extra:
      results.setdefault("confusion", {})[task] = extra["confusion"]
  return results


def by_groups(config: RunConfig, records: Sequence[Mapping]) -> dict:
  """{task: {kind: {groups, gaps}}}: the task's metrics by age band and skin tone of the face."""
  rest = (config.evaluate.bootstrap, config.seed)
  found: dict[str, dict] = {}
  for task in config.evaluate.tasks:
    own = [{**r, "id": str(r["face"])} for r in records if r["task"] == task]
    scorer = lambda truth, parsed, task=task: _SCORES[task](truth, parsed)[0]
    found[task] = {
      kind: {
        "groups": fairness.by_group(scorer, own, kind, *rest),
        "gaps": fairness.gaps(scorer, own, kind, *rest),
      }
      for kind in ("age", "skin")
    }
  return found


def _classes(truth, parsed, classes: Sequence) -> tuple[np.ndarray, np.ndarray, dict]:
  """Class numbers of both, and the confusion matrix as JSON values."""
  true, predicted = metrics.class_ids(truth, classes), metrics.class_ids(parsed, classes)
  matrix = metrics.confusion(true, predicted, len(classes)).tolist()
  names = ["fake" if c else "real" for c in classes] if classes == (False, True) else list(classes)
  return true, predicted, {"classes": names, "matrix": matrix}


def _expression(truth, parsed) -> tuple[dict[str, Metric], dict]:
  true, predicted, confusion = _classes(truth, parsed, EXPRESSIONS)
  scores = {
    "expression_accuracy": metrics.accuracy(true, predicted),
    "expression_uar": metrics.uar(true, predicted),
  }
  return scores, {"confusion": confusion}


def _deepfake(truth, parsed) -> tuple[dict[str, Metric], dict]:
  true, predicted, confusion = _classes(truth, parsed, (False, True))
  return {"deepfake_accuracy": metrics.accuracy(true, predicted)}, {"confusion": confusion}


def _labels(truth, parsed, names: Sequence, metric) -> tuple[Metric, dict[Any, Metric]]:
  """A metric over all labels, and over each one alone."""
  true = metrics.memberships(truth, names)
  predicted = metrics.predicted_memberships(parsed, true, names)
  each = {n: metric(true[:, [k]], predicted[:, [k]]) for k, n in enumerate(names)}
  return metric(true, predicted), each


def _action_units(truth, parsed) -> tuple[dict[str, Metric], dict]:
  macro, each = _labels(truth, parsed, RENDERED_ACTION_UNITS, metrics.f1)
  named = {f"AU{unit}": metric for unit, metric in each.items()}
  return {"au_macro_f1": macro}, {"labels": {"au_f1": named}}


def _attributes(truth, parsed) -> tuple[dict[str, Metric], dict]:
  overall, each = _labels(truth, parsed, tuple(ATTRIBUTES), metrics.label_accuracy)
  return {"attribute_accuracy": overall}, {"labels": {"attribute_accuracy_each": each}}


def _age(truth, parsed) -> tuple[dict[str, Metric], dict]:
  return {"age_mae": metrics.mean(metrics.age_errors(np.array(truth, float), parsed))}, {}


_SCORES: dict[str, Callable[[list, list], tuple[dict[str, Metric], dict]]] = {
  "expression": _expression,
  "action_units": _action_units,
  "attributes": _attributes,
  "age": _age,
  "deepfake": _deepfake,
}


def table(runs: Mapping[str, Mapping]) -> str:
  """Results side by side as text: value [low, high] of each metric that any run has."""
  cell = lambda r, k: "{value:.3f} [{low:.3f}, {high:.3f}]".format(**r[k]) if k in r else "-"
  rows = [["", *runs]]
  for key, words in HEADLINES.items():
    if any(key in results for results in runs.values()):
      rows.append([words, *(cell(results, key) for results in runs.values())])
  rows.append(["answers without a label", *(_failures(results) for results in runs.values())])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return "\n".join(
    "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    for row in rows
  )


def _failures(results: Mapping) -> str:
  failed = results["parse_failures"]
  return f"{sum(failed.values())} of {results['faces'] * len(failed)}"
