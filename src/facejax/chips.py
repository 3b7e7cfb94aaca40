"""Accelerators: what they can do at best, and what XLA is told on each. device kind -> Chip.

A record describes one JAX device: a chip, but for TPU7x, whose chip is two devices. Peaks, memory
and links are the makers' public figures. `link` is what collectives can use, by our estimate: nine
tenths of the public figure, eight on v6e.
"""

import dataclasses
from typing import Any

GIB = 2**30

_SPARSE_CORE = tuple(
  (f"xla_tpu_enable_sparse_core_collective_offload_{name}", "true")
  for name in (
    "all_gather",
    "2d_all_gather",
    "3d_all_gather",
    "all_reduce",
    "reduce_scatter",
    "nd_reduce_scatter",
  )
)

# Never cut a product with a gathered matrix into products with its slices, each of which adds to
# the whole result. The partitioner does so for arrays above some 250 MB: FaceLLM-1B's step on 16
# v5e chips takes 1.61 s with it and 0.63 s without.
_WHOLE_PRODUCTS = ("xla_jf_spmd_threshold_for_windowed_einsum_mib", "1000000")

# Where gradients are summed over micro-batches, this pass looks for all-reduces to move behind the
# loop. With parameters in slices over all devices it fails on its own check and ends the
# compilation; elsewhere it moved none of ours.
_NO_MOVED_SUMS = ("xla_disable_hlo_passes", "while-loop-all-reduce-code-motion")


def _vmem(mib: int) -> tuple[str, str]:
  """How much of a core's own memory one fusion may take, where 16 MiB are the default."""
  return "xla_tpu_scoped_vmem_limit_kib", str(mib * 1024)


@dataclasses.dataclass(frozen=True)
class Kernels:
  """Share of the peak that splash attention's kernels reach on the tiles that they compute, all of
  a device's cores at work.

  From the kernels' static schedules (head width 128), so a lower bound of their time.
  """

  forward: float
  dkv: float  # gradients of keys and values
  dq: float  # gradient of queries


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device of one kind."""

  name: str  # as in a topology's name
  kinds: tuple[str, ...]  # jax.Device.device_kind, with the names that runtimes have used
  peak: float  # bfloat16 FLOP/s
  memory: int  # bytes of HBM that a program may use, as the compiler says
  bandwidth: float  # bytes/s of HBM
  link: float  # bytes/s one way, of a chip's link to one neighbour; on a GPU of its NVLink
  network: float  # bytes/s one way between slices or nodes
  torus: int  # axes of the network of chips; 0: each reaches each at `link`
  ring: int = 1  # an axis of the torus closes to a ring if its chips are a multiple of this
  devices: int = 1  # JAX devices of a chip, which share its links
  cores: int = 1  # that work on one program; a backward kernel is split by models/kernels.py alone
  clock: float | None = None  # Hz; None: the compiler estimates no cycles
  kernels: tuple[tuple[int, Kernels], ...] | None = None  # by positions of a tile; None: not known
  options: tuple[tuple[str, str], ...] = ()  # of the compiler

  @property
  def is_tpu(self) -> bool:
    """Whether the TPU compiler makes its programs."""
    return self.clock is not None


CHIPS = (
  Chip(
    name="v4",
    kinds=("TPU v4",),
    peak=275e12,
    memory=int(30.75 * GIB),
    bandwidth=1228e9,
    link=45e9,
    network=6.25e9,
    torus=3,
    ring=4,
    clock=1.05e9,
    cores=2,
    kernels=((512, Kernels(0.49, 0.69, 0.73)),),  # v5p's: two cores of the same width
    options=(_WHOLE_PRODUCTS, _NO_MOVED_SUMS),
  ),
  Chip(
    name="v5e",
    kinds=("TPU v5 lite", "TPU v5e", "TPU v5litepod"),
    peak=196.6e12,
    memory=int(15.75 * GIB),
    bandwidth=819e9,
    link=45e9,
    network=3.125e9,
    torus=2,
    ring=16,
    clock=1.5e9,
    kernels=((512, Kernels(0.59, 0.88, 0.89)),),
    # Products go from 76 to 92 % of the peak; a compilation takes up to eight times as long.
    # Without the second, the small slices of the encoders are gathered as sums of zero-padded
    # buffers: 8 GB more for Face-LLaVA-7B, 0.09 s of its step.
    options=(
      _vmem(96),
      _WHOLE_PRODUCTS,
      _NO_MOVED_SUMS,
      ("xla_tpu_prefer_async_allgather_to_allreduce", "true"),
    ),
  ),
  Chip(
    name="v5p",
    kinds=("TPU v5", "TPU v5p"),
    peak=458.8e12,
    memory=int(95.74 * GIB),
    bandwidth=2765e9,
    link=90e9,
    network=6.25e9,
    torus=3,
    ring=4,
    clock=1.75e9,
    cores=2,
    kernels=((512, Kernels(0.49, 0.69, 0.73)),),
    # SparseCores carry the collectives beside the products: without them all are synchronous. The
    # last one keeps gathers from becoming sums of zero-padded buffers.
    options=(
      *_SPARSE_CORE,
      _vmem(64),
      _WHOLE_PRODUCTS,
      _NO_MOVED_SUMS,
      ("xla_tpu_prefer_async_allgather_to_allreduce", "true"),
    ),
  ),
  Chip(
    name="v6e",
    kinds=("TPU v6 lite", "TPU v6e"),
    peak=917.5e12,
    memory=int(31.25 * GIB),
    bandwidth=1640e9,
    link=90e9,
    network=12.5e9,
    torus=2,
    ring=16,
    clock=1.75e9,
    # Heads of 128 fill half of a product unit of 256.
    kernels=((512, Kernels(0.18, 0.33, 0.30)), (1024, Kernels(0.26, 0.41, 0.40))),
    options=(*_SPARSE_CORE, _vmem(96), _WHOLE_PRODUCTS, _NO_MOVED_SUMS),
  ),
  Chip(
    name="tpu7x",
    kinds=("TPU7x", "TPU v7x"),
    peak=1153.4e12,
    memory=int(94.75 * GIB),
    bandwidth=3690e9,
    link=90e9,
    network=6.25e9,
    torus=3,
    ring=4,
    devices=2,
    clock=2.2e9,
    # v6e's: product units of 256 too.
    kernels=((512, Kernels(0.18, 0.33, 0.30)), (1024, Kernels(0.26, 0.41, 0.40))),
    options=(*_SPARSE_CORE, _vmem(64), _WHOLE_PRODUCTS, _NO_MOVED_SUMS),
  ),
  Chip(
    name="h100",
    kinds=("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
    peak=989.4e12,
    memory=int(79.1 * GIB),
    bandwidth=3350e9,
    link=450e9,
    network=50e9,
    torus=0,
  ),
  Chip(
    name="h200",
    kinds=("NVIDIA H200",),
    peak=989.4e12,
    memory=int(139.7 * GIB),
    bandwidth=4800e9,
    link=450e9,
    network=50e9,
    torus=0,
  ),
)


def of_kind(kind: str) -> Chip | None:
  """The chip whose devices have this device_kind; None for a CPU or an unknown one."""
  return next((chip for chip in CHIPS if kind in chip.kinds), None)


def compiler_options(mesh: Any) -> dict[str, str]:
  """What XLA is told for the devices of a mesh (jax.sharding.Mesh); nothing for unknown ones."""
  chip = of_kind(mesh.devices.flat[0].device_kind)
  return dict(chip.options) if chip else {}
