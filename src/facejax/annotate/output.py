"""Results -> files, each replaced as a whole.

dataset.json    what was kept, in the LLaVA and FairFaceGPT layout
records.jsonl   the same samples with where every word of them comes from
rejected.jsonl  everything else that was asked, with its reason and what was answered
prompts.json    the full text of the prompts, by the hash in the records
report.json     counts, tokens, money, faults
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from facejax.annotate import prompts
from facejax.annotate.unit import Asked, Recipe, Result, Unit


def write(folder: pathlib.Path, recipe: Recipe, results: list[Result], assistant: str) -> None:
  """Writes the four files about samples, in which `assistant` answers."""
  both = lambda: zip(recipe.units, results, strict=True)
  kept = ((u, r) for u, r in both() if r.state == "kept")
  _json_list(folder / "dataset.json", (_sample(u, r, assistant) for u, r in kept))
  kept = ((u, r) for u, r in both() if r.state == "kept")
  lines(folder / "records.jsonl", (_record(u, r) for u, r in kept))
  others = ((u, r) for u, r in both() if r.state in ("rejected", "unanswered"))
  lines(folder / "rejected.jsonl", (_record(u, r) for u, r in others))
  texts = {
    p.sha256: {"id": p.id, "system": p.system, "text": p.text}
    for p in prompts.PROMPTS
    if p.id.startswith(recipe.name)
  }
  replace(folder / "prompts.json", [json.dumps(texts, indent=1)])


def write_text_files(folder: pathlib.Path, recipe: Recipe, results: list[Result]) -> int:
  """Kept answers as the released FairFaceGPT code leaves them; gives how many.

  `MODEL/STEM/question_i.txt` and `answer_i.txt`, where STEM is the picture's path up to its first
  dot, and the i-th of its questions. Raises ValueError if two pictures have one stem.
  """
  number = 0
  owners: dict[str, str] = {}
  for unit, result in zip(recipe.units, results, strict=True):
    stem, _, _ = unit.media.partition(".")
    if owners.setdefault(stem, unit.media) != unit.media:
      raise ValueError(
        f"{unit.media} and {owners[stem]} would both go to {stem}/ - expected stems that differ - "
        "leave --text-files out"
      )
    if result.state != "kept" or result.written is None or result.written.answer is None:
      continue
    place = unit.id.rpartition("#")[2]
    target = folder / result.written.answer.model.replace("/", "_") / stem
    target.mkdir(parents=True, exist_ok=True)
    (target / f"question_{place}.txt").write_text(unit.question, encoding="utf-8")
    (target / f"answer_{place}.txt").write_text(result.written.answer.text, encoding="utf-8")
    number += 1
  return number


def replace(path: pathlib.Path, pieces: Iterable[str]) -> None:
  """Writes a file beside its place and moves it there."""
  partial = path.with_name(f"{path.name}.tmp")
  with partial.open("w", encoding="utf-8") as file:
    file.writelines(pieces)
  os.replace(partial, path)


def _json_list(path: pathlib.Path, samples: Iterable[dict[str, Any]]) -> None:
  def pieces() -> Iterator[str]:
    yield "["
    for i, sample in enumerate(samples):
      yield ("," if i else "") + "\n" + json.dumps(sample, ensure_ascii=False)
    yield "\n]\n"

  replace(path, pieces())


def lines(path: pathlib.Path, records: Iterable[dict[str, Any]]) -> None:
  """Writes a record a line, as `replace` does."""
  replace(path, (json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _sample(unit: Unit, result: Result, assistant: str) -> dict[str, Any]:
  assert result.written is not None and result.written.answer is not None
  return {
    "id": unit.id,
    unit.kind: unit.media,
    **unit.extra,
    "conversations": [
      {"from": "human", "value": f"<{unit.kind}>\n{unit.question}"},
      {"from": assistant, "value": result.written.answer.text},
    ],
  }


def _record(unit: Unit, result: Result) -> dict[str, Any]:
  record: dict[str, Any] = {
    "id": unit.id,
    "state": result.state,
    "reason": result.reason,
    "detail": result.detail,
    unit.kind: unit.media,
    "sha256": result.sha256,
    "question": unit.question,
    "labels": dict(unit.labels),
    "prompt": {"id": unit.prompt.id, "sha256": unit.prompt.sha256},
    "written": asked(result.written),
  }
  if result.rated is not None:
    prompt = {"id": prompts.RATER.id, "sha256": prompts.RATER.sha256}
    record |= {"rated": asked(result.rated), "rater_prompt": prompt, "rating": result.rating}
  return record


def asked(call: Asked | None) -> dict[str, Any] | None:
  """How a call ended, as a record keeps it."""
  if call is None:
    return None
  answer = call.answer
  fields = (
    {}
    if answer is None
    else {
      "text": answer.text,
      "model": answer.model,
      "response_id": answer.id,
      "usage": {"prompt_tokens": answer.tokens[0], "completion_tokens": answer.tokens[1]},
      "cost": answer.cost,
    }
  )
  return {"key": call.key, "attempts": list(call.reasons), **fields}
