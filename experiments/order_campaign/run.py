"""Does anything but the step decide what a global batch holds?

  python experiments/order_campaign/run.py --json experiments/order_campaign/result.json

Builds three sources of small drawn pictures with `facejax data build`, mixes them 5 : 3 : 1 in
packed rows, and hashes every row of every global batch: for 1, 2, 4 and 8 processes, with 0, 2 and
4 workers each, and in a run that is killed at random steps and goes on with another number of
processes and workers. Processes are real ones; each reads its rows and nothing of the others.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dataset

_HERE = Path(__file__).parent
_AT_ONCE = os.cpu_count() or 1


class Reader:
  """A process that reads its rows of steps start to stop and writes their hashes."""

  def __init__(self, folder: Path, out: Path, process: int, processes: int, workers: int, span):
    out.mkdir(parents=True, exist_ok=True)
    self.file = out / f"{process}.jsonl"
    numbers = map(str, (process, processes, workers, *span))
    command = [sys.executable, str(_HERE / "reader.py"), str(folder), str(self.file), *numbers]
    self._process = subprocess.Popen(command, start_new_session=True)

  def wait(self) -> None:
    """Until it has read all; raises RuntimeError if it failed."""
    if self._process.wait():
      raise RuntimeError(f"reader of {self.file} ended with status {self._process.returncode}")

  def kill(self) -> None:
    """At once, with its workers."""
    os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()

  def steps(self) -> dict[int, list[str]]:
    """Hashes of its rows by step; a line that was torn by a kill does not count."""
    lines = self.file.read_text().splitlines(keepends=True) if self.file.exists() else []
    return dict(tuple(json.loads(line)) for line in lines if line.endswith("\n"))


def read(folder: Path, out: Path, processes: int, workers: int, span) -> dict[int, list[str]]:
  """Rows of all global batches of a span of steps, read by so many processes."""
  found: list[dict[int, list[str]]] = []
  for first in range(0, processes, _AT_ONCE):
    group = range(first, min(first + _AT_ONCE, processes))
    readers = [Reader(folder, out, p, processes, workers, span) for p in group]
    for reader in readers:
      reader.wait()
      found.append(reader.steps())
  return {step: [row for part in found for row in part[step]] for step in range(*span)}


def killed(folder: Path, out: Path, steps: int, kills: int, seed: int) -> tuple[dict, list[dict]]:
  """One run that is killed `kills` times; each time another number of processes goes on."""
  rng = random.Random(seed)
  found: dict[int, list[str]] = {}
  told = []
  for number in range(kills):
    done = len(found)
    processes, workers = rng.choice((1, 2)), rng.choice((0, 2))
    aim = rng.randrange(done + 1, done + max(2, (steps - done) // (kills - number)) + 1)
    readers = [
      Reader(folder, out / str(number), p, processes, workers, (done, steps))
      for p in range(processes)
    ]
    while min(len(r.steps()) for r in readers) < aim - done:
      time.sleep(0.02)
    for reader in readers:
      reader.kill()
    parts = [reader.steps() for reader in readers]
    reached = min(max(part) for part in parts) + 1
    reached -= rng.randrange(2)  # a checkpoint is a little older than the last step that was read
    for step in range(done, reached):
      found[step] = [row for part in parts for row in part[step]]
    told.append({"killed_at": reached, "processes": processes, "workers": workers})
    print(f"kill {number}: {told[-1]}", flush=True)
  found |= read(folder, out / "rest", 4, 0, (len(found), steps))
  return found, told


def main() -> int:
  """Runs the campaign; 1 if a hash differs."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path, help="file to write")
  parser.add_argument("--steps", type=int, default=201)
  parser.add_argument("--kills", type=int, default=8)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  result: dict = {"steps": args.steps, "rows_a_step": dataset.ROWS}
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    dataset.build(folder)
    one = read(folder, folder / "out" / "one", 1, 0, (0, args.steps))
    result["different_rows"] = len({row for rows in one.values() for row in rows})
    result["runs"] = []
    for processes in (1, 2, 4, 8):
      for workers in (0, 2, 4):
        start = time.perf_counter()
        out = folder / "out" / f"{processes}.{workers}"
        same = read(folder, out, processes, workers, (0, args.steps)) == one
        seconds = round(time.perf_counter() - start, 1)
        run = {"processes": processes, "workers": workers, "identical": same, "seconds": seconds}
        print(run, flush=True)
        result["runs"].append(run)
    rows, told = killed(folder, folder / "out" / "killed", args.steps, args.kills, args.seed)
    result["killed"] = {"identical": rows == one, "kills": told}
  result["identical"] = result["killed"]["identical"] and all(
    run["identical"] for run in result["runs"]
  )
  result["measured"] = {
    "date": datetime.date.today().isoformat(),
    "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    **{name: importlib.metadata.version(name) for name in ("facejax", "grain", "numpy")},
  }
  print(json.dumps({"identical": result["identical"], "killed": result["killed"]["identical"]}))
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")
  return 0 if result["identical"] else 1


if __name__ == "__main__":
  sys.exit(main())
