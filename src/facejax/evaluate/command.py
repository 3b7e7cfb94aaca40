"""`facejax evaluate --suite NAMES` and `--compare RUN RUN`: what the command line asks, and prints.

Light until it runs: the parser is made for every command.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from facejax.evaluate.suite import Model, Terms


def add_flags(p: argparse.ArgumentParser) -> None:
  """The flags of benchmarks, beside those of drawn faces."""
  g = p.add_argument_group("benchmarks")
  g.add_argument("--suite", default="", metavar="NAMES", help="such as facexbench,rafdb")
  g.add_argument("--checkpoint", metavar="FOLDER", help="a workdir, or released weights")
  g.add_argument(
    "--data",
    action="append",
    default=[],
    metavar="[NAME=]FOLDER",
    help="of a benchmark; without NAME=, of all of them, each in a folder of its name",
  )
  g.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="NAME.OPTION=VALUE",
    help="such as facexbench.setting=in_context or dfew.fold=2",
  )
  g.add_argument(
    "--write-index",
    metavar="FOLDER",
    help="write FOLDER/NAME.json for facejax data landmarks, and stop",
  )
  g.add_argument(
    "--crops",
    action="append",
    default=[],
    metavar="NAME=INDEX",
    help="ask about the crops and landmarks of a completed index",
  )
  _run_flags(g)


def _run_flags(g) -> None:
  """How a suite is run."""
  g.add_argument("--out", metavar="FOLDER", help="default: CHECKPOINT/evaluate_suite")
  g.add_argument("--limit", type=int, metavar="N", help="N items of each, evenly spread")
  g.add_argument("--new-tokens", type=int, metavar="N", help="default: the benchmark's")
  g.add_argument("--rows", type=int, metavar="N", help="answered at a time")
  g.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest answer")
  g.add_argument("--tiles", type=int, metavar="N", help="of a picture, at most; 1: it is not cut")
  g.add_argument("--template", default="", help="such as internvl_system; default: the model's")
  g.add_argument("--mesh", default="", help="such as fsdp=4,data=2; default: data=all devices")
  g.add_argument(
    "--protocol",
    choices=["zero-shot", "fine-tuned"],
    default="zero-shot",
    help="whether the model was tuned on the benchmark; for the report",
  )
  g.add_argument("--allow-missing", action="store_true", help="missing files count as wrong")
  g.add_argument("--overwrite", action="store_true", help="drop answers of an earlier run")
  g.add_argument(
    "--compare",
    nargs=2,
    metavar=("RUN", "RUN"),
    help="two output folders: what differs between their answers, with intervals",
  )


# Flags of a suite, of which those given have a value that is true.
_OF_SUITES = (
  *("checkpoint", "data", "set", "write_index", "crops", "out", "limit", "new_tokens", "rows"),
  *("temperature", "tiles", "template", "mesh", "allow_missing", "overwrite"),
)


def refuse_without_suite(args: argparse.Namespace) -> None:
  """Raises ValueError for a flag that an evaluation of drawn faces would not read."""
  if given := [f"--{name.replace('_', '-')}" for name in _OF_SUITES if getattr(args, name)]:
    raise ValueError(
      f"{', '.join(given)} without --suite - expected --suite NAMES, or no such flag"
    )


def run(args: argparse.Namespace) -> int:
  """Evaluates the suite, prints its tables; or compares two runs."""
  if args.compare:
    return _compare(args)
  from facejax.evaluate import crops, tables
  from facejax.evaluate.benchmarks import load, open_benchmark
  from facejax.evaluate.suite import evaluate, ready

  terms = _terms(args)
  names = [name for name in args.suite.split(",") if name]
  for name in names:
    load(name)
  options, folders = options_of(args.set, names), folders_of(args.data, names)
  cropped = _crops(args.crops, names)
  benchmarks = [open_benchmark(name, folders[name], options[name]) for name in names]
  if args.write_index:
    for benchmark in benchmarks:
      path = crops.write_index(benchmark, Path(args.write_index) / f"{benchmark.name}.json")
      where = f"--image-folder {benchmark.folder} --video-folder {benchmark.folder}"
      print(f"facejax data landmarks {path} {path.with_suffix('')} {where}")
    return 0
  if not args.checkpoint:
    raise ValueError("--suite without --checkpoint - expected a workdir or released weights")
  if not Path(args.checkpoint).is_dir():
    raise FileNotFoundError(
      f"{args.checkpoint} does not exist - expected a workdir or a folder of released weights"
    )
  benchmarks = [
    crops.with_crops(b, cropped[b.name]) if b.name in cropped else b for b in benchmarks
  ]
  out = Path(args.out) if args.out else _beside(Path(args.checkpoint), args.limit)
  for benchmark in benchmarks:  # before a model is loaded, which takes minutes
    ready(benchmark, out / benchmark.name, terms)
  model = _model(args)
  results = {}
  for benchmark in benchmarks:
    results[benchmark.name] = evaluate(benchmark, model, out / benchmark.name, terms)
    print(tables.text(results[benchmark.name]))
  print(f"tables: {', '.join(str(path) for path in tables.write(out))}")
  return 0


def _beside(checkpoint: Path, limit: int | None) -> Path:
  """The default output: in the folder of a run or of weights; of one checkpoint, in its stage's."""
  from facejax import best

  folder, step = best.located(checkpoint)
  return folder / "_".join(["evaluate_suite", *(str(n) for n in (step, limit) if n is not None)])


def _terms(args: argparse.Namespace) -> "Terms":
  from facejax.evaluate.suite import Terms
  from facejax.generate import Sampling

  for name in ("limit", "new_tokens", "rows", "tiles"):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise ValueError(f"--{name.replace('_', '-')} {value} - expected at least 1")
  return Terms(
    sampling=Sampling(temperature=args.temperature),
    new_tokens=args.new_tokens,
    limit=args.limit,
    allow_missing=args.allow_missing,
    overwrite=args.overwrite,
    protocol=args.protocol,
  )


def _model(args: argparse.Namespace) -> "Model":
  """Loads the checkpoint; parameters are spread over the devices if there are several."""
  import dataclasses

  import jax

  from facejax import bases, checkpoint
  from facejax.evaluate.suite import Model, digest_of
  from facejax.generate import Answerer
  from facejax.sharding import make_mesh

  several = len(jax.devices()) > 1 or args.mesh
  mesh = make_mesh(_mesh(args.mesh)) if several else None
  config, params, folder = checkpoint.load_run(Path(args.checkpoint), args.stage or None, mesh)
  if args.rows:
    config = dataclasses.replace(
      config, evaluate=dataclasses.replace(config.evaluate, rows=args.rows)
    )
  layout: dict[str, Any] = {"modalities": config.reads(folder.name)}
  layout |= {"max_tiles": args.tiles, "min_tiles": 1} if args.tiles else {}
  layout |= {"template": args.template} if args.template else {}
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, **layout))
  leaves = jax.tree_util.tree_leaves_with_path(params)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  digest = digest_of(bases.manifest({name(path): x for path, x in leaves}))
  return Model(config, Answerer(config, params, mesh), str(folder), digest, folder.name)


def _mesh(text: str):
  """fsdp=4,data=2 -> MeshConfig."""
  import dataclasses

  from facejax.config import MeshConfig
  from facejax.config_checks import one_of

  sizes: dict[str, int] = {}
  for part in (part for part in text.split(",") if part):
    axis, _, size = part.partition("=")
    one_of("--mesh: the axis", axis, [field.name for field in dataclasses.fields(MeshConfig)])
    if not size.lstrip("-").isdecimal():
      raise ValueError(f"--mesh {part!r} - expected AXIS=DEVICES, such as fsdp=4")
    sizes[axis] = int(size)
  if sizes and "data" not in sizes:
    sizes["data"] = -1 if -1 not in sizes.values() else 1
  return MeshConfig(**sizes)


def folders_of(given: Sequence[str], names: Sequence[str], flag: str = "--data") -> dict[str, Path]:
  """The folder of each benchmark; `given` are those of `flag`, NAME=FOLDER or one FOLDER of all.

  Raises ValueError for two folders of all, or a benchmark without one.
  """
  own: dict[str, Path] = {}
  root = None
  for text in given:
    name, equals, folder = text.partition("=")
    if equals and name in names:
      own[name] = Path(folder)
    elif root is None:
      root = Path(text)
    else:
      raise ValueError(
        f"{flag} {text}: expected NAME=FOLDER with one of {', '.join(names)}, or one folder of all"
      )
  lacks = [name for name in names if name not in own]
  if lacks and root is None:
    raise ValueError(f"no folder for {', '.join(lacks)} - give {flag} {lacks[0]}=FOLDER")
  return {name: own.get(name) or (root or Path()) / name for name in names}


def _crops(given: list[str], names: list[str]) -> dict[str, Path]:
  """The completed index of each benchmark that has one."""
  found: dict[str, Path] = {}
  for text in given:
    name, equals, index = text.partition("=")
    if not equals or name not in names:
      raise ValueError(f"--crops {text}: expected NAME=INDEX with one of {', '.join(names)}")
    found[name] = Path(index)
  return found


def options_of(
  given: Sequence[str], names: Sequence[str], flag: str = "--set"
) -> Mapping[str, dict[str, str]]:
  """The settings of each benchmark as text; `given` are those of `flag`, NAME.OPTION=VALUE.

  Raises ValueError for one that is not of these benchmarks.
  """
  options: dict[str, dict[str, str]] = {name: {} for name in names}
  for text in given:
    where, equals, value = text.partition("=")
    name, dot, option = where.partition(".")
    if not equals or not dot or name not in options:
      raise ValueError(
        f"{flag} {text}: expected NAME.OPTION=VALUE with one of {', '.join(names)} as NAME"
      )
    options[name][option] = value
  return options


def _compare(args: argparse.Namespace) -> int:
  from facejax.evaluate import compare

  first, second = map(Path, args.compare)
  found: dict[str, Any] = compare.folders(first, second)
  print(compare.text(found))
  if args.out:
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(path)
  return 0
