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
  text = "class maps by a face parser or from files, and an index that names them"
  p = subparsers.add_parser("segment", help=text, description=text, allow_abbrev=False)
  _shared(p)
  how = p.add_mutually_exclusive_group(required=True)
  how.add_argument("--parser", default="", help="a .onnx or .tflite file to run")
  how.add_argument("--maps", default="", help="folder of maps that exist already")
  p.add_argument(
    "--classes",
    required=True,
    metavar="NAME",
    help="whose classes: celebamask, bisenet, segformer, segformer_xenova, or a table's .json",
  )
  p.set_defaults(run=_segment)


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


def _segment(args) -> int:
  from facejax.extract import segments
  from facejax.faces import parsers

  table = parsers.load(args.classes)
  if args.parser:
    step = lambda: segments.segment(_place(args), args.parser, table, _workers(args))
  else:
    step = lambda: segments.convert_maps(_place(args), args.maps, table, _workers(args))
  return _finish(step, "map")


def _place(args):
  from facejax.extract.dataset import Place

  for name, path in (("INDEX", args.index), ("OUT", args.out)):
    if not path or "://" in path:
      raise ValueError(f"{name} is {path!r} - expected a path on this machine, or a mounted one")
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
