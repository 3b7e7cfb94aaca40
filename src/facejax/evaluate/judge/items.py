"""Stored predictions of `facejax evaluate --suite`, or JSONL -> items, each with all answers to it.

A line of a JSONL file:

    {"id": "a", "question": "What does this face show?", "truth": "happy", "answer": "Happy: ...",
     "image": "a.png" or "video": "a.mp4", "task": "expression", "cluster": "person 7"}

`truth` is a text, a number or a list of them; the last three are optional.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from facejax.data.files import inside
from facejax.evaluate import predictions
from facejax.types import Kind

_FIELDS = ("id", "question", "truth", "answer", "image", "video", "task", "cluster")
_LISTED = 5


class Source(NamedTuple):
  """Answers of a system: a folder of one benchmark's predictions, or a JSONL file."""

  system: str
  path: Path


@dataclasses.dataclass(frozen=True)
class Item:
  """A question and what each system answered.

  Attributes:
    id: unique; of predictions BENCHMARK/ID.
    task: of the tables: the benchmark, or what the line says.
    question: that was asked, without placeholders of media.
    truth: in words.
    media: kind and file.
    answers: by system; "" where it gave none.
    cluster: items of one cluster (a person's) are resampled together.
  """

  id: str
  task: str
  question: str
  truth: str
  media: tuple[tuple[Kind, Path], ...]
  answers: Mapping[str, str]
  cluster: str


class _Line(NamedTuple):
  """One system's record of an item; all but the answer is the same in all systems."""

  task: str
  question: str
  truth: str
  media: tuple[tuple[Kind, str], ...]
  cluster: str
  answer: str


def load(sources: Sequence[Source], media: Mapping[str, Path] | None) -> list[Item]:
  """The items of all sources, by id.

  Args:
    sources: several of one system are put together.
    media: folder of a benchmark's files; "" is that of all others. None: nothing is shown.

  Raises:
    FileNotFoundError: a source.
    ValueError: a damaged source, or systems that did not answer the same questions.
  """
  systems: dict[str, dict[str, _Line]] = {}
  for system, path in sources:
    lines = _predictions(path) if path.is_dir() else _jsonl(path)
    known = systems.setdefault(system, {})
    if twice := sorted(known.keys() & lines.keys()):
      raise ValueError(
        f"{path}: {len(twice)} items of {system} are in another of its sources, too: "
        f"{', '.join(twice[:_LISTED])} - expected each item once"
      )
    known |= lines
  _check_same(systems)
  first = next(iter(systems.values()))
  return [_item(name, {s: lines[name] for s, lines in systems.items()}, media) for name in first]


def limited(items: list[Item], limit: int | None) -> list[Item]:
  """A subset of `limit` items spread evenly over all."""
  count = len(items)
  if limit is None or limit >= count:
    return items
  return [items[i * count // limit] for i in range(limit)]


def _item(name: str, lines: Mapping[str, _Line], media: Mapping[str, Path] | None) -> Item:
  line = next(iter(lines.values()))
  files: tuple[tuple[Kind, Path], ...] = ()
  if media is not None:
    folder = media.get(line.task, media.get(""))
    if folder is None:
      raise ValueError(
        f"no folder for the files of {line.task!r} - give --media {line.task}=FOLDER"
      )
    if not line.media:
      raise ValueError(
        f"item {name}: no picture or clip - expected one to show to the judge - give --text-only "
        "to have all items rated without"
      )
    files = tuple((kind, inside(folder, path, name)) for kind, path in line.media)
  answers = {system: record.answer for system, record in lines.items()}
  return Item(name, line.task, line.question, line.truth, files, answers, line.cluster)


def _check_same(systems: Mapping[str, Mapping[str, _Line]]) -> None:
  """Raises ValueError unless all systems were asked the same questions about the same media."""
  (name, first), *others = systems.items()
  if not first:
    raise ValueError(f"{name} has no items - expected some answers - check its source")
  for other, lines in others:
    if odd := sorted(first.keys() ^ lines.keys()):
      raise ValueError(
        f"{name} and {other}: {len(odd)} of {len(first.keys() | lines.keys())} items are in one of "
        f"them only: {', '.join(odd[:_LISTED])} - expected the same items - finish both runs"
      )
    for item, line in lines.items():
      for field in ("question", "truth", "media", "task", "cluster"):
        one, two = getattr(first[item], field), getattr(line, field)
        if one != two:
          raise ValueError(
            f"{name} and {other}, item {item}: {field} {one!r} and {two!r} - expected the same - "
            "run one of them again"
          )


def _predictions(folder: Path) -> dict[str, _Line]:
  header, records = predictions.read(folder)
  benchmark, cluster = header["benchmark"], header.get("cluster", "")
  found = {}
  for record in records:
    if "question" not in record:
      raise ValueError(
        f"{folder / predictions.NAME}, item {record['id']}: no 'question' - expected predictions "
        "that hold question and media - run the evaluation again with --overwrite"
      )
    media = tuple((kind, path) for kind, path in record["media"])
    found[f"{benchmark}/{record['id']}"] = _Line(
      task=benchmark,
      question=_plain(record["question"]),
      truth=told(header["task"], record["truth"]),
      media=media,
      cluster=record["groups"].get(cluster, record["id"]),
      answer=record["answer"].strip(),
    )
  return found


def _plain(question: str) -> str:
  """Without the placeholders of media."""
  return question.replace("<image>", "").replace("<video>", "").strip()


def told(task: str, truth: Any) -> str:
  """A truth in words; `task` is one of evaluate/scores.py, or "" for a JSONL's."""
  if task == "age":
    return f"{truth:g} years old"
  if not isinstance(truth, list):
    return str(truth)
  words = [f"AU{value}" if task == "units" else str(value) for value in truth]
  return ", ".join(words) or "none of those that were looked for"


def _jsonl(path: Path) -> dict[str, _Line]:
  if not path.is_file():
    raise FileNotFoundError(
      f"no {path} - expected the folder of one benchmark of a run, or a JSONL file of answers"
    )
  found: dict[str, _Line] = {}
  # Not splitlines(): in JSON U+2028 and its like may stand in a text.
  for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    try:
      record = json.loads(line)
    except ValueError as error:
      text = line.decode(errors="replace")[:60]
      raise ValueError(f"{where}: {text!r} is no JSON ({error}) - repair the line") from error
    name, read = _read(record, where)
    if name in found:
      raise ValueError(f"{where}: id {name!r} comes twice - expected each item once")
    found[name] = read
  return found


def _read(record: Any, where: str) -> tuple[str, _Line]:
  """Id and content of a JSONL line. Raises ValueError, naming the field."""
  if not isinstance(record, dict):
    raise ValueError(f"{where}: {record!r} - expected a JSON object")
  if unknown := sorted(set(record) - set(_FIELDS)):
    raise ValueError(f"{where}: unknown field {unknown[0]!r} - expected {', '.join(_FIELDS)}")
  for field in ("id", "question", "answer", *(f for f in _FIELDS[4:] if f in record)):
    value = record.get(field)
    if not isinstance(value, str) or (field in ("id", "question") and not value.strip()):
      raise ValueError(f"{where}: {field} {value!r} - expected a text")
  truth = record.get("truth")
  values = truth if isinstance(truth, list) else [truth]
  if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values):
    raise ValueError(f"{where}: truth {truth!r} - expected a text, a number or a list of them")
  kinds: tuple[Kind, ...] = ("image", "video")
  return record["id"], _Line(
    task=record.get("task", ""),
    question=_plain(record["question"]),
    truth=told("", truth),
    media=tuple((kind, record[kind]) for kind in kinds if kind in record),
    cluster=str(record.get("cluster", record["id"])),
    answer=record["answer"].strip(),
  )
