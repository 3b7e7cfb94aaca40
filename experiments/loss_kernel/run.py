"""Our loss beside the fused kernel of tokamax, as the TPU compiler sees them on one v5e.

python experiments/loss_kernel/run.py    # README.md says how to install tokamax
"""

import datetime
import functools
import importlib.metadata
import json
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")

import jax.numpy as jnp  # noqa: E402
import tokamax  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402
from tokamax._src.ops.linear_softmax_cross_entropy_loss import pallas_mosaic_tpu  # noqa: E402

from facejax import chips, losses  # noqa: E402
from facejax.config import MeshConfig  # noqa: E402
from facejax.plan import cost, hlo, planner, topology  # noqa: E402
from facejax.sharding import AxisRules, make_mesh  # noqa: E402

POSITIONS, WIDTH, WORDS = 4096, 4096, 32000  # a row of Face-LLaVA-7B
V5E = next(chip for chip in chips.CHIPS if chip.name == "v5e")


def ours(hidden, kernel, targets, weights):
  """facejax.losses.of_hidden."""
  return losses.of_hidden(hidden, kernel, targets, weights, AxisRules())[0]


def fused(hidden, kernel, targets, weights):
  """It takes no weights; those of padding would have to be taken out of its sum."""
  del weights
  return tokamax.linear_softmax_cross_entropy_loss(
    hidden[0], targets[0], kernel, implementation="mosaic_tpu"
  )


# products of POSITIONS x WIDTH x WORDS that each makes: the logits; again for the backward pass;
# gradients by hidden and by kernel, of which tokamax makes both whatever is asked for.
PRODUCTS = {"ours": {"trained": 3, "frozen": 2}, "tokamax": {"trained": 4, "frozen": 4}}


def measure(loss, wanted, mesh) -> dict:
  """Temporary bytes, and the compiler's seconds where it can see into the program."""
  whole = NamedSharding(mesh, PartitionSpec())
  given = functools.partial(jax.ShapeDtypeStruct, sharding=whole)
  arrays = (
    given((1, POSITIONS, WIDTH), jnp.bfloat16),
    given((WIDTH, WORDS), jnp.bfloat16),
    given((1, POSITIONS), jnp.int32),
    given((1, POSITIONS), jnp.float32),
  )
  with jax.set_mesh(mesh):
    lowered = jax.jit(jax.value_and_grad(loss, wanted)).lower(*arrays)
    program = lowered.compile(compiler_options=chips.compiler_options(mesh))
  found = cost.measure(hlo.parse(program.as_text()), V5E)
  seen = (found.matmul_cycles + found.other_cycles) / V5E.clock
  temporary = program.memory_analysis().temp_size_in_bytes / 1e6
  return {"temporary_mb": temporary, "seconds": None if found.kernels else seen}


def main() -> None:
  """Both, with a head that trains and one that is frozen."""
  # It asks the host's devices whether it can run, so a host without a TPU cannot compile for one.
  for op in ("", "Vjp"):
    kernel = getattr(pallas_mosaic_tpu, f"PallasMosaicTpuLinearSoftmaxCrossEntropyLoss{op}")
    kernel.supported_on = lambda self, device: True
  mesh = make_mesh(MeshConfig(1, 1), topology.describe("v5e:2x2").devices[:1])
  result = {}
  for name, loss in (("ours", ours), ("tokamax", fused)):
    for head, wanted in (("trained", (0, 1)), ("frozen", 0)):
      flops = 2 * PRODUCTS[name][head] * POSITIONS * WIDTH * WORDS
      result[f"{name}, {head}"] = {
        "products": PRODUCTS[name][head],
        "seconds_of_products_at_peak": flops / V5E.peak,
        **measure(loss, wanted, mesh),
      }
      print(name, head, result[f"{name}, {head}"], flush=True)
  versions = planner.versions() | {"tokamax": importlib.metadata.version("tokamax")}
  result |= {"date": datetime.date.today().isoformat(), "versions": versions}
  # No --json: tokamax reads the command line, and refuses what it does not know.
  Path(__file__).with_name("result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
