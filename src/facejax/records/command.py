"""`facejax data build`, `count` and `export`: what is asked, what is printed."""

import argparse
import pathlib


def add(subparsers) -> None:
  """Adds the actions to `facejax data`."""
  p = subparsers.add_parser("build", help="released folders -> shards", allow_abbrev=False)
  p.add_argument("spec", metavar="SPEC", help="specification of the sources: JSON or .py")
  p.add_argument("out", metavar="OUT", help="folder; a source's shards go to OUT/SOURCE")
  p.add_argument("--config", default="", help="count text tokens for this config's runs, too")
  p.add_argument("--only", default="", metavar="NAMES", help="build just these sources")
  p.add_argument("--rebuild", default="", metavar="NAMES", help="build these from the start")
  p.add_argument("--workers", type=int, default=1, help="processes; default: %(default)s")
  p.add_argument(
    "--beam",
    nargs="?",
    const="",
    metavar="OPTIONS",
    help="build with Apache Beam, with these pipeline options; a spec's 'part' is one pipeline",
  )
  p.add_argument(
    "--max-refused",
    type=float,
    default=0.01,
    metavar="SHARE",
    help="of a source's samples that may be unusable; default: %(default)s",
  )
  p.set_defaults(run=_build)
  p = subparsers.add_parser("count", help="text tokens of built sources", allow_abbrev=False)
  p.add_argument("stores", nargs="+", metavar="STORE", help="OUT/SOURCE")
  p.add_argument("--config", required=True, help="whose tokenizer and template count")
  p.add_argument("--workers", type=int, default=1, help="processes; default: %(default)s")
  p.set_defaults(run=_count)
  p = subparsers.add_parser("export", help="a built source -> official JSON", allow_abbrev=False)
  p.add_argument("store", metavar="STORE", help="OUT/SOURCE")
  p.add_argument("folder", metavar="FOLDER", help="to be made")
  p.set_defaults(run=_export)


def _build(args: argparse.Namespace) -> None:
  from facejax.config_checks import one_of
  from facejax.records import build, spec

  _check_workers(args)
  if not 0 <= args.max_refused <= 1:
    raise ValueError(f"--max-refused={args.max_refused}: expected a share, 0 to 1")
  if args.beam is not None and args.workers != 1:
    raise ValueError(f"--beam with --workers={args.workers}: Beam has workers of its own")
  if args.overrides and not args.config:
    raise ValueError("--config.NAME=VALUE without --config: expected the config it changes")
  sources = spec.load(args.spec)
  names = tuple(source.name for source in sources)
  only, rebuild = _names(args.only) or names, _names(args.rebuild)
  for flag, values in (("--only", only), ("--rebuild", rebuild)):
    for name in values:
      one_of(flag, name, names)
  form = _form(args) if args.config else None  # a config that cannot be read is told at once
  settings = build.Settings(args.workers, args.beam, args.max_refused, rebuild)
  for source in sources:
    if source.name in only:
      print(build.build(source, pathlib.Path(args.out), settings))
      if form is not None:
        _print_count(pathlib.Path(args.out) / source.name, form, args.workers)


def _count(args: argparse.Namespace) -> None:
  _check_workers(args)
  form = _form(args)
  for store in args.stores:
    _print_count(pathlib.Path(store), form, args.workers)


def _export(args: argparse.Namespace) -> None:
  from facejax.records.export import export
  from facejax.records.store import Store

  print(export(Store(args.store), args.folder))


def _print_count(store: pathlib.Path, form, workers: int) -> None:
  from facejax.records import count

  print(count.count(store, form, workers))


def _form(args: argparse.Namespace):
  from facejax import config_io
  from facejax.data.pipeline import row_format

  config = config_io.load(args.config, args.overrides)
  return row_format(config.model, config.data)


def _check_workers(args: argparse.Namespace) -> None:
  if args.workers < 1:
    raise ValueError(f"--workers={args.workers}: expected at least 1")


def _names(text: str) -> tuple[str, ...]:
  return tuple(part for part in text.split(",") if part)
