"""`facejax COMMAND`: reads arguments, calls one function, prints what a person needs next."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from facejax import config_io
from facejax.config import MODALITIES

# Modules with add(subparsers), for the actions of `facejax data`; light until one runs.
_DATA: tuple[str, ...] = (
  "facejax.doctor.command",
  "facejax.extract.command",
  "facejax.knowledge.command",
  "facejax.records.command",
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command. Bad input ends in one line on stderr and exit status 2, not in a traceback."""
  parser = make_parser()
  given = list(sys.argv[1:] if argv is None else argv)
  overrides = [a.removeprefix("--config.") for a in given if a.startswith("--config.")]
  argv = [a for a in given if not a.startswith("--config.")]
  _check_flags(parser, argv)
  args = parser.parse_args(argv)
  args.overrides, args.argv = overrides, given
  if overrides and not hasattr(args, "config"):
    parser.error(f"facejax {args.command} takes no --config.NAME=VALUE")
  try:
    return args.run(args) or 0
  except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
    if args.traceback:
      raise
    print(f"facejax {args.command}: {error}", file=sys.stderr)
    return 2


def make_parser() -> argparse.ArgumentParser:
  """The commands and their flags."""
  parser = argparse.ArgumentParser(
    prog="facejax", allow_abbrev=False, description="Multimodal LLMs of the human face, in JAX."
  )
  parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

  def command(name, run, help):
    p = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    p.set_defaults(run=run)
    return p

  p = command("demo", _demo, "train in two stages on drawn faces, evaluate, report, answer")
  p.add_argument("--config", default="configs/demo.py", help="default: %(default)s")
  _workdir_flags(p, default="runs/demo")
  p = command("train", _train, "run the stages of a config file")
  p.add_argument("--config", required=True, help="such as configs/demo.py")
  _workdir_flags(p)
  p.add_argument("--stages", default="", help="comma-separated; default: all, in order")
  _host_flags(p)
  p = command("evaluate", _evaluate, "held-out drawn faces, or benchmarks in released layouts")
  p.add_argument("--workdir", type=_path, help="of a run, for drawn faces")
  p.add_argument("--stage", default="", help="default: the last one trained")
  p.add_argument("--faces", type=int, help="how many; default: the run's evaluate.faces")
  p.add_argument("--without", default="", metavar="MODALITIES", help="landmarks,segmentation")
  importlib.import_module("facejax.knowledge.command").add_evaluate_flags(p)
  importlib.import_module("facejax.evaluate.command").add_flags(p)
  p = command("chat", _chat, "a question about a photograph or clip")
  p.add_argument("--workdir", type=_path, required=True)
  media = p.add_mutually_exclusive_group(required=True)
  media.add_argument("--image", type=_path, help="a photograph; its face is found and cropped")
  media.add_argument("--video", type=_path, help="a clip of a face crop")
  p.add_argument("--landmarks", default="", help=".npy or .json of 68 points in the 256 px crop")
  p.add_argument("--face", type=int, help="which face, from the left, where there are several")
  p.add_argument("--detector", default="", help="folder or .task bundle of MediaPipe models")
  p.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest answer")
  importlib.import_module("facejax.knowledge.command").add_chat_flags(p)
  p.add_argument("question")
  p = command("faces", _faces, "get the face detector's models")
  p.add_argument("action", choices=["install"])
  p.add_argument("--detector", default="", help="where to put them; default: the user's cache")
  p = command("convert", _convert, "import, export or compare released weights")
  _convert_flags(p)
  importlib.import_module("facejax.plan.command").add(commands)
  importlib.import_module("facejax.annotate.command").add(commands)
  importlib.import_module("facejax.evaluate.judge.command").add(commands)
  p = commands.add_parser("data", help="build, check and complete datasets", allow_abbrev=False)
  _data_commands(p)
  p = command("report", _report, "write report.html from a workdir's results")
  p.add_argument("--workdir", type=_path, required=True)
  return parser


def _data_commands(parser) -> None:
  """`facejax data ACTION`: what an action reads and calls stands in its package."""
  actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
  for module in _DATA:
    importlib.import_module(module).add(actions)


def _convert_flags(parser) -> None:
  """What convert/command.py reads; it imports the models, so it is not asked for them."""
  parser.add_argument("action", choices=["import", "export", "verify"])
  parser.add_argument("source", metavar="SRC", help="a folder in a released layout, or of ours")
  parser.add_argument("target", metavar="DST", nargs="?", help="verify: a second one, or a .npz")
  parser.add_argument("--format", default="", help="export: face_llava, llava, llava_hf, ...")
  parser.add_argument("--dtype", default="", help="of the written weights; default: as they are")
  parser.add_argument("--adapter", default="", help="import: folder of a LoRA adapter to add")
  parser.add_argument(
    "--tower",
    default=[],
    action="append",
    metavar="KIND=FOLDER",
    help="import: take the encoder for image, video (LLaVA: vision) from a folder of its own",
  )
  parser.add_argument("--new", default="", metavar="PATTERNS", help="import: names it may lack")
  parser.add_argument("--like", default="", help="export: folder of tokenizer files; default: SRC")
  parser.add_argument("--shard-gb", type=float, default=5.0, help="export: size of a weight file")
  parser.add_argument("--save", default="", help="verify: write SRC's logits as a reference .npz")
  parser.add_argument("--no-logits", action="store_true", help="verify: the parameters alone")


def _workdir_flags(parser, default=None) -> None:
  parser.add_argument("--workdir", type=_path, default=default, required=default is None)
  parser.add_argument("--overwrite", action="store_true", help="delete the workdir's earlier run")
  parser.add_argument("--resume", action="store_true", help="continue where the workdir stopped")
  parser.add_argument(
    "--allow-change",
    default="",
    metavar="NAMES",
    help="differences to the saved run that you accept, as the refusal names them",
  )


def _host_flags(parser) -> None:
  """A run of several processes; on a TPU pod, GKE, SLURM and Open MPI 4 none is needed."""
  parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, the same for all")
  parser.add_argument("--processes", type=int, help="how many there are")
  parser.add_argument("--process", type=int, metavar="INDEX", help="which one this is, from 0")
  parser.add_argument(
    "--barrier-timeout",
    type=float,
    default=300,
    metavar="SECONDS",
    help="for the others, at the start and at checkpoints; default: %(default)s",
  )
  parser.add_argument(
    "--heartbeat-timeout",
    type=float,
    default=60,
    metavar="SECONDS",
    help="until a silent process is taken for dead; default: %(default)s",
  )


def _check_flags(parser, argv: Sequence[str]) -> None:
  """Ends with the nearest flag's name, where argparse would say what else is missing."""
  known, name = ["--traceback"], "facejax"
  while subparsers := [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]:
    command = next((a for a in argv if a in subparsers[0].choices), None)
    if command is None:
      return
    parser, name = subparsers[0].choices[command], f"{name} {command}"
  known += [o for a in parser._actions for o in a.option_strings]
  for flag in (a.partition("=")[0] for a in argv if a.startswith("--") and len(a) > 2):
    if flag not in known:
      near = difflib.get_close_matches(flag, known, 1)
      hint = f"; did you mean {near[0]}?" if near else f"; see {name} --help"
      parser.error(f"{name} has no argument {flag}{hint}")


def _path(text: str) -> str:
  """An argument that names a file or folder; pathlib would make something of any text."""
  if not text:
    raise argparse.ArgumentTypeError("expected a path, got ''")
  if "://" in text:
    raise argparse.ArgumentTypeError(
      f"'{text}' is an address - expected a folder on this machine, or a mounted one"
    )
  return text


def _names(text: str) -> tuple[str, ...]:
  return tuple(part for part in text.split(",") if part)


def _train(args) -> int:
  from facejax import distributed, keeper, meta

  config = config_io.load(args.config, args.overrides)
  if distributed.kept():
    with distributed.joined():
      return _train_here(args, config)
  limits = keeper.Limits(args.barrier_timeout, args.heartbeat_timeout)
  cluster = distributed.find(args.coordinator, args.processes, args.process)
  if cluster is None:
    return _train_here(args, config)
  flags = {name: getattr(args, name) for name in ("stages", "resume", "overwrite", "allow_change")}
  settings = {**meta.settings(config), **{f"--{name}": value for name, value in flags.items()}}
  command = [sys.executable, "-m", "facejax.cli", *args.argv]
  return keeper.keep(command, cluster, limits, settings)


def _train_here(args, config) -> int:
  from facejax.train import train

  return train(
    config,
    Path(args.workdir),
    stages=_names(args.stages) or None,
    resume=args.resume,
    overwrite=args.overwrite,
    allow_change=_names(args.allow_change),
  )


def _demo(args) -> int:
  from facejax import demo

  config = config_io.load(args.config, args.overrides)
  return demo.run(
    config,
    Path(args.workdir),
    resume=args.resume,
    overwrite=args.overwrite,
    allow_change=_names(args.allow_change),
  )


def _evaluate(args) -> int:
  if args.suite or args.compare:
    if args.labels:
      raise ValueError(f"--labels={args.labels} is about drawn faces - drop --suite or --compare")
    return importlib.import_module("facejax.evaluate.command").run(args)
  if not args.workdir:
    raise ValueError("nothing to evaluate - expected --workdir, --suite NAMES or --compare RUN RUN")
  importlib.import_module("facejax.evaluate.command").refuse_without_suite(args)
  if args.labels:
    return importlib.import_module("facejax.knowledge.command").evaluate(args)
  from facejax import best, checkpoint
  from facejax.evaluate.run import evaluate, table

  config, params, stage_dir = checkpoint.load_run(Path(args.workdir), args.stage or None)
  step = best.located(Path(args.workdir) / args.stage)[1]
  # An evaluation of STAGE/best, or of other faces, has a folder of its own.
  changes = [] if step is None else [f"step_{step}"]
  if args.faces is not None and args.faces != config.evaluate.faces:
    config = config_io.override(config, [f"evaluate.faces={args.faces}"])
    changes.append(f"{args.faces}_faces")
  for name in (without := _names(args.without)):
    if name not in MODALITIES:
      raise ValueError(f"--without {name}: expected {' or '.join(MODALITIES)}")
  modalities = tuple(m for m in config.reads(stage_dir.name) if m not in without)
  out = stage_dir / "-".join(["evaluate", *changes, *(f"no_{m}" for m in without)])
  print(table({stage_dir.name: evaluate(config, params, out, modalities=modalities)}))
  print(f"predictions: {out}/predictions.jsonl")
  return 0


def _chat(args) -> None:
  from facejax.chat import chat
  from facejax.generate import Sampling
  from facejax.knowledge.command import telling

  reply = chat(
    Path(args.workdir),
    args.image or args.video,
    args.question,
    detector=args.detector or None,
    landmarks=args.landmarks or None,
    face=args.face,
    sampling=Sampling(temperature=args.temperature),
    telling=telling(args),
  )
  print(reply.text)
  for name, value in reply.metadata.items():
    print(f"  {name}: {value}", file=sys.stderr)


def _faces(args) -> None:
  from facejax.faces import detect

  folder = detect.install(args.detector or None)
  print(f"face detection and landmark models are in {folder}")


def _convert(args) -> None:
  from facejax.convert import command

  command.run(args)


def _report(args) -> None:
  from facejax.evaluate.report import report

  print(report(Path(args.workdir)))


if __name__ == "__main__":
  sys.exit(main())
