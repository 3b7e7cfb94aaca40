"""Scores into words in front of a question. scores [N], LabelSet, Handoff -> text.

FaceInsight hands its scores to the language model; template, threshold and order are our choice.
Off by default, so that what a model gains from it shows in comparisons.

    <image>                             <image>
    How does this person feel?    ->    Detected attributes: happiness (0.93), hat (0.81).
                                        How does this person feel?
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from facejax.config_checks import one_of, within
from facejax.knowledge.labels import LabelSet

ORDERS = ("off", "score", "table")
_PLACEHOLDERS = re.compile(r"\A(?:\s*<(?:image|video)>[ \t]*\n?)+")


@dataclasses.dataclass(frozen=True)
class Handoff:
  """How scores are said.

  Attributes:
    order: "off" says nothing; "score" the surest first; "table" in the label set's order.
    template: the sentence; "{labels}" stands for the list.
    item: each label; "{label}" stands for its words, "{score}" may stand for its score.
    threshold: the least score that is said; of a group only the highest label can be.
    limit: the most labels that are said, the surest of them in any order.
    none: the sentence where no label is sure enough; "" says nothing.
  """

  order: str = "off"
  template: str = "Detected attributes: {labels}."
  item: str = "{label} ({score:.2f})"
  threshold: float = 0.7
  limit: int = 12
  none: str = ""

  def __post_init__(self):
    one_of("Handoff.order", self.order, ORDERS)
    within(self, "threshold", 0, 1)
    within(self, "limit", 1)
    for name, known in (("template", {"labels": ""}), ("item", {"label": "", "score": 0.5})):
      text = getattr(self, name)
      try:
        text.format_map(known)
      except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
          f"Handoff.{name}={text!r} cannot be filled ({error!r}) - expected the fields "
          f"{', '.join(known)} - write any other brace twice"
        ) from error
      if "{" + next(iter(known)) not in text:
        raise ValueError(f"Handoff.{name}={text!r} lacks {{{next(iter(known))}}}")
      if "<image>" in text or "<video>" in text:
        raise ValueError(f"Handoff.{name}={text!r} holds a placeholder of a medium - remove it")


def chosen(scores: Float[np.ndarray, "N"], labels: LabelSet, how: Handoff) -> list[int]:
  """The labels that are said, in the order in which they are."""
  if how.order == "off":
    return []
  s = np.asarray(scores, np.float64)
  if s.shape != (len(labels),):
    raise ValueError(
      f"scores of shape {list(s.shape)} - expected [{len(labels)}], one for each label of "
      f"{labels.name!r} - pass one picture's row"
    )
  losers = {
    i for group in labels.group_indices for i in set(group) - {max(group, key=lambda i: s[i])}
  }
  sure = [i for i in np.argsort(-s, kind="stable").tolist() if s[i] >= how.threshold]
  kept = [i for i in sure if i not in losers][: how.limit]
  return sorted(kept) if how.order == "table" else kept


def render(scores: Float[np.ndarray, "N"], labels: LabelSet, how: Handoff) -> str:
  """The sentence about one picture's scores; "" where nothing is to be said."""
  said = chosen(scores, labels, how)
  if not said:
    return how.none if how.order != "off" else ""
  name = lambda i: labels.say(labels.labels[i])
  items = (how.item.format(label=name(i), score=float(scores[i])) for i in said)
  return how.template.format(labels=", ".join(items))


def before(question: str, told: str | Sequence[str]) -> str:
  """A question with a sentence (or one for each of several pictures) in front of its words.

  Placeholders that open the question stay in front; with "" the question comes back as it is.
  """
  sentences = [told] if isinstance(told, str) else list(told)
  text = " ".join(sentence for sentence in sentences if sentence)
  if not text:
    return question
  opened = _PLACEHOLDERS.match(question)
  end = opened.end() if opened else 0
  front = question[:end]
  if front and not front.endswith("\n"):
    front += "\n"
  return f"{front}{text}\n{question[end:]}"
