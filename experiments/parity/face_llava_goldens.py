"""Every number of a folder of official Face-LLaVA references, computed again by this library.

python experiments/parity/face_llava_goldens.py FOLDER --json OUT

Exit status 1 if an error exceeds its tolerance, 2 if the folder cannot be read.
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from face_llava import end_to_end, gradients, pixels, text, vision
from face_llava.folder import load_models, read
from face_llava.report import Report

PARTS = ("text", "pixels", "vision", "end_to_end", "gradients")


def compare(folder_path: str | Path, parts: Sequence[str] = PARTS) -> Report:
  """A Report on a folder; see face_llava.folder.read for what it raises."""
  report = Report()
  folder = read(folder_path)
  if "text" in parts:
    text.compare(folder, report)
  if set(parts) == {"text"}:
    return report
  models = load_models(folder)
  if "pixels" in parts:
    pixels.compare(folder, models["simple"].config, report)
  for name, module in (("vision", vision), ("end_to_end", end_to_end), ("gradients", gradients)):
    if name in parts:
      module.compare(folder, models, report)
  return report


def table(report: Report) -> str:
  """Markdown: a line for each kind of value, with the worst of its errors."""
  groups: dict[str, list[str]] = {}
  for name in report.errors:
    groups.setdefault(group(name), []).append(name)
  lines = ["| values | compared | largest error | where | tolerance |", "|---|---|---|---|---|"]
  for title, names in sorted(groups.items()):
    worst = max(names, key=lambda n: (report.errors[n] / (report.tolerances[n] or 1), n))
    error = f"{report.errors[worst]:.1e}" if report.errors[worst] else "0"
    tolerance = f"{report.tolerances[worst]:.2g}" if report.tolerances[worst] else "exact"
    lines.append(f"| {title} | {len(names)} | {error} | {worst} | {tolerance} |")
  return "\n".join(lines)


def group(name: str) -> str:
  """The kind of value that a name stands for: its file or case without numbers."""
  head, _, rest = name.partition(".")
  if head in ("gradients", "conversations", "image", "video"):
    stage = rest.split(".")[-1 if head == "gradients" else 0]
    return f"{head}: {stage}"
  kinds = ("logits", "loss", "embeds", "llm_hidden", "scores", "stats")
  kind = next((k for k in kinds if k in rest), "ids, labels, masks and positions")
  return f"{'generation' if head.startswith('gen_') else 'model'}: {kind}"


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=Path, help="the references of one variant")
  parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where errors go")
  parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="parts to compare")
  args = parser.parse_args()
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_default_matmul_precision", "highest")
  start = time.perf_counter()
  try:
    report = compare(args.folder, args.only)
  except (FileNotFoundError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  run = {
    "folder": str(args.folder),
    "date": datetime.date.today().isoformat(),
    "seconds": round(time.perf_counter() - start, 1),
    "jax": jax.__version__,
    "parts": list(args.only),
  }
  args.json.write_text(json.dumps(report.json() | {"_run": run}, indent=1) + "\n")
  print(table(report))
  for title, entries in (
    ("Not compared", report.not_compared),
    ("Different by design", report.differs_by_design),
    ("Notes", report.notes),
  ):
    print(f"\n{title}:")
    for name, why in sorted(entries.items()):
      print(f"- {name}: {why}")
  print(f"\n{len(report.errors)} values compared, {len(report.failed)} beyond their tolerance")
  for name in report.failed:
    print(f"- {name}: {report.errors[name]:.3e} > {report.tolerances[name]:.3e}")
  return int(bool(report.failed))


if __name__ == "__main__":
  sys.exit(main())
