"""What does sharing rows save?

  python experiments/packing/run.py --json experiments/packing/result.json

Three parts: how full rows are, whether packing changes the mathematics, and useful tokens a second
of a training step, packed and in the padded order of the released collator.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import mixes
import numpy as np
import same
import speed

from facejax.data.order import Order


def fill(name: str, mix: mixes.Mix, rows: int = 3000) -> dict:
  """Shares of a row's tokens and media slots that are used, over `rows` rows of 1M samples."""
  start = time.perf_counter()
  order = Order(mix.sizes, mix.weights, mix.capacity, seed=0)
  planned = time.perf_counter() - start
  start = time.perf_counter()
  packed = [order.row(1_000_000 + row) for row in range(rows)]
  asked = time.perf_counter() - start
  used = np.array([sum(mix.sizes[p.source][p.number] for p in row) for row in packed])
  assert (used <= mix.capacity).all()
  shares = used.mean(0) / np.maximum(mix.capacity, 1)
  padded = mixes.padded_share(mix, batch=16)
  result = {
    "row_length": mix.capacity[0],
    "images_per_row": mix.capacity[1],
    "videos_per_row": mix.capacity[2],
    "samples_a_row": round(order.samples / order.rows, 3),
    "tokens_used": round(float(shares[0]), 4),
    "picture_slots_used": round(float(shares[1]), 4),
    "clip_slots_used": round(float(shares[2]), 4),
    "tokens_used_padded_batches_of_16": round(padded, 4),
    "plan_seconds_1M_samples": round(planned, 3),
    "milliseconds_a_row": round(asked / rows * 1e3, 3),
  }
  print(f"{name}: {json.dumps(result)}", flush=True)
  return result


def main() -> None:
  """Runs the parts that are asked for and writes what they found."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path, help="file to write")
  parser.add_argument("--parts", default="fill,same,speed", help="others stay as in the file")
  parser.add_argument("--repeats", type=int, default=5, help="timings of each shape")
  args = parser.parse_args()
  runs = {
    "fill": lambda: {name: fill(name, mix) for name, mix in mixes.ALL.items()},
    "same": same.compare,
    "speed": lambda: speed.compare(args.repeats),
  }
  result = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
  for part in args.parts.split(","):
    result[part] = {**runs[part](), "measured": measured()}
    if args.json:
      args.json.write_text(json.dumps(result, indent=1) + "\n")


def measured() -> dict:
  """When, and with what."""
  packages = ("facejax", "jax", "grain", "numpy")
  return {
    "date": datetime.date.today().isoformat(),
    "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    "load": os.getloadavg()[0],
    **{name: importlib.metadata.version(name) for name in packages},
  }


if __name__ == "__main__":
  main()
