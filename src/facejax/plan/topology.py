"""Machines by name. "v5e:16x16", slices -> devices that can be compiled for, though none is here.

TPUs need libtpu, which compiles on any x86 machine with Linux; NVIDIA GPUs need jax's CUDA plugin.
"""

import dataclasses
import difflib
import importlib.util
import math
import re
from typing import Any

from facejax import chips
from facejax.chips import Chip

# What the compiler knows; it takes other products of these for v4, v5p and tpu7x too.
KNOWN = {
  "v4": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16",
  "v5e": "2x2 2x4 4x4 4x8 8x8 8x16 16x16",
  "v5p": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x4 8x8x8 8x8x16 8x16x16 16x16x16 16x16x24",
  "v6e": "2x2 2x4 4x4 4x8 8x8 8x16 16x16",
  "tpu7x": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16",
  "h100": "1 2 4 8 16 32 64 128 256",
  "h200": "1 2 4 8 16 32 64 128 256",
}
_NODE = 8  # GPUs that NVLink joins

# What XLA asks about a GPU: its public figures. Nothing here reads a driver.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{kind}"
"""


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices of a machine that is not here."""

  name: str
  slices: int
  chip: Chip
  devices: tuple[Any, ...]  # of jax.Device's kind, without memory

  @property
  def chips(self) -> int:
    """Of all slices together."""
    return len(self.devices) // self.chip.devices


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
  """The chip and the extent that a name means. Raises ValueError for an unknown one."""
  found = re.fullmatch(r"([a-z]\w*):(\d+(?:x\d+)*)", name)
  families = {chip.name: chip for chip in chips.CHIPS}
  if not found or found.group(1) not in families:
    raise ValueError(f"topology '{name}': expected CHIP:SHAPE - {_hint(name)}")
  chip, extent = families[found.group(1)], tuple(int(n) for n in found.group(2).split("x"))
  axes = max(chip.torus, 1)
  if len(extent) != axes or 0 in extent:
    raise ValueError(
      f"topology '{name}': {chip.name} is given by {axes} number{'s' * (axes > 1)} above 0 - "
      f"{_hint(name)}"
    )
  return chip, extent


def describe(name: str, slices: int = 1) -> Topology:
  """The devices of `slices` machines of this name, which a network joins.

  Raises:
    ValueError: the compiler knows no such machine; the message lists those that it knows.
    ModuleNotFoundError: the compiler for it is not installed.
  """
  chip, extent = parse(name)
  if slices < 1:
    raise ValueError(f"--slices {slices}: expected 1 or more")
  devices = _tpu(name, slices, chip) if chip.is_tpu else _gpu(name, slices, chip, extent[0])
  return Topology(name, slices, chip, tuple(devices))


def _tpu(name: str, slices: int, chip: Chip) -> list[Any]:
  if importlib.util.find_spec("libtpu") is None:
    raise ModuleNotFoundError(
      f"topology '{name}': compiling for a TPU needs libtpu, which is not installed - run: "
      "pip install 'facejax[plan]'"
    )
  from jax.experimental import topologies

  options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
  if chip.name == "v4":
    options["chip_config_name"] = "megacore"  # one device a chip, as v4 runs by default
  try:
    return list(topologies.get_topology_desc(name, platform="tpu", **options).devices)
  except Exception as error:  # the plugin raises its own kinds, for an unknown shape and for faults
    reason = str(error).splitlines()[0]
    raise ValueError(
      f"topology '{name}'{f' x {slices} slices' * (slices > 1)}: the compiler refuses it "
      f"({reason[:200]}) - {_hint(name)}"
    ) from error


def _gpu(name: str, slices: int, chip: Chip, count: int) -> list[Any]:
  if importlib.util.find_spec("jax_cuda12_plugin") is None:
    import jax

    raise ModuleNotFoundError(
      f"topology '{name}': compiling for an NVIDIA GPU needs jax's CUDA plugin, which is not "
      f"installed - run: pip install jax-cuda12-plugin=={jax.__version__} "
      f"jax-cuda12-pjrt=={jax.__version__} --no-deps (150 MB; no GPU and no CUDA needed)"
    )
  from jax.experimental import topologies

  node = min(count, _NODE)
  if count % node:
    raise ValueError(f"topology '{name}': {count} GPUs - expected a multiple of {_NODE} above 8")
  target = _GPU.format(bandwidth=int(chip.bandwidth), memory=chip.memory, kind=chip.kinds[0])
  shape = f"{slices}x{count // node}x{node}"
  try:
    return list(
      topologies.get_topology_desc(
        chip.name, platform="cuda", topology=shape, target_config=target
      ).devices
    )
  except Exception as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"topology '{name}': the CUDA plugin refuses it ({reason[:200]})") from error


def _hint(name: str) -> str:
  """The nearest names."""
  names = [f"{chip}:{shape}" for chip, shapes in KNOWN.items() for shape in shapes.split()]
  near = difflib.get_close_matches(name, names, 3, cutoff=0.5)
  same = [n for n in names if n.split(":")[0] == name.split(":")[0]]
  if same:
    return f"known: {', '.join(same)}"
  hint = f"did you mean {' or '.join(near)}? " if near else ""
  return f"{hint}chips: {', '.join(KNOWN)}; such as v5e:16x16, v5p:8x8x4 or h100:8"


def closest(name: str, chips_wanted: int) -> str:
  """A known shape of the same chip with at least so many chips, or ""."""
  family = name.split(":")[0]
  size = lambda shape: math.prod(int(n) for n in shape.split("x"))
  fitting = [s for s in KNOWN[family].split() if size(s) >= chips_wanted]
  return f"{family}:{min(fitting, key=size)}" if fitting else ""
