"""An answer -> why it cannot be used, or "". All of it our choice: the released code has no filter.

content_filter  the endpoint held the answer back
cut_off         it ended at the token limit
refused         the endpoint says so, or a phrase below does
empty           no words
too_short, too_long
script          letters of another script than Latin
label_leak      it speaks of having been given the facts
"""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from facejax.annotate.prompts import CRITERIA
from facejax.annotate.unit import Answer

FINAL = ("content_filter",)  # asking again with the same prompt would be the same

# How a refusal begins (within the first _OPENING characters), in plain lower-case letters.
REFUSALS_OPENING = (
  "i'm sorry",
  "i am sorry",
  "sorry, but",
  "i apologize",
  "i apologise",
  "i can't",
  "i cannot",
  "i can not",
  "i'm unable",
  "i am unable",
  "i'm not able",
  "i am not able",
  "i won't",
  "i will not",
  "unfortunately, i",
  "as an ai",
  "as a language model",
  "i must decline",
  "i have to decline",
)
_OPENING = 60
# What only a refusal says, wherever it stands.
REFUSALS = (
  "can't assist with",
  "cannot assist with",
  "can't help with",
  "cannot help with",
  "can't comply with",
  "cannot comply with",
  "can't fulfill",
  "cannot fulfill",
  "unable to assist",
  "unable to help with",
  "against my guidelines",
  "violates my guidelines",
  "content policy",
  "usage policies",
)

_GIVEN = r"(?:given|provided|supplied|stated|known|mentioned|specified|described|indicated)"
_FACT = (
  r"(?:descriptions?|labels?|annotations?|metadata|ground[- ]truth|prompt|instructions?|facts?|"
  r"ethnicity|race|gender|age|demographic (?:information|data|details|attributes))"
)
_LEAKS = tuple(
  re.compile(pattern)
  for pattern in (
    rf"\b{_GIVEN} {_FACT}\b",
    rf"\b{_FACT} (?:(?:that )?(?:was|were|is|are) )?(?:given|provided|supplied|specified)\b",
    rf"\b(?:according to|as per|based on|per|as {_GIVEN} (?:in|by)) (?:the|your|this) "
    r"(?:descriptions?|labels?|annotations?|metadata|ground[- ]truth|prompt|instructions?)\b",
    r"\byou(?:'ve| have)? (?:gave|given|provided|mentioned|stated|told|specified|described)\b",
    r"\bas (?:you )?(?:stated|specified|told) (?:above|before|earlier)\b",
    r"\b(?:ground[- ]truth|manual) (?:label|annotation)",
  )
)
_phrases = lambda texts: re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, texts))})(?!\w)")
_BEGINS, _SAYS = _phrases(REFUSALS_OPENING), _phrases(REFUSALS)
# A question that names both sides gives neither away.
_SIDES = {
  "real": re.compile(r"\b(?:real|genuine|authentic|original)\b"),
  "fake": re.compile(r"\b(?:fake|deepfake|manipulated|forged|synthetic)\b"),
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """What an answer may be.

  Attributes:
    words: fewest and most. 3 is the shortest answer about an age ("31 years old"); 600 is twice
      a long description.
    other_script: share of letters that may not be Latin, for names and quoted words.
  """

  words: tuple[int, int] = (3, 600)
  other_script: float = 0.1


def judge(answer: Answer, limits: Limits = Limits()) -> str:
  """The first reason of the module's list that applies; "" for a usable answer."""
  if answer.finish == "content_filter":
    return "content_filter"
  if reason := told(answer):
    return reason
  text = plain(answer.text)
  words = len(text.split())
  if words < limits.words[0]:
    return "too_short"
  if words > limits.words[1]:
    return "too_long"
  if _other_script(answer.text) > limits.other_script:
    return "script"
  return "label_leak" if any(pattern.search(text) for pattern in _LEAKS) else ""


def judge_rating(answer: Answer) -> str:
  """As `judge`, for a rater: "no_rating" unless the four criteria are there, from 1 to 10."""
  if answer.finish == "content_filter":
    return "content_filter"
  if reason := told(answer):
    return reason
  return "" if rating(answer.text) else "no_rating"


def rating(text: str) -> dict[str, Any] | None:
  """The ratings in a rater's answer, which may stand in a code fence; None if they do not."""
  values = json_object(text)
  if values is None:
    return None
  scores = [values.get(name) for name in CRITERIA]
  if not all(type(score) in (int, float) and 1 <= cast(float, score) <= 10 for score in scores):
    return None
  reason = values.get("reason", "")
  return {**dict(zip(CRITERIA, scores, strict=True)), "reason": str(reason)}


def json_object(text: str) -> dict[str, Any] | None:
  """The JSON object in an answer, which may stand in a code fence or between sentences."""
  found = re.search(r"\{.*\}", text, re.DOTALL)
  try:
    values = json.loads(found[0]) if found else None
  except (ValueError, RecursionError):
    return None
  return values if isinstance(values, dict) else None


def question_leak(question: str, labels: Mapping[str, Any]) -> str:
  """The label that a stored question gives away; "" if none.

  A label is looked for as whole words; of "real" and "fake" both may be named together.
  """
  text = plain(question)
  for value in labels.values():
    for label in value if isinstance(value, list | tuple) else [value]:
      words = plain(str(label)).replace("_", " ")
      if words in _SIDES:
        named = [side for side, pattern in _SIDES.items() if pattern.search(text)]
        if named == [words]:
          return str(label)
      elif words and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text):
        return str(label)
  return ""


def plain(text: str) -> str:
  """Lower case, compatibility forms and typographic marks replaced, one space between words."""
  text = unicodedata.normalize("NFKC", text).casefold()
  text = text.translate({0x2018: "'", 0x2019: "'", 0x02BC: "'", 0x2010: "-", 0x2011: "-"})
  return " ".join(text.split())


def told(answer: Answer) -> str:
  """What the endpoint or the answer's phrases say: cut_off, refused or empty; "" for neither."""
  if answer.finish == "length":
    return "cut_off"
  text = plain(answer.text)
  if answer.refusal or _BEGINS.search(text[:_OPENING]) or _SAYS.search(text):
    return "refused"
  return "" if text else "empty"


def _other_script(text: str) -> float:
  letters = [c for c in text if c.isalpha()]
  other = [c for c in letters if not unicodedata.name(c, "").startswith("LATIN")]
  return len(other) / max(len(letters), 1)
