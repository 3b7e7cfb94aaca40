"""`facejax data landmarks|segment`: what the command line asks, and what it prints.

Exit status: 0 every sample is complete, 1 some were left out (the report says why), 2 nothing could
be started or written, 130 stopped; the same command then continues.
"""

import argparse
import os
import sys
import time
from pathlib import Path


def add(subparsers) -> None:
  """Adds the two commands. Imports nothing that a `--help` should wait for."""
  text = "find faces: landmarks, crops of photographs, and an index that names them"
  p = subparsers.add_parser("landmarks", help=text, description=text, allow_abbrev=False)
  _shared(p)
  p.add_argument("--detector", default="", help="folder or .task bundle; default: the installed")
  p.add_argument(
    "--crop",
    action=argparse.BooleanOptionalAction,
    default=None,
    help="cut faces out, or take media as face crops; default: crops are square, at most 300 px",
  )
  p.add_argument(
    "--several",
    default="largest",
    choices=["largest", "refuse"],
    help="what to do with a photograph of several faces; default: %(default)s",
  )
  p.add_argument(
    "--max-gap", type=int, default=5, help="frames in a row without a face; default: %(default)s"
  )
  p.set_defaults(run=_landmarks)


def _shared(parser) -> None:
  parser.add_argument("index", metavar="INDEX", help="a JSON file in the LLaVA format")
  parser.add_argument("out", metavar="OUT", help="folder to write; a second run continues it")
  parser.add_argument("--image-folder", default="", help="default: the folder of INDEX")
  parser.add_argument("--video-folder", default="", help="default: the folder of INDEX")
  parser.add_argument(
    "--workers", type=int, default=None, help="processes; 0: none but this; default: all cores"
  )


def _landmarks(args) -> int:
  from facejax.extract import landmarks

  settings = landmarks.Settings(args.crop, args.several, args.max_gap)
  detector = landmarks.litert(args.detector or None)
  step = lambda: landmarks.extract_landmarks(_place(args), detector, settings, _workers(args))
  return _finish(step, "face")


def _place(args):
  from facejax.extract.dataset import Place

  return Place(Path(args.index), Path(args.out), args.image_folder, args.video_folder)


def _workers(args) -> int:
  if args.workers is None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  if args.workers < 0:
    raise ValueError(f"--workers {args.workers}: expected 0 or more")
  return args.workers


def _finish(step, what: str) -> int:
  """Runs a step and prints what came of it."""
  start = time.perf_counter()
  try:
    summary = step()
  except KeyboardInterrupt:
    print("stopped; the same command continues", file=sys.stderr)
    return 130
  seconds = time.perf_counter() - start
  rate = f", {summary.fresh / seconds:.1f} a second" if summary.fresh else ""
  print(f"{summary.files} files, {summary.fresh} of them worked on now{rate}")
  for name, count in summary.counts.items():
    print(f"  {count} {name}")
  if summary.refused:
    print(f"  {summary.refused} without a usable {what}")
  print(f"{summary.written}: {summary.samples - summary.left_out} of {summary.samples} samples")
  print(f"{summary.report}: notes and reasons")
  return 1 if summary.left_out else 0
