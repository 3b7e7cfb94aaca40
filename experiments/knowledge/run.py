"""What segmentation, correlation and rules bring to scores of labels -> result.json, README.md.

nice python experiments/knowledge/run.py [--faces 3000] [--steps 800] [--cache FILE] [--json OUT]

Heads of the same size are trained on fixed features of drawn faces (planted.py) for equal steps,
with three seeds, on clean labels, on 10 % flipped, on 10 % missing ones, and on few faces. Then a
frozen head, trained on faces without the planted correlations, is combined with counts and rules,
with no gradient step.
"""

import argparse
import datetime
import functools
import json
import platform
import time
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import planted
import report
from safetensors import safe_open

from facejax.data.tokenizer import Tokenizer
from facejax.knowledge import cooccurrence, rules, training_free, violations
from facejax.knowledge.constraint import LabelScores, embed_prompts, label_loss, scores, total_loss
from facejax.knowledge.projection import Projection
from facejax.losses import per_weight

HERE = Path(__file__).parent
RULES = rules.load("drawn_faces")
LABELS = RULES.labels
SEEDS = (0, 1, 2)
BATCH, WIDTH, MAP_WIDTH, FROZEN_FACES = 128, 192, 64, 600
FEW_FACES = 250  # another 250 for each seed
FEW = f"{FEW_FACES} faces"

# Name -> class maps read, depth of the graph, form of the rules ("" none), edges of the graph.
VARIANTS = {
  "baseline": (False, 0, "", False),
  "+ segmentation": (True, 0, "", False),
  "+ correlation": (False, 2, "", True),
  "+ its layers, no edges": (False, 2, "", False),
  "+ rules (product)": (False, 0, "product", False),
  "+ rules (hinge)": (False, 0, "hinge", False),
  "all (product)": (True, 2, "product", True),
  "all (hinge)": (True, 2, "hinge", True),
}


def prompts() -> np.ndarray:
  """T^0: the demo base's token embeddings of a prompt for each label."""
  tokenizer = Tokenizer.demo()
  with safe_open(HERE.parents[1] / "src/facejax/assets/demo_base.safetensors", "flax") as file:
    embedding = np.asarray(file.get_tensor("decoder/embedding"), np.float32)
  told = [tokenizer.encode(f"the face shows {LABELS.say(name)}") for name in LABELS.labels]
  made = embed_prompts(embedding, told)
  return made / np.linalg.norm(made, axis=1, keepdims=True)


def data(faces: int, cache: Path | None) -> dict[str, np.ndarray]:
  """Labels and features of the training, test and frozen model's faces."""
  if cache is not None and cache.exists():
    return dict(np.load(cache))
  found = {}
  for name, split, number, chosen in (
    ("train", "train", faces, True),
    ("test", "test", faces // 2, True),
    ("frozen", "validation", FROZEN_FACES, False),
  ):
    kept = planted.scenes(split, number, 0, chosen)
    found[f"{name}_values"] = planted.table(kept, LABELS)
    found[f"{name}_pixels"], found[f"{name}_maps"] = planted.features(kept)
    print(f"{name}: {number} faces", flush=True)
  if cache is not None:
    np.savez(cache, **found)
  return found


def spoiled(values: np.ndarray, kind: str, seed: int) -> np.ndarray:
  """Labels as they are, with 10 % flipped or missing, or those of another few faces a seed."""
  hit = np.random.default_rng([seed, 7]).random(values.shape) < 0.1
  if kind in ("clean labels", FEW):
    return values
  return np.where(hit, 1 - values if kind == "10 % wrong" else -1, values).astype(np.int8)


@functools.cache
def trainer(depth: int, form: str, groups: tuple):
  """A compiled function that trains a head and returns its scores of the test faces."""
  model, arrays = LabelScores(depth), violations.compiled(RULES)

  def train(key, x, values, graph, told, order, test):
    def loss(params, rows):
      logits = model.apply(params, x[rows], told, graph)
      if form:
        return total_loss(logits, values[rows], groups, arrays, form=form)[0]
      return per_weight(*label_loss(logits, values[rows], groups))

    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, len(order)))

    def step(state, rows):
      params, opt = state
      updates, opt = optimizer.update(jax.grad(loss)(params, rows), opt, params)
      return (optax.apply_updates(params, updates), opt), None

    params = model.init(key, x[:2], told, graph)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), order)
    return scores(model.apply(params, test, told, graph), groups)

  return jax.jit(train)


def fit(x, values, graph, told, variant, seed, steps, test, groups=LABELS.group_indices):
  """Trains a head; returns its scores of the test faces."""
  _, depth, form, edges = variant
  graph = graph if edges else np.eye(len(LABELS), dtype=np.float32)
  order = np.random.default_rng([seed, 1]).integers(len(x), size=(steps, BATCH))
  inputs = [jnp.asarray(array) for array in (x, values, graph, told, order, test)]
  made = trainer(depth, form, groups)(jax.random.key(seed), *inputs)
  return np.asarray(made, np.float64)


def prepared(found: dict[str, np.ndarray]) -> dict[bool, tuple[np.ndarray, np.ndarray]]:
  """Training and test features, without and with those of class maps."""
  pixels = planted.whitened(found["train_pixels"], [found["test_pixels"]], WIDTH)
  maps = planted.whitened(found["train_maps"], [found["test_maps"]], MAP_WIDTH)
  both = [np.concatenate(pair, 1) for pair in zip(pixels, maps, strict=True)]
  return {False: tuple(pixels), True: tuple(both)}


def trained(found, features, told, kind, steps) -> dict[str, list]:
  """Variant -> test scores for each seed."""
  result: dict[str, list] = {name: [] for name in VARIANTS}
  for seed in SEEDS:
    values = spoiled(found["train_values"], kind, seed)
    some = slice(FEW_FACES * seed, FEW_FACES * (seed + 1))
    rows = some if kind == FEW else slice(None)
    counts = cooccurrence.count([values[rows]], LABELS, kind)
    graph = cooccurrence.graph(cooccurrence.conditional(counts))
    for name, variant in VARIANTS.items():
      x, y = features[variant[0]]
      made = fit(x[rows], values[rows], graph, told, variant, seed, steps, y)
      result[name].append(made)
  return result


def frozen(found, told, steps) -> dict[str, list]:
  """Rows of the training-free table -> test scores for each seed."""
  x, test = planted.whitened(found["frozen_pixels"], [found["test_pixels"]], WIDTH)
  counts = cooccurrence.count([found["train_values"]], LABELS, "train")
  known = training_free.statistics(counts, LABELS)
  values, head = found["frozen_values"], VARIANTS["baseline"]
  result: dict[str, list] = {}
  for seed in SEEDS:
    plain = fit(x, values, None, told, head, seed, steps // 4, test, groups=())
    matched = training_free.match_prevalence(plain, known.prevalence)
    rows = {
      "plain answers": plain,
      "+ prevalence": matched,
      "+ couplings": training_free.refine(plain, known),
      "+ rules": on_rules(plain),
      "prevalence + rules": on_rules(matched),
      "prevalence + couplings": training_free.refine(matched, known),
      "all three": on_rules(training_free.refine(matched, known)),
    }
    for name, made in rows.items():
      result.setdefault(name, []).append(made)
  return result


def projected(result: dict[str, list], names: tuple[str, ...]) -> None:
  """Adds rows whose scores are projected onto the rules afterwards: (scores, decisions)."""
  for name in names:
    result[f"{name}, projected"] = [on_rules(each) for each in result[name]]


def on_rules(made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Probabilities given the rules, and the most probable assignment."""
  project = Projection(RULES)
  return project.probabilities(made), project.most_probable(made).astype(np.int8)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--faces", type=int, default=3000)
  parser.add_argument("--steps", type=int, default=800)
  parser.add_argument("--cache", type=Path)
  parser.add_argument("--json", type=Path, default=HERE / "result.json")
  args = parser.parse_args()
  started = time.monotonic()
  found, told = data(args.faces, args.cache), prompts()
  judge = report.Judge(RULES, found["test_values"], found["train_values"])
  features, tables = prepared(found), {}
  for kind in ("clean labels", "10 % wrong", "10 % missing", FEW):
    result = trained(found, features, told, kind, args.steps)
    projected(result, ("baseline", "all (product)", "all (hinge)"))
    tables[kind] = judge.table(result, "baseline")
    print(report.markdown(kind, tables[kind]), flush=True)
  tables["training-free"] = judge.table(frozen(found, told, args.steps), "plain answers")
  print(report.markdown("training-free", tables["training-free"]))
  summary = {
    "date": datetime.date.today().isoformat(),
    "versions": {
      "jax": jax.__version__,
      "flax": flax.__version__,
      "numpy": np.__version__,
      "python": platform.python_version(),
    },
    "data": "drawn faces with planted correlations (planted.py)",
    "faces": {name: len(found[f"{name}_values"]) for name in ("train", "test", "frozen")},
    "steps": args.steps,
    "seeds": list(SEEDS),
    "rare_labels": judge.rare_names,
    "minutes": round((time.monotonic() - started) / 60, 1),
    "tables": tables,
  }
  args.json.write_text(json.dumps(summary, indent=1) + "\n")
  report.write_page(HERE / "README.md", tables)


if __name__ == "__main__":
  main()
