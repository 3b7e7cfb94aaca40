"""A model's own scores of labels. an Answerer, pictures -> probabilities [n N].

Two sources: its label head, if it was trained with one, or its answers to one yes-or-no question a
label, which any model can be asked. The paper's training-free regime names neither questions nor
scores; wording, and P(yes) / (P(yes) + P(no)) of the first token of the answer, are ours.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from facejax.knowledge.labels import LabelSet
from facejax.types import Sample, Turn

QUESTION = "Does this face show this: {words}? Answer with yes or no."
YES, NO = "Yes.", "No."


class Asked(Protocol):
  """What generate.Answerer can do."""

  def opening(self, text: str) -> int:
    """The first token of an answer."""
    ...

  def chances(self, samples: Sequence[Sample], tokens: Sequence[int]) -> np.ndarray:
    """Probabilities of first tokens."""
    ...

  def label_scores(self, samples: Sequence[Sample]) -> np.ndarray:
    """Of the label head."""
    ...


def yes(
  answerer: Asked, samples: Sequence[Sample], labels: LabelSet, question: str = QUESTION
) -> Float[np.ndarray, "n N"]:
  """The probability of "Yes." against "No." for each label of each sample's media; no gradient.

  One prompt a picture and label: n * N of them. Whatever the samples' turns say is not asked.

  Args:
    answerer: of the model.
    samples: their media are looked at.
    labels: asked about, in the words of LabelSet.say.
    question: with "{words}" in it.

  Raises:
    ValueError: yes and no begin with the same token; a question without "{words}"; or what the
      answerer refuses.
  """
  if "{words}" not in question:
    raise ValueError(f"question {question!r} - expected {{words}} in it, for the label")
  tokens = [answerer.opening(text) for text in (YES, NO)]
  if tokens[0] == tokens[1]:
    raise ValueError(
      f"{YES!r} and {NO!r} both begin with token {tokens[0]} of this tokenizer - expected two "
      "tokens - this model cannot be read by the first one"
    )
  asked = [
    dataclasses.replace(
      sample,
      id=f"{sample.id}/{label}",
      conversation=(Turn("human", front + question.format(words=labels.say(label))),),
    )
    for sample in samples
    for front in ["".join(f"<{medium.kind}>\n" for medium in sample.media)]
    for label in labels.labels
  ]
  chances = answerer.chances(asked, tokens).reshape(len(samples), len(labels), 2)
  return chances[..., 0] / np.maximum(chances.sum(-1), 1e-30)
