"""Scores without a gradient step. a frozen model's answers [B N], counts of a table -> scores.

The paper has a training-free regime and does not say what it computes; all of this is our choice.
A model's probability of "yes" for each label is evidence about that label alone. Three things can
be added to it, each usable without the others:

  match_prevalence   A model that tends to "yes" is wrong on all labels alike. Each label's log-odds
                     are shifted until its mean over a set of pictures is the label's prevalence.
                     It takes a set (hundreds) of pictures, whose prevalences are the table's.
  refine             Labels pull each other. The table's labels are modelled as a pairwise Markov
                     field; its couplings have a closed form in the mean-field limit, J = -C^-1 off
                     the diagonal (C: covariance of labels; Kappen and Rodriguez 1998), so that an
                     indirect correlation is not counted on top of the direct one. A label moves by
                     how much its neighbours differ from their prevalence:
                         logit s_i = logit a_i + strength * sum_j J_ij (s_j - p_j)
  Projection         of projection.py: the rules.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from facejax.knowledge.cooccurrence import Cooccurrence
from facejax.knowledge.labels import LabelSet
from facejax.knowledge.projection import CLIP

SHRINK = 0.1  # share of the covariance's off-diagonal that is dropped: keeps it invertible
MOST = 4.0  # largest coupling: log-odds that one certain neighbour may move


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What a label table says of labels and pairs.

  Attributes:
    prevalence: [N] share of samples with a label.
    couplings: [N N] symmetric, 0 on the diagonal and inside groups, whose labels the rules bind.
  """

  prevalence: Float[np.ndarray, "N"]
  couplings: Float[np.ndarray, "N N"]


def statistics(counts: Cooccurrence, labels: LabelSet, shrink: float = SHRINK) -> Statistics:
  """Prevalences and couplings from the counts of a label table.

  Pairs that are never known together have no coupling. Raises ValueError for a shrinkage outside
  0..1, or counts of other labels.
  """
  if not 0 < shrink <= 1:
    raise ValueError(f"shrink={shrink}: expected above 0 and up to 1")
  if counts.labels != labels.labels:
    raise ValueError(
      f"counts of {counts.source!r} are of {len(counts.labels)} labels from {counts.labels[0]!r} on"
      f" - expected the {len(labels)} of {labels.name!r} in their order - count with this label set"
    )
  both = counts.both_known
  joint = counts.together / np.maximum(both, 1)
  # A pair's own prevalences: those of the samples in which both labels are known.
  own = counts.known / np.maximum(both, 1)
  covariance = np.where(both > 0, joint - own * own.T, 0)
  p = counts.prevalence
  spread = np.maximum(p * (1 - p), CLIP)
  correlation = covariance / np.sqrt(spread[:, None] * spread[None])
  np.fill_diagonal(correlation, 0)
  correlation = (1 - shrink) * correlation + np.eye(len(p))
  # With unknown labels the pairs are of different samples, and the matrix may be indefinite.
  values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
  inverse = (vectors / np.maximum(values, shrink)) @ vectors.T
  couplings = -(inverse + inverse.T) / 2 / np.sqrt(spread[:, None] * spread[None])
  np.fill_diagonal(couplings, 0)
  for group in labels.group_indices:
    couplings[np.ix_(group, group)] = 0
  return Statistics(p, np.clip(couplings, -MOST, MOST))


def refine(
  answers: Float[np.ndarray, "B N"],
  known: Statistics,
  strength: float = 0.1,
  rounds: int = 30,
) -> Float[np.ndarray, "B N"]:
  """A model's probabilities of "yes" -> scores that agree with each other.

  Half a step a round; answers at the prevalences stay where they are, and so do all with a strength
  of 0. A strength of 1 takes answers for independent evidence and labels for weakly coupled ones.
  Neither holds: answers of one model share its errors, and the mean field overstates couplings as
  strong as those of a rule. On drawn faces (not those that figures are given of) 0.1 was the most
  that cost neither accuracy nor calibration much; 0.5 cost 2 % of the decisions.
  """
  field = _logit(answers)
  scores = np.clip(np.asarray(answers, np.float64), CLIP, 1 - CLIP)
  for _ in range(rounds):
    pulled = field + strength * (scores - known.prevalence) @ known.couplings
    scores = (scores + _sigmoid(pulled)) / 2
  return scores


def match_prevalence(
  answers: Float[np.ndarray, "B N"], prevalence: Float[np.ndarray, "N"]
) -> Float[np.ndarray, "B N"]:
  """Answers about a set of pictures, shifted to the prevalences of the labels.

  The shift of log-odds is found by bisection; a prevalence of 0 or 1 counts as CLIP from it.
  """
  odds, target = _logit(answers), np.clip(prevalence, CLIP, 1 - CLIP)
  low, high = (np.full(len(target), end) for end in (-40.0, 40.0))
  for _ in range(60):
    middle = (low + high) / 2
    above = _sigmoid(odds + middle).mean(0) > target
    low, high = np.where(above, low, middle), np.where(above, middle, high)
  return _sigmoid(odds + (low + high) / 2)


def _logit(p: np.ndarray) -> np.ndarray:
  p = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
  return np.log(p) - np.log1p(-p)


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1 + np.tanh(x / 2))
