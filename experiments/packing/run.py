"""What does sharing rows save?

  python experiments/packing/run.py --json experiments/packing/result.json

Three parts: how full rows are, whether packing changes the mathematics, and useful tokens a second
of a training step, packed and in the padded order of the released collator.
"""

import argparse
import datetime
import importlib.metadata
import json
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
  parser.add_argument("--parts", default="fill,same,speed")
  parser.add_argument("--repeats", type=int, default=5, help="timings of each shape")
  args = parser.parse_args()
  parts = args.parts.split(",")
  result: dict = {}
  if "fill" in parts:
    result["fill"] = {name: fill(name, mix) for name, mix in mixes.ALL.items()}
  if "same" in parts:
    result["packed and unpacked"] = same.compare()
  if "speed" in parts:
    result["step"] = speed.compare(args.repeats)
  packages = ("facejax", "jax", "grain", "numpy")
  result["measured"] = {
    "date": datetime.date.today().isoformat(),
    "machine": f"{platform.machine()}, {platform.python_version()}",
    **{name: importlib.metadata.version(name) for name in packages},
  }
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
