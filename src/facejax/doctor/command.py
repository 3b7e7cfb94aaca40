"""`facejax data check`: what the command line asks, and what it prints."""

import argparse
import pathlib


def add(subparsers) -> None:
  """Adds the action to `facejax data`."""
  p = subparsers.add_parser(
    "check",
    help="find what is wrong with a dataset, and quarantine it",
    description="Exit status: 0 clean or warnings alone, 1 errors were found, 2 it could not run.",
    allow_abbrev=False,
  )
  p.add_argument(
    "sources",
    nargs="+",
    metavar="SOURCE",
    help="a LLaVA JSON index, a build specification, a built source, or a folder of these",
  )
  p.add_argument("--config", required=True, help="the run's: tokenizer, row, model, media folders")
  p.add_argument("--out", default="", metavar="DIR", help="default: STORE/check or INDEX_check")
  p.add_argument("--workers", type=int, default=0, help="processes; default: one a core")
  p.add_argument(
    "--timeout", type=float, default=60.0, help="core seconds a file may take; default: %(default)g"
  )
  p.add_argument(
    "--detector",
    nargs="?",
    const="installed",
    default="",
    metavar="MODELS",
    help="look for faces, by what `facejax faces install` got, or by these models",
  )
  p.add_argument(
    "--severity",
    action="append",
    default=[],
    metavar="KIND=LEVEL",
    help="error, warning or off for a kind of finding",
  )
  p.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
  from facejax import config_io
  from facejax.doctor.check import Settings, check

  detector = args.detector
  if detector == "installed":
    from facejax.faces.detector_files import default_folder

    detector = str(default_folder())
  settings = Settings(args.workers, args.timeout, detector, tuple(args.severity))
  out = pathlib.Path(args.out) if args.out else _beside(pathlib.Path(args.sources[0]))
  config = config_io.load(args.config, args.overrides)
  report = check(args.sources, config, out, settings)
  for slug, kind in report["kinds"].items():
    print(f"{kind['severity']:7} {kind['findings']:7,}  {slug}: {kind['about']}")
  print(
    f"{report['totals']['samples']:,} samples, {report['errors']:,} errors, "
    f"{report['warnings']:,} warnings, {report['quarantined']:,} in quarantine: {out}/report.html"
  )
  return 1 if report["errors"] else 0


def _beside(source: pathlib.Path) -> pathlib.Path:
  return source / "check" if source.is_dir() else source.with_name(f"{source.stem}_check")
