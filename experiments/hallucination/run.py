"""How often a description states an attribute that is false, before and after -> result.json.

nice python experiments/hallucination/run.py --base runs/demo_faceinsight [--json OUT]

From one base model (stage base_model of configs/demo_faceinsight.py) two models are trained for
equal steps on the same faces and answers: a baseline that sees pixels, and one with class maps and
the label head (its loss, graph and rules). Both describe held-out faces, with and without labels in
front of the question. Finished parts lie in --workdir, from where a stopped run goes on.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import time
from pathlib import Path

import flax
import jax
import numpy as np
from judge import markdown, table

from facejax import checkpoint, config_io, weights
from facejax.config import RunConfig, SegmentationConfig
from facejax.faces import questions, scene, synthetic
from facejax.generate import Answerer, Sampling
from facejax.knowledge import consistency, cooccurrence, rules
from facejax.knowledge.handoff import Handoff
from facejax.knowledge.projection import Projection
from facejax.knowledge.telling import Telling
from facejax.train import train
from facejax.types import Medium, Sample, Turn

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "demo_faceinsight.py"
RULES = rules.load(str(HERE / "attributes.toml"))
NAMES = RULES.labels.labels
SAID = Handoff(order="score", item="{label}")  # threshold 0.7, up to 12 labels
ADDED = r"(segmentation|labels)/.*"


def arm(name: str, seed: int, steps: int, start: Path) -> RunConfig:
  """The config of one training: "baseline" or "fine_tuned"."""
  config = config_io.load(CONFIG)
  stage = config.stages["fine_tuned"]
  model, row_length = config.model, 288
  if name == "baseline":
    row_length = 224
    model = dataclasses.replace(model, segmentation=SegmentationConfig(), labels=None)
    stage = dataclasses.replace(stage, trainable=(r"projector/.*",))
  stage = dataclasses.replace(stage, steps=steps, init_from=str(start), new=(ADDED,))
  drawn = dataclasses.replace(config.data.synthetic, tasks=("attributes",), turns=1)
  data = dataclasses.replace(config.data, row_length=row_length, seed=seed, synthetic=drawn)
  return dataclasses.replace(
    config, model=model, data=data, stages={name: stage}, seed=seed, checkpoint_every=steps
  )


def test_faces(faces: int) -> tuple[list[Sample], np.ndarray]:
  """Questions about held-out faces, and the attributes that each has."""
  samples, values = [], []
  for i in range(faces):
    face = synthetic.face(i, size=112, split="test")
    asked = questions.question("attributes", np.random.default_rng((7, i)))
    medium = Medium("image", face.image[None], None, face.segmentation[None])
    samples.append(Sample(f"test/{i}", (Turn("human", f"<image>\n{asked}"),), (medium,)))
    values.append([face.labels.attributes[name] for name in NAMES])
  return samples, np.array(values, np.int8)


def described(answerer: Answerer, samples: list[Sample]) -> np.ndarray:
  """Attributes that the answers state, [n N] of 1 and 0."""
  told = answerer.answer(samples, Sampling(new_tokens=64))
  parsed = [questions.parse("attributes", answer.text) for answer in told]
  return consistency.stated(parsed, RULES.labels)  # type: ignore[arg-type]


def of_base(config: RunConfig, params: dict, samples: list[Sample]) -> dict[str, np.ndarray]:
  """The base model, plain and told of its own yes and no (training-free)."""
  answerer = Answerer(config, params)
  counts = cooccurrence.count([truth_of("train", 4000)], RULES.labels, "drawn faces")
  free = Telling(SAID, "answers", str(HERE / "attributes.toml"), counts=counts)
  scores, _ = free.scores(answerer, samples, None)
  return {
    "base model": described(answerer, samples),
    "base model + hand-off, training-free": described(answerer, free.told(answerer, samples, None)),
    "its yes and no alone, training-free": decided(scores),
  }


def truth_of(split: str, number: int) -> np.ndarray:
  """Attributes of drawn faces, which need not be drawn for it."""
  has = (scene.sample(i, split).attributes for i in range(number))
  return np.array([[own[name] for name in NAMES] for own in has], np.int8)


def decided(scores: np.ndarray) -> np.ndarray:
  """The most probable assignment that keeps the rules."""
  return Projection(RULES).most_probable(scores).astype(np.int8)


def of_fine_tuned(config: RunConfig, params: dict, samples: list[Sample]) -> dict[str, np.ndarray]:
  """The model with maps and labels: plain, told of labels, its head alone, and both."""
  answerer, head = Answerer(config, params), config.model.labels.rules  # type: ignore[union-attr]
  places = [rules.load(head).labels.index(name, "run.py") for name in NAMES]
  scores = answerer.label_scores(samples)[:, places].astype(np.float64)
  plain = described(answerer, samples)
  told = lambda project: described(
    answerer, Telling(SAID, project=project).told(answerer, samples, head)
  )
  denied = lambda values: np.where(values == 1, plain, np.minimum(plain, 0)).astype(np.int8)
  return {
    "fine_tuned": plain,
    "fine_tuned + hand-off": told(False),
    "fine_tuned + hand-off, projected": told(True),
    "fine_tuned, what its head denies left out": denied(scores >= 0.5),
    "fine_tuned, what its projected head denies left out": denied(decided(scores)),
    "its label head alone": (scores >= 0.5).astype(np.int8),
    "its label head alone, projected": decided(scores),
  }


def cached(path: Path, make) -> dict[str, np.ndarray]:
  """What an earlier call left, or what make() gives."""
  if not path.exists():
    np.savez(path, **make())
  with np.load(path) as file:
    return dict(file)


def of_arm(
  name: str, seed: int, steps: int, workdir: Path, samples: list[Sample]
) -> dict[str, np.ndarray]:
  """Trains an arm, unless that is done, and has it describe the faces."""
  run = workdir / f"{name}{seed}"
  if stopped := train(arm(name, seed, steps, workdir / "base.safetensors"), run, resume=True):
    raise SystemExit(stopped)
  config, params, _ = checkpoint.load_run(run, name)
  make = {
    "baseline": lambda: {"baseline": described(Answerer(config, params), samples)},
    "fine_tuned": lambda: of_fine_tuned(config, params, samples),
  }[name]
  return cached(run / "described.npz", make)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--base", type=Path, required=True, help="a run with the stage base_model")
  parser.add_argument("--workdir", type=Path, default=Path("runs/hallucination"))
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--faces", type=int, default=600)
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--json", type=Path, default=HERE / "result.json")
  args = parser.parse_args()
  started = time.monotonic()
  args.workdir.mkdir(parents=True, exist_ok=True)
  _, params, folder = checkpoint.load_run(args.base, "base_model")
  start = args.workdir / "base.safetensors"
  weights.save_weights(start, params)
  samples, truth = test_faces(args.faces)
  answers: dict[str, list[np.ndarray]] = {}

  def keep(found: dict[str, np.ndarray]) -> None:
    for row, values in found.items():
      answers.setdefault(row, []).append(values)

  def write() -> None:
    rows = table(truth, answers, RULES, "baseline")
    print(markdown(rows), flush=True)
    summary = {
      "date": datetime.date.today().isoformat(),
      "versions": {
        "jax": jax.__version__,
        "flax": flax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
      },
      "data": "drawn faces of held-out identities",
      "faces": args.faces,
      "steps": {"base_model": checkpoint.steps_in(folder)[-1], "each": args.steps},
      "minutes": round((time.monotonic() - started) / 60, 1),
      "table": rows,
    }
    args.json.write_text(json.dumps(summary, indent=1) + "\n")

  for seed in [int(seed) for seed in args.seeds.split(",")]:
    for name in ("baseline", "fine_tuned"):
      keep(of_arm(name, seed, args.steps, args.workdir, samples))
    write()
  plain = {part: x for part, x in params.items() if part not in ("segmentation", "labels")}
  blind = arm("baseline", 0, args.steps, start)
  keep(cached(args.workdir / "base.npz", lambda: of_base(blind, plain, samples)))
  write()


if __name__ == "__main__":
  main()
