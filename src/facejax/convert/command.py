"""`facejax convert import|export|verify`: what the command line asks, and what it prints."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facejax import checkpoint, lora
from facejax.config import RunConfig
from facejax.convert import verify
from facejax.convert.export import FORMATS, export
from facejax.convert.importing import import_folder
from facejax.convert.load import open_checkpoint
from facejax.convert.lora import export_adapter


def run(args: argparse.Namespace) -> None:
  """Runs the action that cli.py read. Raises ValueError for arguments that do not go together."""
  if args.target is None and not (args.action == "verify" and args.save):
    raise ValueError(f"{args.action} {args.source}: expected a DST behind it")
  if args.dtype not in ("", "float32", "bfloat16", "float16"):
    raise ValueError(f"--dtype {args.dtype}: expected float32, bfloat16 or float16")
  {"import": _import, "export": _export, "verify": _verify}[args.action](args)


def _import(args: argparse.Namespace) -> None:
  towers = {}
  for item in args.tower:
    kind, sep, folder = item.partition("=")
    if not sep:
      raise ValueError(f"--tower {item}: expected KIND=FOLDER, such as image=LanguageBind_Image")
    towers[kind] = folder
  report = import_folder(
    args.source,
    args.target,
    dtype=args.dtype or None,
    new=[p for p in args.new.split(",") if p],
    adapter=args.adapter or None,
    towers=towers or None,
  )
  size = sum(report["files"].values())
  print(f"{report['family']}: {report['parameters']:,} parameters, {size / 1e9:.2f} GB")
  for what in ("missing", "unused"):
    if names := report[what]:
      more = ", ..." if len(names) > 6 else ""
      print(f"{len(names)} {what}: {', '.join(names[:6])}{more}")
  if report["tokenizer"] == "demo":
    print(f"no tokenizer beside {args.source}: put one there and import again to chat")
  use = "for init_from of a stage" if report["missing"] else "for chat, evaluate and init_from"
  print(f"{args.target} is ready {use}")


def _export(args: argparse.Namespace) -> None:
  if not args.format:
    raise ValueError(f"--format is missing: expected one of {', '.join(FORMATS)}, peft")
  source = Path(args.source)
  if args.format == "peft":
    return _export_adapter(source, args.target)
  released = checkpoint.is_released(source)
  params: Mapping[str, Any]
  if released:
    opened = open_checkpoint(source)
    config, params = opened.config, opened.matched.parameters
    if not isinstance(config, RunConfig):
      raise ValueError(f"{source} is a lone {opened.family}, which no format is for")
  else:
    config, params, _ = checkpoint.load_run(source)
    params = lora.merge(params, args.dtype or None)
  like = args.like or (args.source if released else None)
  names = export(
    config,
    params,
    args.format,
    args.target,
    dtype=args.dtype or None,
    like=like,
    shard=int(args.shard_gb * 1e9),
  )
  print(f"{args.target}: {len(names)} weight file(s), config.json, as {args.format}")


def _export_adapter(source: Path, target: str) -> None:
  config, params, stage_dir = checkpoint.load_run(source)
  modules = export_adapter(config, stage_dir.name, params, target)
  print(f"{target}: adapters of {len(modules)} modules, for PEFT")


def _verify(args: argparse.Namespace) -> None:
  reference = args.target is not None and args.target.endswith(".npz")
  if args.target and not reference:
    rows = verify.compare_parameters(args.source, args.target)
    apart = [row for row in rows if row.error != 0]  # NaN is apart, too
    for row in apart:
      print(f"{row.name}: max abs error {row.error:.3g}, values up to {row.scale:.3g}")
    print(f"{len(rows) - len(apart)} of {len(rows)} layers and parameters are identical")
  if args.no_logits:
    return
  if reference:
    expected, batch = verify.load_reference(args.target)
    found, _ = verify.logits(args.source, batch)
  else:
    found, batch = verify.logits(args.source)
    expected = found if args.target is None else verify.logits(args.target, batch)[0]
  if args.save:
    verify.save_reference(args.save, found, batch)
    print(f"{args.save}: logits {list(found.shape)} and their input", file=sys.stderr)
  if args.target:
    real = np.asarray(batch.segment_ids) > 0
    agreement = verify.compare_logits(expected, found, real)
    print(
      f"logits at {agreement.positions} positions: max abs error {agreement.error:.3g}, mean KL "
      f"{agreement.divergence:.3g} nats, top-1 agreement {agreement.top1:.2%}"
    )
