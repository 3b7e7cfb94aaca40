"""FaceLLM from pictures to scores at tiny size, by the commands that a user gives.

    python experiments/facellm/run.py --torch /venv/with/transformers/bin/python \
      --json experiments/facellm/result.json

`main` is the recipe of configs/facellm_1b.py: annotate (a fake endpoint) -> build -> train -> the
same again, killed and resumed -> merge and export -> evaluate the run and the export on a folder in
FaceXBench's layout, and have transformers (with --torch) answer it, too. `sizes` trains the tiny
likenesses of all three sizes and of multi-tile training. Exit status 1 if a check fails.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests/evaluate")]

import base  # noqa: E402
import facexbench_folder  # noqa: E402

from facejax.annotate import fairface  # noqa: E402

STEPS, EVERY, KILL_AT = 24, 6, 15
# Beside sizes and paths: a rate at which 24 steps on random weights change answers.
RATE = 2e-2
NEW_TOKENS = 16


def write_fairface(folder: Path, count: int, height: int, width: int) -> None:
  """FairFace's layout: a label table and pictures of noise."""
  (folder / "val").mkdir(parents=True)
  rng = np.random.default_rng(0)
  lines = ["file,age,gender,race,service_test"]
  for i in range(1, count + 1):
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(picture).save(folder / "val" / f"{i}.jpg")
    labels = [rng.choice(values) for values in (fairface.AGES, fairface.GENDERS, fairface.RACES)]
    lines.append(",".join([f"val/{i}.jpg", *labels, "True"]))
  (folder / "fairface_label_val.csv").write_text("\n".join(lines) + "\n")


def write_facexbench(folder: Path, size: int) -> None:
  """A few of FaceXBench's files: one picture, several, and those that ask about tools."""
  folder.mkdir(parents=True)
  for stem, category, count in (
    ("fairface_single_mcq_age_test", "bias_fairness", 10),
    ("utkface_single_mcq_gender_test", "bias_fairness", 10),
    ("wmca_multiple_mcq", "fas_deepfakes", 8),
    ("tools_retrieval", "tools_use", 4),
  ):
    facexbench_folder.write(folder, stem, category, count)
  facexbench_folder.draw(folder, size)


@contextlib.contextmanager
def endpoint():
  """A chat completion endpoint in a process of its own; a tenth of its requests fail."""
  script = ROOT / "experiments/annotate/fake_endpoint.py"
  command = [sys.executable, str(script), "--port", "0", "--faults", "0.1", "--bad-answers", "0"]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout
      yield process.stdout.readline().strip()
    finally:
      process.kill()


def facejax(*words: str | Path) -> str:
  """Runs a command as a user does; gives what it prints, or ends with what it says."""
  command = [sys.executable, "-m", "facejax.cli", *map(str, words)]
  print(f"{time.strftime('%X')} facejax {words[0]} {words[1]}", file=sys.stderr, flush=True)
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr}")
  return done.stdout


def build(folder: Path, images: str, out: str, settings: list[str]) -> str:
  """dataset.json with the pictures of a folder -> built records; the last line it prints.

  Text tokens are counted for the runs of configs/facellm_1b.py with these settings.
  """
  source = {
    **{"name": "fairfacegpt", "layout": "fairfacegpt", "licence": "made up"},
    **{"index": ["fairfacegpt/dataset.json"], "image_root": images},
  }
  (folder / f"{out}.json").write_text(json.dumps({"sources": [source]}))
  counted = [f"data.tokenizer={folder / 'InternVL3-1B-hf'}", *settings]
  said = facejax(
    *("data", "build", folder / f"{out}.json", folder / out),
    *("--config", ROOT / "configs/facellm_1b.py", *(f"--config.{s}" for s in counted)),
  )
  return said.strip().splitlines()[-1].replace(f"{folder}/", "")


def annotate(folder: Path, settings: list[str]) -> dict:
  """FairFace -> dataset.json -> built records."""
  with endpoint() as url:
    facejax(
      *("annotate", "fairface", "--labels", folder / "fairface/fairface_label_val.csv"),
      *("--images", folder / "fairface", "--out", folder / "fairfacegpt"),
      *("--base-url", url, "--model", "fake", "--key-env=", "--first-wait", "0.05"),
      *("--timeout", "2", "--idempotent", "--assistant", "assistant"),
    )
  samples = json.loads((folder / "fairfacegpt/dataset.json").read_text())
  return {"samples": len(samples), "built": build(folder, "fairface", "records", settings)}


def training(folder: Path, size: str, changes: list[str]) -> list[str | Path]:
  """The command line of a run of configs/facellm_SIZE.py, small."""
  config, _, option = size.partition(":")
  name = folder / f"InternVL3-{config.upper()}-hf"
  settings = [
    *changes,
    f"data.sources={folder / ('large' if option else 'records')}/fairfacegpt",
    f"data.tokenizer={name}",
    f"stages.lora.init_from={name}",
    f"stages.lora.steps={STEPS}",
    "stages.lora.rows=8",
    "stages.lora.accumulate=2",
    f"stages.lora.optim.peak_lr={RATE}",
    "model.dtype=float32",
    f"checkpoint_every={EVERY}",
    "log_every=1",
    *("mesh.fsdp=1", "mesh.tensor=1"),
    f"data.row_length={1024 if option else 512}",
  ]
  path = f"{ROOT / f'configs/facellm_{config}.py'}{':' * bool(option)}{option}"
  return ["train", "--config", path, *(f"--config.{setting}" for setting in settings)]


def tracking(folder: Path) -> list[str]:
  """Settings of a run that asks 12 of the benchmark's questions every 8 steps."""
  settings = [
    *("suites=facexbench", f"data=facexbench={folder / 'benchmark'}", "every=8", "limit=12"),
    *("settings=facexbench.partial=true", f"new_tokens={NEW_TOKENS}", "best=facexbench.accuracy"),
  ]
  return [*(f"--config.track.{setting}" for setting in settings), "--config.evaluate.rows=8"]


def tracked(run: Path) -> list[dict]:
  """What the evaluations of a run gave, without times; and their answers."""
  lines = [json.loads(x) for x in (run / "lora/track.jsonl").read_text().splitlines()]
  return [
    {name: value for name, value in line.items() if name != "seconds"}
    | {"answers": answers(run / "lora/track" / str(line["step"]))}
    for line in lines
  ]


def curve(run: Path) -> list[dict]:
  """What a run logged of its steps, without times."""
  names = ("step", "loss", "weight", "grad_norm", "update_norm", "param_norm", "learning_rate")
  lines = (run / "lora/metrics.jsonl").read_text().splitlines()
  return [{name: json.loads(line)[name] for name in names} for line in lines]


def killed(command: list, run: Path) -> int:
  """SIGKILL behind step KILL_AT; gives the step it had reached."""
  words = [sys.executable, "-m", "facejax.cli", *map(str, command), "--workdir", str(run)]
  with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
    reached = 0
    while process.poll() is None and reached < KILL_AT:
      time.sleep(0.01)
      with contextlib.suppress(OSError, ValueError, IndexError):
        reached = curve(run)[-1]["step"]
    process.send_signal(signal.SIGKILL)
  return reached


def evaluate(checkpoint: Path, folder: Path, out: Path, *more: str | Path) -> dict:
  """Accuracy and answers of a checkpoint on the benchmark."""
  facejax(
    *("evaluate", "--suite", "facexbench", "--checkpoint", checkpoint, "--data"),
    *(f"facexbench={folder}", "--set", "facexbench.partial=true", "--out", out, "--rows", "8"),
    *("--new-tokens", str(NEW_TOKENS), *more),
  )
  results = json.loads((out / "facexbench/results.json").read_text())
  return {
    "accuracy": round(results["scores"]["accuracy"]["value"], 2),
    "parse_failures": results["parse_failures"]["count"],
    "not_asked": results["not_asked"]["count"],
  }


def answers(out: Path) -> dict[str, str]:
  """What was said, by question."""
  _, *lines = (out / "facexbench/predictions.jsonl").read_text().splitlines()
  return {r["id"]: r["answer"] for r in map(json.loads, lines)}


def torch_side(python: str, model: Path, out: Path, folder: Path) -> dict:
  """torch_side.py's result."""
  words = [python, HERE / "torch_side.py", model, out / "facexbench/predictions.jsonl", folder]
  done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
  return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-500:]}


def recipe(folder: Path, torch: str) -> dict:
  """configs/facellm_1b.py from pictures to scores."""
  write_fairface(folder / "fairface", 12, base.PIXELS, base.PIXELS)
  write_facexbench(folder / "benchmark", base.PIXELS)
  source = folder / "InternVL3-1B-hf"
  settings = base.make(source, "1b")
  result: dict = {"data": annotate(folder, settings)}
  command = [*training(folder, "1b", settings), *tracking(folder)]
  clean, broken = folder / "clean", folder / "killed"
  said = facejax(*command, "--workdir", clean)
  result["trainable"] = next(line for line in said.splitlines() if line.startswith("total"))
  reached = killed(command, broken)
  facejax(*command, "--workdir", broken, "--resume")
  losses = [point["loss"] for point in curve(clean)]
  result["train"] = {
    "first_and_last_loss": [round(losses[0], 4), round(losses[-1], 4)],
    "killed_behind_step": reached,
    "steps_with_equal_numbers": sum(
      a == b for a, b in zip(curve(clean), curve(broken), strict=True)
    ),
    "steps": STEPS,
    "tracked_at_steps": [line["step"] for line in tracked(clean)],
    "tracked_the_same": tracked(clean) == tracked(broken),
    "best_step": int((broken / "lora/best").resolve().name),
  }
  merged = folder / "FaceLLM-1B"
  facejax(
    *("convert", "export", broken / "lora", merged, "--format", "internvl_hf", "--like", source)
  )
  outs = {name: folder / f"answers_{name}" for name in ("run", "export", "as_trained", "base")}
  result["evaluate"] = {
    "run": evaluate(broken, folder / "benchmark", outs["run"]),
    "export": evaluate(merged, folder / "benchmark", outs["export"]),
    "as_trained": evaluate(
      *(merged, folder / "benchmark", outs["as_trained"]),
      *("--template", "internvl_system", "--tiles", "1"),
    ),
    "base": evaluate(source, folder / "benchmark", outs["base"]),
  }
  said_by = {name: answers(out) for name, out in outs.items()}
  differ = lambda a, b: sum(said_by[a][i] != said_by[b][i] for i in said_by[a])
  result["answers"] = {
    "items": len(said_by["run"]),
    "run_and_export_as_trained_differ": differ("run", "as_trained"),
    "export_and_base_differ": differ("export", "base"),
  }
  if torch:
    result["transformers"] = {
      name: torch_side(torch, merged, outs[name], folder / "benchmark")
      for name in ("export", "as_trained")
    }
  return result


def sizes(folder: Path) -> dict:
  """The likenesses of the three sizes, one tile, and of the smallest with several tiles."""
  found = {}
  write_fairface(folder / "fairface_large", 12, 120, 180)
  build(folder, "fairface_large", "large", base.settings(folder / "InternVL3-1B-hf", "1b"))
  for size in ("1b", "8b", "38b", "1b:multi_tile"):
    source = folder / f"InternVL3-{size.partition(':')[0].upper()}-hf"
    if source.exists():
      settings = base.settings(source, size.partition(":")[0])
    else:
      settings = base.make(source, size.partition(":")[0])
    run = folder / f"size_{size.replace(':', '_')}"
    began = time.monotonic()
    said = facejax(*training(folder, size, settings), "--workdir", run)
    seconds = time.monotonic() - began
    merged = folder / f"{run.name}_merged"
    facejax("convert", "export", run / "lora", merged, "--format", "internvl_hf", "--like", source)
    losses = [point["loss"] for point in curve(run)]
    found[size] = {
      "table": next(line for line in said.splitlines() if line.startswith("total")),
      "first_and_last_loss": [round(losses[0], 4), round(losses[-1], 4)],
      "seconds_with_compilation": round(seconds, 1),
      "facexbench": evaluate(merged, folder / "benchmark", folder / f"{run.name}_answers"),
    }
  return found


def planned() -> dict:
  """What experiments/plans says the real sizes need, by topology."""
  found: dict = {}
  for path in sorted((ROOT / "experiments/plans/results").glob("facellm_*-lora-*.json")):
    plan = json.loads(path.read_text())
    found.setdefault(Path(plan["config"]).stem, {})[plan["topology"]] = {
      "rows": plan["rows"],
      "fits": plan["fits"],
      "gb_per_chip": round(plan["hbm_gb_per_chip"]["total"], 1),
      "step_seconds": round(plan["step_seconds"]["schedule"], 2),
    }
  return found


def checks(result: dict) -> dict[str, bool]:
  """What must hold."""
  main, items = result["main"], result["main"]["answers"]["items"]
  found = {
    "the loss fell": main["train"]["first_and_last_loss"][1]
    < main["train"]["first_and_last_loss"][0],
    "killed before the end": main["train"]["killed_behind_step"] < STEPS,
    "resumed run equals the clean one": main["train"]["steps_with_equal_numbers"] == STEPS,
    "evaluations of both are equal": main["train"]["tracked_the_same"],
    "export answers as the run": main["answers"]["run_and_export_as_trained_differ"] == 0,
    "training changed answers": main["answers"]["export_and_base_differ"] > 0,
    "nothing was refused": all(e["not_asked"] == 0 for e in main["evaluate"].values()),
  }
  for name, side in main.get("transformers", {}).items():
    found[f"transformers loads all tensors ({name})"] = (
      side.get("tensors_missing_or_unexpected") == 0
    )
    found[f"same prompts and answers ({name})"] = (
      side.get("same_prompts") == side.get("same_answers") == items
    )
  return found


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--torch", default="", metavar="PYTHON", help="one that has transformers")
  parser.add_argument("--json", type=Path)
  parser.add_argument(
    "--folder", type=Path, help="keep all files here; `sizes` goes on with those of `main`"
  )
  parser.add_argument("--parts", default="main,sizes")
  args = parser.parse_args()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  result: dict = {
    "date": datetime.date.today().isoformat(),
    "cpu": platform.processor() or platform.machine(),
    "jax": jax.__version__,
  }
  if args.json and args.json.is_file():
    result = json.loads(args.json.read_text()) | result

  def note(name: str, value: dict) -> None:
    """Written at once: all of it takes a quarter of an hour on a machine that is shared."""
    result[name] = value
    print(json.dumps({name: value}, indent=1), flush=True)
    if args.json:
      args.json.write_text(json.dumps(result, indent=1) + "\n")

  with tempfile.TemporaryDirectory() as made:
    folder = args.folder or Path(made)
    if "main" in args.parts:
      note("main", recipe(folder, args.torch))
      note("checks", checks(result))
    if "sizes" in args.parts:
      note("plans", planned())
      note("sizes", sizes(folder))
  return 0 if all(result["checks"].values()) else 1


if __name__ == "__main__":
  sys.exit(main())
