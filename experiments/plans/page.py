"""docs/plans.md from results/*.json."""

import json
from pathlib import Path

from rows import ANSWERS, ROWS

_HEAD = """# Plans

Written by `python experiments/plans/run.py` from the files in `experiments/plans/results/`. Nothing
here ran on a TPU: each row is the real training step, compiled by the TPU compiler on a CPU
(`facejax plan`, see [plan.md](plan.md) for what the figures mean and how far they can be trusted).

MFU counts the FLOPs that a stage needs, each component forward, and backward only where it trains
or passes gradients; what is computed twice does not count. The three figures are all collectives
exposed / the compiler's schedule / all hidden; quote the middle one. "causal" is the middle one
with attention counted over whole rows, each position seeing all before it, as published MFUs do.
Tokens are useful ones: no padding. GB are 1e9 bytes a chip. Days and chip hours are one epoch of
FaceInstruct-1M, for the other configs a million samples of their shape.
"""


def write(page: Path, results: Path) -> None:
  """A table a config and stage, and under it what limits each row."""
  found = []
  for row in ROWS:
    path = results / f"{row.name}.json"
    if path.exists():
      found.append(json.loads(path.read_text()))
  sections: dict[str, list[dict]] = {}
  for result in found:
    sections.setdefault(f"{result['row']['config']}, {result['stage']}", []).append(result)
  text = [_HEAD]
  for title, plans in sections.items():
    text.append(f"\n## {title}\n\n" + "\n".join(_table(plans)) + "\n")
  answers = [results / f"{row.name}.json" for row in ANSWERS]
  answers = [json.loads(path.read_text()) for path in answers if path.exists()]
  if answers:
    text.append("\n## Answering\n\n" + _ANSWERS + "\n".join(map(_answers, answers)) + "\n")
  missing = [row.name for row in (*ROWS, *ANSWERS) if not (results / f"{row.name}.json").exists()]
  if missing:
    text.append("\nNot planned yet: " + ", ".join(missing) + ".\n")
  page.write_text("".join(text))


_ANSWERS = """Prompts of 1024 tokens with one picture, answers of 128 (`facejax plan --generation`);
milliseconds by the schedule figure. The bound is of reading the decoder's parameters and the cache
once a token.

| config | topology | mesh | rows | GB a chip (limit) | prefill | a token | bound | tokens/s |
|---|---|---|---|---|---|---|---|---|
"""


def _answers(p: dict) -> str:
  phases = p["prefill"], p["decode"]
  gb = max(phase["total"] for phase in phases) / 1e9
  mesh = " ".join(f"{axis} {size}" for axis, size in p["mesh"].items() if size > 1)
  cells = [
    p["row"]["config"],
    p["topology"],
    mesh,
    str(p["rows"]),
    f"{gb:.1f} ({p['limit'] / 1e9:.1f})",
  ]
  if any(phase["step"] is None for phase in phases):
    return "| " + " | ".join([*cells, "does not fit", "", "", ""]) + " |"
  read, draw = (phase["step"]["schedule"] for phase in phases)
  bound = p["bandwidth_bound"]
  times = [
    f"{1e3 * read:.0f}",
    f"{1e3 * draw:.1f}",
    f"{1e3 * bound:.1f}",
    f"{p['rows'] / draw:,.0f}",
  ]
  return "| " + " | ".join(cells + times) + " |"


def _table(plans: list[dict]) -> list[str]:
  lines = [
    "| topology | mesh | rows | remat | GB a chip (limit) | step, s | MFU | causal "
    "| useful tokens/s/chip | days | chip hours |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  notes = []
  for p in plans:
    place = p["topology"] + (f" x {p['slices']}" if p["slices"] > 1 else "")
    mesh = " ".join(f"{axis} {size}" for axis, size in p["mesh"].items() if size > 1)
    gb = p["hbm_gb_per_chip"]
    cells = [place, mesh, str(p["rows"]), p["remat"], f"{gb['total']:.1f} ({gb['limit']:.1f})"]
    if p["fits"]:
      cells += [
        _three(p["step_seconds"], 3),
        _three(p["planned_mfu"], 3),
        f"{p['planned_mfu_causal_rows']['schedule']:.3f}",
        f"{p['useful_tokens_per_second_per_chip']:,.0f}",
        f"{p['days']:.4f}",
        f"{p['chip_hours']:,.0f}",
      ]
    else:
      cells += ["does not fit", "", "", "", "", ""]
    lines.append("| " + " | ".join(cells) + " |")
    limit = p["limits"] if p["fits"] else f"{p['limits']}; would fit: {'; '.join(p['would_fit'])}"
    changes = ", ".join(p["row"]["changes"])
    notes.append(f"- {place}, {p['rows']} rows{f' ({changes})' if changes else ''}: {limit}.")
  versions = plans[-1]["versions"]
  known = ", ".join(f"{k} {v}" for k, v in versions.items())
  return [*lines, "", *notes, "", f"{plans[-1]['date']}, {known}."]


def _three(figures: dict, digits: int) -> str:
  names = ("slowest", "schedule", "fastest")
  parts = [f"{figures[name]:.{digits}f}" for name in names]
  return f"{parts[0]} / **{parts[1]}** / {parts[2]}"
