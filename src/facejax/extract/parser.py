"""A face parser from a file: picture [Y X 3] -> class ids [Y X] of faces/segmentation.py.

    picture --resize, normalise--> network --> scores [C h w] --bilinear--> [C Y X] --argmax--> ids

`.onnx` runs with ONNX Runtime (extra `parsing`), `.tflite` with LiteRT (extra `faces`), both on one
core: the processes of a step share the others. What the file does not say (normalisation, order of
classes) says the parser's table.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facejax.faces.parsers import ParserTable

_SAMPLING = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
_INPUTS = ("float32", "float16", "uint8")


class Network(Protocol):
  """A model file, opened.

  Attributes:
    shape: of its input; None where any length will do.
    dtype: of its input, NumPy's name.
  """

  shape: tuple[int | None, ...]
  dtype: str

  def __call__(self, array: np.ndarray) -> Sequence[np.ndarray]:
    """All outputs."""
    ...


def open_network(path: str | os.PathLike) -> Network:
  """Opens a .onnx or .tflite file.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another suffix, a damaged file, or several inputs.
    ModuleNotFoundError: what runs it is not installed.
  """
  path = pathlib.Path(path)
  kinds: dict[str, type[_Onnx | _LiteRT]] = {".onnx": _Onnx, ".tflite": _LiteRT}
  if path.suffix.lower() not in kinds:
    raise ValueError(f"{path} is no .onnx or .tflite file - export the parser to one of them")
  if not path.is_file():
    raise FileNotFoundError(f"no parser {path} - check the path")
  return kinds[path.suffix.lower()](path)


class _Onnx:
  def __init__(self, path: pathlib.Path):
    try:
      import onnxruntime
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        "running an .onnx parser needs ONNX Runtime, which is not installed - "
        "pip install -e '.[parsing]'"
      ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
      self._session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
      )
    except Exception as error:  # its exceptions have no common type but Exception
      raise ValueError(
        f"{path} is no model that ONNX Runtime can run ({error}) - export it again"
      ) from error
    inputs = self._session.get_inputs()
    _check_single(path, len(inputs))
    self._name = inputs[0].name
    self.shape = tuple(n if isinstance(n, int) else None for n in inputs[0].shape)
    names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
    self.dtype = names.get(inputs[0].type, inputs[0].type)

  def __call__(self, array: np.ndarray) -> Sequence[np.ndarray]:
    return self._session.run(None, {self._name: array})


class _LiteRT:
  def __init__(self, path: pathlib.Path):
    try:
      from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        "running a .tflite parser needs LiteRT, which is not installed - pip install -e '.[faces]'"
      ) from error
    try:
      self._model = Interpreter(model_content=path.read_bytes(), num_threads=1)
      self._model.allocate_tensors()
    except (ValueError, RuntimeError) as error:
      raise ValueError(
        f"{path} is no model that LiteRT can run ({error}) - export it again"
      ) from error
    inputs = self._model.get_input_details()
    _check_single(path, len(inputs))
    self._index = inputs[0]["index"]
    signature = inputs[0].get("shape_signature", inputs[0]["shape"])
    self.shape = tuple(None if n < 0 else int(n) for n in signature)
    self.dtype = np.dtype(inputs[0]["dtype"]).name

  def __call__(self, array: np.ndarray) -> Sequence[np.ndarray]:
    if None in self.shape:
      self._model.resize_tensor_input(self._index, array.shape)
      self._model.allocate_tensors()
    self._model.set_tensor(self._index, array)
    self._model.invoke()
    return [self._model.get_tensor(output["index"]) for output in self._model.get_output_details()]


def _check_single(path: pathlib.Path, count: int) -> None:
  if count != 1:
    raise ValueError(f"{path} has {count} inputs - expected one, the picture - export it again")


class FaceParser:
  """A network with the table of its classes."""

  def __init__(self, network: Network, table: ParserTable, name: str = "the parser"):
    """Raises ValueError for an input that is no single RGB picture; `name` is for messages."""
    shape = network.shape
    last = len(shape) == 4 and shape[3] == 3
    if not (last or (len(shape) == 4 and shape[1] in (3, None))) or shape[0] not in (1, None):
      raise ValueError(
        f"{name} takes an input of shape {shape} - expected [1, 3, y, x] or [1, y, x, 3] - export "
        "it for single RGB pictures"
      )
    if network.dtype not in _INPUTS:
      raise ValueError(
        f"{name} takes {network.dtype} - expected {', '.join(_INPUTS)} - export it again"
      )
    height, width = shape[1:3] if last else shape[2:]
    self._height, self._width = height or table.size, width or table.size
    self._network, self._table, self._last, self._name = network, table, last, name

  def parse(self, photo: UInt8[np.ndarray, "Y X 3"]) -> UInt8[np.ndarray, "Y X"]:
    """Class ids, as in faces/segmentation.py, of each pixel.

    The first output counts; it holds scores of each class, channels first or last, or ids. Scores
    are interpolated before the largest is taken, as the parsers' own scripts do: edges then are
    as fine as the picture. Raises ValueError for any other output.
    """
    output = np.asarray(self._network(self._input(photo))[0])
    count, shape = len(self._table.classes), output.shape
    if output.dtype.kind in "iu":
      ids = output.reshape([n for n in shape if n != 1])
      if ids.ndim == 2:
        return self._table.to_canonical(_resized(ids, photo.shape[:2]))
    elif len(shape) == 4 and shape[0] == 1:
      first = shape[1] == count and not (self._last and shape[3] == count)
      if first or shape[3] == count:
        scores = output[0] if first else np.moveaxis(output[0], -1, 0)
        return self._table.to_canonical(_argmax(scores, photo.shape[:2]))
    raise ValueError(
      f"{self._name} gives {output.dtype} of shape {shape} - expected scores of shape "
      f"[1, {count}, y, x] or [1, y, x, {count}], or integer ids [y, x] - {self._table.name} has "
      f"{count} classes; name the parser's own table"
    )

  def _input(self, photo: UInt8[np.ndarray, "Y X 3"]) -> np.ndarray:
    table, size = self._table, (self._width, self._height)
    pixels = np.asarray(Image.fromarray(photo).resize(size, _SAMPLING[table.sampling]))
    if self._network.dtype == "uint8":  # such networks normalise by themselves
      array = pixels
    else:
      mean, std = (np.array([[value]], np.float32) for value in (table.mean, table.std))
      array = ((pixels / np.float32(255) - mean) / std).astype(self._network.dtype)
    return array[None] if self._last else np.ascontiguousarray(np.moveaxis(array, -1, 0)[None])


def _argmax(scores: Float[np.ndarray, "C y x"], shape: tuple[int, int]) -> np.ndarray:
  """The class of each pixel; one class at a time, so that no [C Y X] is held."""
  size = shape[::-1]
  best, ids = None, np.zeros(shape, np.uint8)
  for number, channel in enumerate(scores):
    plane = Image.fromarray(np.ascontiguousarray(channel, np.float32))
    values = np.asarray(plane.resize(size, Image.Resampling.BILINEAR))
    if best is None:
      best = values.copy()
    else:
      better = values > best
      ids[better] = number
      np.maximum(best, values, out=best)
  return ids


def _resized(ids: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """The nearest id at each pixel centre."""
  rows, columns = (
    np.floor((np.arange(n) + 0.5) * m / n).astype(int)
    for n, m in zip(shape, ids.shape, strict=True)
  )
  return ids[np.ix_(rows, columns)]
