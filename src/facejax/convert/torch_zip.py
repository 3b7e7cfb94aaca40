"""A .bin file of torch -> tensors by name, memory-mapped, without torch and without running code.

torch.save writes a zip archive: NAME/data.pkl, a pickle of the state dict, and NAME/data/KEY, the
bytes of each storage, not compressed. A pickle can call anything it can import; the reader here
knows six names and refuses every other before it is looked up.
"""

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from facejax.convert.mapped import Mapped, Stored

_STORAGES = {
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(jnp.bfloat16),
  "DoubleStorage": np.dtype(np.float64),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
}
_PICKLE_LIMIT = 64 << 20  # bytes; that of a 7B model's shard has 100 thousand


class _Tensor(NamedTuple):
  """What the pickle says of a tensor; whether its bytes are there is checked later."""

  storage: tuple[str, str, int]  # name of its type, key, elements
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _tensor(storage, offset, shape, strides, *_) -> _Tensor:
  """In place of torch._utils._rebuild_tensor_v2."""
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(data, *_) -> Any:
  """In place of torch._utils._rebuild_parameter."""
  return data


class _StateDict(dict):
  """In place of OrderedDict. Its attributes (_metadata, versions of modules) are dropped."""

  def __setstate__(self, state: Any) -> None:
    pass


_CALLABLE: dict[tuple[str, str], Callable[..., Any]] = {
  ("collections", "OrderedDict"): lambda *_: _StateDict(),
  ("torch._utils", "_rebuild_tensor_v2"): _tensor,
  ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Name:
  """What a pickle gets for a name: it can be called, if the name is a function's, and no more.

  The thing itself would be open to the opcode that sets attributes, for good and for everybody.
  """

  __slots__ = ("name",)

  def __init__(self, module: str, name: str):
    self.name = (module, name)

  def __call__(self, *args: Any) -> Any:
    return _CALLABLE[self.name](*args)

  def __setstate__(self, state: Any) -> None:
    raise ValueError(f"it changes {'.'.join(self.name)}")


class _Unpickler(pickle.Unpickler):
  """Knows the names of _CALLABLE and torch's storages."""

  def __init__(self, data: bytes, path: Path):
    super().__init__(io.BytesIO(data))
    self.path = path

  def find_class(self, module: str, name: str) -> Any:
    """Raises ValueError for a name that a state dict does not need; nothing is imported."""
    if (module, name) in _CALLABLE or (module == "torch" and name in _STORAGES):
      return _Name(module, name)
    raise ValueError(
      f"{self.path}: its pickle asks for {module}.{name} - expected tensors alone - refused, it "
      "could run code"
    )

  def persistent_load(self, pid: Any) -> tuple[str, str, int]:
    """("storage", type, key, device, elements) -> (type, key, elements)."""
    kind, dtype, key, _, count = pid
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.name[0] != "torch":
      raise ValueError(f"{self.path}: its pickle refers to {pid!r:.80} - expected a storage")
    if type(count) is not int:
      raise ValueError(f"{self.path}: its pickle refers to {pid!r:.80} - expected a count")
    return dtype.name[1], str(key), count


def _check_memo(data: bytes) -> None:
  """Raises ValueError for a memo index that no pickle of this length needs: it sizes an array."""
  for opcode, arg, _ in pickletools.genops(data):
    if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(arg or 0) > len(data):
      raise ValueError(f"memo index {arg} in {len(data)} bytes")


def open_zip(path: Path) -> dict[str, Stored]:
  """The tensors of one archive.

  Raises ValueError if it is none, is cut, asks for another class, or a tensor does not lie within
  its storage.
  """
  file = Mapped(path)
  try:
    with zipfile.ZipFile(path) as archive:
      entries = {info.filename: info for info in archive.infolist()}
      [pickled] = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
      if entries[pickled].file_size > _PICKLE_LIMIT:
        raise ValueError(f"data.pkl has {entries[pickled].file_size} bytes")
      data = archive.read(pickled)
  # What zipfile and the line above raise: no archive, not one data.pkl, cut, damaged, and (as
  # RuntimeError) encrypted or packed in a way that it does not know.
  except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
    raise ValueError(
      f"{path} is no archive of torch.save, or cut: {error} - expected a zip file with one "
      "data.pkl (torch before 1.6 wrote none: save it again with a newer one)"
    ) from error
  folder = pickled.removesuffix("data.pkl")
  order = entries.get(f"{folder}byteorder")
  if order is not None and _bytes(file, order).tobytes() != b"little":
    raise ValueError(f"{path}: byte order {_bytes(file, order).tobytes()!r}, expected b'little'")
  found = _unpickle(data, path)
  storages = {name.removeprefix(f"{folder}data/"): info for name, info in entries.items()}
  return {name: _stored(name, tensor, storages, file) for name, tensor in found.items()}


def _unpickle(data: bytes, path: Path) -> dict[str, _Tensor]:
  try:
    _check_memo(data)
    state = _Unpickler(data, path).load()
  except ValueError as error:
    if str(error).startswith(str(path)):
      raise
    raise ValueError(f"{path}: data.pkl cannot be read: {error}") from error
  except Exception as error:  # a damaged pickle can raise nearly everything
    raise ValueError(f"{path}: data.pkl cannot be read: {type(error).__name__}: {error}") from error
  if not isinstance(state, Mapping):
    raise ValueError(f"{path} holds a {type(state).__name__} - expected a state dict")
  for name, value in state.items():
    if not isinstance(name, str) or not isinstance(value, _Tensor):
      raise ValueError(
        f"{path}: {name!r:.80} is a {type(value).__name__} - expected a state dict of tensors alone"
      )
  return dict(state)


def _stored(
  name: str, tensor: _Tensor, storages: Mapping[str, zipfile.ZipInfo], file: Mapped
) -> Stored:
  """A view of a tensor's bytes; its strides are followed, within its storage."""
  kind, key, count = tensor.storage
  dtype = _STORAGES[kind]
  sizes = (tensor.offset, count, *tensor.shape, *tensor.strides)
  counts = all(type(n) is int and 0 <= n < 1 << 48 for n in sizes)
  if not counts or len(tensor.shape) != len(tensor.strides):
    raise ValueError(f"{file.path}: tensor {name} has the sizes {tensor}, expected counts")
  if key not in storages:
    raise ValueError(f"{file.path}: tensor {name} lies in the storage {key!r}, which is not there")
  raw = _bytes(file, storages[key])
  last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
  if raw.size != count * dtype.itemsize or (0 not in tensor.shape and last >= count):
    raise ValueError(
      f"{file.path}: tensor {name} {list(tensor.shape)} needs {last + 1} of {count} elements, but "
      f"its storage has {raw.size} bytes - the file was altered or is cut"
    )
  flat = raw.view(dtype)[tensor.offset :]
  strides = [s * dtype.itemsize for s in tensor.strides]
  array = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
  return Stored(name, array, file)


def _bytes(file: Mapped, info: zipfile.ZipInfo) -> np.ndarray:
  """The bytes of an entry that is not compressed, in the mapped file."""
  start = info.header_offset
  header = file.bytes[start : start + 30].tobytes()
  if info.compress_type != zipfile.ZIP_STORED or header[:4] != b"PK\3\4":
    raise ValueError(
      f"{file.path}: {info.filename} is compressed or damaged - expected it as it is"
    )
  name, extra = struct.unpack("<HH", header[26:30])
  start += 30 + name + extra
  if start + info.file_size > file.bytes.size:
    raise ValueError(f"{file.path}: {info.filename} ends behind the file, which is cut")
  return file.bytes[start : start + info.file_size]
