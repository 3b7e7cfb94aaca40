"""Free text -> the label it states, for the five tasks: a documented table of synonyms and rules.

Negation is simple: inside a clause (text between . ; : or "but") everything after "no", "not",
"none", "without", "never", "nor" or "isn't" is denied. What is denied does not count, and a denied
verdict on a deepfake is turned around.
"""

import re

from facejax.faces.action_units import ACTION_UNITS

TASKS: tuple[str, ...] = ("expression", "action_units", "attributes", "age", "deepfake")

# str, frozenset of int or of str, float or bool: see `parse`.
Label = str | frozenset[int] | frozenset[str] | float | bool

EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
  "neutral": ("neutral", "calm", "no expression", "expressionless", "no emotion"),
  "happiness": ("happiness", "happy", "joy", "joyful", "smiling", "smile", "amusement"),
  "sadness": ("sadness", "sad", "sorrow", "unhappy", "grief"),
  "surprise": ("surprise", "surprised", "astonished", "astonishment"),
  "fear": ("fear", "fearful", "afraid", "scared", "terror", "terrified"),
  "disgust": ("disgust", "disgusted", "revulsion"),
  "anger": ("anger", "angry", "furious", "rage", "mad"),
}
ATTRIBUTE_WORDS: dict[str, tuple[str, ...]] = {
  "Eyeglasses": ("eyeglasses", "glasses", "spectacles"),
  "Wearing_Hat": ("wearing hat", "hat", "cap", "beanie"),
  "Bald": ("bald", "baldness"),
  "Bangs": ("bangs", "fringe"),
  "Long_Hair": ("long hair",),
  "Black_Hair": ("black hair", "dark hair"),
  "Brown_Hair": ("brown hair",),
  "Blond_Hair": ("blond hair", "blonde hair"),
  "Gray_Hair": ("gray hair", "grey hair", "white hair"),
  "Beard": ("beard", "bearded", "goatee"),
  "Mustache": ("mustache", "moustache"),
  "Wearing_Lipstick": ("lipstick", "wearing lipstick"),
}
FAKE_WORDS = ("fake", "deepfake", "manipulated", "altered", "synthetic", "forged")
REAL_WORDS = ("real", "authentic", "genuine", "unaltered", "original")

_CLAUSE = re.compile(r"[.;:!?\n]|\bbut\b")
_DENIAL = re.compile(r"\b(?:no|not|none|without|never|nor)\b|n't\b")
_UNIT_CODES = re.compile(r"\b(?:au|action units?)[\s-]*(\d+(?:\s*(?:,|\+|&|and)+\s*\d+)*)")
_NO_UNIT = re.compile(r"\bno (?:active )?(?:facial )?action units?\b|\bnone\b|\bno aus?\b")
_RANGE = r"(\d{1,3})\s*(?:-|–|to|and)\s*(\d{1,3})"
_YEARS = r"\s*-?\s*years?[\s-]*old"
MAX_AGE = 110


def check_task(task: str) -> None:
  """Refuses a task that is not one of TASKS."""
  if task not in TASKS:
    raise ValueError(f"unknown task {task!r} - expected one of {', '.join(TASKS)}")


def parse(task: str, text: str) -> Label | None:
  """Reads the label that a text states; None when it states none.

  Args:
    task: one of TASKS.
    text: an answer in English, any case.

  Returns:
    expression: the name of the expression mentioned first.
    action_units: frozenset of numbers, from codes ("AU6", "action units 6 and 12"), else from FACS
      names; "No action unit" and "none" are the empty set.
    attributes: frozenset of names of ATTRIBUTES; "none" is the empty set.
    age: years: the number before "years old" (or the middle of a range there); else the middle of
      the first range; else the first number up to 110.
    deepfake: True if the text calls the face manipulated, by the verdict mentioned first.

  Raises:
    ValueError: unknown task.
  """
  check_task(task)
  return _PARSERS[task](text.lower())


def _affirmed(text: str, words: tuple[str, ...]) -> list[tuple[int, bool]]:
  """Places where any of the words stands, and whether it is affirmed there (else denied)."""
  found = []
  pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")
  start = 0
  for clause in _CLAUSE.split(text):
    start = text.index(clause, start)
    denial = _DENIAL.search(clause)
    for match in pattern.finditer(clause):
      # "no expression" is itself a synonym, so only a denial before the match counts.
      denied = denial is not None and denial.start() < match.start()
      found.append((start + match.start(), not denied))
    start += len(clause)
  return found


def _expression(text: str) -> str | None:
  first = {
    name: min((place for place, affirmed in _affirmed(text, words) if affirmed), default=None)
    for name, words in EXPRESSION_WORDS.items()
  }
  named = {name: place for name, place in first.items() if place is not None}
  return min(named, key=lambda name: named[name]) if named else None


def _action_units(text: str) -> frozenset[int] | None:
  codes: set[int] = set()
  for clause in _CLAUSE.split(text):
    denial = _DENIAL.search(clause)
    said = clause[: denial.start()] if denial else clause
    for run in _UNIT_CODES.findall(said):
      codes.update(int(number) for number in re.findall(r"\d+", run))
  if codes:
    return frozenset(codes)
  if _NO_UNIT.search(text):
    return frozenset()
  named = {
    unit
    for unit, name in ACTION_UNITS.items()
    if any(affirmed for _, affirmed in _affirmed(text, (name,)))
  }
  return frozenset(named) or None


def _attributes(text: str) -> frozenset[str] | None:
  places = {name: _affirmed(text, words) for name, words in ATTRIBUTE_WORDS.items()}
  has = frozenset(name for name, found in places.items() if any(yes for _, yes in found))
  if has or any(places.values()) or re.search(r"\bnone\b|\bno attributes?\b", text):
    return has
  return None


def _age(text: str) -> float | None:
  spans = re.search(_RANGE + _YEARS, text)
  years = re.search(r"(\d{1,3})" + _YEARS, text)
  if years and not (spans and spans.start() < years.start()):
    return float(years[1])
  spans = spans or re.search(_RANGE, text)
  if spans:
    return (int(spans[1]) + int(spans[2])) / 2
  numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
  return next((number for number in numbers if number <= MAX_AGE), None)


def _deepfake(text: str) -> bool | None:
  verdicts = [(place, yes) for place, yes in _affirmed(text, FAKE_WORDS)]
  verdicts += [(place, not yes) for place, yes in _affirmed(text, REAL_WORDS)]
  return min(verdicts)[1] if verdicts else None


_PARSERS = {
  "expression": _expression,
  "action_units": _action_units,
  "attributes": _attributes,
  "age": _age,
  "deepfake": _deepfake,
}
