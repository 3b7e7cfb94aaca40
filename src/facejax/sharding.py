"""Where every array lives: one table from logical axes to mesh axes. parameters, mesh -> shardings.

A device mesh has four axes. "data": whole copies of the model; slices of a pod that only a data
centre's network joins lie along it. "fsdp": rows of the batch, and slices of the parameters that
are gathered where they are used. "context": slices of the positions of a row, and of the parameters
too; attention turns them into slices of heads and back (all-to-all), so that each device sees whole
rows and their masks. "tensor": slices of heads, of feed-forward units and of the vocabulary. No
other file names a mesh axis.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from facejax.config import MeshConfig

MESH_AXES = ("data", "fsdp", "context", "tensor")
MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class AxisRules:
  """Logical axis -> mesh axes. A name that is not a field here is an error."""

  batch: MeshAxes = ("data", "fsdp")  # B, and B times frames or patches
  length: MeshAxes = "context"  # L, but for what attention sees
  width: MeshAxes = ("fsdp", "context")  # D and E of parameters
  heads: MeshAxes = "tensor"  # N
  kv_heads: MeshAxes = "tensor"  # K
  row_heads: MeshAxes = ("context", "tensor")  # N and K where attention sees whole rows
  mlp: MeshAxes = "tensor"  # F
  vocab: MeshAxes = "tensor"  # V
  layers: MeshAxes = None  # the leading axis of scanned blocks

  def spec(self, *names: str | None) -> PartitionSpec:
    """The layout of an array whose axes have these names; None is an axis that is not split."""
    axes = [None if name is None else getattr(self, name) for name in names]
    used = [a for x in axes if x for a in ((x,) if isinstance(x, str) else x)]
    if len(used) != len(set(used)):
      raise ValueError(f"{names} maps to {axes}: a mesh axis is used twice")
    return PartitionSpec(*axes)


# First match wins; every parameter must match. None: a copy on every device, on purpose (norms,
# biases and small tables: below 2 MB each for the 7B model, below 14 MB for InternVL3-38B).
PARAM_AXES: tuple[tuple[str, tuple[str | None, ...] | None], ...] = (
  (r".*/(scale|bias)", None),
  # Vision encoders: scanned blocks.
  (r"\w+_encoder/(class_embedding|positions)", None),
  (r"\w+_encoder/\w+/(temporal_embedding|attention_scale|mlp_scale)", None),
  (r"\w+_encoder/patch/kernel", (None, "width")),
  (r"\w+_encoder/\w+/(temporal_)?attention/[qkv]/kernel", ("layers", "width", "heads")),
  (r"\w+_encoder/\w+/(temporal_)?attention/out/kernel", ("layers", "heads", "width")),
  (r"\w+_encoder/\w+/fc1/kernel", ("layers", "width", "mlp")),
  (r"\w+_encoder/\w+/fc2/kernel", ("layers", "mlp", "width")),
  # Between the encoders and the decoder.
  (r"(projector|segmentation)/fc1/kernel", ("width", "mlp")),
  (r"(projector|segmentation)/fc2/kernel", ("mlp", "width")),
  (r"landmark_projector/\w+/kernel", (None, "width")),
  (r"fusion/attention/[qkv]/kernel", ("width", "heads")),
  (r"fusion/attention/out/kernel", ("heads", "width")),
  (r"fusion/linear/kernel", (None, "width")),
  (r"segmentation/(classes|positions)", None),
  (r"labels/(prompts|graph|scores/log_scale)", None),
  (r"labels/scores/(project|graph/layer\d+)/kernel", ("width", "mlp")),
  # Decoder: scanned blocks.
  (r"decoder/embedding", ("vocab", "width")),
  (r"decoder/blocks/attention/q/kernel", ("layers", "width", "heads")),
  (r"decoder/blocks/attention/[kv]/kernel", ("layers", "width", "kv_heads")),
  (r"decoder/blocks/attention/out/kernel", ("layers", "heads", "width")),
  (r"decoder/blocks/(gate|up)/kernel", ("layers", "width", "mlp")),
  (r"decoder/blocks/down/kernel", ("layers", "mlp", "width")),
  (r"decoder/head/kernel", ("width", "vocab")),
)

# What stands beside a kernel [.. in out], from its line: the axes of it that each has. A rank is
# never split: 16 is less than a tile of any chip.
BESIDE_KERNEL: dict[str, tuple[str | None, ...]] = {
  "lora_a": ("in", None),
  "lora_b": (None, "out"),
  "lora_scale": (),
  "kernel_scale": ("in", "out"),  # blocks of `in`: split if they divide, else on every device
}


def _layout(
  name: str, shape: Sequence[int], sizes: dict[str, int], rules: AxisRules
) -> PartitionSpec | None:
  """The layout of a parameter as PARAM_AXES says; None if no line matches."""
  folder, _, last = name.rpartition("/")
  beside = BESIDE_KERNEL.get(last)
  looked_up = name if beside is None else f"{folder}/kernel"
  axes = next((axes for pattern, axes in PARAM_AXES if re.fullmatch(pattern, looked_up)), ())
  if not axes:
    return PartitionSpec() if axes is None else None
  if beside is not None:
    own = {"in": axes[-2], "out": axes[-1]}
    axes = (*axes[:-2], *(own[axis] if axis else None for axis in beside))
  spec = rules.spec(*axes)
  if last == "kernel_scale" and _unsplittable(shape, PartitionSpec(*spec[:-1]), sizes):
    spec = PartitionSpec(*spec[:-2], None, spec[-1])
  return spec


def _unsplittable(shape: Sequence[int], spec: PartitionSpec, sizes: dict[str, int]) -> str:
  """Why an array cannot be laid out so, or ""."""
  if len(spec) > len(shape):
    return f"the layout {spec} has {len(spec)} axes"
  for axis, (size, names) in enumerate(zip(shape, spec, strict=False)):
    names = (names,) if isinstance(names, str) else names or ()
    parts = math.prod(sizes[name] for name in names)
    if size % parts:
      return (
        f"axis {axis} of size {size} does not divide into {parts} parts along {names}, but into "
        f"{math.gcd(size, parts)}"
      )
  return ""


def constrain(x: jax.Array, rules: AxisRules, *names: str | None) -> jax.Array:
  """Pins the layout of an activation; without a mesh (a bare notebook) it changes nothing.

  Raises ValueError if an axis does not divide by its mesh axes.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  spec = rules.spec(*names)
  if problem := _unsplittable(x.shape, spec, dict(mesh.shape)):
    raise ValueError(
      f"activation {names} of shape {list(x.shape)}: {problem}; change the mesh or the size"
    )
  return jax.lax.with_sharding_constraint(x, spec)


def row_parts(mesh: Mesh) -> int:
  """Devices along the rows of a batch."""
  axes = batch_sharding(mesh).spec[0]
  return math.prod(mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes or ()))


def check_rows(stage: str, rows: int, accumulate: int, mesh: Mesh) -> None:
  """Raises ValueError, naming rows that would do, unless each micro-batch divides over the mesh."""
  parts = row_parts(mesh)
  multiple = accumulate * parts
  if rows % multiple:
    below, above = rows // multiple * multiple, -(-rows // multiple) * multiple
    near = " or ".join(str(n) for n in (below, above) if n)
    raise ValueError(
      f"stages.{stage}.rows={rows} on {mesh.devices.size} devices: expected a multiple of "
      f"{multiple}, that is accumulate={accumulate} times {parts} devices along the rows of a "
      f"batch - add --config.stages.{stage}.rows={near}"
    )


def param_shardings(params: Any, mesh: Mesh | AbstractMesh, rules: AxisRules = AxisRules()) -> Any:
  """A NamedSharding for each leaf of a tree of parameters or of their shapes.

  Raises ValueError listing every parameter that PARAM_AXES does not know, and every one with an
  axis that does not divide by its mesh axes.
  """
  problems = []

  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = _layout(name, leaf.shape, dict(mesh.shape), rules)
    if spec is None:
      problems.append(f"{name} {list(leaf.shape)}: no line of sharding.PARAM_AXES matches; add one")
      return None
    if problem := _unsplittable(leaf.shape, spec, dict(mesh.shape)):
      problems.append(f"{name} {list(leaf.shape)}: {problem}; change the mesh or the model")
    return NamedSharding(mesh, spec)

  shardings = jax.tree_util.tree_map_with_path(one, params)
  if problems:
    raise ValueError("parameters without a layout:\n  " + "\n  ".join(problems))
  return shardings


class Held(NamedTuple):
  """What a device holds of a parameter."""

  name: str
  shape: tuple[int, ...]
  spec: PartitionSpec
  bytes: int  # on each device
  copies: int  # devices that hold the same slice


def table(params: Any, mesh: Mesh | AbstractMesh, rules: AxisRules = AxisRules()) -> list[Held]:
  """Each parameter of a tree of arrays or of their shapes, as it lies on the mesh.

  Raises ValueError as param_shardings does.
  """
  shardings = param_shardings(params, mesh, rules)
  rows = []
  for (path, x), sharding in zip(
    jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
  ):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    size = math.prod(sharding.shard_shape(x.shape))
    copies = mesh.size * size // max(1, math.prod(x.shape))
    rows.append(Held(name, x.shape, sharding.spec, size * x.dtype.itemsize, copies))
  return rows


def batch_sharding(mesh: Mesh, rules: AxisRules = AxisRules()) -> NamedSharding:
  """Rows of a batch over the devices; fits every leaf of a Batch."""
  return NamedSharding(mesh, rules.spec("batch"))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over `devices` (all of them by default) with the axes of MESH_AXES.

  Devices of several slices are laid out so that only "data" crosses from one to another. An axis
  that is no product of the torus' own (128 of 8x8x4) takes a part of one, as a line where the whole
  would be a ring. Raises ValueError if the axes do not multiply to the number of devices, or "data"
  to that of slices.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = [getattr(config, name) for name in MESH_AXES]
  rest = math.prod(size for size in sizes if size != -1)
  if sizes.count(-1) == 1 and rest > 0:
    sizes[sizes.index(-1)] = len(devices) // rest
  if min(sizes) < 1 or math.prod(sizes) != len(devices):
    raise ValueError(
      f"{config} does not fit {len(devices)} devices: expected "
      f"{' * '.join(MESH_AXES)} = {len(devices)}, with one of them -1 for all that are left"
    )
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if sizes[0] % slices:
    raise ValueError(
      f"{config}: data={sizes[0]} does not divide over {slices} slices of {len(devices)} devices; "
      f"make data a multiple of {slices}, so that only copies of the model talk between slices"
    )
  auto = (AxisType.Auto,) * len(MESH_AXES)  # Explicit, the default, would make constrain() raise
  inner = (sizes[0] // slices, *sizes[1:])
  # jax.make_mesh splits axes of a v5e alone, and refuses to elsewhere.
  split = {"allow_split_physical_axes": True}
  if slices == 1:
    grid = mesh_utils.create_device_mesh(inner, devices, **split)
  else:
    grid = mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1, 1), devices, **split)
  return Mesh(grid, MESH_AXES, axis_types=auto)
