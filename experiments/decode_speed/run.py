"""How many samples does a core decode a second, beside torch's DataLoader? Pictures and clips.

python experiments/decode_speed/run.py --json experiments/decode_speed/result.json
"""

import argparse
import dataclasses
import importlib.resources
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time
from importlib import metadata

import files

LOADERS = ("facejax", "official", "exact", "fastest")
# Positions a row and samples a batch; the text of a sample has less than 200 tokens.
PICTURES = {"length": 456, "visual": 256, "batch": 16}
CLIPS = {"length": 2256, "visual": 2056, "batch": 4}


def facejax_batches(index: str, workers: int, length: int, visual: int, batch: int):
  """The pipeline that training reads, one sample a row."""
  from facejax.config import DataConfig, LlavaConfig
  from facejax.data.pipeline import Pipeline, load_tokenizer
  from facejax.models import presets

  model = presets.face_llava_7b()
  vocab = load_tokenizer("demo").vocab_size
  model = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, vocab=vocab))
  pictures = visual == PICTURES["visual"]
  data = DataConfig(
    row_length=length,
    sources=("llava",),
    images_per_row=int(pictures),
    videos_per_row=int(not pictures),
    modalities=("landmarks",),
    workers=workers,
    llava=LlavaConfig((index,)),
  )
  for made, refused in Pipeline(model, data, batch).batches(0, 10**6):
    assert not refused and (made.segment_ids.max(1) == 1).all()
    yield made


def torch_batches(kind: str, index: str, workers: int, length: int, visual: int, batch: int):
  import torch_side

  vocabulary = importlib.resources.files("facejax") / "assets" / "demo_tokenizer.model"
  folder = {"index": index, "vocabulary": str(vocabulary), "length": length, "visual": visual}
  return torch_side.batches(kind, batch, workers, **folder)


def serve(pipe, name: str, index: str, sizes: dict) -> None:
  """A loader in a process of its own: (workers, seconds) -> figures, until it is told to end."""
  while request := pipe.recv():
    workers, seconds = request
    if name == "facejax":
      stream = facejax_batches(index, workers, **sizes)
    else:
      stream = torch_batches(name, index, workers, **sizes)
    pipe.send(measure(stream, sizes["batch"], 2 * workers + 3, seconds))
    del stream


def measure(stream, batch: int, warm: int, seconds: float) -> dict[str, float]:
  """Wall and processor seconds a sample, this process and its workers, once it is under way."""
  for _ in range(warm):
    next(stream)
  cpu, start, samples = processor_seconds(), time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    next(stream)
    samples += batch
  wall, cpu = time.perf_counter() - start, processor_seconds() - cpu
  return {"wall": wall / samples, "cpu": cpu / samples}


def processor_seconds() -> float:
  """Of this process and all below it (Linux)."""
  pids = [os.getpid()]
  for pid in pids:
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
      pids += map(int, task.read_text().split())
  clock = lambda pid: (~pid << 3) | 2  # what clock_getcpuclockid gives
  return sum(time.clock_gettime(clock(pid)) for pid in pids)


def compare(index: str, sizes: dict, workers: list[int], repeats: int, seconds: float) -> dict:
  """Medians over the repeats, in which the loaders take turns, in both orders."""
  context = multiprocessing.get_context("spawn")
  pipes, seen = {}, {(name, w): [] for name in LOADERS for w in workers}
  for name in LOADERS:
    pipes[name], other = context.Pipe()
    context.Process(target=serve, args=(other, name, index, sizes)).start()
  for repeat in range(repeats):
    for count in workers:
      for name in LOADERS[:: -1 if repeat % 2 else 1]:
        pipes[name].send((count, seconds))
        seen[name, count].append(pipes[name].recv())
  for pipe in pipes.values():
    pipe.send(None)
  result: dict = {}
  for (name, count), runs in seen.items():
    median = {key: statistics.median(run[key] for run in runs) for key in ("wall", "cpu")}
    result.setdefault(f"{count} workers", {})[name] = {
      "samples_per_second": 1 / median["wall"],
      "samples_per_second_per_core": 1 / median["cpu"],
      "processor_ms_per_sample": 1e3 * median["cpu"],
      "least_processor_ms_per_sample": 1e3 * min(run["cpu"] for run in runs),
    }
  return result


def table(title: str, result: dict) -> None:
  print(f"\n{title:32}{'samples/s':>11}{'a core':>9}{'ms of a core':>14}{'facejax is':>12}")
  for count, loaders in result.items():
    ours = loaders["facejax"]["samples_per_second_per_core"]
    for name, row in loaders.items():
      per_core = row["samples_per_second_per_core"]
      print(
        f"{count + ', ' + name:32}{row['samples_per_second']:11.1f}{per_core:9.1f}"
        f"{row['processor_ms_per_sample']:14.2f}{ours / per_core:11.2f}x"
      )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", help="file for the figures")
  parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes")
  parser.add_argument("--samples", type=int, default=512, help="pictures; an eighth as many clips")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
  args = parser.parse_args()
  load, result = os.getloadavg()[0], {}
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    for title, write, count, sizes in (
      ("pictures", files.pictures, args.samples, PICTURES),
      ("clips", files.clips, args.samples // 8, CLIPS),
    ):
      index = write(root / title, count).index[0]
      result[title] = compare(index, sizes, args.workers, args.repeats, args.seconds)
      table(title, result[title])
  if args.json:
    packages = ("jax", "grain", "numpy", "scipy", "pillow", "av", "torch", "torchvision")
    about = {
      **result,
      "samples": args.samples,
      "repeats": args.repeats,
      "seconds": args.seconds,
      "cores": os.cpu_count(),
      "load_before": load,
      "load_after": os.getloadavg()[0],
      "python": platform.python_version(),
      "packages": {name: metadata.version(name) for name in packages},
    }
    pathlib.Path(args.json).write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
  main()
