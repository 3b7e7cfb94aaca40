"""Host memory while a checkpoint is read onto devices, against the size of what is read.

python experiments/hosts/restore.py --gib 2 --json OUT

A random state is saved from 8 CPU devices of one process; fresh processes read it onto 8 devices,
onto 2 processes of 4, and onto one device. A CPU device's arrays are host memory, so a restore that
keeps no copy peaks at the size of its own slices.
"""

import argparse
import datetime
import json
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from facejax.checkpoint import Checkpoints
from facejax.config import MeshConfig
from facejax.sharding import make_mesh
from facejax.state import TrainState

SHAPE = (4096, 8192)  # 128 MiB in float32: a layer's feed-forward matrix of a 7B model
MIB = 2**20


def peak_mib() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def abstract(arrays: int) -> TrainState:
  """Shapes and layouts: each matrix in slices along its first axis, on all devices."""
  mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
  sliced, everywhere = (NamedSharding(mesh, s) for s in (PartitionSpec("fsdp"), PartitionSpec()))
  weight = jax.ShapeDtypeStruct(SHAPE, jnp.float32, sharding=sliced)
  place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
  key = place(jax.eval_shape(lambda: jax.random.key(0)))
  step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
  return TrainState(step, {"layers": {str(i): weight for i in range(arrays)}}, {}, (), key)


def work(args: argparse.Namespace) -> None:
  """Saves or reads, in a process of its own; prints what it took."""
  jax.config.update("jax_num_cpu_devices", args.devices)
  if args.of > 1:
    jax.distributed.initialize(args.address, args.of, args.process)
  target = abstract(args.arrays)
  with Checkpoints(args.folder, keep=None) as checkpoints:
    if args.do == "save":
      layout = jax.tree.map(lambda x: x.sharding, target)
      draw = lambda key, x: jax.random.normal(key, x.shape, x.dtype)

      def make():
        keys = jax.random.split(jax.random.key(7), args.arrays)
        matrices = enumerate(target.trainable["layers"].items())
        layers = {name: draw(keys[i], x) for i, (name, x) in matrices}
        return TrainState(jnp.int32(1), {"layers": layers}, {}, (), jax.random.key(5))

      checkpoints.save(1, jax.jit(make, out_shardings=layout)(), {})
      return
    jax.block_until_ready(jnp.zeros(8))
    before, began = peak_mib(), time.monotonic()
    state = jax.block_until_ready(checkpoints.restore(1, target))
    seconds = time.monotonic() - began
  local = sum(s.data.nbytes for x in jax.tree.leaves(state.params) for s in x.addressable_shards)
  rest = peak_mib() - before - local / MIB
  record = {"slices_mib": local / MIB, "above_slices_mib": rest, "seconds": seconds}
  print(json.dumps({name: round(value, 1) for name, value in record.items()}))


def start(folder: Path, args: argparse.Namespace, do: str, devices: int, of: int = 1) -> list[dict]:
  with socket.create_server(("127.0.0.1", 0)) as server:
    address = f"127.0.0.1:{server.getsockname()[1]}"
  flags = ["--do", do, "--folder", folder, "--devices", devices, "--of", of, "--address", address]
  flags += ["--gib", args.gib]
  command = [sys.executable, __file__, *map(str, flags), "--process"]
  run = lambda i: subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True)
  children = [run(i) for i in range(of)]
  texts = [child.communicate()[0] for child in children]
  assert not any(child.returncode for child in children)
  return [json.loads(line) for text in texts for line in text.splitlines() if line[0] == "{"]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--gib", type=float, default=2.0)
  parser.add_argument("--json", type=Path)
  for name, kind in (("do", str), ("folder", Path), ("address", str)):
    parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
  for name in ("devices", "of", "process"):
    parser.add_argument(f"--{name}", type=int, default=1, help=argparse.SUPPRESS)
  args = parser.parse_args()
  args.arrays = round(args.gib * 2**30 / (4 * SHAPE[0] * SHAPE[1]))
  if args.do:
    work(args)
    return
  folder = Path(tempfile.mkdtemp(prefix="restore_"))
  start(folder, args, "save", 8)
  onto = {
    "1 process x 8 devices": start(folder, args, "restore", 8),
    "2 processes x 4 devices": start(folder, args, "restore", 4, 2),
    "1 process x 1 device": start(folder, args, "restore", 1),
  }
  shutil.rmtree(folder)
  result = {
    "date": datetime.date.today().isoformat(),
    "jax": jax.__version__,
    "saved_mib": args.arrays * 128,
    "restored_onto": onto,
  }
  print(json.dumps(result, indent=1))
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
