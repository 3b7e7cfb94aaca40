"""Truths and parsed answers -> metrics, by task. Per cent, but for the years of ages.

    choice      letters        accuracy
    class       names          accuracy (WAR), mean recall (UAR), recall of each class, confusions
    units       sets of units  F1 of each unit, and their mean
    attributes  sets of names  accuracy of each attribute, and their mean (CelebA's mAcc)
    age         years          MAE, share within five years

An answer that states no label counts as the worst that it could have been, as in metrics.py; of an
age that is as far off as 0 or 100 years can be. `age_mae_answered` leaves such answers out, which
is what most papers seem to do; the two are never mixed. An answer of another class than the
benchmark's, such as surprise where there is none, is a wrong one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facejax.evaluate import metrics
from facejax.evaluate.metrics import Metric

WORST_AGES = (0.0, 100.0)
NEAR = 5  # years


class Scores(NamedTuple):
  """What a task is counted by.

  Attributes:
    main: metrics that every table shows, by name.
    each: metrics of single classes, units or attributes, by what and by its name.
    confusion: counts by true and stated class, for classes.
  """

  main: dict[str, Metric]
  each: dict[str, dict[str, Metric]]
  confusion: dict[str, Any] | None = None


def score(task: str, truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  """The metrics of a task over these answers.

  Args:
    task: of the table above.
    truths: labels as JSON values.
    parsed: labels, None where an answer states none.
    classes: names in the order of tables.
  """
  return TASKS[task](truths, parsed, classes)


def _percent(metric: Metric) -> Metric:
  return lambda weights: 100 * metric(weights)


def right(task: str, truth: Any, parsed: Any) -> bool:
  """Whether an answer is right: the whole set of units or attributes, an age within five years."""
  if parsed is None:
    return False
  if task == "age":
    return abs(parsed - truth) <= NEAR
  return set(parsed) == set(truth) if task in ("units", "attributes") else parsed == truth


def _choice(truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  del classes
  hits = np.array([right("choice", t, p) for t, p in zip(truths, parsed, strict=True)])
  return Scores({"accuracy": _percent(metrics.mean(hits))}, {})


def _class(truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  known = [p if p in classes else None for p in parsed]
  true, stated = metrics.class_ids(truths, classes), metrics.class_ids(known, classes)
  each = {str(name): _percent(_recall(true == i, stated == i)) for i, name in enumerate(classes)}
  main = {
    "accuracy": _percent(metrics.accuracy(true, stated)),
    "uar": _percent(metrics.uar(true, stated)),
  }
  matrix = metrics.confusion(true, stated, len(classes)).tolist()
  return Scores(main, {"recall": each}, {"classes": [*map(str, classes)], "matrix": matrix})


def _recall(true: np.ndarray, stated: np.ndarray) -> Metric:
  both, all = (true & stated).astype(float), true.astype(float)
  return lambda weights: _ratio(weights @ both, weights @ all)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _sets(truths: Sequence, parsed: Sequence, classes: Sequence) -> tuple[np.ndarray, np.ndarray]:
  true = metrics.memberships([frozenset(t) for t in truths], classes)
  stated = [None if p is None else frozenset(p) for p in parsed]
  return true, metrics.predicted_memberships(stated, true, classes)


def _units(truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  true, stated = _sets(truths, parsed, classes)
  each = {
    f"AU{unit}": _percent(metrics.f1(true[:, [k]], stated[:, [k]]))
    for k, unit in enumerate(classes)
  }
  return Scores({"f1": _percent(metrics.f1(true, stated))}, {"f1": each})


def _attributes(truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  true, stated = _sets(truths, parsed, classes)
  each = {
    name: _percent(metrics.label_accuracy(true[:, [k]], stated[:, [k]]))
    for k, name in enumerate(classes)
  }
  main = {"mean_accuracy": _percent(metrics.label_accuracy(true, stated))}
  return Scores(main, {"accuracy": each})


def _age(truths: Sequence, parsed: Sequence, classes: Sequence) -> Scores:
  del classes
  errors = age_errors(truths, parsed)
  answered = np.array([p is not None for p in parsed])
  return Scores(
    {
      "age_mae": metrics.mean(errors),
      "age_mae_answered": lambda w: _ratio(w @ (errors * answered), w @ answered.astype(float)),
      "within_5_years": _percent(metrics.mean(answered & (errors <= NEAR))),
    },
    {},
  )


def age_errors(truths: Sequence[float], parsed: Sequence[float | None]) -> np.ndarray:
  """Years off; where no age is stated, the way to the farther end of WORST_AGES."""
  truth = np.array(truths, float)
  worst = np.maximum(np.abs(truth - WORST_AGES[0]), np.abs(truth - WORST_AGES[1]))
  stated = np.array([np.nan if p is None else p for p in parsed], float)
  return np.where(np.isnan(stated), worst, np.abs(truth - stated))


TASKS: Mapping[str, Callable[[Sequence, Sequence, Sequence], Scores]] = {
  "choice": _choice,
  "class": _class,
  "units": _units,
  "attributes": _attributes,
  "age": _age,
}

# The metric that a benchmark is compared by, and whether less of it is better.
MAIN: Mapping[str, tuple[str, bool]] = {
  "choice": ("accuracy", False),
  "class": ("accuracy", False),
  "units": ("f1", False),
  "attributes": ("mean_accuracy", False),
  "age": ("age_mae", True),
}

# Of all metrics, those of which less is better.
LESS_IS_BETTER = ("age_mae", "age_mae_answered")

WORDS: Mapping[str, str] = {
  "accuracy": "accuracy (WAR), %",
  "uar": "mean recall (UAR), %",
  "f1": "mean F1, %",
  "mean_accuracy": "mean accuracy, %",
  "age_mae": "MAE, years",
  "age_mae_answered": "MAE of answers with an age, years",
  "within_5_years": "within 5 years, %",
}
