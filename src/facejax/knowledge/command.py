"""`facejax data labels`, and the flags of `facejax chat` and `facejax evaluate` about labels."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from facejax.knowledge.cooccurrence import REWEIGHTS

if TYPE_CHECKING:
  from facejax.knowledge.telling import Telling

_ORDER, _THRESHOLD = "score", 0.7  # what facejax chat --labels does if it is not told


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


def add_chat_flags(parser) -> None:
  """What `facejax chat` asks about labels that are said in front of the question."""
  parser.add_argument(
    "--labels",
    default="",
    choices=("head", "answers"),
    help="tell the model what its label head, or its own yes or no to each label, says of the face",
  )
  parser.add_argument(
    "--labels-order",
    default=_ORDER,
    choices=("score", "table"),
    help="the surest first, or as in the rule file; default: %(default)s",
  )
  parser.add_argument(
    "--labels-threshold",
    type=float,
    default=_THRESHOLD,
    help="least score said; default: %(default)s",
  )
  parser.add_argument(
    "--labels-rules", default="", help="answers: a rule file; default: that of the label head"
  )
  parser.add_argument(
    "--labels-counts", default="", help="answers: FILE of facejax data labels --state=FILE"
  )
  parser.add_argument(
    "--labels-raw", action="store_true", help="scores as they are, not given that the rules hold"
  )


def telling(args: argparse.Namespace) -> Telling:
  """What the flags ask for. Raises ValueError or FileNotFoundError for flags that do not fit."""
  from facejax.knowledge import cooccurrence
  from facejax.knowledge.handoff import Handoff
  from facejax.knowledge.telling import Telling

  if not args.labels:
    given = [n for n in ("rules", "counts", "raw") if getattr(args, f"labels_{n}")]
    given += ["order"] if args.labels_order != _ORDER else []
    given += ["threshold"] if args.labels_threshold != _THRESHOLD else []
    if given:
      raise ValueError(f"--labels-{given[0]} without --labels - expected --labels=head or answers")
    return Telling()
  counts = pathlib.Path(args.labels_counts) if args.labels_counts else None
  if counts is not None and args.labels == "head":
    raise ValueError(f"--labels-counts={counts} with --labels=head - expected --labels=answers")
  if counts is not None and not counts.is_file():
    raise FileNotFoundError(f"--labels-counts={counts}: no such file - make it with --state")
  return Telling(
    Handoff(order=args.labels_order, threshold=args.labels_threshold),
    args.labels,
    args.labels_rules,
    not args.labels_raw,
    None if counts is None else cooccurrence.load(counts),
  )


def add_evaluate_flags(parser) -> None:
  """What `facejax evaluate` asks about the labels of drawn faces."""
  parser.add_argument(
    "--labels",
    default="",
    choices=("head", "answers"),
    help="score labels instead of answers: by the label head, or training-free, by its yes and no",
  )


def evaluate(args: argparse.Namespace) -> None:
  """`facejax evaluate --workdir W --labels=...`: prints the table of modes.py."""
  from facejax import best, checkpoint, config_io
  from facejax.knowledge import modes

  if args.without:
    raise ValueError(f"--without {args.without} with --labels - expected one of the two")
  workdir = pathlib.Path(args.workdir)
  config, params, folder = checkpoint.load_run(workdir, args.stage or None)
  if args.faces is not None:
    config = config_io.override(config, [f"evaluate.faces={args.faces}"])
  own = best.located(workdir / args.stage)[1]  # of STAGE/best, which has results of its own
  steps = checkpoint.steps_in(folder) if own is None else [own]
  of = f"{folder.name} at step {steps[-1]}" if steps else "as imported"
  out = folder / "-".join(["labels", args.labels, *(f"step_{n}" for n in [own] if n is not None)])
  read = config.reads(folder.name)
  print(modes.table(modes.evaluate(config, params, args.labels, out, modalities=read, of=of)))
  print(f"results: {out}/results.json")
