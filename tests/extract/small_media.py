"""A small dataset, a detector of painted squares, and tiny networks in both file formats."""

import dataclasses
import fractions
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facejax.extract import landmarks
from facejax.faces.detect import Detection
from facejax.faces.parsers import ParserTable

SQUARE = 40  # pixels a side of a painted face


def points_in(left: float, top: float, side: float) -> np.ndarray:
  """68 points on a grid within a square."""
  n = np.arange(68)
  return np.stack([left + (n % 17 + 1) / 18 * side, top + (n // 17 + 1) / 5 * side], 1)


@dataclasses.dataclass
class SquareDetector:
  """Finds squares: a pixel of red 250 at a corner says that one begins, its green how large."""

  def detect(self, image):
    found = []
    for top, left in np.argwhere(image[..., 0] >= 250):
      side = float(image[top, left, 1])
      box = (float(left), float(top), float(left) + side, float(top) + side)
      found.append(Detection(box, 0.9, points_in(left, top, side).astype(np.float32)))
    return found


DETECTOR = landmarks.DetectorChoice(SquareDetector, "squares 1")


def photo(*faces: tuple[int, int, int], height: int = 120, width: int = 150) -> np.ndarray:
  """A grey picture with faces (left, top, side)."""
  rng = np.random.default_rng(len(faces))
  image = rng.integers(90, 110, size=(height, width, 3)).astype(np.uint8)
  for left, top, side in faces:
    image[top, left] = (255, side, 0)
  return image


def turns(kind: str) -> list[dict]:
  return [
    {"from": "human", "value": f"<{kind}>\nHow old?"},
    {"from": "gpt", "value": "About 30."},
  ]


def write_index(folder: Path, samples: list[dict], name: str = "train.json") -> Path:
  path = folder / name
  path.write_text(json.dumps(samples))
  return path


def write_clip(path: Path, frames: list[np.ndarray], rate: int = 12) -> None:
  """Lossless, so that single pixels survive."""
  av = pytest.importorskip("av")
  with av.open(str(path), "w") as container:
    stream = container.add_stream("ffv1", rate=fractions.Fraction(rate))
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "bgr0"
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def dataset(folder: Path) -> Path:
  """Photographs, a crop, a picture of nobody, a clip, words alone: 7 samples, 5 media."""
  pictures = folder / "images"
  pictures.mkdir(parents=True)
  Image.fromarray(photo((30, 20, 40))).save(pictures / "one.png")
  Image.fromarray(photo((10, 60, 30), (80, 20, 50))).save(pictures / "two.png")
  Image.fromarray(photo((8, 8, 100), height=128, width=128)).save(pictures / "crop.png")
  Image.fromarray(photo()).save(pictures / "none.png")
  write_clip(folder / "clip.mkv", [photo((30 + n, 20, 40)) for n in range(9)])
  samples = [
    {"id": "a", "image": "images/one.png", "conversations": turns("image")},
    {"id": "b", "image": ["images/two.png"], "conversations": turns("image")},
    {"id": "c", "image": "images/crop.png", "conversations": turns("image")},
    {"id": "d", "image": "images/none.png", "conversations": turns("image")},
    {"id": "e", "image": "images/one.png", "conversations": turns("image"), "source": "kept"},
    {"id": "f", "video": "clip.mkv", "conversations": turns("video")},
    {"id": "g", "conversations": [{"from": "human", "value": "Hi"}, turns("image")[1]]},
  ]
  return write_index(folder, samples)


def nearest_colour(table: ParserTable) -> tuple[np.ndarray, np.ndarray]:
  """(weights [C 3], bias [C]) that score a normalised pixel by how near each palette colour is.

  |x - c|^2 without |x|^2, which all classes share, and with the sign turned.
  """
  colours = (np.array(table.palette) / 255 - table.mean) / np.array(table.std)
  return (2 * colours).astype(np.float32), -(colours**2).sum(1).astype(np.float32)


def write_onnx(path: Path, table: ParserTable, size=None, ids: bool = False) -> None:
  """A 1x1 convolution to class scores at half the input's size; `ids` adds the argmax."""
  onnx = pytest.importorskip("onnx")
  from onnx import TensorProto, helper, numpy_helper

  weights, bias = nearest_colour(table)
  nodes = [
    helper.make_node("AveragePool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
    helper.make_node("Conv", ["half", "w", "b"], ["scores"]),
  ]
  outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(bias), "h", "w"])]
  if ids:
    nodes.append(helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0))
    outputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "h", "w"])]
  graph = helper.make_graph(
    nodes,
    "tiny",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size or "y", size or "z"])],
    outputs,
    [
      numpy_helper.from_array(weights[:, :, None, None], "w"),
      numpy_helper.from_array(bias, "b"),
    ],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
  onnx.checker.check_model(model)
  onnx.save(model, str(path))


def write_tflite(path: Path, table: ParserTable, size: int) -> None:
  """The same 1x1 convolution, at full size and with channels last, as a FlatBuffer."""
  schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
  flatbuffers = pytest.importorskip("flatbuffers")
  weights, bias = nearest_colour(table)
  count = len(bias)

  def tensor(name, shape, buffer):
    made = schema.TensorT()
    made.name, made.shape, made.buffer = name, list(shape), buffer
    made.type = schema.TensorType.FLOAT32
    return made

  def buffer(array=None):
    made = schema.BufferT()
    made.data = None if array is None else np.frombuffer(array.tobytes(), np.uint8)
    return made

  code = schema.OperatorCodeT()
  code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
  code.version = 1
  options = schema.Conv2DOptionsT()
  options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
  operator = schema.OperatorT()
  operator.inputs, operator.outputs = [0, 1, 2], [3]
  operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
  operator.builtinOptions = options
  graph = schema.SubGraphT()
  graph.tensors = [
    tensor("x", (1, size, size, 3), 0),
    tensor("w", (count, 1, 1, 3), 1),
    tensor("b", (count,), 2),
    tensor("scores", (1, size, size, count), 0),
  ]
  graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
  model = schema.ModelT()
  model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
  model.buffers = [buffer(), buffer(weights[:, None, None, :]), buffer(bias)]
  builder = flatbuffers.Builder(1024)
  builder.Finish(model.Pack(builder), b"TFL3")
  path.write_bytes(bytes(builder.Output()))
