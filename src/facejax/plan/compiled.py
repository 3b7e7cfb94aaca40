"""The real training step, compiled for devices that are not here. config, devices -> Compiled.

It is the function that train.py runs, with the state and the batch as shapes alone.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from facejax.config import RunConfig, StageConfig
from facejax.fake import fake_batch
from facejax.models.face_mllm import FaceMLLM
from facejax.plan.topology import Topology
from facejax.sharding import batch_sharding, check_rows, make_mesh
from facejax.state import TrainState, abstract_state
from facejax.train_step import make_train_step
from facejax.types import Batch


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of a device."""

  trainable: int
  frozen: int
  optimizer: int
  batch: int
  temporary: int  # activations, gathered parameters, gradients: all that a step makes and drops
  total: int  # what the compiler says that the program needs
  limit: int
  exact: bool = True  # False: it did not fit, and only the total is known

  @property
  def fits(self) -> bool:
    """Whether it may run."""
    return self.total <= self.limit


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A step, compiled or refused."""

  text: str  # HLO; "" if it did not fit
  memory: Memory
  seconds: float  # that the compilation took
  mesh: Mesh
  trainable: Any  # shapes of what trains
  arguments: int = 0  # bytes of a device's state and batch, as the compiler says


def compile_step(config: RunConfig, name: str, topology: Topology) -> Compiled:
  """Compiles stage `name` for a topology, on the mesh of config.mesh.

  A step that needs more memory than there is comes back with memory.fits False. Raises ValueError
  if the mesh does not fit the devices, the rows not the mesh, or the parameters not either.
  """
  stage = config.stages[name]
  mesh = make_mesh(config.mesh, topology.devices)
  check_rows(name, stage.rows, stage.accumulate, mesh)
  model = FaceMLLM(config.model)
  state = abstract_state(model, stage, mesh)
  batch = abstract_batch(config, stage, mesh)
  start = time.perf_counter()
  step: Any = make_train_step(model, stage, mesh)
  with jax.set_mesh(mesh):
    try:
      lowered = step.lower(state, batch)
      program = lowered.compile()
    except (jax.errors.JaxRuntimeError, RuntimeError) as error:
      if "cuDNN not found" in str(error):
        raise ValueError(
          f"topology '{topology.name}': cuDNN's attention cannot be compiled without cuDNN - run: "
          "pip install nvidia-cudnn-cu12 nvidia-cublas-cu12 (900 MB), or plan with "
          "--config.model.attention=xla, which holds all scores of a row in memory"
        ) from error
      needed = exceeded(str(error))
      if needed is None:
        raise
      memory = _memory(state, batch, topology, needed)
      return Compiled("", memory, time.perf_counter() - start, mesh, state.trainable)
  analysis = program.memory_analysis()
  extra = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  total = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + extra
  total += analysis.generated_code_size_in_bytes
  memory = _memory(state, batch, topology, total)
  memory = dataclasses.replace(memory, temporary=total - analysis.argument_size_in_bytes)
  return Compiled(
    program.as_text() or "",
    memory,
    time.perf_counter() - start,
    mesh,
    state.trainable,
    analysis.argument_size_in_bytes,
  )


def abstract_batch(config: RunConfig, stage: StageConfig, mesh: Mesh) -> Batch:
  """Shapes and layout of a batch of a stage."""
  data = config.data
  row = fake_batch(config.model, 1, data.row_length, data.images_per_row, data.videos_per_row)
  layout = batch_sharding(mesh)
  shape = lambda x: jax.ShapeDtypeStruct((stage.rows, *x.shape[1:]), x.dtype, sharding=layout)
  return jax.tree.map(shape, row)


def shard_bytes(tree: Any) -> int:
  """Bytes a device holds of a tree of shapes with shardings."""
  four_bits = lambda x: x.dtype == jnp.uint4  # two share a byte on TPU and GPU
  width = lambda x: 0.5 if four_bits(x) else x.dtype.itemsize
  size = lambda x: int(math.prod(x.sharding.shard_shape(x.shape)) * width(x))
  return sum(size(x) for x in jax.tree.leaves(tree))


def _memory(state: TrainState, batch: Batch, topology: Topology, total: int) -> Memory:
  parts = {
    "trainable": shard_bytes(state.trainable),
    "frozen": shard_bytes(state.frozen),
    "optimizer": shard_bytes(state.opt_state),
    "batch": shard_bytes(batch),
  }
  rest = max(total - sum(parts.values()), 0)
  limit = topology.chip.memory
  return Memory(**parts, temporary=rest, total=total, limit=limit, exact=total <= limit)


_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def exceeded(message: str) -> int | None:
  """Bytes that a refused program wanted; None if it was refused for another reason."""
  if "RESOURCE_EXHAUSTED" not in message and "out of memory" not in message.lower():
    return None
  patterns = (
    r"Used ([\d.]+)([BKMGT]?) of [\d.]+[BKMGT]? hbm",
    r"temporaries \(([\d.]+)([BKMGT]?)\)",
    r"[Pp]rogram hbm requirement ([\d.]+)([BKMGT]?)",
    r"needs? ([\d.]+)([BKMGT]?)",
  )
  for pattern in patterns:
    if found := re.search(pattern, message):
      return int(float(found.group(1)) * _UNITS[found.group(2) or "B"])
  return None
