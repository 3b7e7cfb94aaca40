"""How a trained demo model fares when landmarks are less exact than in its training -> result.json.

python experiments/landmark_noise/run.py [--workdir runs/demo] [--faces 300] [--json OUT]
"""

import argparse
import datetime
import json
import platform
import tempfile
from pathlib import Path

import jax

from facejax import checkpoint, config_io
from facejax.evaluate.run import evaluate

HERE = Path(__file__).parent
PIXELS = (0.0, 0.36, 0.7, 1.4, 2.8)  # deviation of a coordinate, of a crop of 256
METRICS = ("expression_accuracy", "au_macro_f1", "age_mae")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, default=Path("runs/demo"))
  parser.add_argument("--faces", type=int, default=300)
  parser.add_argument("--json", type=Path, default=HERE / "result.json")
  args = parser.parse_args()
  config, params, _ = checkpoint.load_run(args.workdir)
  levels = []
  for pixels in PIXELS:
    settings = [f"data.synthetic.landmark_noise={pixels / 256}", f"evaluate.faces={args.faces}"]
    settings.append('evaluate.tasks=["expression","action_units","age"]')
    with tempfile.TemporaryDirectory() as out:
      result = evaluate(config_io.override(config, settings), params, Path(out))
    levels.append({"pixels_of_256": pixels, **{name: result[name] for name in METRICS}})
    cells = (
      f"{result[m]['value']:.3f} [{result[m]['low']:.3f}, {result[m]['high']:.3f}]" for m in METRICS
    )
    print(f"| {pixels} | " + " | ".join(cells) + " |", flush=True)
  report = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__, "python": platform.python_version()},
    "data": "synthetic faces of held-out identities",
    "trained_with_pixels": round(config.data.synthetic.landmark_noise * 256, 2),
    "levels": levels,
  }
  args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
  main()
