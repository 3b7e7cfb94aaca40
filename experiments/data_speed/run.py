"""How many rows a second does the data pipeline make? Prints a table; --json writes result.json.

python experiments/data_speed/run.py --json
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import tempfile
import time

import numpy as np
from PIL import Image

from facejax.config import DataConfig, LlavaConfig, SyntheticConfig
from facejax.data.pipeline import Pipeline, load_tokenizer
from facejax.faces import synthetic
from facejax.models import presets

ROWS = 16  # a batch
SIZE = 112  # pixels a side


def write_folder(folder: pathlib.Path, count: int) -> LlavaConfig:
  """`count` drawn faces as 256-pixel PNG files with landmarks, in the official format."""
  records = []
  for i in range(count):
    face = synthetic.face(i, size=256)
    Image.fromarray(face.image).save(folder / f"{i}.png")
    np.save(folder / f"{i}.npy", face.landmarks)
    turns = [
      {"from": "human", "value": "<image>\nHow old is the person?"},
      {"from": "gpt", "value": f"About {face.labels.age:.0f} years."},
    ]
    records.append({"image": f"{i}.png", "landmarks_2d": f"{i}.npy", "conversations": turns})
  (folder / "index.json").write_text(json.dumps(records))
  return LlavaConfig((str(folder / "index.json"),))


def single(pipeline: Pipeline, steps: int) -> float:
  """Rows per second of processor time: one thread, whatever else the machine does."""
  pipeline.batch(steps)  # warms caches
  start = time.process_time()
  for step in range(steps):
    pipeline.batch(step)
  return steps * ROWS / (time.process_time() - start)


def stream(pipeline: Pipeline, steps: int) -> float:
  """Rows per second on the clock, from the first batch on: processes take seconds to start."""
  batches = pipeline.batches(0, steps)
  next(batches)
  start = time.perf_counter()
  rows = sum(len(batch.tokens) for batch, _ in batches)
  return rows / (time.perf_counter() - start)


def renderer(faces: int) -> float:
  """Faces per second of processor time, without a pipeline."""
  start = time.process_time()
  for i in range(faces):
    synthetic.face(i, size=SIZE)
  return faces / (time.process_time() - start)


def measure(steps: int) -> dict[str, float]:
  model = presets.demo(load_tokenizer("demo").vocab_size)
  data = DataConfig(256, synthetic=SyntheticConfig(faces=1000))
  drawn = Pipeline(model, data, ROWS)
  workers = Pipeline(model, dataclasses.replace(data, workers=2), ROWS)
  result = {
    "the renderer alone, one thread": renderer(steps * ROWS),
    "drawn faces, one thread": single(drawn, steps),
    "drawn faces, threads": stream(drawn, steps),
    "drawn faces, 2 processes": stream(workers, steps),
  }
  with tempfile.TemporaryDirectory() as folder:
    config = write_folder(pathlib.Path(folder), 200)
    data = DataConfig(256, sources=("llava",), llava=config)
    start = time.process_time()
    files = Pipeline(model, data, ROWS)
    result["checking an index"] = len(files.schedule) / (time.process_time() - start)
    result["256-pixel PNG, one thread"] = single(files, steps)
    result["256-pixel PNG, threads"] = stream(files, steps)
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", action="store_true", help="write result.json beside this file")
  parser.add_argument("--steps", type=int, default=30, help="batches of 16 rows")
  args = parser.parse_args()
  result = measure(args.steps)
  for name, value in result.items():
    print(f"{name:34}{value:8.0f} rows / s")
  if args.json:
    about = {
      "rows_per_second": result,
      "cores": os.cpu_count(),
      "load": os.getloadavg()[0],
      "python": platform.python_version(),
    }
    path = pathlib.Path(__file__).with_name("result.json")
    path.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
  main()
