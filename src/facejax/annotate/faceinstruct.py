"""FaceInstruct: labelled face crops and clips -> one described and rated sample each (Face-LLaVA).

The items are a JSON list:

    [{"image": "a.png", "task": "expression", "label": "happy",
      "question": "What does this face show?",        optional; else one of the task's pool
      "landmarks_2d": "a.npy", "segmentation": "a_map.png"},    optional, passed on
     {"video": "b.mp4", "task": "deepfake", "label": "fake"}, ...]

The pools are ours (faces/questions.py); which question an item gets follows from its file's name.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from facejax.annotate import prompts
from facejax.annotate.unit import Unit
from facejax.data.files import inside
from facejax.faces.questions import QUESTIONS
from facejax.types import Kind

_PASSED_ON = ("landmarks_2d", "segmentation")
_KNOWN = ("image", "video", "task", "label", "question", *_PASSED_ON)


class FaceInstruct:
  """The recipe: a unit an item, described by the writer and scored by the rater."""

  name = "faceinstruct"

  def __init__(self, items: pathlib.Path, media: pathlib.Path, limit: int | None = None):
    """Reads the first `limit` items.

    Raises:
      FileNotFoundError: the list or the folder.
      ValueError: not a list of items, or one that is not as above.
    """
    if not items.is_file():
      raise FileNotFoundError(f"no item list {items} - expected a JSON file - check --items")
    if not media.is_dir():
      raise FileNotFoundError(f"no folder {media} - expected the items' files - check --media")
    try:
      records = json.loads(items.read_bytes())
    except ValueError as error:
      raise ValueError(f"{items}: {error} - expected a JSON list of items - repair it") from error
    if not isinstance(records, list):
      raise ValueError(
        f"{items} holds a {type(records).__name__} - expected a JSON list of items - put them in []"
      )
    self.units: Sequence[Unit] = [
      _unit(record, f"{items}, item {i}", i, media) for i, record in enumerate(records[:limit])
    ]


def _unit(record: Any, where: str, place: int, media: pathlib.Path) -> Unit:
  """Raises ValueError, naming the item and the field."""
  if not isinstance(record, dict):
    raise ValueError(f"{where}: {record!r} - expected a JSON object - repair it")
  if unknown := sorted(set(record) - set(_KNOWN)):
    raise ValueError(f"{where}: unknown field {unknown[0]!r} - expected {', '.join(_KNOWN)}")
  files = [(kind, record[kind]) for kind in ("image", "video") if kind in record]
  if len(files) != 1 or not isinstance(files[0][1], str):
    raise ValueError(f"{where}: media {files} - expected one path, 'image' or 'video'")
  kind: Kind = "image" if "image" in record else "video"
  name = files[0][1]
  task = record.get("task")
  if task not in prompts.WRITERS:
    raise ValueError(f"{where}: task {task!r} - expected one of {', '.join(prompts.WRITERS)}")
  label = _label(record.get("label"), where)
  question = record.get("question") or _drawn(task, name)
  if not isinstance(question, str) or "<image>" in question or "<video>" in question:
    raise ValueError(f"{where}: question {question!r} - expected a text without placeholders")
  return Unit(
    id=f"{place}:{name}",
    media=name,
    path=inside(media, name, where),
    kind=kind,
    prompt=prompts.WRITERS[task],
    facts={"label": label, "question": question},
    question=question,
    labels={task: record["label"]},
    extra={field: record[field] for field in _PASSED_ON if field in record},
  )


def _label(label: Any, where: str) -> str:
  """As it is sent: a list is joined by commas."""
  values = label if isinstance(label, list) else [label]
  good = [isinstance(v, str | int | float) and not isinstance(v, bool) and v != "" for v in values]
  if not values or not all(good):
    raise ValueError(f"{where}: label {label!r} - expected a text, a number or a list of them")
  return ", ".join(str(value) for value in values)


def _drawn(task: str, name: str) -> str:
  """One of the task's questions, the same whenever and wherever the list is read."""
  pool = QUESTIONS[task]
  return pool[int(hashlib.sha256(f"{task}/{name}".encode()).hexdigest(), 16) % len(pool)]
