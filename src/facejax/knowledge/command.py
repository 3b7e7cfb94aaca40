"""`facejax data labels`: what is asked, what is printed."""

import argparse
import pathlib

from facejax.knowledge.cooccurrence import REWEIGHTS


def add(subparsers) -> None:
  """Adds the action to `facejax data`."""
  about = "label statistics and prompts for a config's label head"
  p = subparsers.add_parser("labels", help=about, description=about, allow_abbrev=False)
  p.add_argument("out", metavar="OUT", type=pathlib.Path, help=".safetensors, for stages.X.over")
  p.add_argument("--config", required=True, help="of the run, such as configs/faceinsight_7b.py")
  p.add_argument("--stage", default="", help="default: the first one")
  p.add_argument("--tau", type=float, default=0.4, help="least P(j | i) of an edge i -> j")
  p.add_argument("--omega", type=float, default=0.2, help="weight of a label's neighbours")
  p.add_argument("--reweight", default="paper", choices=REWEIGHTS)
  p.add_argument("--state", type=pathlib.Path, help="file from which a stopped count goes on")
  p.set_defaults(run=_labels)


def _labels(args: argparse.Namespace) -> None:
  from facejax import config_io
  from facejax.config_checks import one_of
  from facejax.knowledge import cooccurrence, prepare

  if args.out.suffix != ".safetensors":
    raise ValueError(f"OUT is {args.out} - expected a name that ends in .safetensors")
  config = config_io.load(args.config, args.overrides)
  stage = args.stage or next(iter(config.stages))
  one_of("--stage", stage, tuple(config.stages))
  settings = {"tau": args.tau, "omega": args.omega, "reweight": args.reweight}
  counts = prepare.write(config, stage, args.out, settings, args.state)
  p = cooccurrence.conditional(counts)
  edges = int((p >= args.tau).sum() - (p.diagonal() >= args.tau).sum())
  print(f"{counts.rows:,} samples, {len(counts.labels)} labels, {edges} edges: {args.out}")
  print(f"train with --config.stages.{stage}.over={args.out}")
