"""A plan: what a stage's step costs on a topology. config, stage, topology -> Plan.

compute is the compiler's own estimate, in cycles at the nominal clock, and kernels' analytic time;
collectives are bytes over links (network.py). Three figures of a step:

  slowest   compute + all collectives
  schedule  compute + synchronous collectives + what the asynchronous ones have beyond compute
  fastest   the longer of compute and all collectives

The compiler estimates no cycles for GPUs: there compute is a roofline, instruction by instruction.
"""

import collections
import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping

import jax

from facejax.chips import Chip
from facejax.config import RunConfig, StageConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.plan import cost, flops, hlo, mix
from facejax.plan.compiled import Compiled, Memory, compile_step
from facejax.plan.network import Network, direction
from facejax.plan.topology import Topology, closest
from facejax.sharding import row_parts
from facejax.state import TrainState, abstract_state

# Of a GPU's peak and bandwidth, what its kernels reach; our estimate.
_GPU_PRODUCTS, _GPU_MEMORY = 0.7, 0.85


@dataclasses.dataclass(frozen=True)
class Figures:
  """One quantity by how much of the network's time is hidden."""

  slowest: float
  schedule: float
  fastest: float


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind over one group, in a step."""

  op: str
  group: str
  overlaps: bool
  count: int
  bytes: float  # a device
  seconds: float
  where: str  # the largest one's place in the model


@dataclasses.dataclass(frozen=True)
class Compute:
  """Seconds of a step on one device."""

  matmul: float
  elementwise: float  # and copies
  kernels: float
  kernels_unknown: tuple[str, ...]  # custom calls that no formula knows; counted as nothing
  loops_unknown: tuple[str, ...]  # loops whose turns the program does not say; counted once
  program_flops: float  # of a device, with what is computed twice
  matmul_bytes: float  # operands and results of products, a device
  from_cycles: bool  # False: a roofline

  @property
  def total(self) -> float:
    """All of it."""
    return self.matmul + self.elementwise + self.kernels


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a step costs; the last fields are None where it does not fit."""

  config: str
  stage: str
  topology: str
  slices: int
  chips: int
  devices: int
  mesh: dict[str, int]
  rows: int
  row_length: int
  accumulate: int
  remat: str
  fits: bool
  memory: Memory
  would_fit: tuple[str, ...]
  useful_tokens_per_step: float
  model_flops: dict[str, flops.Part]
  fill: mix.Fill
  compile_seconds: float
  versions: dict[str, str]
  peak: float  # FLOP/s of a device
  bandwidth: float  # bytes/s of a device's memory
  clock: float | None = None  # Hz, of the compiler's cycles; None: it estimates none
  whole: tuple[int, str] = (0, "")  # bytes of the state that no axis divides; the largest array
  compute: Compute | None = None
  collectives: tuple[Traffic, ...] = ()
  kernels: tuple[cost.Kernel, ...] = ()
  step_seconds: Figures | None = None
  mfu: Figures | None = None
  useful_mfu: Figures | None = None  # positions and media slots in use alone
  causal_mfu: Figures | None = None  # attention over the causal half of rows, as others count it
  tokens_per_second_per_chip: float = 0.0
  days: float = 0.0  # of an epoch of FaceInstruct-1M, by the schedule figure
  chip_hours: float = 0.0


def plan(config: RunConfig, stage: str, topology: Topology, config_name: str = "") -> Plan:
  """Compiles the step and measures it; raises as compile_step does."""
  return assess(config, stage, topology, compile_step(config, stage, topology), config_name)


def assess(
  config: RunConfig, name: str, topology: Topology, program: Compiled, config_name: str = ""
) -> Plan:
  """What a compiled step costs."""
  stage = config.stages[name]
  fill = mix.measure(config.model, config.data)
  parts = flops.count(config.model, config.data, stage, program.trainable, fill)
  tokens = stage.rows * config.data.row_length * fill.tokens
  mesh = {axis: int(size) for axis, size in program.mesh.shape.items()}
  result = Plan(
    config=config_name,
    stage=name,
    topology=topology.name,
    slices=topology.slices,
    chips=topology.chips,
    devices=len(topology.devices),
    mesh=mesh,
    rows=stage.rows,
    row_length=config.data.row_length,
    accumulate=stage.accumulate,
    remat=config.model.remat,
    fits=program.memory.fits,
    memory=program.memory,
    would_fit=() if program.memory.fits else would_fit(config, name, topology, program),
    useful_tokens_per_step=tokens,
    model_flops=parts,
    fill=fill,
    compile_seconds=program.seconds,
    versions=versions(),
    peak=topology.chip.peak,
    bandwidth=topology.chip.bandwidth,
    clock=topology.chip.clock,
    whole=whole(abstract_state(FaceMLLM(config.model), stage, program.mesh)),
  )
  return _timed(result, topology, program, config) if program.text else result


def whole(state: TrainState) -> tuple[int, str]:
  """Bytes of parameters and optimiser slots that every device holds whole; the largest of them."""
  parts = {"trainable": state.trainable, "frozen": state.frozen, "optimizer": state.opt_state}
  held = jax.tree_util.tree_leaves_with_path(parts)
  found = [
    (x.size * x.dtype.itemsize, jax.tree_util.keystr(path, simple=True, separator="/"))
    for path, x in held
    if x.sharding.is_fully_replicated
  ]
  return sum(size for size, _ in found), max(found, default=(0, ""))[1]


def _timed(result: Plan, topology: Topology, program: Compiled, config: RunConfig) -> Plan:
  """Adds times to a plan of a program that was compiled."""
  chip = topology.chip
  joined = lambda tile: mix.tiles(config.model, config.data, tile)
  work = cost.measure(hlo.parse(program.text), chip, joined)
  compute = compute_of(work, chip)
  network = Network(chip, list(program.mesh.devices.flat))
  traffic = traffic_of(work, network)
  steps = combine(compute.total, traffic)
  needed = sum(part.total for part in result.model_flops.values())
  useful = sum(part.useful for part in result.model_flops.values())
  attention = result.model_flops["attention"].total
  causal = needed + attention * (1 / result.fill.pairs - 1)
  share = lambda amount, seconds: amount / (result.devices * chip.peak * seconds)
  rates = lambda amount: Figures(*(share(amount, t) for t in dataclasses.astuple(steps)))
  epoch = math.ceil(mix.SAMPLES / (result.fill.samples * result.rows)) * steps.schedule
  return dataclasses.replace(
    result,
    compute=compute,
    collectives=traffic,
    kernels=tuple(work.kernels.values()),
    step_seconds=steps,
    mfu=rates(needed),
    useful_mfu=rates(useful),
    causal_mfu=rates(causal),
    tokens_per_second_per_chip=result.useful_tokens_per_step / steps.schedule / result.chips,
    days=epoch / 86400,
    chip_hours=epoch / 3600 * result.chips,
  )


def combine(compute: float, traffic: tuple[Traffic, ...]) -> Figures:
  """The three figures of a step."""
  alone = sum(t.seconds for t in traffic if not t.overlaps)
  beside = sum(t.seconds for t in traffic if t.overlaps)
  return Figures(
    slowest=compute + alone + beside,
    schedule=compute + alone + max(0.0, beside - compute),
    fastest=max(compute, alone + beside),
  )


def compute_of(work: cost.Cost, chip: Chip) -> Compute:
  """Seconds of a program's work on one device."""
  kernels = sum(kernel.seconds for kernel in work.kernels.values())
  if chip.clock:
    matmul, other = work.matmul_cycles / chip.clock, work.other_cycles / chip.clock
    other += work.unestimated_bytes / chip.bandwidth
  else:
    matmul = work.matmul_roofline / _GPU_PRODUCTS
    other = work.other_roofline / _GPU_MEMORY
  return Compute(
    matmul=matmul,
    elementwise=other,
    kernels=kernels,
    kernels_unknown=tuple(k.name for k in work.kernels.values() if not k.known),
    loops_unknown=tuple(work.loops_unknown),
    program_flops=work.flops + sum(kernel.flops for kernel in work.kernels.values()),
    matmul_bytes=work.matmul_bytes,
    from_cycles=chip.is_tpu,
  )


def traffic_of(work: cost.Cost, network: Network) -> tuple[Traffic, ...]:
  """Collectives, those of one kind and group together; the longest first."""
  both = _both_ways(work)
  grouped: dict[tuple, list[tuple[cost.Collective, float]]] = collections.defaultdict(list)
  for c in work.collectives:
    seconds = c.count * network.seconds(c.op, c.bytes / c.count, c.text)
    if c.op == "collective-permute" and c.home in both:
      seconds /= 2  # half of them go the other way round the ring, at the same time
    # Between slices: hidden only by what runs between its start and its end.
    hidden = not network.chip.clock or c.beside / network.chip.clock >= seconds / c.count
    grouped[c.op, network.describe(c.text), c.overlaps and hidden].append((c, seconds))
  result = [
    Traffic(
      op=op,
      group=group,
      overlaps=overlaps,
      count=sum(c.count for c, _ in members),
      bytes=sum(c.bytes for c, _ in members),
      seconds=sum(seconds for _, seconds in members),
      where=max(members, key=lambda member: member[1])[0].where,
    )
    for (op, group, overlaps), members in grouped.items()
  ]
  return tuple(sorted(result, key=lambda t: -t.seconds))


def _both_ways(work: cost.Cost) -> set[str]:
  """Computations whose permutes go round a ring in both directions."""
  ways = collections.defaultdict(set)
  for c in work.collectives:
    if c.op == "collective-permute":
      ways[c.home].add(direction(c.text))
  return {home for home, seen in ways.items() if {1, -1} <= seen}


def would_fit(
  config: RunConfig, name: str, topology: Topology, program: Compiled
) -> tuple[str, ...]:
  """What could be changed, nearest first; estimates, to be planned in their turn."""
  stage, memory, model = config.stages[name], program.memory, config.model
  held = memory.trainable + memory.frozen + memory.optimizer
  parts = row_parts(program.mesh)
  rows = stage.rows // parts
  ideas = []
  room = memory.limit - held
  per_row = (memory.total - held) * stage.accumulate / max(rows, 1)
  if held >= memory.limit:
    return _where_held_fits(config, name, topology, program, held)
  fitting = int(room // per_row) if per_row else rows
  if 0 < fitting < rows // stage.accumulate:
    ideas.append(f"--config.stages.{name}.rows={fitting * parts * stage.accumulate}")
  if rows == stage.accumulate:  # a row a device, in each part
    ideas += _less_than_a_row(config, stage, program.mesh.shape)
  if rows > 1:
    more = stage.accumulate * 2
    if stage.rows % (parts * more) == 0:
      ideas.append(f"--config.stages.{name}.accumulate={more}: the same rows in {more} parts")
  if model.remat != "full":
    ideas.append("--config.model.remat=full: nothing of a block is kept, it is computed twice")
  if memory.trainable > memory.frozen:
    ideas.append("adapters instead of all parameters: stages.adapters() in the config")
  bigger = closest(topology.name, 2 * topology.chips // topology.slices)
  if bigger and rows >= 2 * stage.accumulate:
    ideas.append(f"--topology {bigger} at the same rows")
  return tuple(ideas)


def _less_than_a_row(config: RunConfig, stage: StageConfig, sizes: Mapping[str, int]) -> list[str]:
  """would_fit() where a device has one row at a time."""
  length, context = config.data.row_length, 2 * sizes["context"]
  heads = config.model.decoder.kv_heads % (context * sizes["tensor"]) == 0
  ideas = [f"--config.data.row_length={length // 2} and fewer media slots: shorter rows"]
  if heads and length % context == 0 and sizes["fsdp"] % 2 == 0 and stage.rows % 2 == 0:
    kept = ("data", "tensor") if sizes["tensor"] > 1 else ("data",)
    mesh = ",".join(f"{axis}={sizes[axis]}" for axis in kept)
    ideas.insert(0, f"--mesh {mesh},context={context} and half the rows: devices share a row")
  return ideas


def _where_held_fits(
  config: RunConfig, name: str, topology: Topology, program: Compiled, held: int
) -> tuple[str, ...]:
  """would_fit() where parameters and optimiser alone, `held` bytes a device, are too much."""
  stage, memory, sizes = config.stages[name], program.memory, program.mesh.shape
  devices, ideas = len(topology.devices) // topology.slices, []
  split = sizes["fsdp"] * sizes["context"] * sizes["tensor"]
  if split < devices:
    ideas.append(f"--mesh fsdp={devices}: parameters are split over {split} devices only")
  if stage.lora and stage.lora.base == "model":
    ideas.append(f"--config.stages.{name}.lora.base=int8, or nf4: a frozen base in fewer bits")
  chips = topology.chips // topology.slices
  wanted = math.ceil(held * split / devices / (0.6 * memory.limit) * chips)
  bigger = closest(topology.name, wanted) if wanted > chips else ""
  if bigger:
    ideas.append(f"--topology {bigger}: {held / 1e9:.1f} GB a device are parameters and optimiser")
  if memory.trainable > memory.frozen:
    ideas.append("adapters instead of all parameters: stages.adapters() in the config")
  return tuple(ideas)


def versions() -> dict[str, str]:
  """Of what decides a plan."""
  found = {}
  for package in ("facejax", "jax", "jaxlib", "libtpu", "jax-cuda12-plugin"):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def needed_flops(result: Plan) -> float:
  """FLOPs of a step over all devices."""
  return sum(part.total for part in result.model_flops.values())
