"""One process of a small run of several, with its keeper; a program, to be killed.

python tests/hosts_run.py WORKDIR --processes N --process I --coordinator HOST:PORT [--devices D]
"""

import argparse
import os
import sys
from pathlib import Path

from facejax import hub, keeper


def parse(argv: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  parser.add_argument("workdir", type=Path)
  parser.add_argument("--coordinator")
  parser.add_argument("--processes", type=int, default=1)
  parser.add_argument("--process", type=int, default=0)
  parser.add_argument("--devices", type=int, default=2)
  parser.add_argument("--steps", type=int, default=6)
  parser.add_argument("--every", type=int, default=2)
  parser.add_argument("--mesh", default="-1,1,1,1", help="data,fsdp,context,tensor")
  parser.add_argument("--stages", default="base")
  parser.add_argument("--wait", type=float, default=120)
  parser.add_argument("--silence", type=float, default=10)
  parser.add_argument("--fail", default="", help="PROCESS:STEP at which that one raises")
  parser.add_argument("--own-folder", action="store_true", help="a workdir for each process")
  return parser.parse_args(argv)


def main() -> int:
  args = parse(sys.argv[1:])
  if args.own_folder:
    args.workdir = args.workdir.with_name(f"{args.workdir.name}{args.process}")
  args.workdir.mkdir(exist_ok=True)
  if args.processes == 1 or keeper.ENVIRONMENT in os.environ:
    import hosts_trainer  # a keeper does without JAX

    return hosts_trainer.main(args)
  cluster = keeper.Cluster(args.coordinator, args.processes, args.process)
  settings = {"steps": args.steps, "mesh": args.mesh}
  command = [sys.executable, __file__, *sys.argv[1:]]
  return keeper.keep(command, cluster, hub.Limits(args.wait, args.silence), settings)


if __name__ == "__main__":
  sys.exit(main())
