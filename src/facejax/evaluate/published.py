"""What papers report, as data with its source: benchmark -> rows beside which a run is placed.

The files are assets/published/*.json. A row is never ours; every table marks it as published, and
says what it was published for: its setting and, for FaceXBench, the number of questions.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
  """A published result.

  Attributes:
    model: as the source calls it.
    setting: "zero-shot", "fine-tuned", "commercial" (zero-shot through an API) or "reference".
    values: by metric of scores.py, or by category; per cent, years for MAE.
    source: paper and table.
    tag: how the number was checked.
    questions: that it was measured on, 0 where that is not known.
    group: of models of like size, "" for none.
  """

  model: str
  setting: str
  values: Mapping[str, float]
  source: str
  tag: str
  questions: int = 0
  group: str = ""


def rows(benchmark: str) -> tuple[Row, ...]:
  """Published rows of a benchmark, () where there are none."""
  return _facexbench() if benchmark == "facexbench" else _face_llava().get(benchmark, ())


@functools.cache
def _read(name: str) -> Any:
  place = importlib.resources.files("facejax") / "assets" / "published" / name
  return json.loads(place.read_text(encoding="utf-8"))


@functools.cache
def _facexbench() -> tuple[Row, ...]:
  data = _read("facexbench.json")
  settings = {"reference": "reference", "commercial": "commercial"}
  return tuple(
    Row(
      row["model"],
      settings.get(row["group"], "zero-shot"),
      {"accuracy" if name == "overall" else name: x for name, x in row["values"].items()},
      row.get("source", data["source"]),
      row.get("tag", data["tag"]),
      row["questions"],
      row["group"],
    )
    for row in data["rows"]
  )


@functools.cache
def _face_llava() -> dict[str, tuple[Row, ...]]:
  data = _read("face_llava.json")
  return {
    name: tuple(Row(r["model"], r["setting"], r["values"], r["source"], data["tag"]) for r in found)
    for name, found in data["benchmarks"].items()
  }


def sub_tasks() -> Mapping[str, Mapping[str, Any]]:
  """FaceLLM's sub-task figures of FaceXBench: questions, right answers and per cent by model."""
  return _read("facexbench.json")["sub_tasks"]["tasks"]


def ratings() -> list[Mapping[str, Any]]:
  """Face-LLaVA's table 10: ratings of reasoning by GPT-4o, 1 to 10."""
  return _read("face_llava.json")["ratings"]["rows"]


def notes() -> list[str]:
  """What the sources do not say."""
  return _read("face_llava.json")["notes"]
