"""Items -> what a judge is asked, in a blind order; a judge's answer -> ratings.

A request shows the answers of all systems to one item under numbers (or one answer alone). Which
system has which number follows from seed and item by a hash. Each repeat moves everybody one
place on: over as many repeats as there are systems each has had each place once, so that a judge
who favours a place by a fixed amount adds the same to all.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from facejax.annotate import filters
from facejax.annotate.prompts import Prompt
from facejax.annotate.unit import Answer
from facejax.evaluate.judge.items import Item

SCALE = (1, 10)


class Form(NamedTuple):
  """A prompt and what it asks for."""

  prompt: Prompt
  criteria: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Request:
  """One question to the judge.

  Attributes:
    item: that is rated.
    repeat: from 0.
    order: systems by place.
  """

  item: Item
  repeat: int
  order: tuple[str, ...]


@functools.cache
def form(media: bool) -> Form:
  """The newest prompt for a judge that is shown the media, or is not."""
  place = importlib.resources.files("facejax") / "assets" / "prompts" / "judge.json"
  prompts = json.loads(place.read_text(encoding="utf-8"))["prompts"]
  kind = "media" if media else "text"
  version = max(int(name.rpartition("/")[2]) for name in prompts if name.split("/")[1] == kind)
  name = f"judge/{kind}/{version}"
  read = prompts[name]
  text = "\n".join(read["text"])
  return Form(Prompt(name, "\n".join(read["system"]), text), tuple(read["criteria"]))


def requests(items: Sequence[Item], repeats: int, seed: int, each: bool) -> Iterator[Request]:
  """What is asked; a system without an answer to an item is not shown there.

  Args:
    items: to be rated.
    repeats: of every rating.
    seed: of the orders.
    each: one answer a request, instead of all of an item together.
  """
  for item in items:
    for repeat in range(repeats):
      whole = order(item, repeat, seed)
      for group in ((name,) for name in whole) if each else (whole,) if whole else ():
        yield Request(item, repeat, group)


def order(item: Item, repeat: int, seed: int) -> tuple[str, ...]:
  """The systems that answered an item, by place in its repeat."""
  draw = lambda name: hashlib.sha256(json.dumps([seed, item.id, name]).encode()).digest()
  names = sorted((name for name, text in item.answers.items() if text), key=draw)
  first = repeat % max(len(names), 1)
  return (*names[first:], *names[:first])


def filled(request: Request, prompt: Prompt, hidden: Sequence[str]) -> str:
  """The user's turn: no system's name, and none of the words to be hidden."""
  item = request.item
  answers = {str(n): hide(item.answers[name], hidden) for n, name in enumerate(request.order, 1)}
  return prompt.filled(
    {
      "question": item.question,
      "truth": item.truth,
      "answers": json.dumps(answers, ensure_ascii=False, indent=1),
      "count": str(len(answers)),
    }
  )


def hide(text: str, words: Sequence[str]) -> str:
  """The text with "[name]" for each of the words, whatever their case."""
  return said(words).sub("[name]", text) if words else text


def said(words: Sequence[str]) -> re.Pattern[str]:
  """Finds any of the words as a whole."""
  return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def ratings(text: str, request: Request, criteria: Sequence[str]) -> Mapping[str, dict] | str:
  """Ratings by system in a judge's answer; or why there are none.

  no_json            no object with a list of ratings
  not_every_answer   not exactly one entry for each number
  off_scale          a criterion without a number from 1 to 10
  """
  values = filters.json_object(text)
  entries = values.get("ratings") if values else None
  if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
    return "no_json"
  numbers = [entry.get("answer") for entry in entries]
  if not all(type(n) is int for n in numbers) or sorted(numbers) != [
    *range(1, len(request.order) + 1)
  ]:
    return "not_every_answer"
  found = {}
  for entry in entries:
    scores = {name: entry.get(name) for name in criteria}
    if not all(_on_scale(score) for score in scores.values()):
      return "off_scale"
    name = request.order[entry["answer"] - 1]
    found[name] = {**scores, "reason": str(entry.get("reason", ""))}
  return found


def _on_scale(score: Any) -> bool:
  low, high = SCALE
  return type(score) in (int, float) and low <= cast(float, score) <= high


def why_not(answer: Answer, request: Request, criteria: Sequence[str]) -> str:
  """Why a judge's answer cannot be used; "" if it can.

  What it says is looked at before how it says it: a reason may quote an answer's refusal.
  """
  if answer.finish == "content_filter":
    return "content_filter"
  if answer.refusal:
    return "refused"
  found = ratings(answer.text, request, criteria)
  if not isinstance(found, str):
    return ""
  return filters.told(answer) or found if found == "no_json" else found
