"""Collectives on a torus. a group of devices, bytes -> seconds.

A group's chips are placed by their coordinates. Along each axis of the torus that the group spans
there are two directions of links if the axis is closed and the group covers it (a ring), else one
(a line): data goes along all spanned axes at once, each link at Chip.link. Where the program names
a strategy of fewer rings, those count. Between slices and GPU nodes, Chip.network takes over.

  v5e:16x16, all 256: two rings of 16, four links out of each chip
  v5e:16x16, 4 of a row: a line, one link
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.chips import Chip

_PIECE = 400_000  # characters of a group list that are worth reading


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a device stands: its slice (or GPU node), its chip's coordinates."""

  slice: int
  chip: tuple[int, ...]


class Network:
  """Devices in the order in which a program numbers them."""

  def __init__(self, chip: Chip, devices: Sequence[Any], node: int = 8):
    """`node`: GPUs that NVLink joins."""
    self.chip = chip
    self.places = [_place(chip, number, device, node) for number, device in enumerate(devices)]
    chips = np.array([place.chip for place in self.places])
    self.extent = tuple(int(n) for n in chips.max(0) + 1)

  def group(self, text: str) -> list[int]:
    """The first group of a collective's attributes; all devices if none is named."""
    return groups(text, len(self.places))

  def seconds(self, op: str, size: float, text: str) -> float:
    """How long a collective over `size` bytes a device takes, nothing else on the links."""
    if "_xla_megascale" in text:
      return self._between(op, size)
    members = [self.places[i] for i in self.group(text)]
    n = len(members)
    if n < 2 or not size:
      return 0.0
    if op == "collective-permute":
      return size / (self.chip.network if _crosses(members) else self._link(members))
    slices = len({place.slice for place in members})
    inner = [place for place in members if place.slice == members[0].slice]
    total = self._within(op, size, inner, text) if len(inner) > 1 else 0.0
    if slices > 1:
      # Inside a slice first: between slices each device then carries its share alone.
      share = size / len(inner) * (slices - 1) / slices
      total += (2 if op == "all-reduce" else 1) * share / self.chip.network
    return total

  def _between(self, op: str, size: float) -> float:
    """Between all slices, of what each device sends itself: a sum's part, or its own."""
    slices = len({place.slice for place in self.places})
    times = {"all-reduce": 2 / slices, "reduce-scatter": 1 / slices, "all-to-all": 1 / slices}
    return size * (slices - 1) * times.get(op, 1.0) / self.chip.network

  def _within(self, op: str, size: float, members: list[Place], text: str) -> float:
    """Inside a slice."""
    n = len(members)
    if op in ("all-to-all", "ragged-all-to-all") and self.chip.torus:
      return size * max(self._distance(axis, members) for axis in self._axes(members))
    moved = (2 if op == "all-reduce" else 1) * size * (n - 1) / n
    return moved / self.bandwidth(members, text)

  def bandwidth(self, members: list[Place], text: str = "") -> float:
    """Bytes a second that a device sends to (or gets from) the others of its group."""
    if not self.chip.torus:
      return self.chip.link
    link = self._link(members)
    if rings := text.count('"phase_rings"'):  # a SparseCore's strategy: rings of one direction
      return rings * link
    widths = [self._ways(axis, members) * link for axis in self._axes(members)]
    if not widths:  # two devices of one chip
      return 2 * link * self.chip.torus
    one = re.search(r'"emitter":"1D', text)
    return 2 * link if one and len(widths) > 1 else sum(widths)

  def _link(self, members: list[Place]) -> float:
    """A device's part of a link: two devices of a chip share it, if they send different data."""
    both = len({place.chip for place in members}) < len(members)
    return self.chip.link if both else self.chip.link / self.chip.devices

  def _axes(self, members: list[Place]) -> list[int]:
    return [a for a in range(len(self.extent)) if len({p.chip[a] for p in members}) > 1]

  def _ways(self, axis: int, members: list[Place]) -> int:
    """2 along a ring, 1 along a line."""
    covered = len({place.chip[axis] for place in members})
    size = self.extent[axis]
    return 2 if covered == size and size % self.chip.ring == 0 else 1

  def _distance(self, axis: int, members: list[Place]) -> float:
    """Seconds a byte of an all-to-all, by what must cross the middle of this axis."""
    covered = len({place.chip[axis] for place in members})
    return covered / (8 if self._ways(axis, members) == 2 else 4) / self._link(members)

  def describe(self, text: str) -> str:
    """A group in words: how many devices, along which axes."""
    if "_xla_megascale" in text:
      return f"{len({place.slice for place in self.places})} slices"
    members = [self.places[i] for i in self.group(text)]
    inner = [place for place in members if place.slice == members[0].slice]
    names = [
      f"{'xyz'[a]}{len({p.chip[a] for p in inner})}{'' if self._ways(a, inner) == 2 else ' line'}"
      for a in self._axes(inner)
    ]
    slices = len({place.slice for place in members})
    if slices > 1:
      names.append(f"{slices} {'slices' if self.chip.torus else 'nodes'}")
    return (
      f"{len(members)} ({', '.join(names) or 'one chip'})" if self.chip.torus else str(len(members))
    )


def _place(chip: Chip, number: int, device: Any, node: int) -> Place:
  if not chip.torus:
    return Place(number // node, (number % node,))
  return Place(getattr(device, "slice_index", 0) or 0, tuple(device.coords)[:3])


def _crosses(members: list[Place]) -> bool:
  return len({place.slice for place in members}) > 1


def groups(text: str, devices: int) -> list[int]:
  """The first of a collective's groups, from HLO attributes in any of their four notations.

  replica_groups={{0,1},{2,3}}                          listed
  replica_groups=[2,4]<=[4,2]T(1,0)                     [groups, members] of a transposed range
  replica_groups=mesh['a'=4,'b'=2] {'b'}                along axes of a mesh
  source_target_pairs={{0,1},{1,2}}                     who sends to whom
  """
  text = text[:_PIECE]
  if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
    return [int(i) for i in listed.group(1).split(",") if i]
  if ranged := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
    sizes = lambda k: [int(i) for i in ranged.group(k).split(",")]
    ids = np.arange(math.prod(sizes(2))).reshape(sizes(2))
    ids = ids.transpose(sizes(3)) if ranged.group(3) else ids
    return ids.reshape(sizes(1))[0].tolist()
  if meshed := re.search(r"replica_groups=(?:@?\w*)?mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
    return _mesh_group(meshed.group(1), meshed.group(2))
  if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", text):
    return sorted({int(i) for i in re.findall(r"\d+", pairs.group(1))})
  return list(range(devices))


def _mesh_group(axes: str, chosen: str) -> list[int]:
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
  names = re.findall(r"'(\w+)'", chosen)
  ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
  at = [list(sizes).index(name) for name in names]
  rest = [i for i in range(ids.ndim) if i not in at]
  return ids.transpose(rest + at).reshape(-1, math.prod(ids.shape[i] for i in at))[0].tolist()


def direction(text: str) -> int:
  """1 if a permute goes up by one along its ring, -1 down, 0 otherwise."""
  pairs = re.findall(r"\{(\d+),(\d+)\}", text[:2000].partition("source_target_pairs=")[2])
  steps = [int(b) - int(a) for a, b in pairs[:3]]
  return 0 if not steps else 1 if sorted(steps)[len(steps) // 2] > 0 else -1
