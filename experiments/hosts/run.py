"""Four processes of two CPU devices train; one is killed; two processes go on. Kill after kill.

python experiments/hosts/run.py --kills 4 --json OUT

Every launch is `facejax train` as it would be typed. Compared with one process that nobody kills:
the loss of every step, and the hash of every batch as 1, 2 and 4 processes put it together.
"""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from facejax import checkpoint, config_io, logs
from facejax.data.pipeline import Pipeline

CONFIG = Path(__file__).with_name("config.py")
TIMEOUT = 20.0  # --heartbeat-timeout of the launches, seconds
LONGEST = 900.0  # of one launch


@dataclasses.dataclass
class Kill:
  """One process killed, and what the others did."""

  processes: int
  killed: int
  machine: bool  # trainer and keeper at once; else the trainer alone
  after_step: int
  statuses: list[int]
  seconds: float  # from the kill until the last process had stopped
  messages: list[str]  # the last of each of the others
  named: bool  # each of the others named the one that was killed


class Launch:
  """Processes of `facejax train` on this machine."""

  def __init__(self, workdir: Path, processes: int, devices: int):
    with socket.create_server(("127.0.0.1", 0)) as server:
      address = f"127.0.0.1:{server.getsockname()[1]}"
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "PYTHONUNBUFFERED": "1",
    }
    self.folder = Path(tempfile.mkdtemp(dir=workdir.parent, prefix=f"{workdir.name}_log_"))
    flags = ["--coordinator", address, "--processes", str(processes)] if processes > 1 else []
    flags += ["--heartbeat-timeout", str(TIMEOUT)]
    command = [sys.executable, "-m", "facejax.cli", "train", "--config", str(CONFIG), "--workdir"]
    self.children = []
    for index in range(processes):
      with (self.folder / str(index)).open("w") as out:
        own = [*command, str(workdir), "--resume", *flags]
        own += ["--process", str(index)] if processes > 1 else []
        child = subprocess.Popen(own, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self.children.append(child)

  def text(self, index: int) -> str:
    """What process `index` has said."""
    return (self.folder / str(index)).read_text()

  def wait_for(self, step: int) -> int:
    """Returns the last step that was reported, once `step` is."""
    deadline = time.monotonic() + LONGEST
    while True:
      lines = [line.split() for line in self.text(0).splitlines() if line.startswith("base ")]
      steps = [int(words[1].split("/")[0]) for words in lines if "/" in words[1]]
      if steps and steps[-1] >= step:
        return steps[-1]
      if time.monotonic() > deadline or self.children[0].poll() is not None:
        raise RuntimeError(f"no step {step}:\n{self.text(0)[-3000:]}")
      time.sleep(0.02)

  def wait(self) -> list[int]:
    """Exit statuses, once all have ended."""
    try:
      return [child.wait(LONGEST) for child in self.children]
    finally:
      for child in self.children:
        child.kill()


def kill(workdir: Path, processes: int, victim: int, machine: bool, step: int) -> Kill:
  """Starts a run, kills one process after `step`, and waits for the others."""
  launch = Launch(workdir, processes, 8 // processes)
  reported = launch.wait_for(step)
  keeper = launch.children[victim].pid
  trainer = int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[0])
  began = time.monotonic()
  for pid in [trainer, *([keeper] if machine else [])]:
    os.kill(pid, signal.SIGKILL)
  statuses = launch.wait()
  seconds = time.monotonic() - began
  others = [index for index in range(processes) if index != victim]
  said = [launch.text(index).strip().splitlines()[-1] for index in others]
  start = f"facejax: process {victim} of {processes} ("
  named = all(line.startswith(start) for line in said)
  return Kill(processes, victim, machine, reported, statuses, round(seconds, 2), said, named)


def losses(workdir: Path) -> list[float]:
  records = logs.read_until(workdir / "base" / "metrics.jsonl", 10**9)
  assert [record["step"] for record in records] == list(range(1, len(records) + 1))
  return [record["loss"] for record in records]


def row_hashes(processes: int) -> list[str]:
  """Of each step's whole batch, as `processes` processes read it, each its rows."""
  run = config_io.load(str(CONFIG), [])
  stage = run.stages["base"]
  make = lambda p: Pipeline(
    run.model, run.data, stage.rows, stage.modalities, stage.mixtures, process=(p, processes)
  )
  parts = [make(p) for p in range(processes)]
  hashes = []
  for step in range(stage.steps):
    leaves = zip(*(jax.tree.leaves(part.batch(step)[0]) for part in parts), strict=True)
    whole = b"".join(np.concatenate(blocks).tobytes() for blocks in leaves)
    hashes.append(hashlib.sha256(whole).hexdigest()[:16])
  return hashes


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=4)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--json", type=Path)
  args = parser.parse_args()
  began = time.monotonic()
  folder = Path(tempfile.mkdtemp(prefix="hosts_"))
  draw = random.Random(args.seed)
  peace = Launch(folder / "peace", 1, 8)
  assert peace.wait() == [0], peace.text(0)
  wanted = losses(folder / "peace")
  steps = len(wanted)
  hashes = {processes: row_hashes(processes) for processes in (1, 2, 4)}
  kills, worst = [], 0.0
  for number in range(args.kills):
    workdir = folder / f"war{number}"
    victim = 0 if number == 1 else draw.randrange(4)  # once at least the coordinator
    kills.append(kill(workdir, 4, victim, number % 2 == 0, draw.randint(4, steps - 3)))
    print(kills[-1], flush=True)
    left = checkpoint.steps_in(workdir / "base")
    again = Launch(workdir, 2, 4)
    statuses = again.wait()
    assert statuses == [0, 0], again.text(0)[-3000:]
    found = losses(workdir)
    worst = max(worst, *(abs(a - b) for a, b in zip(found, wanted, strict=True)))
    print(
      f"resumed by 2 processes from {left}: largest difference of a loss {worst:.2g}", flush=True
    )
  result = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__, "python": platform.python_version()},
    "heartbeat_timeout": TIMEOUT,
    "steps": steps,
    "batches_equal": hashes[1] == hashes[2] == hashes[4],
    "largest_loss_difference": worst,
    "kills": [dataclasses.asdict(kill) for kill in kills],
    "seconds": round(time.monotonic() - began),
  }
  print(json.dumps(result, indent=1))
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")
  shutil.rmtree(folder)
  good = result["batches_equal"] and worst < 1e-5 and all(k.named for k in kills)
  raise SystemExit(0 if good else 1)


if __name__ == "__main__":
  main()
