"""Every number of a folder of official Face-LLaVA references, computed again by this library.

python experiments/parity/face_llava_goldens.py FOLDER --json OUT

Exit status 1 if an error exceeds its tolerance, 2 if the folder cannot be read.
"""

import argparse
import datetime
import json
import re
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
  """Markdown: a line for each of GROUPS and tolerance, with the worst of its errors."""
  groups: dict[tuple[str, float], list[str]] = {}
  for name, tolerance in report.tolerances.items():
    groups.setdefault((group(name), tolerance), []).append(name)
  lines = ["| values | compared | largest error | where | tolerance |", "|---|---|---|---|---|"]
  for (title, tolerance), names in sorted(groups.items()):
    worst = max(names, key=lambda n: (report.errors[n], n))
    error = f"{report.errors[worst]:.1e}" if report.errors[worst] else "0"
    allowed = f"{tolerance:.2g}" if tolerance else "exact"
    where = worst if report.errors[worst] else "-"
    lines.append(f"| {title} | {len(names)} | {error} | {where} | {allowed} |")
  return "\n".join(lines)


# A name belongs to the first of these that its beginning matches.
GROUPS = (
  (r"conversations\..*\.prompt$", "prompts"),
  (r"conversations\..*\.(input_ids|labels)$", "conversations: {}"),
  (r"conversations\.", "tokens of other texts, templates, decoding"),
  (r"(image|video)\..*\.uint8$", "pixels, uint8"),
  (r"image\.\w+\.(direct|pad)\.|video\.pixel", "pixels, float"),
  (r"image\.\w*\.padded|pad_color|video\.frame_ids", "padding, frame numbers"),
  (r"(?:image|video)\.(hidden\w+|n_hidden_states|tower)", "encoders"),
  (r"(image|video)\.proj", "projector"),
  (r"(image|video)\.(region|global)_token", "landmark tokens"),
  (r"(?:image|video)\.(cross_attn_simple|fused_simple)", "fusion, released"),
  (r"(?:image|video)\.(cross_attn_masked|fused_masked|rpp_mask)", "fusion, masked"),
  (r"gen_.*\.(prompt_ids|new_ids)$", "greedy answers: ids"),
  (r"gen_", "greedy answers: scores"),
  (r"gradients\.[^.]+\.(?:top_level|total_norm)", "gradients: norms of modules"),
  (r"gradients\..*\.norm$", "gradients: norms of parameters"),
  (r"gradients\.", "gradients: sums, single values"),
  (r"[^.]+\.spliced\.(?:embeds|stats)", "spliced embeddings"),
  (r"[^.]+\.(llm_hidden|logits|loss)", "{}"),
  (r"", "ids, labels, masks, positions of batches"),
)


def group(name: str) -> str:
  """The line of the table that a name belongs to."""
  for pattern, title in GROUPS:
    if match := re.match(pattern, name):
      return title.format(*match.groups())
  raise AssertionError(name)  # the last pattern matches


def reasons(entries: dict[str, str]) -> list[str]:
  """A line for each reason, with the names that it holds for."""
  names: dict[str, list[str]] = {}
  for name, why in sorted(entries.items()):
    names.setdefault(why, []).append(name)
  return [f"- {', '.join(own)}: {why}" for why, own in names.items()]


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
    "folder": args.folder.resolve().name,
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
    print("\n".join(reasons(entries)))
  print(f"\n{len(report.errors)} values compared, {len(report.failed)} beyond their tolerance")
  for name in report.failed:
    print(f"- {name}: {report.errors[name]:.3e} > {report.tolerances[name]:.3e}")
  return int(bool(report.failed))


if __name__ == "__main__":
  sys.exit(main())
