"""How many faces a second does one core draw? See README.md.

python experiments/renderer_speed/run.py --json experiments/renderer_speed/result.json
"""

import argparse
import json
import os
import platform
import time

# One thread, also for the small matrix products: set before NumPy loads its BLAS.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from facejax.faces.synthetic import face

CHUNK = 40  # faces between two readings of the clock


def measure(size: int, faces: int) -> dict[str, float]:
  """Draws `faces` faces and times them by processor seconds, in chunks."""
  for seed in range(10):
    face(seed, size=size)
  rates = []
  for start in range(0, faces, CHUNK):
    began = time.process_time()
    for seed in range(start, start + CHUNK):
      face(seed, size=size)
    rates.append(CHUNK / (time.process_time() - began))
  return {
    "size": size,
    "faces_per_second_median": round(float(np.median(rates)), 1),
    "faces_per_second_best": round(max(rates), 1),
    "milliseconds_median": round(1000 / float(np.median(rates)), 2),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--faces", type=int, default=800, help="faces per size")
  parser.add_argument("--json", help="file for the result")
  args = parser.parse_args()
  rows = [measure(size, args.faces) for size in (112, 224)]
  result = {
    "date": time.strftime("%Y-%m-%d"),
    "processor": platform.processor() or platform.machine(),
    "load": round(os.getloadavg()[0], 1),
    "faces": args.faces,
    "rows": rows,
  }
  for row in rows:
    print(*(f"{key}={value}" for key, value in row.items()))
  if args.json:
    with open(args.json, "w") as file:
      json.dump(result, file, indent=2)
      file.write("\n")


if __name__ == "__main__":
  main()
