"""Weight files -> tensors by name, memory-mapped. folder or file -> {name: Stored}.

A folder's weights are, in this order:

  model.safetensors.index.json     {"weight_map": {tensor: file}}, and the files it names
  model.safetensors
  pytorch_model.bin.index.json     the same with torch's zip archives, see torch_zip.py
  pytorch_model.bin
  weights.safetensors, adapter_model.safetensors, adapter_model.bin, or the only *.safetensors

Opening reads headers alone and checks them against the size of the file, so that a damaged file is
refused before anything large is allocated.
"""

import json
import math
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import jax.numpy as jnp
import numpy as np

from facejax.convert.mapped import Mapped, Stored
from facejax.convert.torch_zip import open_zip

# safetensors' names of types. Parameters are floating point; the rest are buffers such as ids.
TYPES = {
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(jnp.bfloat16),
  "F64": np.dtype(np.float64),
  "I64": np.dtype(np.int64),
  "I32": np.dtype(np.int32),
  "I16": np.dtype(np.int16),
  "I8": np.dtype(np.int8),
  "U8": np.dtype(np.uint8),
  "BOOL": np.dtype(np.bool_),
}
_HEADER_LIMIT = 100 << 20  # bytes; that of a 7B model has 60 thousand
_NAMES = (
  "model.safetensors.index.json",
  "model.safetensors",
  "pytorch_model.bin.index.json",
  "pytorch_model.bin",
  "weights.safetensors.index.json",
  "weights.safetensors",
  "adapter_model.safetensors",
  "adapter_model.bin",
)


def open_weights(source: str | Path) -> dict[str, Stored]:
  """The tensors of a folder or of a file, in the order of the files.

  Raises:
    FileNotFoundError: there are no weights, or an index names a file that is not there.
    ValueError: a file is damaged, or an index leads out of its folder.
  """
  path = Path(source)
  if path.is_dir():
    path = weights_in(path) or _no_weights(path)
  if not path.is_file():
    raise FileNotFoundError(f"weights {path} do not exist - expected a folder or a file of them")
  if path.name.endswith(".index.json"):
    return _sharded(path)
  return _open(path)


def weights_in(folder: Path) -> Path | None:
  """The file or index that a folder's weights are read from, or None."""
  for name in _NAMES:
    if (folder / name).is_file():
      return folder / name
  single = list(folder.glob("*.safetensors"))
  return single[0] if len(single) == 1 else None


def _no_weights(folder: Path) -> Path:
  found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
  raise FileNotFoundError(
    f"{folder} has no weights: expected one of {', '.join(_NAMES[:4])}, or a single *.safetensors "
    f"file; found {found}"
  )


def _open(path: Path) -> dict[str, Stored]:
  if path.suffix == ".safetensors":
    return open_safetensors(path)
  return open_zip(path)


def _sharded(index: Path) -> dict[str, Stored]:
  """All tensors of the files that an index names."""
  weight_map = read_json(index).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise ValueError(f'{index} has no "weight_map" - expected {{tensor: file}} - download it again')
  for tensor, name in weight_map.items():
    check_inside(name, f"{index}: weight_map[{tensor!r}]")
  files = dict.fromkeys(weight_map.values())
  for name in files:
    if not (index.parent / name).is_file():
      raise FileNotFoundError(f"{index} names {name}, which is not in {index.parent}")
  tensors: dict[str, Stored] = {}
  opened = {name: _open(index.parent / name) for name in files}
  for tensor, name in weight_map.items():
    if tensor not in opened[name]:
      raise ValueError(
        f"{index.parent / name} has no tensor {tensor}, which {index.name} puts there"
      )
    tensors[tensor] = opened[name][tensor]
  return tensors


def check_inside(name: Any, where: str) -> None:
  """Raises ValueError unless a file's name stays inside the folder of the file that names it.

  Judged by the name alone: the files of a download cache are links to elsewhere.
  """
  path = PurePosixPath(name) if isinstance(name, str) else None
  if path is None or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
    raise ValueError(f"{where} is {name!r} - expected a file inside the folder - refused")


def read_json(path: Path) -> dict:
  """An object from a JSON file. Raises FileNotFoundError or ValueError, both naming the file."""
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist - expected beside the weights")
  try:
    data = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}") from error
  if not isinstance(data, dict):
    raise ValueError(f"{path} holds a {type(data).__name__} - expected an object")
  return data


def open_safetensors(path: Path) -> dict[str, Stored]:
  """The tensors of one .safetensors file, by where they lie in it.

  Raises ValueError unless the header is sound and the tensors fill the rest of the file exactly.
  """
  file = Mapped(path)
  size = file.bytes.size
  length = struct.unpack("<Q", file.bytes[:8].tobytes())[0] if size >= 8 else 0
  if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
    raise ValueError(
      f"{path} ({size} bytes) is no safetensors file, or cut: its header would have {length} bytes"
    )
  try:
    header = json.loads(file.bytes[8 : 8 + length].tobytes())
    entries = [_entry(path, name, header[name]) for name in header if name != "__metadata__"]
  except (ValueError, TypeError, RecursionError) as error:
    if str(error).startswith(str(path)):
      raise
    raise ValueError(f"{path}: the header is no JSON object of tensors: {error}") from error
  end = 8 + length
  tensors = {}
  for start, stop, name, dtype, shape in sorted(entries):
    if 8 + length + start != end:
      raise ValueError(
        f"{path}: tensor {name} starts at byte {start}, expected {end - 8 - length}, where the "
        "one before it ends - the header was altered"
      )
    end = 8 + length + stop
    if end > size:
      raise ValueError(
        f"{path}: tensor {name} ends at byte {end}, but the file has {size} - it is cut; download "
        "it again"
      )
    tensors[name] = Stored(
      name, file.bytes[end - stop + start : end].view(dtype).reshape(shape), file
    )
  if end != size:
    raise ValueError(f"{path}: {size - end} bytes behind the last tensor - the file was altered")
  return tensors


def _entry(path: Path, name: str, entry: Any) -> tuple[int, int, str, np.dtype, tuple[int, ...]]:
  """(start, stop, name, type, shape) of a tensor, checked against one another."""
  try:
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path}: tensor {name}: {entry!r:.80} - expected dtype, shape and two data_offsets"
    ) from error
  if dtype not in TYPES:
    raise ValueError(f"{path}: tensor {name} has the type {dtype!r}, expected one of {[*TYPES]}")
  if not all(_count(n) for n in (*shape, start, stop)):
    raise ValueError(f"{path}: tensor {name}: shape {shape} at {start}:{stop} are no sizes")
  if stop - start != math.prod(shape) * TYPES[dtype].itemsize:
    raise ValueError(
      f"{path}: tensor {name} of shape {list(shape)} and type {dtype} has {stop - start} bytes, "
      f"expected {math.prod(shape) * TYPES[dtype].itemsize} - the header was altered"
    )
  return start, stop, name, TYPES[dtype], shape


def _count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 1 << 62
