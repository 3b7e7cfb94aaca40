"""What the compiler cannot see into: custom calls. instruction -> FLOPs and a share of the peak.

Splash attention's tiles are counted as its grid runs them: those above the diagonal are skipped,
those on it are computed whole. Where the grid is made at run time (its tables are int32), tiles
that no sample joins are skipped too: how many follows from the mix of samples. The forward kernel
makes 2 products a tile, the one for keys and values 4 (5 with the gradient of queries fused in),
the one for queries 3.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from facejax.chips import Chip, Kernels
from facejax.plan.hlo import Instruction, shapes

# name of the kernel -> products a tile, the block sizes' suffix, the field of chips.Kernels
_SPLASH = (
  ("_fwd", 2, "", "forward"),
  ("_dkv", 4, "_dkv", "dkv"),
  ("_dq", 3, "_dq", "dq"),
)
# Custom calls that move or name memory, and do no arithmetic worth counting.
FREE = re.compile(
  r"AllocateBuffer|AsyncCollective\w*|Sharding|SPMD\w*|Resize\w*|Assume\w*|MoveTo\w*|annotate\w*"
  r"|InspectSharding|xla_ffi\w*partition\w*|PinTo\w*|Pin|Unpin|SliceToDynamic|PadToStatic|\w*Barrier"
  r"|ConcatBitcast|SliceId|PrepareAsyncCall\w*|Create\w*Buffer|\w*BufferDonor"
)


# Positions of a tile -> share of the causal tiles that some sample joins.
Joined = Callable[[int], float]


class Kernel(NamedTuple):
  """A custom call's arithmetic; `known` says whether it was recognised."""

  name: str
  flops: float
  efficiency: float  # share of the peak
  known: bool


def target(call: Instruction) -> str:
  """custom_call_target of a custom call."""
  found = re.search(r'custom_call_target="([^"]*)"', call.attributes)
  return found.group(1) if found else ""


def measure(call: Instruction, chip: Chip, joined: Joined) -> Kernel | None:
  """FLOPs of a custom call; None for one that costs nothing."""
  kind = target(call)
  if FREE.fullmatch(kind):
    return None
  name = re.sub(r"(\.\d+|\.clone)+$", "", call.name)
  for part, products, suffix, field in _SPLASH:
    if "splash" in name and part in name:
      if part == "_dkv" and re.search(r"use_fused_bwd_kernel\W+true", call.attributes):
        products = 5
      tiles = _splash_tiles(call, suffix)
      if tiles is None or chip.kernels is None:
        break
      flops, block = products * tiles.flops, tiles.block
      if re.search(r"operand_layout_constraints=\{s32\[", call.attributes):
        flops *= joined(block)
      share = getattr(_at(chip, block), field)
      if field != "forward" and not tiles.split:
        share /= chip.cores
      return Kernel(name, flops, share, True)
  if "fmha" in kind:
    return Kernel(kind, _cudnn_flops(call, kind), _CUDNN, True)
  return Kernel(name if kind == "tpu_custom_call" else kind, 0.0, 1.0, False)


_CUDNN = 0.6  # of the peak; our estimate for heads of 128, forward and backward


def _at(chip: Chip, block: int) -> Kernels:
  """The shares measured for the nearest size of tiles."""
  assert chip.kernels
  return min(chip.kernels, key=lambda entry: abs(entry[0] - block))[1]


class _Tiles(NamedTuple):
  """What a splash kernel's grid computes."""

  flops: float  # of one product over all tiles
  block: int  # positions of a tile
  split: bool  # whether the grid has an axis of cores


def _splash_tiles(call: Instruction, suffix: str) -> _Tiles | None:
  operands = re.search(r"operand_layout_constraints=\{(.*?)\}(?:,|$| )", call.attributes + " ")
  arrays = [
    shape
    for kind, shape in shapes(call.attributes[operands.start() :] if operands else "")
    if kind in ("bf16", "f32", "f16") and len(shape) >= 3
  ]
  sizes = [re.search(rf"block_{name}{suffix}\W+(\d+)", call.attributes) for name in ("q", "kv")]
  if not arrays or not all(sizes):
    return None
  *lead, length, width = arrays[0]
  q, kv = (int(size.group(1)) for size in sizes if size)
  tiles = sum(math.ceil(min((i + 1) * q, length) / kv) for i in range(math.ceil(length / q)))
  return _Tiles(2.0 * math.prod(lead) * tiles * q * kv * width, q, split=len(lead) > 1)


def _cudnn_flops(call: Instruction, kind: str) -> float:
  """Of cuDNN's fused attention, all pairs of positions: [B L N H] or [B N L H] results."""
  shape = next((s for k, s in call.arrays if k in ("bf16", "f16") and len(s) == 4), None)
  if shape is None:
    return 0.0
  length = max(shape[1], shape[2])
  products = 5 if "Backward" in kind or "backward" in kind else 2
  return 2.0 * products * math.prod(shape) * length
