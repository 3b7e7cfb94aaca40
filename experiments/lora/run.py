"""Adapters on the demo's base model: counts, the base, resume, merging, 8 and 4 bits, time a step.

python experiments/lora/run.py --json experiments/lora/result.json
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from facejax import checkpoint, config_io, lora, stages
from facejax.config import (
  DataConfig,
  LoraConfig,
  MeshConfig,
  OptimConfig,
  RunConfig,
  StageConfig,
  SyntheticConfig,
)
from facejax.data.pipeline import Pipeline
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM, init_shapes
from facejax.sharding import make_mesh
from facejax.state import abstract_state, init_state
from facejax.train import make_train_step, put, train

CONFIG = Path(__file__).parents[2] / "configs/demo_lora.py"
BASES = ("model", "int8", "nf4")
ROWS = 16
TIMED = 4  # rows of the steps that are timed


def config(base: str, steps: int) -> RunConfig:
  """configs/demo_lora.py with so many steps, three checkpoints and a base held so."""
  return config_io.load(CONFIG, settings(base, steps))


def settings(base: str, steps: int) -> list[str]:
  """What differs from the file."""
  return [f"stages.lora.lora.base={base}", f"stages.lora.steps={steps}",
          f"checkpoint_every={steps // 3}", "keep=99"]  # fmt: skip


def counts() -> dict:
  """Trainable parameters of FaceLLM, from shapes alone."""
  found = {}
  for size in ("1b", "8b", "38b"):
    shapes = lora.with_adapters(init_shapes(getattr(presets, f"internvl3_{size}")()), LoraConfig())
    trained, _ = stages.split(shapes, stages.adapters(1, 1, ""))
    found[size] = sum(math.prod(x.shape) for x in jax.tree.leaves(trained))
  return found


def held_out(run: RunConfig, batches: int) -> list:
  """Batches of faces that no stage trains on."""
  data = dataclasses.replace(run.data, synthetic=SyntheticConfig(turns=5, split="test"))
  pipeline = Pipeline(run.model, data, ROWS, ())
  return [pipeline.batch(step)[0] for step in range(batches)]


def mean_loss(run: RunConfig, params, batches) -> float:
  """Nats a target token."""
  ask = jax.jit(lambda params, batch: FaceMLLM(run.model).apply(
    {"params": params}, batch, method="loss"))  # fmt: skip
  sums = [ask(params, batch) for batch in batches]
  return float(sum(s for s, _ in sums) / sum(w for _, w in sums))


def one_base(base: str, steps: int, batches, workdir: Path) -> dict:
  """Trains; what the base costs in bytes and in loss, before and after, and what is merged."""
  run = config(base, steps)
  stage, mesh = run.stages["lora"], make_mesh(run.mesh, jax.devices()[:1])
  abstract = abstract_state(FaceMLLM(run.model), stage, mesh)
  before = checkpoint.start(run, workdir, "lora", abstract).state
  frozen = jax.device_get(before.frozen)
  result = {"loss_before": mean_loss(run, before.params, batches)}
  assert train(run, workdir) == 0
  _, params, folder = checkpoint.load_run(workdir)
  after = lora.flatten(params)
  same = [np.array_equal(after[name], x) for name, x in lora.flatten(frozen).items()]
  model, merged = FaceMLLM(run.model), lora.merge(params)
  apply = jax.jit(lambda params, batch: model.apply({"params": params}, batch))
  scores, of_merged = (np.asarray(apply(p, batches[0])) for p in (params, merged))
  kernels = [n for n in lora.flatten(init_shapes(run.model)) if "/blocks/" in n and "kernel" in n]
  size = lambda path: sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
  return result | {
    "loss_after": mean_loss(run, params, batches),
    "loss_after_merged": mean_loss(run, merged, batches),
    "frozen_parameters_bit_identical": f"{sum(same)} of {len(same)}",
    "merged_minus_unmerged_logits": float(np.abs(scores - of_merged).max()),
    "largest_logit": float(np.abs(scores).max()),
    "bits_a_frozen_block_weight": round(_bits(after, kernels), 2),
    "checkpoint_bytes": size(folder / "checkpoints" / str(steps)),
  }


def _bits(params, kernels) -> float:
  """A weight of the blocks, scales counted, on devices that pack two numbers of 4 bits."""
  bits = 0
  for name in kernels:
    held, scale = params[name], params.get(f"{name}_scale")
    bits += held.size * (4 if held.dtype.name == "uint4" else 8 * held.dtype.itemsize)
    bits += 0 if scale is None else 32 * scale.size
  return bits / sum(params[name].size for name in kernels)


def killed(clean: Path, steps: int, kills: int, workdir: Path) -> dict:
  """SIGKILL at steps all over the run, then --resume: the adapters and optimiser of both runs."""
  command = [sys.executable, "-m", "facejax.cli", "train", "--config", str(CONFIG), "--workdir",
             str(workdir / "run"), "--resume"]  # fmt: skip
  command += [f"--config.{setting}" for setting in settings("model", steps)]
  resumed = []
  for number in range(kills):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    aim = steps * (number + 1) // (kills + 1)
    while process.poll() is None and _reached(workdir / "run/lora/metrics.jsonl") < aim:
      time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    resumed.append(checkpoint.steps_in(workdir / "run/lora")[-1:])
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  items = [folder / "lora/checkpoints" / str(steps) for folder in (clean, workdir / "run")]
  own = [_item(item, name) for name in ("params", "train") for item in items]
  equal = [all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
           for a, b in (own[:2], own[2:])]  # fmt: skip
  return {"kills": kills, "last_checkpoint_at_each": resumed, "adapters_bit_identical": equal[0],
          "optimiser_bit_identical": equal[1]}  # fmt: skip


def _reached(metrics: Path) -> int:
  """The last step that a run reports."""
  text = metrics.read_text() if metrics.exists() else ""
  return json.loads(text.splitlines()[-1])["step"] if text.endswith("\n") else 0


def _item(item: Path, name: str) -> list:
  """The arrays of an item of a checkpoint; of keys, the bits."""
  leaves = jax.tree.leaves(ocp.StandardCheckpointer().restore(item / name))
  is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  return [jax.random.key_data(x) if is_key(x) else x for x in leaves]


def step_times(repeats: int) -> dict:
  """Median seconds of steps in turn: all of the decoder, adapters, adapters over 8 and 4 bits.

  A decoder that outweighs its vocabulary, as those of billions do: the demo's has a third there.
  """
  small = presets.demo(vocab=1024)
  model = dataclasses.replace(
    small, fusion=None, segmentation=dataclasses.replace(small.segmentation, mode="off"),
    decoder=dataclasses.replace(
      small.decoder, width=384, layers=4, heads=6, kv_heads=3, head_width=64, mlp=1056),
  )  # fmt: skip
  full = StageConfig(("decoder/.*",), OptimConfig(1e-5), 99, TIMED, modalities=())
  kinds = {"full": full} | {
    f"adapters_{base}": dataclasses.replace(
      stages.adapters(99, TIMED, ""), lora=LoraConfig(base=base)
    )
    for base in BASES
  }
  data = DataConfig(row_length=352, modalities=(), synthetic=SyntheticConfig(turns=5))
  batch = Pipeline(model, data, TIMED, ()).batch(0)[0]
  mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
  running, taken = {}, {name: [] for name in kinds}
  for name, stage in kinds.items():
    state = init_state(FaceMLLM(model), stage, abstract_state(FaceMLLM(model), stage, mesh), 0)
    running[name] = [make_train_step(FaceMLLM(model), stage, mesh), state]
  with jax.set_mesh(mesh):
    placed = put(batch, TIMED, mesh)
    for turn in range(repeats + 1):
      for name, (step, state) in running.items():
        began = time.process_time(), time.perf_counter()
        state, metrics = step(state, placed)
        assert math.isfinite(float(metrics["loss"]))
        running[name][1] = state
        if turn:
          taken[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
  names = ("processor_seconds", "seconds")
  columns = {name: list(zip(*rows, strict=True)) for name, rows in taken.items()}
  return {
    name: {n: round(statistics.median(c), 3) for n, c in zip(names, column, strict=True)}
    for name, column in columns.items()
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path)
  parser.add_argument("--steps", type=int, default=45)
  parser.add_argument("--kills", type=int, default=3)
  parser.add_argument("--repeats", type=int, default=5)
  args = parser.parse_args()
  small = init_shapes(presets.demo(vocab=1024))
  result: dict = {
    "date": datetime.date.today().isoformat(),
    "cpu": platform.processor() or platform.machine(),
    "cores": os.cpu_count(),
    "jax": jax.__version__,
    "steps": args.steps,
    "parameters_of_the_small_model": sum(math.prod(x.shape) for x in jax.tree.leaves(small)),
  }

  def note(name: str, value) -> None:
    """Written at once: a machine that is busy may take an hour for all of it."""
    result[name] = value
    print(json.dumps({name: value}, indent=1), flush=True)
    if args.json:
      args.json.write_text(json.dumps(result, indent=1) + "\n")

  note("trainable", counts())
  batches = held_out(config("model", args.steps), 6)
  with tempfile.TemporaryDirectory() as folder:
    for base in BASES:
      note(base, one_base(base, args.steps, batches, Path(folder) / base))
    runs = Path(folder) / "model", args.steps, args.kills, Path(folder) / "killed"
    note("killed", killed(*runs))
  note("load", os.getloadavg()[0])
  note("seconds_a_step", step_times(args.repeats))


if __name__ == "__main__":
  main()
