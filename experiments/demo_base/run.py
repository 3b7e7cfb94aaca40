"""Rebuilds the weights that the demo starts from: encoder, then language -> assets, result.json.

python experiments/demo_base/run.py [--workdir runs/demo_base] [--json OUT] [--resume]
"""

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import encoder
import jax

from facejax import checkpoint, config_io, weights
from facejax.train import train

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGET = ROOT / "src/facejax/assets/demo_base.safetensors"
# What the base does not have: stage 1 starts these modules fresh.
WITHOUT = ("landmark_projector", "fusion", "segmentation")
ENCODER_FACES, ENCODER_STEPS = 24_000, 2_200


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, default=ROOT / "runs/demo_base")
  parser.add_argument("--json", type=Path, default=HERE / "result.json")
  parser.add_argument("--resume", action="store_true")
  args = parser.parse_args()

  config = config_io.load(ROOT / "configs/demo_base.py")
  started = time.monotonic()
  weights_of_encoder = Path(config.stages["base"].init_from)
  if not (args.resume and weights_of_encoder.exists()):
    weights_of_encoder.parent.mkdir(parents=True, exist_ok=True)
    figures = encoder.main(config.model.image, ENCODER_FACES, ENCODER_STEPS, weights_of_encoder)
    weights_of_encoder.with_suffix(".json").write_text(json.dumps(figures))
  if train(config, args.workdir, resume=args.resume, overwrite=not args.resume):
    raise SystemExit("stopped; continue with --resume")
  _, params, stage = checkpoint.load_run(args.workdir)
  kept = {name: tree for name, tree in params.items() if name not in WITHOUT}
  weights.save_weights(TARGET, kept, dtype="bfloat16")
  records = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
  result = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__, "python": platform.python_version()},
    "cores": os.cpu_count(),
    **json.loads(weights_of_encoder.with_suffix(".json").read_text()),
    "steps": config.stages["base"].steps,
    "faces_seen": config.stages["base"].steps * config.stages["base"].rows,
    "parameters": sum(x.size for x in jax.tree.leaves(kept)),
    "file_mb": round(TARGET.stat().st_size / 1e6, 2),
    "final_loss": records[-1]["loss"],
    "minutes_of_this_call": round((time.monotonic() - started) / 60, 1),
  }
  args.json.write_text(json.dumps(result, indent=1) + "\n")
  print(json.dumps(result, indent=1))


if __name__ == "__main__":
  main()
