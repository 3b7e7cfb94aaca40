"""One parameter of ours as their files hold it: what a table says, tied to tensors, slice by slice."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from facejax.convert.files import Stored
from facejax.convert.tables import Piece, Table

Index = tuple[slice, ...]


class Parameter(NamedTuple):
  """Our parameter, with a leading axis of layers if `stacked`. Nothing is read before read()."""

  path: str
  shape: tuple[int, ...]
  pieces: tuple[Piece, ...]  # one, or one a layer
  tensors: tuple[Stored, ...]
  stacked: bool

  @property
  def dtype(self) -> np.dtype:
    """As stored; of several, the first layer's."""
    return self.tensors[0].array.dtype

  def layer(self, number: int) -> np.ndarray:
    """A view of the file: one layer, or the whole parameter if it is not stacked."""
    return self.pieces[number].view(self.tensors[number].array)

  def read(self, index: Index, dtype: str | np.dtype | None = None) -> np.ndarray:
    """A slice of the parameter in fresh memory, in a type of its own if asked."""
    index = tuple(slice(*s.indices(n)) for s, n in zip(index, self.shape, strict=True))
    out = _aligned([s.stop - s.start for s in index], np.dtype(dtype or self.dtype))
    numbers = range(index[0].start, index[0].stop) if self.stacked else (0,)
    for row, number in enumerate(numbers):
      view = self.layer(number)
      target, part = (out[row], view[index[1:]]) if self.stacked else (out, view[index])
      _copy(target, part)
      self.tensors[number].file.release(self.tensors[number].array)
    return out

  def place(self, sharding: jax.sharding.Sharding, dtype: str | None = None) -> jax.Array:
    """The parameter on the devices; each gets its slice from the file."""
    return jax.make_array_from_callback(self.shape, sharding, lambda index: self.read(index, dtype))


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Memory that starts at a multiple of 64 bytes: a CPU device then takes it without a copy."""
  size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start : start + size].view(dtype).reshape(shape)


def _copy(target: np.ndarray, source: np.ndarray) -> None:
  target[...] = source


def match(
  targets: Mapping[str, tuple[int, ...]],
  plan: Mapping[str, tuple[Piece, ...]],
  tensors: Mapping[str, Stored],
  table: Table,
  new: Sequence[str],
  resample: bool,
  where: str,
) -> tuple[dict[str, Parameter], tuple[str, ...], tuple[str, ...]]:
  """(parameters by path, missing paths, unused tensors)."""
  announced = lambda name: any(re.fullmatch(pattern, name) for pattern in new)
  parameters, missing, problems, used = {}, [], [], set()
  for path, shape in sorted(targets.items()):
    pieces = plan.get(path, ())
    absent = [p.theirs for p in pieces if p.theirs not in tensors]
    used |= {p.theirs for p in pieces}
    if not pieces or absent:
      if announced(path) and len(absent) == len(pieces):
        missing.append(path)
      else:
        problems += [f"missing: {name}, for {path} {list(shape)}" for name in absent or ["nothing"]]
      continue
    stacked = len(shape) > 1 and "blocks/" in path or "/rest/" in path
    own = shape[1:] if stacked else shape
    found = tuple(tensors[p.theirs] for p in pieces)
    for piece, tensor in zip(pieces, found, strict=True):
      if tensor.shape != piece.shape(own):
        problems.append(f"shape: {tensor}, expected {list(piece.shape(own))} for {path}")
    parameters[path] = Parameter(path, shape, pieces, found, stacked)
  unused = [n for n in tensors if n not in used]
  for n in unused:
    if not table.dropped(n) and not announced(n):
      problems.append(f"unexpected: {tensors[n]}")
  if problems:
    raise ValueError(
      f"{where} does not fit the model ({len(problems)} differences):\n  " + "\n  ".join(problems)
    )
  return parameters, tuple(missing), tuple(sorted(unused))
