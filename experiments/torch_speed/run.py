"""Training steps and greedy decoding beside transformers, on this CPU.

  python experiments/torch_speed/run.py --json experiments/torch_speed/result.json

Needs torch and transformers beside facejax, and Linux. Each side is a process of its own, with the
same number of threads; they take turns, and their losses and tokens are compared first. The
compiled sides come last: torch.compile alone takes minutes the first time.
"""

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time
from typing import NamedTuple

import numpy as np
import sizes

# Of a loss of some 9 nats: sums in another order; factors of eight bits in bfloat16.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}


class Work(NamedTuple):
  """What is measured: a class of the sides, their batches, a type, repetitions after the first."""

  kind: str
  batches: dict[str, str]
  dtype: str = "float32"
  repeats: int = 5


def alike(kind: str, batch: str, dtype: str = "float32", repeats: int = 5, other="eager") -> Work:
  return Work(kind, {"facejax": batch, other: batch}, dtype, repeats)


WORKS = {
  "step": alike("Step", "padded_0"),
  "step, a clip": alike("Step", "padded_1", repeats=2),
  "step, bfloat16": alike("Step", "padded_0", "bfloat16", 3),
  "decode 1": alike("Decode", "prompt_1", repeats=7),
  "decode 8": alike("Decode", "prompt_8"),
  "prefill 1": alike("Prefill", "prompt_1", repeats=7),
  "prefill 8": alike("Prefill", "prompt_8"),
  "decode 1, bfloat16": alike("Decode", "prompt_1", "bfloat16", 3),
  **{f"packed, {name}": Work("Step", {"facejax": name}, repeats=2) for name in sizes.PACKED},
  "stage 1": Work("Stage1", {"packed": "2 rows of 4000", "padded": "padded_1"}, repeats=2),
  "stage 2": Work("Stage2", {"packed": "2 rows of 4000", "padded": "padded_1"}, repeats=2),
  "step, compiled": alike("Step", "padded_0", repeats=3, other="compiled"),
  "decode 1, compiled": alike("Decode", "prompt_1", repeats=3, other="compiled"),
}


def serve(pipe, side: str, folder: pathlib.Path, work: Work) -> None:
  """One side of a work in a process of its own: a repetition a message, until None comes."""
  arguments = folder, work.batches[side], work.dtype
  if side in ("eager", "compiled"):
    import torch
    import torch_side

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    runner = getattr(torch_side, work.kind)(*arguments, side == "compiled")
  else:
    import jax_side

    runner = getattr(jax_side, work.kind)(*arguments)
  while pipe.recv():
    start, cpu = time.perf_counter(), time.process_time()
    result = runner.run()
    pipe.send((time.perf_counter() - start, time.process_time() - cpu, result))
  status = pathlib.Path("/proc/self/status").read_text()
  pipe.send(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def measure(work: Work, folder: pathlib.Path) -> dict[str, dict]:
  """Medians of each side's seconds. The sides take turns; the first turn compiles."""
  context = multiprocessing.get_context("spawn")
  pipes, runs = {}, {side: [] for side in work.batches}
  for side in work.batches:
    pipes[side], other = context.Pipe()
    context.Process(target=serve, args=(other, side, folder, work), daemon=True).start()
  for _ in range(work.repeats + 1):
    for side, pipe in pipes.items():
      pipe.send(True)
      runs[side].append(pipe.recv())
      time.sleep(0.3)  # threads of OpenMP spin for a while after their work
  out = {}
  for side, pipe in pipes.items():
    pipe.send(None)
    wall, cpu, _ = zip(*runs[side][1:], strict=True)
    out[side] = {
      "seconds": round(statistics.median(wall), 4),
      "least_seconds": round(min(wall), 4),
      "processor_seconds": round(statistics.median(cpu), 4),
      "first_seconds": round(runs[side][0][0], 2),
      "peak_mb": round(pipe.recv()),
    }
  if len({*work.batches.values()}) == 1 and len(out) == 2:
    out |= _compared(work, *out.values(), *([run[2] for run in runs[side]] for side in out))
  return out


def _compared(work: Work, ours: dict, theirs: dict, results, others) -> dict:
  """How much faster we are, and how far apart the results. Raises ValueError if too far."""
  ratios = {key: round(theirs[key] / ours[key], 2) for key in ("seconds", "processor_seconds")}
  different = float(np.abs(np.subtract(results, others)).max())
  if work.kind == "Step" and different > TOLERANCE[work.dtype]:
    raise ValueError(f"losses {results} and {others} - expected the same to {TOLERANCE}")
  if work.kind == "Decode" and work.dtype == "float32" and different:
    raise ValueError(f"tokens {results[0]} and {others[0]} - expected the same")
  name = "loss_difference" if work.kind == "Step" else "tokens_that_differ"
  if work.kind != "Step":
    different = float((np.array(results[0]) != np.array(others[0])).mean())
  return {"times_faster": ratios, name: different}


def summary(found: dict[str, dict], useful_tokens: dict[str, float]) -> dict:
  """Decoding without prefill, and useful tokens a second of packed steps and padded ones.

  A padded batch is of samples drawn one by one; with more than one clip it is taken to cost what
  one with one clip does, which is less than it does cost.
  """
  out = {}
  for rows in ("1", "8"):
    if {f"decode {rows}", f"prefill {rows}"} <= found.keys():
      seconds = lambda side, rows=rows: (
        found[f"decode {rows}"][side]["seconds"] - found[f"prefill {rows}"][side]["seconds"]
      )
      ms = {side: 1e3 * seconds(side) / (sizes.NEW - 1) for side in ("facejax", "eager")}
      out[f"ms a token behind the first, batch {rows}"] = {
        **{side: round(x, 2) for side, x in ms.items()},
        "times_faster": round(ms["eager"] / ms["facejax"], 2),
      }
  if not {"step", "step, a clip"} <= found.keys():
    return out
  no_clip = (1 - sizes.CLIPS) ** sizes.BATCH
  useful = sizes.BATCH * sum(
    share * sizes.LENGTH[kind]
    for kind, share in (("image", 1 - sizes.CLIPS), ("video", sizes.CLIPS))
  )
  rates = {}
  for clock in ("seconds", "processor_seconds"):
    padded = {
      side: useful
      / (no_clip * found["step"][side][clock] + (1 - no_clip) * found["step, a clip"][side][clock])
      for side in ("facejax", "eager")
    }
    rates[clock] = {
      **{f"{side}, padded": round(rate, 1) for side, rate in padded.items()},
      **{
        f"facejax, packed, {name}": round(
          useful_tokens[name] / found[f"packed, {name}"]["facejax"][clock], 1
        )
        for name in sizes.PACKED
        if f"packed, {name}" in found
      },
    }
    rates[clock]["times_faster"] = {
      name: round(rate / padded["eager"], 2) for name, rate in rates[clock].items()
    }
  return {**out, "useful tokens a second": rates}


def measured(threads: int) -> dict:
  """When, and with what."""
  packages = ("facejax", "jax", "jaxlib", "numpy", "torch", "transformers")
  cpu = (
    pathlib.Path("/proc/cpuinfo").read_text().split("model name")[1].splitlines()[0].strip(" :\t")
  )
  return {
    "date": datetime.date.today().isoformat(),
    "machine": f"{cpu}, {os.cpu_count()} cores, {platform.machine()}",
    "threads": threads,
    "load_before": os.getloadavg()[0],
    "python": platform.python_version(),
    **{name: importlib.metadata.version(name) for name in packages},
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", type=pathlib.Path, help="file for the figures")
  parser.add_argument("--threads", type=int, default=2, help="of each side")
  parser.add_argument("--only", nargs="+", default=list(WORKS), choices=WORKS, metavar="WORK")
  parser.add_argument("--repeats", type=int, help="of each work, if not its own")
  args = parser.parse_args()
  import shapes  # brings JAX, which the processes of torch, started from this file, are to lack

  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
  os.environ["OMP_NUM_THREADS"] = str(args.threads)
  found: dict[str, dict] = {}
  about = measured(args.threads)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    shapes.write(folder)
    useful = {name: shapes.useful_tokens(name) for name in sizes.PACKED}
    for title in args.only:
      work = WORKS[title]
      found[title] = measure(work._replace(repeats=args.repeats or work.repeats), folder)
      print(title, json.dumps(found[title], indent=1), flush=True)
      result = {**about, "load_after": os.getloadavg()[0], **summary(found, useful), "works": found}
      if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
  print(json.dumps({key: x for key, x in result.items() if key != "works"}, indent=1))


if __name__ == "__main__":
  main()
