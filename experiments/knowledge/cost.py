"""What scores and constraints add to a 7B step, as XLA counts the traced program -> cost.json.

python experiments/knowledge/cost.py [--json OUT]

The head of CelebA's 40 labels on a 7B model: features of CLIP ViT-L/14 (1024), prompts from the
decoder's own embedding (4096), two graph convolutions 4096 -> 8192 -> 4096, both losses, and their
gradients. The step it is compared with is 6 FLOPs a parameter and position of 7.06e9 parameters
(4 where the decoder is frozen and adapters train), in rows of one picture pair and its answer.
"""

import argparse
import datetime
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from facejax.knowledge import rules, violations
from facejax.knowledge.constraint import LabelScores, total_loss

HERE = Path(__file__).parent
ROWS, POSITIONS, PARAMETERS = 16, 1311, 7.06e9  # 576 + 576 visual tokens and 159 of text a row
FEATURES, WIDTH = 1024, 4096


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path, default=HERE / "cost.json")
  args = parser.parse_args()
  told = rules.load("celeba40")
  arrays, n = violations.compiled(told), len(told.labels)
  model = LabelScores(dtype=jnp.bfloat16)
  shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
  inputs = shape(ROWS, FEATURES), shape(n, WIDTH), shape(n, n)
  params = jax.eval_shape(model.init, jax.random.key(0), *inputs)

  def loss(params, features, prompts, graph, values):
    logits = model.apply(params, features, prompts, graph)
    return total_loss(logits, values, told.labels.group_indices, arrays)[0]

  values = jax.ShapeDtypeStruct((ROWS, n), jnp.int8)
  lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(params, *inputs, values)
  flops = lowered.cost_analysis()["flops"]
  size = sum(x.size for x in jax.tree.leaves(params))
  steps = {
    name: times * PARAMETERS * ROWS * POSITIONS
    for name, times in (("all parameters train", 6), ("adapters train", 4))
  }
  report = {
    "date": datetime.date.today().isoformat(),
    "versions": {"jax": jax.__version__},
    "rows": ROWS,
    "positions_a_row": POSITIONS,
    "parameters_of_the_head": size,
    "flops_of_the_head": flops,
    "percent_of_a_step": {name: round(100 * flops / whole, 4) for name, whole in steps.items()},
    "bytes_of_master_and_adam_per_parameter": 12,
    "gigabytes_of_master_and_adam": round(size * 12 / 1e9, 2),
  }
  print(json.dumps(report, indent=1))
  args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
  main()
