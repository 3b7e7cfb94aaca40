"""Kills a training run with SIGKILL at random steps of every stage; compares the last parameters.

python experiments/resume_campaign/run.py --kills 30 --devices 8 --json OUT
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

from facejax import checkpoint, logs, stages
from facejax.config import DataConfig, MeshConfig, RunConfig
from facejax.models import presets
from facejax.train import train

STEPS = 12  # of each stage
ROWS = 8
MAX_DELAY = 0.15  # seconds between the report of a step and the kill: into the next, or a save
Command = Callable[[Path], list[str]]


def config(devices: int) -> RunConfig:
  """The demo's model and data in steps of eight faces; a checkpoint every third step."""
  return RunConfig(
    model=presets.demo(vocab=1024),
    data=DataConfig(row_length=184),
    stages={
      "base": stages.base(STEPS, ROWS),
      "stage1": stages.stage1(STEPS, ROWS, peak_lr=1e-3),
      "stage2": stages.stage2(STEPS, ROWS, peak_lr=1e-3),
    },
    mesh=MeshConfig(data=-1, fsdp=2 if devices > 1 else 1),
    checkpoint_every=3,
    log_every=1,
  )


@dataclasses.dataclass(frozen=True)
class Kill:
  """One SIGKILL: the last step that was reported before it, and what it left on disk."""

  stage: str
  step: int
  checkpoints: tuple[int, ...]  # complete ones
  during_save: bool  # an unfinished one was left


def positions(names: Sequence[str], steps: int, kills: int, seed: int) -> list[tuple[str, int]]:
  """Random (stage, step), in the order of a run, equally many in each stage up to one."""
  draw = random.Random(seed)
  shares = [kills // len(names) + (i < kills % len(names)) for i in range(len(names))]
  return [
    (name, step)
    for name, share in zip(names, shares, strict=True)
    for step in sorted(draw.randint(1, steps - 1) for _ in range(share))
  ]


def kill_at(command: list[str], workdir: Path, stage: str, step: int, delay: float) -> Kill:
  """Runs `command` until it reports `step` of `stage`, waits `delay` seconds, kills it.

  Raises RuntimeError if it ends by itself before.
  """
  process = subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
  )
  assert process.stderr
  seen: list[str] = []
  for line in process.stderr:
    seen.append(line)
    words = line.split()
    if words[:1] == [stage] and "/" in words[1] and int(words[1].split("/")[0]) >= step:
      time.sleep(delay)
      break
  alive = process.poll() is None
  if alive:
    os.killpg(process.pid, signal.SIGKILL)
  rest = process.stderr.read()
  if process.wait() != -signal.SIGKILL:
    raise RuntimeError(
      f"{command} ended with status {process.returncode} before it was killed at {stage} {step}:\n"
      + "".join(seen[-20:])
      + rest
    )
  reported = [
    line.split()[1] for line in [*seen, *rest.splitlines()] if line.startswith(f"{stage} ")
  ]
  folder = workdir / stage / "checkpoints"
  unfinished = [p for p in folder.glob("*") if not p.name.isdigit()] if folder.is_dir() else []
  return Kill(
    stage,
    int(reported[-1].split("/")[0]),
    tuple(checkpoint.steps_in(workdir / stage)),
    bool(unfinished),
  )


def difference(a: dict, b: dict) -> int:
  """Parameters whose bits differ."""
  first, second = (flax.traverse_util.flatten_dict(tree, sep="/") for tree in (a, b))
  assert set(first) == set(second), set(first) ^ set(second)
  bits = lambda x: np.asarray(x).view(np.dtype(f"u{x.dtype.itemsize}"))
  return sum(int((bits(first[name]) != bits(second[name])).sum()) for name in first)


def campaign(
  command: Command, names: Sequence[str], steps: int, kills: int, seed: int, folder: Path
) -> tuple[list[Kill], dict[str, int]]:
  """One run in peace and one that is killed `kills` times: the kills, and differing parameters.

  command(workdir) is a program that trains with resume=True and reports every step on stderr.
  """
  peace, war = folder / "peace", folder / "war"
  subprocess.run(command(peace), check=True, stdout=subprocess.DEVNULL)
  draw = random.Random(seed + 1)
  done = []
  for stage, step in positions(names, steps, kills, seed):
    delay = draw.uniform(0, MAX_DELAY) if step < steps - 1 else 0
    done.append(kill_at(command(war), war, stage, step, delay))
    print(f"killed {done[-1]}", flush=True)
  subprocess.run(command(war), check=True, stdout=subprocess.DEVNULL)
  load = lambda workdir, name: checkpoint.load_params(workdir / name, step=steps)
  return done, {name: difference(load(peace, name), load(war, name)) for name in names}


def table(done: Sequence[Kill], different: dict[str, int]) -> str:
  """A line a stage."""
  lines = ["stage    kills  during a save  at steps                      parameters that differ"]
  for name, count in different.items():
    own = [kill for kill in done if kill.stage == name]
    at = " ".join(str(kill.step) for kill in own)
    during = sum(kill.during_save for kill in own)
    lines.append(f"{name:8} {len(own):5}  {during:13}  {at:28}  {count:22}")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--devices", type=int, choices=(1, 8), default=1)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--json", type=Path)
  parser.add_argument(
    "--train", type=Path, help="only train in this workdir (the run to be killed)"
  )
  args = parser.parse_args()
  if args.train:
    jax.config.update("jax_num_cpu_devices", args.devices)
    raise SystemExit(train(config(args.devices), args.train, resume=True))
  began = time.monotonic()
  folder = Path(tempfile.mkdtemp(prefix="resume_campaign_"))
  command = lambda workdir: [
    sys.executable, __file__, "--train", str(workdir), "--devices", str(args.devices)
  ]  # fmt: skip
  names = list(config(args.devices).stages)
  done, different = campaign(command, names, STEPS, args.kills, args.seed, folder)
  print(table(done, different))
  result = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__, "python": platform.python_version()},
    "devices": args.devices,
    "steps_a_stage": STEPS,
    "kills": [dataclasses.asdict(kill) for kill in done],
    "parameters_that_differ": different,
    "seconds": round(time.monotonic() - began),
    "peak_rss_gib": round(logs.memory_gib(), 2),
  }
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")
  shutil.rmtree(folder)
  raise SystemExit(1 if any(different.values()) else 0)


if __name__ == "__main__":
  main()
