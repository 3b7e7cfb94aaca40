"""What landmarks, maps and the form of the fusion buy, at equal steps: demo runs -> result.json.

  python experiments/ablation/run.py [--seeds 0,1,2] [--workdir runs/ablation] [--json OUT]

Each variant trains both stages of configs/demo.py from the same base weights on the same faces in
the same order of a seed; an input that is left out is masked off in training and in evaluation. A
run that already has its results is not repeated. Run it from the repository's root.
"""

import argparse
import datetime
import json
import platform
from pathlib import Path

import jax
import numpy as np

from facejax import checkpoint, config_io
from facejax.evaluate.run import evaluate
from facejax.train import train

HERE = Path(__file__).parent
VARIANTS = {
  "full": [],
  "no landmarks": ["data.modalities=segmentation"],
  "no maps": ["data.modalities=landmarks"],
  "neither": ["data.modalities="],
  "full, paper fusion": ["model.fusion.form=paper"],
}
SETTINGS = ["stages.stage1.steps=50", "stages.stage2.steps=300", "evaluate.faces=300"]
METRICS = (
  "expression_accuracy",
  "au_macro_f1",
  "attribute_accuracy",
  "age_mae",
  "deepfake_accuracy",
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--workdir", type=Path, default=Path("runs/ablation"))
  parser.add_argument("--json", type=Path, default=HERE / "result.json")
  args = parser.parse_args()
  runs: dict[str, list[dict]] = {name: [] for name in VARIANTS}
  for seed in args.seeds.split(","):  # a seed at a time: a stopped campaign has whole comparisons
    for name in VARIANTS:
      runs[name].append(run(name, int(seed), args.workdir))
      write(runs, args.json)
  print(table(runs))


def run(name: str, seed: int, workdir: Path) -> dict:
  """The headline values of one variant and seed."""
  folder = workdir / f"{name.replace(', ', '_').replace(' ', '_')}-{seed}"
  result = folder / "values.json"
  if not result.exists():
    overrides = [*SETTINGS, *VARIANTS[name], f"seed={seed}", f"data.seed={seed}"]
    config = config_io.load("configs/demo.py", overrides)
    if code := train(config, folder, resume=folder.exists()):
      raise SystemExit(code)
    _, params, stage = checkpoint.load_run(folder)
    out = evaluate(config, params, stage / "evaluate", modalities=config.data.modalities)
    result.write_text(json.dumps({metric: out[metric]["value"] for metric in METRICS}))
  return json.loads(result.read_text())


def summary(values: list[float]) -> dict:
  """Mean over seeds and its 95 % interval (Student's t)."""
  t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), float("nan"))
  half = t * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
  mean = float(np.mean(values))
  return {"mean": round(mean, 4), "half_interval": round(float(half), 4), "values": values}


def write(runs: dict, path: Path) -> None:
  result = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__, "python": platform.python_version()},
    "data": "synthetic faces, held-out identities",
    "settings": SETTINGS,
    "variants": {
      name: {metric: summary([r[metric] for r in rows]) for metric in METRICS}
      for name, rows in runs.items()
      if rows
    },
  }
  path.write_text(json.dumps(result, indent=1) + "\n")


def table(runs: dict) -> str:
  lines = ["| variant | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
  for name, rows in runs.items():
    cells = [summary([r[metric] for r in rows]) for metric in METRICS]
    shown = [f"{c['mean']:.3f} ± {c['half_interval']:.3f}" for c in cells]
    lines.append(f"| {name} | " + " | ".join(shown) + " |")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
