"""What a row costs to look up in a built source, and how long a run takes to its first batch."""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time

from facejax import config_io
from facejax.data.pipeline import Pipeline

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"
ROWS = 16  # a step
STEPS = (1, 1000, 1_000_000)


def pipeline(folder: pathlib.Path) -> Pipeline:
  """Four pictures and their texts share a row."""
  config = config_io.load(CONFIG)
  data = dataclasses.replace(
    config.data, sources=(str(folder),), row_length=512, images_per_row=4, modalities=("landmarks",)
  )
  return Pipeline(config.model, data, ROWS)


def measure_rows(folder: pathlib.Path) -> dict[str, float]:
  """Processor microseconds to say which samples stand in a row, the median of 400 rows a step."""
  schedule = pipeline(folder).schedule
  found = {}
  for step in STEPS:
    taken = []
    for row in range(400):
      start = time.process_time_ns()
      schedule.row(step + row // ROWS, row % ROWS)
      taken.append((time.process_time_ns() - start) / 1e3)
    found[f"row_us_at_step_{step}"] = statistics.median(taken)
  return found


def measure_start(folder: pathlib.Path) -> dict[str, float]:
  """Seconds from nothing opened to the first batch, imports left out; medians of five processes."""
  found = {}
  for step in (0, 1_000_000):
    runs = [
      json.loads(subprocess.check_output([sys.executable, __file__, str(folder), str(step)]))
      for _ in range(5)
    ]
    for name in ("seconds", "processor_seconds"):
      key = f"first_batch_{name}_at_step_{step}"
      found[key] = statistics.median(run[name] for run in runs)
  return found


def main() -> None:
  """FOLDER STEP: opens the source and reads the batch of that step."""
  folder, step = pathlib.Path(sys.argv[1]), int(sys.argv[2])
  start, busy = time.perf_counter(), time.process_time()
  batch, refused = next(pipeline(folder).batches(step, step + 1))
  assert not refused and batch.segment_ids.max() > 1
  taken = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - busy}
  print(json.dumps(taken))


if __name__ == "__main__":
  main()
