"""The hand-off where a model is asked. an Answerer, samples, Telling -> samples told of labels.

Scores of asking.py, on the rules if wanted (projection.py), are said in front of each sample's last
question by handoff.py. Off unless someone asks for it, as the order of a Handoff is.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from facejax.config_checks import one_of
from facejax.knowledge import asking, rules, training_free
from facejax.knowledge.cooccurrence import Cooccurrence
from facejax.knowledge.handoff import Handoff, before, render
from facejax.knowledge.projection import Projection
from facejax.knowledge.rules import RuleSet
from facejax.types import Sample

SOURCES = ("head", "answers")
_OFF = Handoff()


@dataclasses.dataclass(frozen=True)
class Telling:
  """Which scores are handed to the language model, and how.

  Attributes:
    handoff: how they are said; "off" says nothing and asks for no score.
    source: "head", the model's label head; or "answers", to a yes-or-no question for each label,
      which takes as many prompts and no training.
    rules: a rule file of the library, or a path; "" is that of the model's label head.
    project: scores are those given that the rules hold.
    counts: of a label table; with source "answers", labels then pull each other (refine).
  """

  handoff: Handoff = _OFF
  source: str = "head"
  rules: str = ""
  project: bool = True
  counts: Cooccurrence | None = None

  def __post_init__(self):
    one_of("Telling.source", self.source, SOURCES)

  def rule_set(self, head: str | None) -> RuleSet:
    """The labels and rules, where the model's label head has `head` (None: it has none).

    Raises ValueError where labels are asked of a head that there is not, or of other rules.
    """
    if self.source == "head":
      if head is None:
        raise ValueError(
          "labels are to be handed over from the label head, but the model has none (model.labels "
          "is None) - expected a model trained with one - take them from its answers instead"
        )
      if self.rules not in ("", head):
        raise ValueError(
          f"rules {self.rules!r} for a label head of {head!r} - expected the same - leave them "
          "out, or take the labels from the model's answers"
        )
      return rules.load(head)
    if not (self.rules or head):
      raise ValueError(
        "labels are to be asked of a model without a label head, and no rules say which - name a "
        "rule file, such as 'celeba40'"
      )
    return rules.load(self.rules or str(head))

  def scores(
    self, answerer: asking.Asked, samples: Sequence[Sample], head: str | None
  ) -> tuple[Float[np.ndarray, "n N"], RuleSet]:
    """The scores that are handed over, and what they are of."""
    known = self.rule_set(head)
    if self.source == "head":
      made = np.asarray(answerer.label_scores(samples), np.float64)
    else:
      made = asking.yes(answerer, samples, known.labels)
      if self.counts is not None:
        made = training_free.refine(made, training_free.statistics(self.counts, known.labels))
    return (Projection(known).probabilities(made) if self.project else made), known

  def told(
    self, answerer: asking.Asked, samples: Sequence[Sample], head: str | None
  ) -> list[Sample]:
    """Samples whose last question says the labels in front; with order "off" as they are."""
    if self.handoff.order == "off" or not samples:
      return list(samples)
    made, known = self.scores(answerer, samples, head)
    says = (render(row, known.labels, self.handoff) for row in made)
    return [_told(sample, text) for sample, text in zip(samples, says, strict=True)]


NOTHING = Telling()


def _told(sample: Sample, text: str) -> Sample:
  *history, last = sample.conversation
  asked = dataclasses.replace(last, text=before(last.text, text))
  return dataclasses.replace(sample, conversation=(*history, asked))
