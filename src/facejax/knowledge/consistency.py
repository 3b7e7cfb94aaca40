"""Answers and scores about labels -> metrics for evaluate.metrics.bootstrap. n samples, N labels.

Values are 1, 0 and -1 (nobody said), as everywhere in this package.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from facejax.evaluate import metrics
from facejax.evaluate.metrics import Metric
from facejax.knowledge.labels import UNKNOWN, LabelSet
from facejax.knowledge.rules import RuleSet

BINS = 15  # of scores, for the calibration error


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """part / whole, NaN where there is nothing."""
  return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def stated(answers: Sequence[frozenset | None], labels: LabelSet) -> Int8[np.ndarray, "n N"]:
  """Names that answers list -> values: 1 if listed, else 0; -1 throughout without an answer.

  Listed names that are no labels of the set are ignored.
  """
  rows = metrics.memberships([x or frozenset() for x in answers], labels.labels).astype(np.int8)
  rows[[x is None for x in answers]] = UNKNOWN
  return rows


def decided(scores: Float[np.ndarray, "n N"], labels: LabelSet) -> Int8[np.ndarray, "n N"]:
  """Scores -> values: from 0.5 on, and in a group the highest."""
  values = (scores >= 0.5).astype(np.int8)
  for group in labels.group_indices:
    own = scores[:, list(group)]
    values[:, list(group)] = np.arange(len(group)) == own.argmax(1)[:, None]
  return values


def violation_rate(values: Int8[np.ndarray, "n N"], rules: RuleSet) -> Metric:
  """The share of answers that break at least one rule, whatever their unknown values may be."""
  return metrics.mean(np.asarray(rules.broken(values).any(1)))


def rule_rates(values: Int8[np.ndarray, "n N"], rules: RuleSet) -> dict[str, float]:
  """Each rule's share of answers that break it, of those that say enough to judge it."""
  broken, judged = rules.broken(values), rules.judged(values)
  share = _share((broken & judged).sum(0), judged.sum(0))
  return {rule.say(rules.labels): float(x) for rule, x in zip(rules.rules, share, strict=True)}


def accuracy(truth: Int8[np.ndarray, "n N"], values: Int8[np.ndarray, "n N"]) -> Metric:
  """The share of right decisions among labels whose truth is known; no answer is a wrong one."""
  known = truth != UNKNOWN
  right = ((truth == values) & known).sum(1).astype(np.float64)
  return lambda weights: _share(weights @ right, weights @ known.sum(1).astype(np.float64))


def hallucination(truth: Int8[np.ndarray, "n N"], values: Int8[np.ndarray, "n N"]) -> Metric:
  """The share of descriptions that state at least one label that is false."""
  return metrics.mean(((values == 1) & (truth == 0)).any(1))


def rare(prevalence: Float[np.ndarray, "N"], share: float) -> Int[np.ndarray, "k"]:
  """Places of labels that at most this share of samples have, and at least one does.

  Raises ValueError if there is none.
  """
  found = np.flatnonzero((prevalence > 0) & (prevalence <= share))
  if not len(found):
    least = prevalence[prevalence > 0].min(initial=1)
    raise ValueError(
      f"no label with a prevalence up to {share} - expected one or more, the rarest has "
      f"{least:.3f} - raise the share"
    )
  return found


def rare_f1(
  truth: Int8[np.ndarray, "n N"], values: Int8[np.ndarray, "n N"], places: Int[np.ndarray, "k"]
) -> Metric:
  """Mean F1 over some labels; what is unknown counts as absent, in both."""
  return metrics.f1(truth[:, places] == 1, values[:, places] == 1)


def calibration_error(
  truth: Int8[np.ndarray, "n N"], scores: Float[np.ndarray, "n N"], bins: int = BINS
) -> Metric:
  """ECE: over bins of equal width, the mean gap of mean score and share of present labels.

  All labels of all samples are pooled; those whose truth is unknown are left out.
  """
  known = truth != UNKNOWN
  which = np.minimum((scores * bins).astype(int), bins - 1)
  member: Bool[np.ndarray, "n N bins"] = (which[..., None] == np.arange(bins)) & known[..., None]
  gap = np.einsum("sN,sNb->sb", np.where(known, scores - (truth == 1), 0.0), member)
  number = member.sum((1, 2)).astype(np.float64)
  return lambda weights: _share(np.abs(weights @ gap).sum(-1), weights @ number)
