"""Free text -> the label it states, by benchmark; None where it states none. Words: synonyms.py.

How Face-LLaVA's evaluation read its answers is not published: these rules are ours, and every
prediction says by which version of them it was read.

Denial. Inside a clause (text between . ; : ! ? or "but", "however", "although", "instead") what
stands behind "no", "not", "n't", "without", "never", "nor", "neither", "lack of" or "absence of" is
denied, up to a comma behind which another verb follows within three words ("not smiling, and has
bangs"). A phrase that itself begins with a denial ("no expression") is not denied by it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from facejax.evaluate import synonyms
from facejax.evaluate.fairness import AGE_BANDS, age_band

VERSION = 1
MAX_AGE = 110

_CLAUSE = re.compile(r"[.;:!?\n]|\b(?:but|however|although|though|instead)\b")
_DENIAL = re.compile(
  r"\b(?:no|not|without|never|nor|neither|none|lacks?|lack of|absence of)\b|n't\b"
)
_VERB = r"(?:is|are|was|has|have|wears?|wearing|shows?|appears?|looks?|seems?|suggests?|features?)"
_ENDS = re.compile(rf",\s+(?:and\s+)?(?:\w+\s+){{0,2}}{_VERB}\b")
_ABSENT = re.compile(r"\b(?:absent|inactive|not (?:present|active|visible|seen|engaged))\b")


class Mention(NamedTuple):
  """Where a label is named, and whether it is affirmed there."""

  place: int
  name: Any
  affirmed: bool


def mentions(text: str, words: Mapping[Any, Iterable[str]]) -> list[Mention]:
  """All mentions of labels in lower-case text, by place; at one place the longer phrase first."""
  found = []
  start = 0
  for clause in _CLAUSE.split(text):
    start = text.index(clause, start)
    denied = _denied(clause)
    for name, patterns in words.items():
      for match in re.finditer(rf"\b(?:{'|'.join(patterns)})\b", clause):
        no = any(begin < match.start() < end for begin, end in denied)
        place = start + match.start()
        found.append((place, -len(match[0]), Mention(place, name, not no)))
    start += len(clause)
  found.sort(key=lambda entry: entry[:2])
  return [mention for *_, mention in found]


def _denied(clause: str) -> list[tuple[int, int]]:
  """Stretches of a clause that a denial covers."""
  spans = []
  for match in _DENIAL.finditer(clause):
    end = _ENDS.search(clause, match.end())
    spans.append((match.start(), end.start() if end else len(clause)))
  return spans


def expression(text: str) -> str | None:
  """The emotion that is named and affirmed first; without one, what the face does first."""
  for words in (synonyms.EXPRESSIONS, synonyms.BEHAVIOUR):
    for mention in mentions(text.lower(), words):
      if mention.affirmed:
        return str(mention.name)
  return None


_CODES = re.compile(r"\b(?:aus?|action units?)[\s-]*(\d+(?:\s*(?:,|\+|&|and)+\s*(?:au\s*)?\d+)*)")
_NO_UNIT = re.compile(r"\bno (?:active |visible |facial )*(?:action units?|aus?)\b|^\W*none\b")


def action_units(text: str, units: Sequence[int]) -> list[int] | None:
  """Units by code ("AU6", "action units 6 and 12") or FACS name, of those that a benchmark has.

  A unit counts if some clause affirms it: names it outside a denial, and never as absent ("AU4
  (brow lowerer) is absent"). [] for "no action units" and where all that are named are denied or of
  other benchmarks; None where none is named.
  """
  text = text.lower()
  active: dict[int, bool] = {}
  for clause in re.split(r"[.;!?\n]|\b(?:but|however|although|though)\b", text):
    said = _units_of(clause)
    for unit in {unit for unit, _ in said}:
      affirmed = all(yes for own, yes in said if own == unit)
      active[unit] = active.get(unit, False) or affirmed
  if not active:
    return [] if _NO_UNIT.search(text) else None
  return sorted(unit for unit, affirmed in active.items() if affirmed and unit in units)


def _units_of(clause: str) -> list[tuple[int, bool]]:
  """Every unit that a clause names, by code or by name, and whether it is affirmed there."""
  found = [
    (match.start(), match.end(), [int(n) for n in re.findall(r"\d+", match[1])])
    for match in _CODES.finditer(clause)
  ]
  for unit, patterns in synonyms.UNITS.items():
    for match in re.finditer(rf"\b(?:{'|'.join(patterns)})\b", clause):
      found.append((match.start(), match.end(), [unit]))
  found.sort()
  denied = _denied(clause)
  said = []
  for i, (start, end, units) in enumerate(found):
    rest = clause[end : found[i + 1][0] if i + 1 < len(found) else len(clause)]
    no = any(a < start < b for a, b in denied) or _ABSENT.search(rest) is not None
    said += [(unit, not no) for unit in units]
  return said


def attributes(text: str) -> list[str] | None:
  """CelebA's attributes that a description affirms; those it is silent about are absent.

  No_Beard is present unless hair on the face is affirmed. Male and Young are decided by the first
  word on the matter; silence means absent. None where nothing of all this is spoken of.
  """
  text = text.lower().replace("_", " ")
  found = mentions(text, synonyms.ATTRIBUTES)
  has = {str(m.name) for m in found if m.affirmed}
  beard = mentions(text, {"beard": synonyms.BEARD, "none": synonyms.BEARDLESS})
  gender = mentions(text, {"Male": synonyms.MALE, "Female": synonyms.FEMALE})
  ages = mentions(text, {"Young": synonyms.YOUNG, "Old": synonyms.OLD})
  if not (found or beard or gender or ages):
    return None
  if not any(m.name == "beard" and m.affirmed for m in beard):
    has.add("No_Beard")
  for name, words in (("Male", gender), ("Young", ages)):
    first = next((m for m in words if m.affirmed), None)
    if first is not None and first.name == name:
      has.add(name)
  return sorted(has)


def yes(text: str) -> bool | None:
  """The first yes or no."""
  match = re.search(r"\b(yes|no|not)\b", text.lower())
  return None if match is None else match[1] == "yes"


_WORDS = (
  *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
  *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_SMALL = {word: number for number, word in enumerate(_WORDS, 1)}
_DIGITS = {word: number for word, number in _SMALL.items() if number < 10}
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS = {word: number for number, word in zip(range(20, 100, 10), _TENS, strict=True)}
_SPELT = re.compile(
  rf"\b({'|'.join(_NUMBERS)})[\s-]({'|'.join(_DIGITS)})\b"
  rf"|\b({'|'.join([*_NUMBERS, *_SMALL])})\b(?=[\s-]*years?\b)"
)
_DECADES = {f"{word[:-1]}ies": years for word, years in _NUMBERS.items()}
_RANGE = r"(\d{1,3})\s*(?:-|–|—|to|and)\s*(\d{1,3})"
_YEARS = r"[\s-]*years?(?:[\s-]*old|\s+of\s+age)"
_AGED = re.compile(
  r"\b(?:aged?|age (?:is|of|:))(?: about| around| approximately)?\s*(\d{1,3})\b"
  r"(?!\s*(?:-|–|to)\s*\d|0?'?s)"
)
_DECADE = re.compile(rf"\b(?:(early|mid|late)[\s-]*)?(?:(\d)0'?s|({'|'.join(_DECADES)}))\b")
_PART = {"early": 2, "mid": 5, "late": 8, None: 5}


def age(text: str) -> float | None:
  """Years: before "years old" or "years of age" (the middle of a range there), else "aged N", the
  middle of the first range, the decade ("early thirties": 32, mid: 35, late: 38, alone: 35), or the
  first number up to 110. More than 110 is no age.
  """
  text = _SPELT.sub(_number, text.lower())
  spans, years = re.search(_RANGE + _YEARS, text), re.search(r"\b(\d{1,3})" + _YEARS, text)
  if years and not (spans and spans.start() < years.start()):
    return _possible(float(years[1]))
  told = _AGED.search(text)
  if told and not spans:
    return _possible(float(told[1]))
  spans = spans or re.search(r"\b" + _RANGE + r"\b", text)
  if spans:
    return _possible((int(spans[1]) + int(spans[2])) / 2)
  decade = _DECADE.search(text)
  if decade:
    base = 10 * int(decade[2]) if decade[2] else _DECADES[decade[3]]
    return float(base + _PART[decade[1]])
  numbers = [float(n) for n in re.findall(r"(?<![\d.])\d+(?:\.\d+)?(?!\d)", text)]
  return next((number for number in numbers if number <= MAX_AGE), None)


def _possible(years: float) -> float | None:
  return years if years <= MAX_AGE else None


def _number(match: re.Match) -> str:
  if match[1]:
    return str(_NUMBERS[match[1]] + _DIGITS[match[2]])
  return str({**_NUMBERS, **_SMALL}[match[3]])


def deepfake(text: str) -> str | None:
  """ "fake" or "real", by the verdict that comes first; a denied one is turned around."""
  for mention in mentions(text.lower(), {"fake": synonyms.FAKE, "real": synonyms.REAL}):
    if mention.affirmed:
      return str(mention.name)
    return "real" if mention.name == "fake" else "fake"
  return None


def gender(text: str) -> str | None:
  """FairFace's "Male" or "Female", by the first word on it."""
  words = {"Male": synonyms.MALE, "Female": synonyms.FEMALE}
  return next((str(m.name) for m in mentions(text.lower(), words) if m.affirmed), None)


def race(text: str) -> str | None:
  """The one of FairFace's seven groups that is named first."""
  found = mentions(text.lower(), synonyms.RACES)
  return next((str(m.name) for m in found if m.affirmed), None)


def band(text: str) -> str | None:
  """The age group that is named, or that the stated age is in."""
  plain = text.lower().replace("–", "-")
  if re.search(r"\b(?:more than|over|above) 70\b|\b70 ?\+|\b70 or (?:more|older|above)\b", plain):
    return AGE_BANDS[-1]
  for name in AGE_BANDS[:-1]:
    low, high = name.split("-")
    if re.search(rf"\b{low}\s*(?:-|to)\s*{high}\b", plain):
      return name
  years = age(text)
  return None if years is None else age_band(years)


PARSERS: Mapping[str, Callable[[str], object]] = {
  "expression": expression,
  "attributes": attributes,
  "age": age,
  "deepfake": deepfake,
  "gender": gender,
  "race": race,
  "age_band": band,
}


def version(name: str) -> str:
  """What predictions say of their parser."""
  return f"{name}/{VERSION}"
