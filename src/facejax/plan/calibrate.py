"""The planner checked against itself. topology -> what it says of programs that are understood.

products   a lone large product: the compiler's estimate against the peak
FLOPs      flops.py's count of a text decoder against 6 * parameters * tokens, and against the
           products in its compiled step
memory     bytes of the state and batch by their shardings, against the compiler's arguments
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from facejax import chips, stages
from facejax.config import DataConfig, MeshConfig, ModelConfig, RunConfig
from facejax.models import presets
from facejax.plan import cost, flops, hlo
from facejax.plan.compiled import compile_step
from facejax.plan.planner import assess
from facejax.plan.topology import Topology
from facejax.sharding import make_mesh, row_parts

_PRODUCTS = ((16384, 16384, 16384), (4096, 4096, 11008))


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What was found on a topology."""

  topology: str
  products: dict[str, float]  # shape -> FLOPs / (peak * estimated seconds)
  counted_to_6nd: float  # products with parameters, of flops.py
  program_to_counted: float  # all products of the compiled step, against flops.py's
  arguments: int  # bytes of a device, by shardings
  arguments_compiled: int  # as the compiler says


def run(topology: Topology) -> Calibration:
  """Compiles a few small programs: a minute."""
  chip, shapes = topology.chip, {}
  if chip.is_tpu:
    for rows, inner, columns in _PRODUCTS:
      seconds = _product_seconds(topology, rows, inner, columns)
      shapes[f"{rows} x {inner} x {columns}"] = 2 * rows * inner * columns / chip.peak / seconds
  config = _decoder(topology)
  program = compile_step(config, "text", topology)
  plan = assess(config, "text", topology, program)
  stage = config.stages["text"]
  tokens = stage.rows * config.data.row_length
  needed = plan.model_flops["decoder"].total + plan.model_flops["head"].total
  assert plan.compute
  # Kernels count whole tiles on the diagonal, the formula half of them: attention is left out.
  kernels = sum(kernel.flops for kernel in plan.kernels)
  products = (plan.compute.program_flops - kernels) * plan.devices
  memory = program.memory
  held = memory.trainable + memory.frozen + memory.optimizer + memory.batch
  return Calibration(
    topology=topology.name,
    products=shapes,
    counted_to_6nd=needed / (6 * flops.decoder_parameters(config.model) * tokens),
    program_to_counted=products / needed,
    arguments=held,
    arguments_compiled=program.arguments,
  )


def _product_seconds(topology: Topology, rows: int, inner: int, columns: int) -> float:
  """The compiler's estimate of x @ w in bfloat16 on one device."""
  mesh = make_mesh(MeshConfig(data=topology.slices, fsdp=-1), topology.devices)
  everywhere = NamedSharding(mesh, PartitionSpec())
  shape = lambda *size: jax.ShapeDtypeStruct(size, jnp.bfloat16, sharding=everywhere)
  product = jax.jit(jnp.dot, compiler_options=chips.compiler_options(mesh))
  text = product.lower(shape(rows, inner), shape(inner, columns)).compile().as_text()
  work = cost.measure(hlo.parse(text or ""), topology.chip)
  assert topology.chip.clock
  return (work.matmul_cycles + work.other_cycles) / topology.chip.clock


def _decoder(topology: Topology) -> RunConfig:
  """A small decoder that reads text alone, nothing computed twice."""
  text = dataclasses.replace(
    presets.LLAMA2_7B, width=1024, layers=3, heads=8, kv_heads=8, mlp=2816, vocab=4096
  )
  image = dataclasses.replace(presets.CLIP_L_336, layers=2, width=64, heads=2, mlp=64)
  model = ModelConfig(image=image, decoder=text, remat="none")
  mesh = MeshConfig(data=-1, fsdp=math.gcd(len(topology.devices) // topology.slices, 64))
  rows = row_parts(make_mesh(mesh, topology.devices))
  return RunConfig(
    model=model,
    data=DataConfig(row_length=1024, images_per_row=0, modalities=()),
    stages={"text": dataclasses.replace(stages.base(1, rows), trainable=("decoder/.*",))},
    mesh=mesh,
  )


def table(found: Calibration) -> str:
  """What a person reads."""
  lines = [f"{found.topology}"]
  lines += [
    f"  a lone product of {shape}: {share:.1%} of the peak"
    for shape, share in found.products.items()
  ]
  if not found.products:
    lines.append("  the compiler estimates no cycles for GPUs: nothing to compare with the peak")
  return "\n".join(
    [
      *lines,
      f"  FLOPs of a text decoder by flops.py: {found.counted_to_6nd:.4f} of 6 N tokens",
      f"  products in its compiled step: {found.program_to_counted:.4f} of flops.py's",
      f"  state and batch by shardings: {found.arguments / found.arguments_compiled:.4f} of the "
      "compiler's arguments",
    ]
  )
