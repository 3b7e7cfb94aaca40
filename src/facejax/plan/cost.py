"""What a compiled program does, loops counted. Module -> cycles, products, collectives, kernels.

An instruction inside a loop counts as often as the loop turns. An asynchronous collective appears
in several fusions (start, steps, end): those of one computation that share a channel are one.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from facejax.chips import Chip
from facejax.plan import kernels
from facejax.plan.hlo import Computation, Instruction, Module, array_bytes, shapes

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)
_PRODUCTS = ("convolution", "dot")
_INDEXED = ("gather", "scatter", "sort")
# Without an estimate these are names and views, asynchronous copies, or a few bytes.
_FREE = re.compile(
  r"parameter|constant|tuple|get-tuple-element|bitcast|reshape|after-all|iota|partition-id"
  r"|replica-id|opt-barrier|add-dependency|domain|(copy|slice|dynamic-slice|async|call|send|recv)"
  r"(-start|-done|-update)|(all-gather|all-reduce|collective-permute)-done|while|call|conditional"
)


@dataclasses.dataclass
class Collective:
  """One collective instruction, over all turns of its loops."""

  op: str
  bytes: float  # of the whole buffer, a device: what is gathered, reduced or exchanged
  count: int
  overlaps: bool  # asynchronous
  text: str  # attributes: groups, and how it is carried out
  where: str  # the operation of the model that it comes from
  home: str  # the computation that it stands in
  beside: float = math.inf  # cycles of a turn between its start and its end; between slices


@dataclasses.dataclass
class Kernel:
  """A custom call, over all turns of its loops."""

  name: str
  count: int
  flops: float
  seconds: float  # 0 if not known
  known: bool
  bytes: float = 0.0  # operands and results


@dataclasses.dataclass
class Cost:
  """A program's work on one device."""

  matmul_cycles: float = 0.0
  other_cycles: float = 0.0
  flops: float = 0.0  # of products, without kernels'
  matmul_bytes: float = 0.0  # read and written by instructions with a product
  other_bytes: float = 0.0
  matmul_roofline: float = 0.0  # seconds at peak and full bandwidth, instruction by instruction
  other_roofline: float = 0.0
  collectives: list[Collective] = dataclasses.field(default_factory=list)
  kernels: dict[str, Kernel] = dataclasses.field(default_factory=dict)
  unestimated_bytes: float = 0.0  # moved by gathers, scatters and sorts, which have no estimate
  loops_unknown: list[str] = dataclasses.field(default_factory=list)


def measure(module: Module, chip: Chip, joined: kernels.Joined = lambda tile: 1.0) -> Cost:
  """Walks the program from its entry; `joined` as kernels.py asks for it."""
  walk = _Walk(module, chip, joined)
  walk.run(module.entry, 1)
  return walk.cost


class _Walk:
  def __init__(self, module: Module, chip: Chip, joined: kernels.Joined):
    self.module, self.chip, self.joined, self.cost = module, chip, joined, Cost()

  def run(self, computation: Computation, times: int) -> None:
    """Adds a computation that runs so many times."""
    channels: set[str] = set()
    for i in computation:
      op = i.opcode
      if op == "while":
        turns = self.module.trips(i)
        if turns is None:
          self.cost.loops_unknown.append(i.name)
        for body in self.module.called(i):
          self.run(body, times * (1 if turns is None else turns))
      elif op in ("call", "conditional"):
        for body in self.module.called(i):
          self.run(body, times)
      elif op in ("call-start", "async-start", "fusion"):
        self._enclosed(computation, i, times, channels)
      elif op == "custom-call":
        self._kernel(computation, i, times)
      elif op == "send" and "_xla_megascale_transfer_type" in i.attributes:
        self._between_slices(computation, i, times)
      else:
        self._plain(computation, i, times, channels)

  def _plain(self, computation, i: Instruction, times: int, channels: set[str]) -> None:
    base = i.opcode.removesuffix("-start")
    if base in COLLECTIVES:
      self._collective(computation, i, times, channels, i.opcode != base)
    elif not i.opcode.endswith(("-done", "-update")):
      products = [(i, computation)] if i.opcode in _PRODUCTS else []
      self._work(computation, i, times, products, i.opcode in _INDEXED)

  def _enclosed(self, computation, i: Instruction, times: int, channels: set[str]) -> None:
    """A fusion, or a computation that runs beside the others."""
    inner = list(_all(self.module, i))
    names = {c.name for c in inner}
    carried = [(c, x) for c in inner for x in c if x.opcode.removesuffix("-start") in COLLECTIVES]
    marks = {kernels.target(x) for c in inner for x in c if x.opcode == "custom-call"}
    overlaps = (
      i.opcode != "fusion"
      or bool(marks & {"AsyncCollectiveStart", "AsyncCollectiveDone"})
      or any(name.startswith("async_collective_fusion") for name in names)
    )
    for c, x in carried:
      self._collective(c, x, times, channels, overlaps, scatters="reduce-scatter" in i.name)
    if i.opcode == "fusion":
      products = [(x, c) for c in inner for x in c if x.opcode in _PRODUCTS]
      indexed = any(x.opcode in _INDEXED for c in inner for x in c)
      self._work(computation, i, times, products, indexed)

  def _work(self, computation, i: Instruction, times: int, products, indexed: bool) -> None:
    """An instruction's cycles, FLOPs and bytes."""
    if _FREE.fullmatch(i.opcode):
      return
    flops = sum(_flops(x, home) for x, home in products)
    moved = i.bytes + sum(_operand_bytes(computation, name) for name in i.operands)
    seconds = times * max(flops / self.chip.peak, moved / self.chip.bandwidth)
    cost = self.cost
    cost.flops += times * flops
    if products:
      cost.matmul_cycles += times * i.cycles
      cost.matmul_bytes += times * moved
      cost.matmul_roofline += seconds
    else:
      cost.other_cycles += times * i.cycles
      cost.other_bytes += times * moved
      cost.other_roofline += seconds
    if indexed and not i.cycles:
      # What is gathered is far less than the table that it is gathered from.
      cost.unestimated_bytes += times * 2 * min(i.bytes, moved)

  def _kernel(self, computation, i: Instruction, times: int) -> None:
    kernel = kernels.measure(i, self.chip, self.joined)
    if kernel is None:
      return
    seconds = times * kernel.flops / (self.chip.peak * kernel.efficiency)
    old = self.cost.kernels.get(kernel.name)
    if old is None:
      old = self.cost.kernels[kernel.name] = Kernel(kernel.name, 0, 0.0, 0.0, kernel.known)
    old.count += times
    old.flops += times * kernel.flops
    old.seconds += seconds
    old.bytes += times * (i.bytes + sum(_operand_bytes(computation, name) for name in i.operands))

  def _collective(
    self,
    computation,
    i: Instruction,
    times: int,
    channels: set[str],
    overlaps: bool,
    scatters=False,
  ) -> None:
    channel = i.attribute("channel_id")
    if channel and channel in channels:
      return
    channels.add(channel)
    op = i.opcode.removesuffix("-start")
    size = _moved(self.module, i, op, computation)
    if scatters and op == "all-reduce":
      op = "reduce-scatter"  # legalised as a sum whose slices are kept: half is sent
    where = re.search(r'op_name="([^"]*)"', i.attributes)
    self.cost.collectives.append(
      Collective(
        op,
        size * times,
        times,
        overlaps,
        i.attributes,
        where.group(1) if where else "",
        computation.name,
      )
    )

  def _between_slices(self, computation, i: Instruction, times: int) -> None:
    """What leaves a slice: sent here, and received further down under the same name."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', i.attributes)
    name = re.search(r'_xla_host_transfer_rendezvous="([^"]*)"', i.attributes)
    op = kind.group(1).lower().replace("_", "-") if kind else ""
    received = {
      x.name for x in computation if x.opcode == "recv" and name and name[0] in x.attributes
    }
    order = list(computation)
    start = order.index(i)
    ends = [k for k, x in enumerate(order) if x.opcode == "recv-done" and received & {*x.operands}]
    between = order[start : ends[0]] if ends else []
    size = array_bytes(*i.arrays[0]) * times
    self.cost.collectives.append(
      Collective(
        op=op,
        bytes=size,
        count=times,
        overlaps=True,
        text=i.attributes,
        where=name.group(1) if name else "",
        home=computation.name,
        beside=sum(x.cycles for x in between),
      )
    )


def _all(module: Module, i: Instruction) -> Iterator[Computation]:
  """The computations inside an instruction, however deep."""
  for computation in module.called(i):
    yield computation
    for inner in computation:
      yield from _all(module, inner)


def _operand_bytes(computation: Computation, name: str) -> float:
  operand = computation.by_name.get(name)
  return operand.bytes if operand and operand.opcode != "constant" else 0.0


def _moved(module: Module, i: Instruction, op: str, computation: Computation) -> float:
  """Bytes of the whole buffer of a collective, a device.

  Partial sums travel in the type that they are added in, sums in the result's: an all-reduce of
  float32 products with a bfloat16 result sends the first half of its bytes in float32.
  """
  sizes = [array_bytes(kind, shape) for kind, shape in i.arrays]
  if op not in ("all-reduce", "reduce-scatter"):
    return max(sizes) if i.opcode.endswith("-start") else sum(sizes)
  reducer = module.computations.get(i.attribute("to_apply"))
  added = [x.arrays[0][0] for x in reducer or () if x.root and x.arrays]
  given = [computation.by_name[name] for name in i.operands if name in computation.by_name]
  arrays = [array for operand in given for array in operand.arrays] or i.arrays
  sums = sum(array_bytes(added[0] if added else kind, shape) for kind, shape in arrays)
  return sums if op == "reduce-scatter" else (sums + sum(sizes)) / 2


def _flops(i: Instruction, home: Computation) -> float:
  """2 * multiplications of a dot or convolution, whose operands stand in `home`."""
  given = [home.by_name[name].arrays for name in i.operands[:2] if name in home.by_name]
  if len(given) < 2 or not all(given) or not i.arrays:
    return 0.0
  (_, left), (_, right), (_, result) = given[0][0], given[1][0], i.arrays[0]
  if i.opcode == "dot":
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
    dims = contracted.group(1) if contracted else ""
    return 2.0 * math.prod(result) * math.prod(left[int(d)] for d in dims.split(",") if d)
  return _convolution_flops(i, left, right, result)


def _convolution_flops(i: Instruction, left, right, result) -> float:
  """Of a convolution: taps that fall on padding or between dilated inputs do not count."""
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
  if not labels:
    return 0.0
  inputs, taps, outputs = labels.groups()
  window = dict(re.findall(r"(\w+)=([\w\-]+)", _window(i.attributes)))
  spatial = sorted(c for c in outputs if c.isdigit())
  read = lambda name, k, default: int((window.get(name, "").split("x") + [""] * 9)[k] or default)
  count = 1.0
  for k, axis in enumerate(spatial):
    low = (window.get("pad", "").split("x") + [""] * 9)[k] or "0_0"
    count *= _valid(
      left[inputs.index(axis)],
      right[taps.index(axis)],
      result[outputs.index(axis)],
      read("stride", k, 1),
      int(low.split("_")[0]),
      (read("lhs_dilate", k, 1), read("rhs_dilate", k, 1)),
    )
  batch, features = result[outputs.index("b")], result[outputs.index("f")]
  return 2.0 * count * batch * features * right[taps.index("i")]


def _window(attributes: str) -> str:
  found = re.search(r"window=\{([^}]*)\}", attributes)
  return found.group(1) if found else ""


def _valid(size, taps, places, stride, low, dilation) -> int:
  """Pairs of an output place and a tap that meet an input."""
  at = np.arange(places)[:, None] * stride + np.arange(taps)[None] * dilation[1] - low
  inside = (at >= 0) & (at <= (size - 1) * dilation[0]) & (at % dilation[0] == 0)
  return int(inside.sum())


__all__ = ["COLLECTIVES", "Collective", "Cost", "Kernel", "measure", "shapes"]
