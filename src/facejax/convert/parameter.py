"""One parameter of ours as files hold it: a plan of a table, tied to tensors, read by slices."""

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from facejax.convert import resample
from facejax.convert.mapped import Stored
from facejax.convert.tables import Piece

Index = tuple[slice, ...]

_ROWS = 8  # turned at a time: half a cache line of float32 in each row that is written
_THREADS = min(8, os.cpu_count() or 1)
_SMALL = 1 << 20  # numbers; below, threads cost more than they bring


class Delta(NamedTuple):
  """A low-rank change of a linear layer [out in]: scale * b @ a."""

  a: np.ndarray  # [r in]
  b: np.ndarray  # [out r]
  scale: float

  def turned(self, index: Index) -> np.ndarray:
    """A slice of the change in our order [in out], float32."""
    a, b = self.a[:, index[0]].astype(np.float32), self.b[index[1]].astype(np.float32)
    return (a.T @ b.T) * np.float32(self.scale)


class Parameter(NamedTuple):
  """Our parameter, with a leading axis of layers if `stacked`. Nothing is read before read()."""

  path: str
  shape: tuple[int, ...]
  pieces: tuple[Piece, ...]  # one, or one a layer
  tensors: tuple[Stored, ...]
  stacked: bool
  deltas: tuple[Delta | None, ...] = ()  # one a piece, or none at all
  resampled: bool = False  # a table of positions for another number of patches

  @property
  def dtype(self) -> np.dtype:
    """As stored; the type that holds all layers where they are of several."""
    return functools.reduce(np.promote_types, (t.array.dtype for t in self.tensors))

  def read(self, index: Index | None = None, dtype: str | np.dtype | None = None) -> np.ndarray:
    """A slice of the parameter in fresh memory, in a type of its own if asked."""
    index = index or (slice(None),) * len(self.shape)
    index = tuple(slice(*s.indices(n)) for s, n in zip(index, self.shape, strict=True))
    out = _aligned([s.stop - s.start for s in index], np.dtype(dtype or self.dtype))
    if not self.stacked:
      self._read_layer(0, index, out)
      return out
    numbers = range(index[0].start, index[0].stop)
    for row, number in enumerate(numbers):
      if number + 1 in numbers:
        self._prefetch(number + 1)
      self._read_layer(number, index[1:], out[row])
    return out

  def layers(self, dtype: str | np.dtype | None = None) -> Iterator[np.ndarray]:
    """The parameter in the order of its bytes, a layer at a time."""
    if not self.stacked:
      yield self.read(dtype=dtype)
      return
    rest = (slice(None),) * (len(self.shape) - 1)
    for i in range(self.shape[0]):
      yield self.read((slice(i, i + 1), *rest), dtype)[0]

  def place(self, sharding: jax.sharding.Sharding, dtype: str | None = None) -> jax.Array:
    """The parameter on the devices; each gets its slice from the file."""
    return jax.make_array_from_callback(
      self.shape, sharding, lambda index: self.read(index or (), dtype)
    )

  def _prefetch(self, number: int) -> None:
    self.tensors[number].file.prefetch(self.tensors[number].array)

  def _read_layer(self, number: int, index: Index, out: np.ndarray) -> None:
    self._prefetch(number)
    stored = self.tensors[number]
    view = self.pieces[number].view(stored.array)
    if self.resampled:
      view = resample.positions(view, self.shape[0])
    view = view[index]
    if self.deltas and (delta := self.deltas[number]):
      view = view.astype(np.float32) + delta.turned(index)
    _copy(view, out)
    stored.file.release(stored.array)


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
  """Memory that starts at a multiple of 64 bytes: a CPU device then takes it without a copy."""
  size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start : start + size].view(dtype).reshape(shape)


def _copy(source: np.ndarray, out: np.ndarray) -> None:
  """out[...] = source; a turned matrix a few rows of the file at a time, in several threads.

  4096 x 11008 bfloat16 to float32 take 94 ms so in one thread and 182 ms in one go; to bfloat16,
  as plain bits, 158 and 690.
  """
  if source.dtype == out.dtype:
    bits = f"u{source.itemsize}"
    source, out = source.view(bits), out.view(bits)
  if source.ndim != 2 or source.strides[0] >= source.strides[1]:
    out[...] = source
    return

  def turn(start: int, stop: int) -> None:
    for column in range(start, stop, _ROWS):
      columns = slice(column, min(column + _ROWS, stop))
      out[:, columns] = source[:, columns].T.astype(out.dtype, copy=False).T

  count = source.shape[1]
  step = -(-count // _THREADS) if source.size > _SMALL else count
  spans = [(start, min(start + step, count)) for start in range(0, count, step)]
  if len(spans) == 1:
    turn(*spans[0])
  else:
    list(_pool().map(lambda span: turn(*span), spans))


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
  return concurrent.futures.ThreadPoolExecutor(_THREADS, "convert")
