"""Items a second of `facejax evaluate --suite`: one by one, in batches, over eight virtual devices.

    python experiments/evaluate_speed/run.py --json experiments/evaluate_speed/result.json

The shipped base of the demo answers a made-up UTKFace folder of drawn faces. Each way answers the
items twice in one process; the first time compiles and is not counted.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_compilation_cache", False)

from PIL import Image  # noqa: E402  (after the devices are made)

from facejax import config_io, demo  # noqa: E402
from facejax.config import MeshConfig  # noqa: E402
from facejax.evaluate import suite  # noqa: E402
from facejax.evaluate.benchmarks import open_benchmark  # noqa: E402
from facejax.faces import synthetic  # noqa: E402
from facejax.generate import Answerer  # noqa: E402
from facejax.sharding import make_mesh  # noqa: E402

# Rows answered at a time, and devices.
WAYS = {"one by one": (1, 1), "batches of 16": (16, 1), "batches of 16 on 8 devices": (16, 8)}


def folder(root: Path, items: int) -> Path:
  """Drawn faces under UTKFace's names."""
  for i in range(items):
    face = synthetic.face(i, split="test")
    name = f"{face.labels.age:.0f}_{i % 2}_{i % 5}_2017{i:09d}.jpg"
    Image.fromarray(face.image).save(root / name, quality=95)
  return root


def speeds(items: int, new_tokens: int) -> dict[str, dict]:
  """Items a second of each way, and whether the answers are those of the first."""
  config = config_io.load(Path(__file__).parents[2] / "configs/demo.py")
  params = demo.base_params(config)
  found: dict[str, dict] = {}
  with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    (root / "data").mkdir()
    benchmark = open_benchmark("utkface", folder(root / "data", items), {"split": "all"})
    answers: dict[str, dict[str, str]] = {}
    for way, (rows, devices) in WAYS.items():
      own = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, rows=rows))
      mesh = make_mesh(MeshConfig(), jax.devices()[:devices]) if devices > 1 else None
      model = suite.Model(own, Answerer(own, params, mesh), "demo_base", "demo_base")
      terms = suite.Terms(new_tokens=new_tokens, overwrite=True)
      out = root / way.replace(" ", "_")
      suite.evaluate(benchmark, model, out, terms)
      started = time.perf_counter()
      results = suite.evaluate(benchmark, model, out, terms)
      seconds = time.perf_counter() - started
      lines = (out / "predictions.jsonl").read_text().splitlines()[1:]
      answers[way] = {r["id"]: r["answer"] for r in map(json.loads, lines)}
      first = answers[next(iter(WAYS))]
      found[way] = {
        "items_per_second": round(items / results["speed"]["seconds"], 2),
        "seconds_with_tables": round(seconds, 2),
        "answers_as_one_by_one": sum(first[i] == a for i, a in answers[way].items()),
      }
  return found


def main() -> None:
  """Measures and prints; writes the result if asked to."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--items", type=int, default=96)
  parser.add_argument("--new-tokens", type=int, default=24)
  parser.add_argument("--json", default="")
  args = parser.parse_args()
  result = {
    "items": args.items,
    "new_tokens": args.new_tokens,
    "cores": os.cpu_count(),
    "load": round(os.getloadavg()[0], 1),
    "jax": jax.__version__,
    "ways": speeds(args.items, args.new_tokens),
  }
  print(json.dumps(result, indent=1))
  if args.json:
    Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
