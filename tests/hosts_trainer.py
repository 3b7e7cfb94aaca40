"""The trainer of hosts_run.py: random batches, each process its own rows."""

import argparse
import hashlib
import json
import time
from pathlib import Path

import jax
import numpy as np
import tiny_run

from facejax import distributed
from facejax.config import MeshConfig


def digest(row) -> str:
  """Of all that a row of a batch holds."""
  parts = [np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(row)]
  return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class Rows(tiny_run.FakePipeline):
  """A process's rows of random batches; read.P.jsonl in the folder says which they were."""

  folder: Path

  def __init__(self, *arguments):
    super().__init__(*arguments)
    # Made here: within jax.set_mesh each of these small arrays would be a program of all processes.
    self._drawn = [tiny_run.FakePipeline.batch(self, seed)[0] for seed in range(3)]

  def batch(self, step: int):
    time.sleep(0.1)  # leaves time to be killed between two steps
    draw = np.random.default_rng(step)
    order = draw.permutation(self.rows)
    batch = jax.tree.map(lambda x: x[order], self._drawn[step % 3])
    process, local = jax.process_index(), self.rows // jax.process_count()
    rows = range(process * local, (process + 1) * local)
    hashes = {row: digest(jax.tree.map(lambda x, r=row: x[r], batch)) for row in rows}
    with (self.folder / f"read.{process}.jsonl").open("a") as file:
      file.write(json.dumps({"step": step, "rows": hashes}) + "\n")
    return jax.tree.map(lambda x: x[rows.start : rows.stop], batch), ()


def train(args: argparse.Namespace) -> int:
  run_config = tiny_run.config(
    args.steps, log_every=1, checkpoint_every=args.every, mesh=MeshConfig(*_ints(args.mesh))
  )
  process, step = _ints(args.fail or "-1:-1")

  class Failing(Rows):
    folder = args.workdir

    def batch(self, number: int):
      if (jax.process_index(), number) == (process, step):
        raise ValueError(f"sample-{step} has no face - expected one")
      return super().batch(number)

  return tiny_run.run(args.workdir, run_config, Failing, stages=args.stages.split(","), resume=True)


def _ints(text: str) -> list[int]:
  return [int(part) for part in text.replace(":", ",").split(",")]


def main(args: argparse.Namespace) -> int:
  jax.config.update("jax_num_cpu_devices", args.devices)
  if args.processes == 1:
    return train(args)
  with distributed.joined():
    return train(args)
