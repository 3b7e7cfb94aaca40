"""`facejax plan`: what the command line asks, and what it prints."""

import dataclasses
import difflib
import json
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from facejax.config import RunConfig
  from facejax.plan.topology import Topology


def add(subparsers) -> None:
  """The command's parser; light, everything else is imported when it runs."""
  help = "memory, time and MFU of a step on a TPU pod or GPU cluster, by its compiler, from here"
  p = subparsers.add_parser("plan", help=help, description=help, allow_abbrev=False)
  p.add_argument("--config", default="", help="such as configs/face_llava_7b.py")
  p.add_argument("--stage", default="", help="default: the config's last")
  p.add_argument("--topology", required=True, help="v5e:16x16, v5p:8x8x4, v6e:16x16, h100:8, ...")
  p.add_argument("--slices", type=int, default=1, help="TPU slices that a network joins")
  p.add_argument("--mesh", default="", metavar="AXIS=N,...", help="such as fsdp=64,tensor=4")
  p.add_argument("--json", type=pathlib.Path, metavar="OUT", help="write all figures")
  p.add_argument("--html", type=pathlib.Path, metavar="OUT", help="write a page with the roofline")
  p.add_argument("--fresh", action="store_true", help="compile again what is kept on disk")
  p.add_argument("--search", action="store_true", help="try meshes, remat policies and rows")
  p.add_argument("--budget", type=float, metavar="MINUTES", help="of a search; default: 60")
  p.add_argument(
    "--generation",
    default="",
    metavar="ROWS,PROMPT,NEW",
    help="plan answering instead: prompts at a time, their tokens, tokens of an answer",
  )
  p.add_argument("--calibrate", action="store_true", help="check the planner on this chip instead")
  p.set_defaults(run=_run)


_MODES = ("search", "generation", "calibrate")
# What a mode does not read: the search chooses meshes itself, only programs of steps are kept.
_UNREAD = {
  "": ("budget",),
  "search": ("mesh",),
  "generation": ("budget", "stage", "fresh", "html"),
  "calibrate": ("budget", "stage", "fresh", "html", "mesh", "config", "overrides"),
}


def _check(args) -> None:
  """Raises ValueError for flags that cannot be followed, before anything is compiled."""
  modes = [name for name in _MODES if getattr(args, name)]
  if len(modes) > 1:
    raise ValueError(f"--{' and --'.join(modes)}: expected one of them at a time")
  mode = modes[0] if modes else ""
  if unread := [name for name in _UNREAD[mode] if getattr(args, name) not in (None, "", False, [])]:
    names = " and ".join("--config.NAME" if n == "overrides" else f"--{n}" for n in unread)
    why = f"--{mode} does not read it" if mode else "read by --search alone"
    raise ValueError(f"{names}: {why} - drop it")
  if args.budget is not None and not args.budget > 0:
    raise ValueError(f"--budget {args.budget:g}: expected minutes above 0")
  for name in ("json", "html"):
    path = getattr(args, name)
    if path and (path.is_dir() or not path.parent.is_dir()):
      raise ValueError(f"--{name} {path}: expected a file's name in a folder that exists")


def _run(args) -> None:
  import jax

  jax.config.update("jax_platforms", "cpu")  # plans compile for elsewhere; nothing runs here
  from facejax import config_io
  from facejax.plan import calibrate, generation, planner, report, search, store, topology

  _check(args)
  target = topology.describe(args.topology, args.slices)
  if args.calibrate:
    found = calibrate.run(target)
    _show(calibrate.table(found))
    _write(found, args.json)
    return
  if not args.config:
    raise ValueError("--config is missing: expected a config file, such as configs/demo.py")
  config = placed(config_io.load(args.config, args.overrides), args.mesh, target)
  if args.generation:
    result = generation.plan(config, target, *_three(args.generation))
    _show(generation.table(result))
    _write(result, args.json)
    return
  stage = _stage(config, args.stage)
  folder = None if args.fresh else store.default_folder()
  if args.search:
    seconds = 60 * (60 if args.budget is None else args.budget)
    tried = search.run(config, stage, target, args.config, seconds, folder)
    _show(search.table(tried))
    best = search.best(tried)
  else:
    program = store.step(config, stage, target, folder)
    best = planner.assess(config, stage, target, program, args.config)
    _show(report.table(best))
  if args.json:
    report.write_json(best, args.json)
  if args.html:
    from facejax.plan import page

    page.write(best, args.html)


def _write(found: Any, path: pathlib.Path | None) -> None:
  if path:
    path.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n")


def _show(text: str) -> None:
  print(text, flush=True)


def placed(config: "RunConfig", mesh: str, target: "Topology") -> "RunConfig":
  """The config on the mesh that is asked for; slices lie along "data" unless it says otherwise.

  Raises ValueError for an axis that does not exist, or a size that is no number.
  """
  import dataclasses

  from facejax.config import MeshConfig
  from facejax.sharding import MESH_AXES

  sizes: dict[str, int] = {}
  for part in filter(None, mesh.split(",")):
    axis, _, size = part.partition("=")
    if axis not in MESH_AXES:
      near = difflib.get_close_matches(axis, MESH_AXES, 1)
      raise ValueError(
        f"--mesh {mesh}: unknown axis '{axis}'{f', did you mean {near[0]}?' if near else ''} - "
        f"axes: {', '.join(MESH_AXES)}"
      )
    if axis in sizes:
      raise ValueError(f"--mesh {mesh}: {axis} is there twice - expected each axis once")
    if not size.removeprefix("-").isdigit():
      raise ValueError(f"--mesh {mesh}: '{size}' for {axis} - expected a whole number")
    sizes[axis] = int(size)
  if sizes:
    whole = {"data": target.slices} if "data" not in sizes else {}
    rest = {"fsdp": -1} if "fsdp" not in sizes and -1 not in sizes.values() else {}
    chosen = MeshConfig(**{"data": 1, **whole, **rest, **sizes})
  else:
    chosen = config.mesh
    if chosen.data > 0 and chosen.data % target.slices:
      chosen = dataclasses.replace(chosen, data=chosen.data * target.slices)
  return dataclasses.replace(config, mesh=chosen)


def _stage(config: "RunConfig", name: str) -> str:
  names = list(config.stages)
  if name and name not in names:
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"--stage {name}: the config has {', '.join(names)}{hint}")
  return name or names[-1]


def _three(text: str) -> tuple[int, int, int]:
  parts = text.split(",")
  if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
    raise ValueError(f"--generation {text}: expected ROWS,PROMPT,NEW, such as 64,512,128")
  rows, prompt, new = (int(part) for part in parts)
  if new < 2:
    raise ValueError(
      f"--generation {text}: expected at least 2 new tokens; prefill draws the first"
    )
  return rows, prompt, new
