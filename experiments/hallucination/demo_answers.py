"""The demo's own answers: how often do they state something false? -> demo.json.

python experiments/hallucination/demo_answers.py runs/demo [--json OUT]

No model runs: the predictions that `facejax demo` leaves are read again. The three answers about a
face (attributes, expression, action units) are one description of its 34 labels, which may also be
projected onto the rules of the renderer: what is stated counts as 0.9 probable, what is not as 0.1.
"""

import argparse
import datetime
import json
from pathlib import Path

import numpy as np
from judge import markdown, table

from facejax.faces import questions
from facejax.knowledge import consistency, rules
from facejax.knowledge.projection import Projection

RUNS = {
  "base": "base",
  "stage 1": "stage1/evaluate",
  "stage 2": "stage2/evaluate",
  "stage 2, landmarks and maps masked off": "stage2/evaluate_masked",
}
TASKS = ("attributes", "expression", "action_units")
RULES = rules.load("drawn_faces")


def words(task: str, label) -> set[str]:
  """A parsed answer, or a truth, as names of labels."""
  if label is None:
    return set()
  names = [label] if isinstance(label, str) else label
  return {f"AU{n}" for n in names} if task == "action_units" else set(names)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
  """What is true of each face, and what its answers state, [n N] each."""
  truth: dict[int, set[str]] = {}
  stated: dict[int, set[str]] = {}
  for line in path.read_text().splitlines():
    record = json.loads(line)
    task, face = record["task"], record["face"]
    if task in TASKS:
      truth.setdefault(face, set()).update(words(task, record["truth"]))
      parsed = questions.parse(task, record["answer"])
      stated.setdefault(face, set()).update(words(task, parsed))
  rows = lambda told: consistency.stated([frozenset(told[f]) for f in sorted(told)], RULES.labels)
  return rows(truth), rows(stated)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("demo", type=Path, help="the workdir of facejax demo")
  parser.add_argument("--json", type=Path, default=Path(__file__).parent / "demo.json")
  args = parser.parse_args()
  project = Projection(RULES)
  plain, projected = {}, {}
  for name, folder in RUNS.items():
    truth, values = read(args.demo / folder / "predictions.jsonl")
    plain[name] = [values]
    kept = project.most_probable(np.where(values == 1, 0.9, 0.1)).astype(np.int8)
    projected[f"{name}, projected"] = [kept]
  rows = table(truth, plain | projected, RULES, "base")
  pairs = {
    name: table(
      truth, {"as it is": own, "projected": projected[f"{name}, projected"]}, RULES, "as it is"
    )
    for name, own in plain.items()
  }
  print(markdown(rows))
  summary = {
    "date": datetime.date.today().isoformat(),
    "data": "answers of facejax demo about drawn faces of held-out identities",
    "faces": len(truth),
    "table": rows,
    "projected_against_plain": {name: own["projected"] for name, own in pairs.items()},
  }
  args.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
  main()
