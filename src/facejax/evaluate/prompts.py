"""What a benchmark asks: Face-LLaVA's published prompts, or ours that name the possible answers.

    official       the one of the task's ten that is used unless another is named (our choice: which
                   of them the paper's evaluation used is not published)
    official/7     the seventh of the ten, in the order of the release
    closed         ours: lists the classes and asks for one of them; for models that were not
                   trained to describe faces freely

Face-LLaVA's prompts on expressions say "video"; of a picture they are asked with "image" instead.
"""

import functools
import importlib.resources
import json
import re
from collections.abc import Sequence
from typing import Any

from facejax.types import Kind

_CLOSED = {
  "expression": (
    "Which of these expressions does the face show: {}? Answer with one of these words only."
  ),
  "action_units": (
    "Which of these facial action units are active: {}? Answer with their codes only, or with none."
  ),
  "attributes": (
    "Which of these attributes does the person have: {}? List those that are present, and no other."
  ),
  "age": "How old is this person? Answer with a number of years only.",
  "deepfake": "Is this face real or fake? Answer with one of these words only.",
  "age_band": "Which of these age groups is the person in: {}? Answer with the group only.",
  "gender": "Is this person male or female? Answer with one of these words only.",
  "race": "Which of these groups does the person look to be of: {}? Answer with the group only.",
}


@functools.cache
def _official() -> Any:
  place = importlib.resources.files("facejax") / "assets" / "prompts" / "face_llava.json"
  return json.loads(place.read_text(encoding="utf-8"))


def prompt(task: str, wording: str, kind: Kind, classes: Sequence[str]) -> str:
  """The human turn of a task.

  Args:
    task: a key of the lists above.
    wording: "official", "official/N" or "closed".
    kind: of the medium, whose placeholder opens the turn.
    classes: as a closed prompt names them.

  Raises:
    ValueError: no such wording for the task.
  """
  match = re.fullmatch(r"official(?:/(\d+))?|closed", wording)
  lists = _official()["prompts"]
  official = wording != "closed"
  number = int(match[1]) if match and match[1] else _official()["default"].get(task, 0)
  if match is None or (official and not 1 <= number <= len(lists.get(task, ()))):
    some = "official, official/1 to official/10, closed" if task in lists else "closed"
    raise ValueError(f"prompt {wording!r} of the task {task} - expected {some}")
  if official:
    text = lists[task][number - 1]
    text = text.replace("video", "image") if kind == "image" else text
  else:
    text = _CLOSED[task].format(", ".join(classes))
  return f"<{kind}>\n{text}"
