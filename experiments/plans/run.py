"""What do the steps of our configs cost on pods?

  python experiments/plans/run.py [--only face_llava_7b] [--page]

A row of rows.py is one file of results/, so a run that is stopped goes on where it was; delete a
file, or name rows with --only and --again, to plan it anew. --page only writes docs/plans.md from
what is there.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

from page import write
from rows import ANSWERS, ROWS, Answers, Row

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main() -> int:
  """Plans what is missing; returns the number of rows that failed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--only", default="", help="rows whose name contains this")
  parser.add_argument("--again", action="store_true", help="plan them though they are there")
  parser.add_argument("--page", action="store_true", help="write docs/plans.md, plan nothing")
  parser.add_argument("--minutes", type=float, default=1e9, help="start no row after so long")
  args = parser.parse_args()
  start, failed = time.monotonic(), 0
  for row in (*ROWS, *ANSWERS):
    path = HERE / "results" / f"{row.name}.json"
    if args.page or args.only not in row.name or (path.exists() and not args.again):
      continue
    if time.monotonic() - start > 60 * args.minutes:
      print(f"{row.name}: no time left")
      continue
    failed += not plan(row, path)
  write(ROOT / "docs" / "plans.md", HERE / "results")
  return failed


def plan(row: Row | Answers, path: Path) -> bool:
  """One row in a process of its own: a compiler may take 10 GB and does not give them back."""
  print(f"{row.name} ...", flush=True)
  path.parent.mkdir(exist_ok=True)
  command = [sys.executable, __file__.replace("run.py", "one.py"), json.dumps(_plain(row)), path]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
  print(f"  {last[-1] if last else 'no output'}", flush=True)
  return done.returncode == 0


def _plain(row: Row | Answers) -> dict:
  return {**dataclasses.asdict(row), "name": row.name}


if __name__ == "__main__":
  sys.exit(main())
