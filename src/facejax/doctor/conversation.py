"""A conversation -> what is wrong with its roles, answers and characters. No file is read."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from facejax.data.chat import Template
from facejax.doctor.findings import Note
from facejax.types import Turn

# Line breaks and tabs are ordinary; U+202A.. and U+2066.. turn the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_HALF = re.compile("[\ud800-\udfff]")
# U+FFFD, and what UTF-8 looks like that was read as Latin-1 or Windows-1252: "Ã©", "â€™".
_GARBLED = re.compile("\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac.|\u00e2\u0080[\u0080-\u00bf]")
_LIKE_PLACEHOLDER = re.compile(r"<\s*/?\s*(?:image|img|video|vid)[\w\s-]*>", re.IGNORECASE)
_PLACEHOLDER = re.compile("<image>|<video>")
_ROLE_WORDS = re.compile(r"\b(?:USER|ASSISTANT|HUMAN|SYSTEM): ")
_REFUSAL = re.compile(
  r"^\W*(?:i(?:'|\u2019)?m (?:really )?sorry|sorry|i apologi[sz]e|as an ai\b|"
  r"i (?:can(?:'|\u2019)t|cannot|can not|am unable|am not able|won(?:'|\u2019)t) )",
  re.IGNORECASE,
)
_LONG = 200  # characters from which an answer that stops between two words was cut (our choice)
_SHOWN = 60


def visible(text: str) -> bool:
  """Whether a reader would see anything: spaces, controls and format characters are nothing."""
  return any(unicodedata.category(c) not in _UNSEEN for c in text)


_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")


def check(turns: Sequence[Turn], template: Template) -> list[Note]:
  """All that is wrong with a conversation, turn by turn; what training itself refuses comes first.

  A leading gpt turn is dropped, as training does.
  """
  start = 1 if turns and turns[0].role == "gpt" else 0
  notes = _roles(turns, start)
  for i, turn in enumerate(turns):
    notes += _characters(i, turn)
    if i >= start:
      notes += _answer(i, turn, template) if turn.role == "gpt" else _question(i, turn)
  answers = [turn.text for turn in turns[start:] if turn.role == "gpt"]
  if not any(map(visible, answers)):
    notes.append(
      Note(
        "no_supervision",
        f"none of {len(answers)} answers has a token to learn - expected at least one - write an "
        "answer or remove the sample",
      )
    )
  for i, (turn, following) in enumerate(pairwise(turns)):
    asked = _PLACEHOLDER.sub("", turn.text).strip().lower()
    same = asked == following.text.strip().lower()
    if asked and same and (turn.role, following.role) == ("human", "gpt"):
      notes.append(
        Note(
          "answer_repeats_question",
          f"turn {i + 1}: the answer is the question, {_shown(asked)} - write an answer",
        )
      )
  return notes


def _roles(turns: Sequence[Turn], start: int) -> list[Note]:
  notes = [
    Note(
      "unknown_role",
      f"turn {i} is from {turn.role!r} - expected 'human' or 'gpt' - rename the role",
    )
    for i, turn in enumerate(turns)
    if turn.role not in ("human", "gpt")
  ]
  rest = turns[start:]
  if not rest:
    notes.append(
      Note(
        "empty_conversation",
        f"the conversation has {len(turns)} turns, none of them from human - expected a human turn "
        "and a gpt turn - remove the sample or add its question",
      )
    )
    return notes
  for k, turn in enumerate(rest):
    expected = ("human", "gpt")[k % 2]
    if turn.role in ("human", "gpt") and turn.role != expected:
      notes.append(
        Note(
          "turn_order",
          f"turn {start + k} is from {turn.role!r} - expected {expected!r}, as turns alternate "
          "human, gpt - put the turns in order",
        )
      )
      break  # all behind it are off by one
  for k, turn in enumerate(rest):
    answered = k + 1 < len(rest) and rest[k + 1].role != "human"
    if turn.role == "human" and not answered:
      notes.append(
        Note(
          "unanswered_question",
          f"turn {start + k}: the question {_shown(turn.text)} has no answer - every human turn is "
          "followed by a gpt turn - add the answer or remove the turn",
        )
      )
  return notes


def _characters(i: int, turn: Turn) -> list[Note]:
  notes = []
  for kind, pattern, what, remedy in (
    ("broken_text", _HALF, "half a surrogate pair", "save the text as UTF-8 again"),
    ("control_characters", _CONTROL, "a control character", "remove it"),
    ("garbled_text", _GARBLED, "text read with the wrong encoding", "export it as UTF-8 again"),
  ):
    if found := pattern.search(turn.text):
      around = turn.text[max(found.start() - 20, 0) : found.end() + 20]
      notes.append(
        Note(kind, f"turn {i}: {what}, {found[0]!a} in {around!a} - expected text - {remedy}")
      )
  if found := _ROLE_WORDS.search(turn.text):
    notes.append(
      Note(
        "template_words",
        f"turn {i} holds {found[0]!r}, the words that open a turn - a model learns to speak for "
        "the other side - split the turn or reword it",
      )
    )
  odd = [m for m in _LIKE_PLACEHOLDER.findall(turn.text) if not _PLACEHOLDER.fullmatch(m)]
  if odd:
    notes.append(
      Note(
        "unknown_placeholder",
        f"turn {i} holds {odd[0]!r}, which stays text - media stand where <image> or <video> is - "
        "rename or remove it",
      )
    )
  return notes


def _question(i: int, turn: Turn) -> list[Note]:
  if visible(turn.text):
    return []
  return [Note("empty_question", f"turn {i}: the question is {turn.text!r} - write a question")]


def _answer(i: int, turn: Turn, template: Template) -> list[Note]:
  text, notes = turn.text, []
  if not visible(text):
    return [
      Note(
        "empty_answer",
        f"turn {i}: the answer is {text!r} - it would teach the model to stop at once - write an "
        "answer or remove the sample",
      )
    ]
  if template.stop in text:
    notes.append(
      Note(
        "stop_in_answer",
        f"turn {i}: the answer contains {template.stop!r} - that text ends an answer and is added "
        "by the template - remove it",
      )
    )
  if found := _PLACEHOLDER.search(text):
    notes.append(
      Note(
        "placeholder_in_answer",
        f"turn {i}: the answer contains {found[0]!r} - media stand in questions only - remove it",
      )
    )
  if _REFUSAL.search(text):
    notes.append(
      Note(
        "refusal_answer",
        f"turn {i}: the answer is {_shown(text)} - expected an answer, not a refusal - remove the "
        "sample",
      )
    )
  end = text.rstrip()[-1]
  if len(text) >= _LONG and ((end.isascii() and end.isalpha()) or end in ",;:-("):
    notes.append(
      Note(
        "cut_answer",
        f"turn {i}: the answer of {len(text)} characters ends with {text.rstrip()[-30:]!r} - "
        "expected the end of a sentence - it was cut; write it again",
      )
    )
  return notes


def _shown(text: str) -> str:
  return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
