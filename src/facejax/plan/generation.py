"""Answering questions on machines that are not here. config, topology, rows -> Generation.

Two programs are compiled: prefill reads prompts of one picture each and fills the cache; decoding
draws the other tokens in a loop, as generate() does. A lone step would be charged for turning the
cache into the order that the loop keeps it in, and back. Decoding is bound by bandwidth: each step
reads the decoder's parameters and the cache once, whatever the compiler makes of it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from facejax import chips
from facejax.config import RunConfig
from facejax.fake import fake_batch
from facejax.models import face_mllm
from facejax.models.face_mllm import FaceMLLM
from facejax.plan import cost, hlo
from facejax.plan.compiled import exceeded, shard_bytes
from facejax.plan.network import Network
from facejax.plan.planner import Figures, combine, compute_of, traffic_of
from facejax.plan.topology import Topology
from facejax.sharding import batch_sharding, make_mesh, param_shardings, row_parts
from facejax.types import Batch, Cache
from facejax.visual_table import VisualTable


@dataclasses.dataclass(frozen=True)
class Phase:
  """One program; bytes of a device. step is None where it does not fit."""

  total: int
  step: Figures | None


@dataclasses.dataclass(frozen=True)
class Generation:
  """What answering costs; bytes of a device, rates of a chip by the schedule figure."""

  topology: str
  mesh: dict[str, int]
  rows: int
  prompt: int
  new_tokens: int
  limit: int
  parameters: int
  cache: int
  prefill: Phase
  decode: Phase
  bandwidth_bound: float  # seconds a decoding step takes at least
  chips: int

  @property
  def fits(self) -> bool:
    """Whether both programs fit."""
    return max(self.prefill.total, self.decode.total) <= self.limit


def plan(
  config: RunConfig, topology: Topology, rows: int, prompt: int, new_tokens: int
) -> Generation:
  """Compiles both programs. Raises ValueError if rows do not divide over the mesh, or the prompt
  is too short for a picture."""
  mesh = make_mesh(config.mesh, topology.devices)
  model = FaceMLLM(config.model, platform=mesh.devices.flat[0].platform)
  if rows % row_parts(mesh):
    raise ValueError(
      f"--generation: {rows} rows on {row_parts(mesh)} devices along the rows - expected a "
      "multiple; more tensor or fewer fsdp devices take fewer rows (--mesh fsdp=1,tensor=8)"
    )
  least = VisualTable(config.model, 1, 0).count("image", True) + 2
  if prompt < least:
    raise ValueError(
      f"--generation: prompts of {prompt} tokens - expected at least {least}, a picture's and two "
      f"of text - --generation {rows},{least},{new_tokens}"
    )
  params = _parameters(model, mesh)
  batch = _batch(config, rows, prompt, mesh)
  slots = prompt + new_tokens - 1
  read: Any = lambda p, b: model.apply({"params": p}, b, slots, method="prefill")
  prefill, program = _compile(read, (params, batch), topology, mesh)
  cache = _cache(jax.eval_shape(read, params, batch)[1], program, mesh)
  tokens = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=batch_sharding(mesh))
  draw = functools.partial(_draw, model, new_tokens - 1)
  decode, _ = _compile(draw, (params, tokens, tokens, cache), topology, mesh, donate=(3,))
  held, kept = shard_bytes(params["decoder"]), shard_bytes(cache)
  return Generation(
    topology=topology.name,
    mesh={axis: int(size) for axis, size in mesh.shape.items()},
    rows=rows,
    prompt=prompt,
    new_tokens=new_tokens,
    limit=topology.chip.memory,
    parameters=shard_bytes(params),
    cache=kept,
    prefill=prefill,
    decode=_a_step(decode, new_tokens - 1),
    bandwidth_bound=(held + kept) / topology.chip.bandwidth,
    chips=topology.chips,
  )


def _draw(model: FaceMLLM, steps: int, params: Any, tokens, positions, cache: Cache) -> Any:
  """The likeliest token of each row, `steps` times."""

  def step(_, carry):
    tokens, positions, cache = carry
    logits, cache = model.apply({"params": params}, tokens, positions, cache, method="extend")
    return jnp.argmax(logits, axis=-1).astype(tokens.dtype), positions + 1, cache

  return jax.lax.fori_loop(0, steps, step, (tokens, positions, cache))


def _a_step(loop: Phase, steps: int) -> Phase:
  if loop.step is None:
    return loop
  each = (seconds / steps for seconds in dataclasses.astuple(loop.step))
  return dataclasses.replace(loop, step=Figures(*each))


def _parameters(model: FaceMLLM, mesh: Mesh) -> Any:
  """Shapes in the type of the computation, as they are held for answering."""
  shapes = face_mllm.init_shapes(model.config)
  layout = param_shardings(shapes, mesh, model.rules)
  held = lambda x, s: jax.ShapeDtypeStruct(x.shape, model.config.dtype, sharding=s)
  return jax.tree.map(held, shapes, layout)


def _batch(config: RunConfig, rows: int, prompt: int, mesh: Mesh) -> Batch:
  row = fake_batch(config.model, 1, prompt, images=1)
  layout = batch_sharding(mesh)
  shape = lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=layout)
  return jax.tree.map(shape, row)


def _cache(shapes: Cache, program: Any, mesh: Mesh) -> Cache:
  """The cache as prefill leaves it; if that did not fit, with its rows over the mesh."""
  if program is None:
    layout = jax.tree.map(lambda x: _rows_layout(x, mesh), shapes)
  else:
    layout = program.output_shardings[1]
  place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  return jax.tree.map(place, shapes, layout)


def _rows_layout(x: Any, mesh: Mesh) -> Any:
  rows = batch_sharding(mesh).spec[0]
  spec = jax.sharding.PartitionSpec(*((None, rows) if x.ndim == 5 else (rows,) if x.ndim else ()))
  return jax.sharding.NamedSharding(mesh, spec)


def _compile(function, arguments, topology: Topology, mesh: Mesh, donate=()) -> tuple[Phase, Any]:
  jitted = jax.jit(function, donate_argnums=donate, compiler_options=chips.compiler_options(mesh))
  with jax.set_mesh(mesh):
    lowered = jitted.lower(*arguments)
    try:
      program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      needed = exceeded(str(error))
      if needed is None:
        raise
      return Phase(needed, None), None
  memory: Any = program.memory_analysis()
  total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  total += memory.output_size_in_bytes - memory.alias_size_in_bytes
  work = cost.measure(hlo.parse(program.as_text() or ""), topology.chip)
  traffic = traffic_of(work, Network(topology.chip, list(mesh.devices.flat)))
  return Phase(total, combine(compute_of(work, topology.chip).total, traffic)), program


def table(result: Generation) -> str:
  """What a person reads."""
  gb = 1e9
  mesh = ", ".join(f"{axis} {size}" for axis, size in result.mesh.items() if size > 1)
  lines = [
    f"answering on {result.topology}: {result.chips} chips, mesh {mesh or '1 device'}; "
    f"{result.rows} rows, prompts of {result.prompt} tokens, answers of {result.new_tokens}",
    f"memory, GB a device of {result.limit / gb:.1f}: parameters {result.parameters / gb:.2f}, "
    f"cache {result.cache / gb:.2f}, prefill {result.prefill.total / gb:.2f} in all, decoding "
    f"{result.decode.total / gb:.2f}",
  ]
  for name, phase, done in (
    ("prefill", result.prefill, result.rows * result.prompt),
    ("decoding step", result.decode, result.rows),
  ):
    if phase.step is None:
      lines.append(f"{name}: DOES NOT FIT - fewer rows, or more devices along tensor")
      continue
    s = phase.step
    lines.append(
      f"{name}: {s.slowest * 1e3:.2f} / {s.schedule * 1e3:.2f} / {s.fastest * 1e3:.2f} ms "
      f"(slowest, schedule, fastest), {done / s.schedule / result.chips:,.0f} tokens/s/chip"
    )
  bound = result.bandwidth_bound
  lines.append(
    f"bound of bandwidth: {bound * 1e3:.2f} ms a decoding step, "
    f"{result.rows / bound / result.chips:,.0f} tokens/s/chip"
  )
  return "\n".join(lines)
