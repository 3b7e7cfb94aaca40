"""Parsers that really run: tiny ONNX and LiteRT networks whose answer is known at each pixel."""

import dataclasses

import numpy as np
import pytest
from small_media import write_onnx, write_tflite

from facejax.extract.parser import FaceParser, open_network
from facejax.faces.parsers import TABLES, ParserTable

SIZE = 32
BISENET = dataclasses.replace(TABLES["bisenet"], size=SIZE)


def _painted(table: ParserTable, side: int = 64):
  """(picture, its canonical ids): 4x4 blocks of the classes, each in its palette colour."""
  ids = np.random.default_rng(3).integers(0, 19, size=(4, 4))
  ids = np.repeat(np.repeat(ids, side // 4, 0), side // 4, 1)
  return np.array(table.palette, np.uint8)[ids], table.to_canonical(ids)


def _middles(ids: np.ndarray) -> np.ndarray:
  step = len(ids) // 4
  return ids[step // 2 :: step, step // 2 :: step]


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("ids", [False, True])
def test_onnx_parser_names_each_colour(tmp_path, ids, size):
  """Kills: normalisation, class order, channel order, resizing of scores or ids, a fixed size."""
  pytest.importorskip("onnxruntime")
  path = tmp_path / "p.onnx"
  write_onnx(path, BISENET, size, ids)
  picture, expected = _painted(BISENET)
  got = FaceParser(open_network(path), BISENET).parse(picture)
  assert got.shape == (64, 64) and got.dtype == np.uint8
  np.testing.assert_array_equal(_middles(got), _middles(expected))
  assert (got == expected).mean() > 0.7  # all but the seams


def test_litert_parser_names_each_colour(tmp_path):
  """Kills: channels first for a network that wants them last, and the same for its scores."""
  path = tmp_path / "p.tflite"
  write_tflite(path, BISENET, SIZE)
  network = open_network(path)
  assert network.shape == (1, SIZE, SIZE, 3) and network.dtype == "float32"
  picture, expected = _painted(BISENET)
  got = FaceParser(network, BISENET).parse(picture)
  np.testing.assert_array_equal(_middles(got), _middles(expected))


def test_a_wrong_table_gives_another_map(tmp_path):
  """Kills: a table that is not applied."""
  pytest.importorskip("onnxruntime")
  path = tmp_path / "p.onnx"
  write_onnx(path, BISENET)
  picture, expected = _painted(BISENET)
  wrong = dataclasses.replace(BISENET, classes=TABLES["segformer"].classes)
  got = FaceParser(open_network(path), wrong).parse(picture)
  assert not np.array_equal(_middles(got), _middles(expected))


@dataclasses.dataclass
class _Stub:
  """A network that gives what it was told, and remembers what it was given."""

  output: np.ndarray
  shape: tuple = (1, 3, None, None)
  dtype: str = "float32"

  def __call__(self, array):
    self.given = array
    return [self.output]


def test_scores_are_interpolated_then_compared():
  """Kills: an argmax before resizing, corners aligned, rows for columns.

  Two classes that cross over between two pixels: by bilinear interpolation at half-pixel centres
  over 8 columns, class 1 leads from the column where its score first exceeds class 0's.
  """
  zero, one = np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]])
  table = ParserTable("two", ("background", "hair"), size=4)
  stub = _Stub(np.stack([zero, one])[None].astype(np.float32))
  got = FaceParser(stub, table).parse(np.zeros((3, 8, 3), np.uint8))
  expected = np.zeros((3, 8), int)
  for column in range(8):
    at = np.clip((column + 0.5) / 4 - 0.5, 0, 1)
    expected[:, column] = 13 * (3 * at > 1 - at)
  np.testing.assert_array_equal(got, expected)
  assert stub.given.shape == (1, 3, 4, 4)


def test_input_is_normalised_by_the_table():
  """Kills: std for mean, colours swapped, [0, 255] for [0, 1]; uint8 networks take bytes."""
  table = ParserTable(
    "t", ("background", "skin"), size=2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)
  )
  picture = np.full((5, 7, 3), (51, 102, 204), np.uint8)
  stub = _Stub(np.zeros((1, 2, 1, 1), np.float32))
  FaceParser(stub, table).parse(picture)
  for channel, (value, mean, std) in enumerate(((0.2, 0.1, 0.5), (0.4, 0.2, 0.25), (0.8, 0.3, 2))):
    np.testing.assert_allclose(stub.given[0, channel], (value - mean) / std, rtol=1e-5)
  stub = _Stub(np.zeros((1, 2, 1, 1), np.float32), (None, 2, 2, 3), "uint8")
  FaceParser(stub, table).parse(picture)
  np.testing.assert_array_equal(stub.given, np.full((1, 2, 2, 3), (51, 102, 204)))
  assert stub.given.dtype == np.uint8


@pytest.mark.parametrize("last", [False, True])
def test_scores_follow_the_axes_of_the_input(last):
  """Kills: axes guessed from a length that the picture happens to have, too."""
  scores = np.random.default_rng(0).random((2, 2, 2)).astype(np.float32)
  table = ParserTable("two", ("background", "hair"), size=2)
  stub = _Stub(scores[None], (1, 2, 2, 3) if last else (1, 3, 2, 2))
  got = FaceParser(stub, table).parse(np.zeros((2, 2, 3), np.uint8))
  np.testing.assert_array_equal(got, 13 * scores.argmax(-1 if last else 0))


@pytest.mark.parametrize("shape", [(1, 4, 6, 9), (1, 3), (2, 3, 8, 8), (1, 1, 8, 8)])
def test_networks_of_other_inputs_are_refused(shape):
  """Kills: a network for grey or several pictures that would be fed nonsense."""
  match = rf"net.onnx takes an input of shape \({', '.join(map(str, shape))}\)"
  with pytest.raises(ValueError, match=match):
    FaceParser(_Stub(np.zeros(1), shape), BISENET, "net.onnx")
  with pytest.raises(ValueError, match="takes int32 - expected float32"):
    FaceParser(_Stub(np.zeros(1), dtype="int32"), BISENET)


@pytest.mark.parametrize(
  "output", [np.zeros((1, 11, 4, 5), np.float32), np.zeros((2, 3, 4), np.int32), np.zeros((19, 4))]
)
def test_outputs_of_other_shapes_are_refused(output):
  """Kills: eleven scores read as nineteen classes."""
  parser = FaceParser(_Stub(output), BISENET, "net.onnx")
  match = rf"net.onnx gives .* of shape \({', '.join(map(str, output.shape))}\) .* bisenet has 19"
  with pytest.raises(ValueError, match=match):
    parser.parse(np.zeros((4, 4, 3), np.uint8))


def test_files_that_are_no_networks_are_refused(tmp_path):
  """Kills: a bare exception of a runtime, a missing file found out in each process."""
  pytest.importorskip("onnxruntime")
  with pytest.raises(ValueError, match=r"p\.pt is no \.onnx or \.tflite"):
    open_network(tmp_path / "p.pt")
  with pytest.raises(FileNotFoundError, match=r"no parser .*p\.onnx"):
    open_network(tmp_path / "p.onnx")
  for name, runtime in (("q.onnx", "ONNX Runtime"), ("q.tflite", "LiteRT")):
    (tmp_path / name).write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match=f"{name} is no model that {runtime} can run"):
      open_network(tmp_path / name)
