"""docs/plans.md from results/*.json."""

import json
from pathlib import Path

from rows import ROWS

_HEAD = """# Plans

Written by `python experiments/plans/run.py` from the files in `experiments/plans/results/`. Nothing
here ran on a TPU: each row is the real training step, compiled by the TPU compiler on a CPU
(`facejax plan`, see [plan.md](plan.md) for what the figures mean and how far they can be trusted).

MFU counts the FLOPs that a stage needs, each component forward, and backward only where it trains
or passes gradients; what is computed twice does not count. The three figures are all collectives
exposed / the compiler's schedule / all hidden; quote the middle one. Tokens are useful ones: no
padding. GB are 1e9 bytes a chip. Days and chip hours are one epoch of FaceInstruct-1M, for the
other configs a million samples of their shape.
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
  missing = [row.name for row in ROWS if not (results / f"{row.name}.json").exists()]
  if missing:
    text.append("\nNot planned yet: " + ", ".join(missing) + ".\n")
  page.write_text("".join(text))


def _table(plans: list[dict]) -> list[str]:
  lines = [
    "| topology | mesh | rows | remat | GB a chip (limit) | step, s | MFU | useful tokens/s/chip "
    "| days | chip hours |",
    "|---|---|---|---|---|---|---|---|---|---|",
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
        f"{p['useful_tokens_per_second_per_chip']:,.0f}",
        f"{p['days']:.2f}",
        f"{p['chip_hours']:,.0f}",
      ]
    else:
      cells += ["does not fit", "", "", "", ""]
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
