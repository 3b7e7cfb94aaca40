"""The text of an optimised HLO module, parsed. text -> Module.

Only what a cost model reads: which computation calls which, how often its loops turn, the shapes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BYTES = {
  "pred": 1.0,
  "token": 0.0,
  "opaque": 0.0,
  **{name: 0.5 for name in ("s4", "u4", "f4e2m1fn")},
  **{name: 0.25 for name in ("s2", "u2")},
  **{name: 2.0 for name in ("s16", "u16", "f16", "bf16")},
  **{name: 4.0 for name in ("s32", "u32", "f32")},
  **{name: 8.0 for name in ("s64", "u64", "f64", "c64")},
  "c128": 16.0,
}
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_NAMED = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_END = re.compile(r"\}(, execution_thread=.*)?$")
_ARRAY = re.compile(r"\b([a-z]+[a-z0-9]*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """name = type opcode(operands), attributes."""

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]  # names
  attributes: str
  inside: str  # what stands between the brackets: of a constant, its value
  root: bool

  @functools.cached_property
  def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
    """Element type and shape of the result; several of a tuple."""
    return shapes(self.type)

  @property
  def bytes(self) -> float:
    """Of the result, all parts of a tuple together."""
    return sum(array_bytes(*array) for array in self.arrays)

  def attribute(self, name: str) -> str:
    """The value of `name=`, up to the next comma or space, without %; "" if there is none."""
    found = re.search(rf"\b{name}=%?([^,\s}}]+)", self.attributes)
    return found.group(1) if found else ""

  @property
  def cycles(self) -> int:
    """The compiler's estimate; 0 where it made none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
    return int(found.group(1)) if found else 0


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions in the order in which they run."""

  name: str
  instructions: tuple[Instruction, ...]

  def __iter__(self) -> Iterator[Instruction]:
    return iter(self.instructions)

  @functools.cached_property
  def by_name(self) -> dict[str, Instruction]:
    """An operand's instruction."""
    return {instruction.name: instruction for instruction in self.instructions}


@dataclasses.dataclass(frozen=True)
class Module:
  """All computations; `entry` is the one that runs."""

  computations: dict[str, Computation]
  entry: Computation

  def called(self, instruction: Instruction) -> list[Computation]:
    """The computations that an instruction runs, but for reducers such as an addition."""
    names = [instruction.attribute(key) for key in ("calls", "body", "called_computation")]
    if instruction.opcode in ("call", "call-start", "async-start"):
      names.append(instruction.attribute("to_apply"))
    if branches := re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes):
      names += [name.strip().lstrip("%") for name in branches.group(1).split(",")]
    names += [instruction.attribute(f"{key}_computation") for key in ("true", "false")]
    return [self.computations[name] for name in names if name in self.computations]

  def trips(self, loop: Instruction) -> int | None:
    """How often a while loop turns, counted from 0 by ones; None if its text does not say."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
      return int(known.group(1))
    condition = self.computations.get(loop.attribute("condition"))
    if condition is None:
      return None
    limits = [
      int(i.inside)
      for computation in [condition, *(c for i in condition for c in self.called(i))]
      for i in computation
      if i.opcode == "constant" and re.fullmatch(r"[su]32\[\].*", i.type) and i.inside.isdigit()
    ]
    return limits[0] if len(limits) == 1 and "direction=LT" in _text(self, condition) else None


def _text(module: Module, condition: Computation) -> str:
  parts = [condition, *(c for i in condition for c in module.called(i))]
  return " ".join(i.attributes for part in parts for i in part if i.opcode == "compare")


def shapes(type: str) -> list[tuple[str, tuple[int, ...]]]:
  """The arrays of a type's text; layouts are left out."""
  return [
    (kind, tuple(int(n) for n in sizes.split(",") if n))
    for kind, sizes in _ARRAY.findall(re.sub(r"\{[^}]*\}", "", type))
  ]


def array_bytes(kind: str, shape: tuple[int, ...]) -> float:
  """Bytes of an array, without padding. An unknown type counts a byte an element (float8)."""
  return math.prod(shape) * _BYTES.get(kind, 1.0)


def parse(text: str) -> Module:
  """Raises ValueError if the text has no ENTRY computation."""
  computations: dict[str, Computation] = {}
  entry = None
  name = ""
  current: list[Instruction] | None = None
  for line in _lines(text):
    if current is None:
      if header := _HEADER.match(line):
        name, current = header.group(2), []
        entry = name if header.group(1) else entry
    elif _END.match(line):
      computations[name] = Computation(name, tuple(current))
      current = None
    elif named := _NAMED.match(line):
      current.append(_instruction(*named.groups()))
  if entry is None:
    raise ValueError(f"no ENTRY computation in {len(text)} characters of HLO - expected one")
  return Module(computations, computations[entry])


def _lines(text: str) -> Iterator[str]:
  """Lines, with those joined that a line feed inside a string (a kernel's metadata) cut apart."""
  pending = ""
  for line in text.splitlines():
    starts = line.startswith(("%", "ENTRY ", "HloModule")) or _END.match(line) or _NAMED.match(line)
    if pending and starts:
      yield pending
      pending = ""
    pending += line
  yield pending


def _instruction(root: str | None, name: str, rest: str) -> Instruction:
  found = _OPCODE.search(rest)
  if not found:
    raise ValueError(f"HLO instruction {name}: '{rest[:80]}' - expected 'type opcode(operands)'")
  end, depth = found.end(), 1
  while depth and end < len(rest):
    depth += {"(": 1, ")": -1}.get(rest[end], 0)
    end += 1
  inside = rest[found.end() : end - 1]
  operands = tuple(re.findall(r"%([\w.\-]+)", inside))
  type = rest[: found.start()].strip()
  return Instruction(name, type, found.group(1), operands, rest[end:], inside, bool(root))
