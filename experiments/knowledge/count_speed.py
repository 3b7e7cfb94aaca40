"""Time and memory of counting a label table of CelebA's size -> count_speed.json.

nice python experiments/knowledge/count_speed.py [--json OUT]

The table is made up: 202,599 x 40 int8, a fifth of the labels present and a tenth unknown, written
to a file and read from it in parts, as a stream would come.
"""

import argparse
import datetime
import json
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from facejax.knowledge import cooccurrence, rules

HERE = Path(__file__).parent
ROWS, PART = 202_599, 16_384


def peak_mb() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make(path: Path, labels: int) -> None:
  """Writes the table, some rows at a time, so that making it is not what is measured."""
  rng = np.random.default_rng(0)
  table = np.lib.format.open_memmap(path, "w+", np.int8, (ROWS, labels))
  for start in range(0, ROWS, PART):
    drawn = rng.random((len(table[start : start + PART]), labels), np.float32)
    table[start : start + PART] = np.where(drawn < 0.1, -1, drawn < 0.28)
  table.flush()


def parts(path: Path):
  with path.open("rb") as file:
    shape, _, dtype = read_header(file)
    for _ in range(0, shape[0], PART):
      yield np.fromfile(file, dtype, PART * shape[1]).reshape(-1, shape[1])


def read_header(file):
  np.lib.format.read_magic(file)
  return np.lib.format.read_array_header_1_0(file)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path, default=HERE / "count_speed.json")
  args = parser.parse_args()
  labels = rules.load("celeba40").labels
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "table.npy"
    make(path, len(labels))
    before, times = peak_mb(), []
    for _ in range(5):
      start = time.perf_counter()
      counts = cooccurrence.count(parts(path), labels, "made up")
      cooccurrence.graph(cooccurrence.conditional(counts))
      times.append(time.perf_counter() - start)
    start = time.perf_counter()
    state = Path(folder) / "counts.npz"
    restartable = cooccurrence.count(parts(path), labels, "made up", state)
    saved = time.perf_counter() - start
    after = peak_mb()
    table = np.load(path)
    exact = all(
      (getattr(counts, name) == one.astype(np.int64).T @ other.astype(np.int64)).all()
      for name, one, other in (
        ("together", table == 1, table == 1),
        ("known", table == 1, table >= 0),
        ("both_known", table >= 0, table >= 0),
      )
    )
  report = {
    "date": datetime.date.today().isoformat(),
    "versions": {"numpy": np.__version__, "python": platform.python_version()},
    "data": "synthetic values",
    "rows": ROWS,
    "labels": len(labels),
    "seconds": {"median": round(float(np.median(times)), 3), "worst": round(max(times), 3)},
    "seconds_with_state_saved_after_each_part": round(saved, 3),
    "peak_mb_of_the_process": round(after, 1),
    "peak_mb_before_counting": round(before, 1),
    "equal_to_integer_products": bool(exact and (restartable.together == counts.together).all()),
  }
  print(json.dumps(report, indent=1))
  args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
  main()
