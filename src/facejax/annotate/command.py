"""`facejax annotate RECIPE`: what the command line asks, and what it prints."""

import argparse
import asyncio
import dataclasses
import math
import pathlib
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from facejax.annotate.campaign import Done, Terms
  from facejax.annotate.endpoint import Service
  from facejax.annotate.unit import Recipe


def add(subparsers) -> None:
  """The command's parsers; light, everything else is imported when it runs."""
  help = "questions and answers about faces, written by a model behind an endpoint"
  parser = subparsers.add_parser("annotate", help=help, description=help, allow_abbrev=False)
  recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")

  help = "FairFaceGPT: eight questions a picture"
  p = recipes.add_parser("fairface", help=help, description=help, allow_abbrev=False)
  p.add_argument(
    "--labels", type=pathlib.Path, required=True, help="such as fairface_label_val.csv"
  )
  p.add_argument("--images", type=pathlib.Path, required=True, help="folder of the table's files")
  p.add_argument(
    "--text-files", action="store_true", help="OUT/ChatGPT/MODEL/STEM/answer_i.txt as well"
  )
  _flags(p)

  help = "FaceInstruct: labelled faces and clips, described by a writer, scored by a rater"
  p = recipes.add_parser("faceinstruct", help=help, description=help, allow_abbrev=False)
  p.add_argument("--items", type=pathlib.Path, required=True, help="JSON list of files and labels")
  p.add_argument("--media", type=pathlib.Path, required=True, help="folder of the list's files")
  p.add_argument("--frames", type=some, default=4, help="of a clip; default: %(default)s")
  p.add_argument("--threshold", type=float, default=7.0, help="least rating; default: %(default)s")
  p.add_argument("--rater-model", default="", help="default: the writer")
  p.add_argument("--rater-base-url", default="", help="default: the writer's")
  p.add_argument("--rater-key-env", default=None, help="default: the writer's")
  p.add_argument("--rater-price", type=_price, help="default: the writer's")
  _flags(p)


def _flags(p) -> None:
  """Of both recipes."""
  p.add_argument("--limit", type=some, help="only the first so many items")
  p.add_argument("--assistant", choices=["gpt", "assistant"], default="gpt", help="role tag")
  campaign_flags(p)
  p.set_defaults(run=run)


def campaign_flags(p) -> None:
  """Of whatever asks an endpoint: `service`, `pace` and `finish` read them."""
  p.add_argument("--out", type=pathlib.Path, required=True, help="a run there is continued")
  p.add_argument("--plan", action="store_true", help="say what it can cost at most, send nothing")
  g = p.add_argument_group("endpoint")
  g.add_argument("--model", required=True, help="its name at the endpoint")
  g.add_argument("--base-url", default="https://api.openai.com/v1", help="default: %(default)s")
  g.add_argument(
    "--key-env", default="OPENAI_API_KEY", help="variable that holds the API key; empty: no key"
  )
  g.add_argument(
    "--price", type=_price, default=(0.0, 0.0), metavar="IN,OUT", help="a million tokens"
  )
  g.add_argument("--currency", default="USD", help="of the price; default: %(default)s")
  g.add_argument("--max-tokens", type=some, default=1024, help="an answer; default: %(default)s")
  g.add_argument(
    "--token-field", choices=["max_tokens", "max_completion_tokens"], default="max_tokens"
  )
  g.add_argument("--temperature", type=float, help="default: the endpoint's")
  g.add_argument("--detail", choices=["low", "high", "auto"], default="", help="of pictures")
  g.add_argument(
    "--image-tokens", type=_count, default=1445, help="a picture, at most, for the cap"
  )
  g.add_argument("--timeout", type=_positive, default=120.0, help="seconds; default: %(default)s")
  g.add_argument("--idempotent", action="store_true", help="it bills an Idempotency-Key once")
  g = p.add_argument_group("limits, over all runs on OUT")
  g.add_argument("--max-cost", type=_positive, default=math.inf, help="in the currency")
  g.add_argument("--max-requests", type=_count, default=math.inf)
  g = p.add_argument_group("patience")
  g.add_argument("--concurrency", type=some, default=16, help="default: %(default)s")
  g.add_argument("--retries", type=_count, default=8, help="of a request; default: %(default)s")
  g.add_argument("--refusals", type=_count, default=2, help="asked again; default: %(default)s")
  g.add_argument("--first-wait", type=_positive, default=1.0, help="seconds; default: %(default)s")


def run(args: argparse.Namespace) -> int:
  """Runs a recipe; 0 when everything is settled, 1 when some is left for another run."""
  from facejax.annotate import campaign

  check_cap(args)
  recipe, services, terms = _recipe(args), _services(args), _terms(args)
  if args.plan:
    print(campaign.plan(recipe, services, terms))
    return 0
  files = "dataset.json, records.jsonl, rejected.jsonl, report.json"
  return finish(campaign.annotate(recipe, services, args.out, terms), f"in {args.out}: {files}")


def check_cap(args: argparse.Namespace) -> None:
  """Raises ValueError for a cap that no price ever reaches."""
  if math.isfinite(args.max_cost) and not any(args.price):
    raise ValueError(f"--max-cost {args.max_cost:g} without a price - add --price IN,OUT")


def finish(running: Coroutine[Any, Any, "Done"], wrote: str) -> int:
  """Runs a campaign and says what came of it; the exit status, 130 where it was left at once."""
  from facejax.annotate import report

  try:
    done = asyncio.run(running)
  except KeyboardInterrupt:
    print("left at once; the same command goes on, and counts what was under way", file=sys.stderr)
    return 130
  print(report.line(done.report))
  print(wrote)
  if done.error is not None:
    raise done.error
  left = sum(result.state in ("pending", "unanswered") for result in done.results)
  if left:
    why = f" ({done.report['stopped']})" if done.report["stopped"] else ""
    print(f"{left} units are left{why}: the same command goes on with them", file=sys.stderr)
  return 1 if left else 0


def _recipe(args: argparse.Namespace) -> "Recipe":
  if args.recipe == "fairface":
    from facejax.annotate.fairface import FairFace

    return FairFace(args.labels, args.images, args.limit)
  from facejax.annotate.faceinstruct import FaceInstruct

  return FaceInstruct(args.items, args.media, args.limit)


def service(args: argparse.Namespace) -> "Service":
  """The endpoint that the flags name."""
  from facejax.annotate.endpoint import Service

  return Service(
    model=args.model,
    base_url=args.base_url,
    key_env=args.key_env,
    price=args.price,
    max_tokens=args.max_tokens,
    token_field=args.token_field,
    temperature=args.temperature,
    detail=args.detail,
    image_tokens=args.image_tokens,
    timeout=args.timeout,
  )


def _services(args: argparse.Namespace) -> "list[Service]":
  """The writer and, for FaceInstruct, the rater."""
  writer = service(args)
  if args.recipe == "fairface":
    return [writer]
  rater = dataclasses.replace(
    writer,
    model=args.rater_model or args.model,
    base_url=args.rater_base_url or args.base_url,
    key_env=args.key_env if args.rater_key_env is None else args.rater_key_env,
    price=args.rater_price or args.price,
  )
  return [writer, rater]


def _terms(args: argparse.Namespace) -> "Terms":
  from facejax.annotate.campaign import Terms
  from facejax.annotate.runner import Rules

  rules = Rules()
  if args.recipe == "faceinstruct":
    rules = Rules(frames=args.frames, threshold=args.threshold)
  text_files = getattr(args, "text_files", False)
  return Terms(**pace(args), rules=rules, assistant=args.assistant, text_files=text_files)


def pace(args: argparse.Namespace) -> dict[str, Any]:
  """The fields of campaign.Pace."""
  from facejax.annotate.asking import Patience
  from facejax.annotate.ledger import Cap

  return {
    "patience": Patience(args.retries, args.refusals, first_wait=args.first_wait),
    "cap": Cap(args.max_cost, args.max_requests),
    "concurrency": args.concurrency,
    "idempotent": args.idempotent,
    "currency": args.currency,
  }


def _price(text: str) -> tuple[float, float]:
  try:
    read, written = (float(part) for part in text.split(","))
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"'{text}': expected IN,OUT, such as 2.5,10") from error
  if not (0 <= read < math.inf and 0 <= written < math.inf):
    raise argparse.ArgumentTypeError(f"'{text}': expected prices of 0 or more")
  return read, written


def _count(text: str) -> int:
  if not text.isdecimal():
    raise argparse.ArgumentTypeError(f"'{text}': expected a whole number")
  return int(text)


def some(text: str) -> int:
  """A flag that counts at least one."""
  if _count(text) == 0:
    raise argparse.ArgumentTypeError("'0': expected 1 or more")
  return int(text)


def _positive(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 < value < math.inf:
    raise argparse.ArgumentTypeError(f"'{text}': expected a number above 0")
  return value
