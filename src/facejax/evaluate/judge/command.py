"""`facejax judge NAME=RUN ...`: what the command line asks, and what it prints.

Light until it runs: the parser is made for every command.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from facejax.annotate import command

if TYPE_CHECKING:
  from facejax.evaluate.judge.items import Source
  from facejax.evaluate.judge.judging import Judging


def add(subparsers) -> None:
  """The command's parser."""
  help = "free-text answers rated from 1 to 10 by a model behind an endpoint"
  p = subparsers.add_parser("judge", help=help, description=help, allow_abbrev=False)
  p.add_argument(
    "sources",
    nargs="+",
    metavar="NAME=ANSWERS",
    help="a system, and the folder of its predictions of a benchmark, or a JSONL file",
  )
  p.add_argument(
    "--media",
    action="append",
    default=[],
    metavar="[BENCHMARK=]FOLDER",
    help="of the pictures and clips; without BENCHMARK=, of all that have none of their own",
  )
  p.add_argument("--text-only", action="store_true", help="show none, and rate two criteria")
  p.add_argument(
    "--repeats", type=command.some, default=2, help="ratings of an answer; default: %(default)s"
  )
  p.add_argument("--each", action="store_true", help="one answer a request, not all of an item")
  p.add_argument("--frames", type=command.some, default=4, help="of a clip; default: %(default)s")
  p.add_argument("--hide", default="", metavar="WORDS", help="such as GPT-4,our model; in answers")
  p.add_argument("--limit", type=command.some, metavar="N", help="N items, evenly spread")
  p.add_argument("--seed", type=int, default=0, help="of orders and resamples")
  p.add_argument(
    "--bootstrap", type=command.some, default=1000, help="resamples; default: %(default)s"
  )
  command.campaign_flags(p)
  p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Rates; 0 when every request is settled, 1 when some are left for another run."""
  from facejax.annotate import campaign
  from facejax.evaluate.judge import tables

  command.check_cap(args)
  job, service, pace = _job(args), command.service(args), campaign.Pace(**command.pace(args))
  if args.plan:
    print(job.bound(service, pace))
    return 0
  wrote = f"in {args.out}: results.md, results.json, ratings.jsonl, failed.jsonl, report.json"
  status = command.finish(campaign.conduct(job, [service], args.out, pace), wrote)
  if status in (0, 1):
    print(tables.text(json.loads((args.out / "results.json").read_text(encoding="utf-8"))))
  return status


def _job(args: argparse.Namespace) -> "Judging":
  from facejax.evaluate.judge.items import limited, load
  from facejax.evaluate.judge.judging import Judging, Terms

  sources, media = _sources(args.sources), _media(args)
  items = limited(load(sources, media), args.limit)
  terms = Terms(
    repeats=args.repeats,
    seed=args.seed,
    each=args.each,
    media=media is not None,
    frames=args.frames,
    hidden=tuple(word.strip() for word in args.hide.split(",") if word.strip()),
    resamples=args.bootstrap,
  )
  settings = {
    "sources": [[source.system, str(source.path)] for source in sources],
    **command.service(args).settings(),
    "endpoint": command.service(args).place(),
    "limit": args.limit,
  }
  return Judging(items, terms, settings)


def _sources(given: list[str]) -> "list[Source]":
  from facejax.evaluate.judge.items import Source

  sources = []
  for text in given:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
      raise ValueError(
        f"{text!r}: expected NAME=ANSWERS, such as tuned=runs/a/evaluate_suite/rafdb"
      )
    sources.append(Source(name, Path(path)))
  return sources


def _media(args: argparse.Namespace) -> dict[str, Path] | None:
  """The folder of each benchmark's files, "" for the others'; None: nothing is shown."""
  if bool(args.media) == args.text_only:
    given = f"--media {args.media[0]} and --text-only" if args.media else "no --media"
    raise ValueError(f"{given} - expected --media FOLDER, or --text-only for a judge without eyes")
  folders: dict[str, Path] = {}
  for text in args.media:
    name, _, folder = text.rpartition("=")
    path = Path(folder)
    if not path.is_dir():
      raise FileNotFoundError(f"--media {text}: no folder {path} - expected that of the files")
    if name in folders:
      raise ValueError(f"--media {text}: a second folder for {name or 'all'} - expected one")
    folders[name] = path
  return None if args.text_only else folders
