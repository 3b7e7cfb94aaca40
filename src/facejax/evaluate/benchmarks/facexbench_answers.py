"""An answer to a question with options -> a letter: FaceXBench's way, and a strict one.

`official` is the extraction of FaceXBench's aggregate_results.py, odd cases included, as scores are
comparable only with it. What is odd, with the options male, female, Both, None of the above:

    "female"                        A   "male" is a part of it
    "A person is shown, so B"       A   the article
    "b"                             no letter; neither "none of the above": options are compared as
                                    they are written

`strict` accepts no article and no part of a word; see there. Both are versioned: predictions say by
which they were read.
"""

import re
from collections.abc import Callable, Sequence

OFFICIAL_VERSION = "facexbench/official/1"
STRICT_VERSION = "facexbench/strict/1"

# In this order; see FaceXBench, aggregate_results.py, extract_option_label.
_PATTERNS = tuple(
  re.compile(pattern)
  for pattern in (
    r"\b\(?([A-Za-z])\)?\b",
    r"\bOption\s+([A-Za-z])\b",
    r"\b([A-Za-z])\.",
    r"\b([A-Za-z]):",
    r"\b([A-Za-z])\s+-",
    r"\b\(([A-Za-z])\)",
  )
)


def letters(options: Sequence[object]) -> list[str]:
  """A, B, ... one an option."""
  return [chr(ord("A") + index) for index in range(len(options))]


def official(answer: str, options: Sequence[object]) -> str | None:
  """The letter that FaceXBench reads out of an answer; None counts as wrong there.

  1 a pattern matches at the start and holds a valid letter, 2 any pattern does anywhere, 3 the
  first option whose text is the answer or a part of it.
  """
  answer, labels = answer.strip(), letters(options)
  for pattern in _PATTERNS:
    match = pattern.match(answer)
    if match and match[1] in labels:
      return match[1]
  for pattern in _PATTERNS:
    for letter in pattern.findall(answer):
      if letter in labels:
        return letter
  for label, option in zip(labels, options, strict=True):
    if str(option).strip() in answer:
      return label
  return None


# An answer that is a letter and nothing else, or begins with one set off by punctuation.
_ALONE = re.compile(r"[(\[*\s]*([A-Za-z])(?:[)\]*\s.]*$|[)\]*]*[.:)]\s)")
# What may stand behind a letter that is meant as one; "A man" is none.
_SET_OFF = r"(?=\s*(?:$|[.,;:!)\]*\"]|(?:because|since|as|or|and|is)\b))"
_NAMED = re.compile(
  r"\b(?i:answer|option|choice|or|and)(?:\s+(?:is|would be|must be|letter))*"
  rf"[\s:=*(\[]*([A-Z])\b{_SET_OFF}|[(\[]([A-Z])[)\]]"
)


def strict(answer: str, options: Sequence[object]) -> str | None:
  """The one letter that an answer states; None where it states none, or several (our choice).

  Accepted: a letter alone, in either case ("b", "(B)", "**B**."), or one that opens the answer and
  is set off ("B. female", "B) female"); letters in brackets or behind "answer", "option" or
  "choice", if all of them agree; an option's whole text, in either case. An article is no letter,
  and "female" is not "male".
  """
  answer, labels = answer.strip(), letters(options)
  opening = _ALONE.match(answer)
  if opening:
    return opening[1].upper() if opening[1].upper() in labels else None
  named = {a or b for a, b in _NAMED.findall(answer)} & set(labels)
  if named:
    return named.pop() if len(named) == 1 else None
  bare = answer.strip(" .*\"'").casefold()
  same = [label for label, x in zip(labels, options, strict=True) if _bare(x) == bare]
  return same[0] if len(same) == 1 else None


def _bare(option: object) -> str:
  return str(option).strip(" .").casefold()


MODES: dict[str, tuple[Callable[[str, Sequence[object]], str | None], str]] = {
  "official": (official, OFFICIAL_VERSION),
  "strict": (strict, STRICT_VERSION),
}
