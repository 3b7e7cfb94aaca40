"""Photo -> face, landmarks, crop: the geometry by hand, the refusals, the real models once."""

import hashlib
import math
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from facejax.data import media
from facejax.faces import detect, detector_files

PHOTO = pathlib.Path(__file__).parent / "data" / "grace_hopper.jpg"


def _detection(box, score=0.9, seed=0):
  rng = np.random.default_rng(seed)
  left, top, right, bottom = box
  unit = rng.uniform(size=(68, 2))
  points = unit * [[right - left, bottom - top]] + [[left, top]]
  return detect.Detection(tuple(map(float, box)), score, points.astype(np.float32))


class _Stub:
  """Finds what it was given."""

  def __init__(self, *detections):
    self.detections = list(detections)

  def detect(self, image):
    assert image.dtype == np.uint8 and image.ndim == 3
    return self.detections


# --- BlazeFace's outputs ---


def test_anchors_follow_the_ssd_rule():
  """Kills: another count, order (cells before layers), or corners instead of centres."""
  expected = []
  for cells, count in ((16, 2), (8, 6)):
    for row in range(cells):
      for column in range(cells):
        expected += [((column + 0.5) / cells, (row + 0.5) / cells)] * count
  got = detect.anchors()
  assert got.shape == (896, 2)
  np.testing.assert_allclose(got, expected, atol=1e-7)


def test_decode_adds_the_anchor():
  """Kills: width taken for height, corners for centres, keypoints relative to the box."""
  raw = np.zeros((1, 16), np.float32)
  raw[0, :4] = (0.1, -0.2, 0.4, 0.6)  # centre x, y, width, height
  raw[0, 4:8] = (0.01, 0.02, -0.03, 0.04)
  boxes, points = detect.decode(raw, np.array([[0.5, 0.5]], np.float32))
  np.testing.assert_allclose(boxes, [[0.4, 0.0, 0.8, 0.6]], atol=1e-6)
  np.testing.assert_allclose(points[0, :2], [[0.51, 0.52], [0.47, 0.54]], atol=1e-6)
  assert points.shape == (1, 6, 2)


def test_suppress_averages_one_face_and_keeps_another():
  """Kills: plain suppression, unweighted means, merging strangers, a lost low-score filter."""
  boxes = np.array(
    [[0, 0, 10, 10], [50, 0, 60, 12], [1, 2, 11, 12], [0, 0, 10, 10.0], [9, 9, 30, 30]]
  )
  scores = np.array([0.6, 0.7, 0.9, 0.4, 0.55])
  points = np.stack([boxes[:, :2], boxes[:, 2:]], axis=1)
  faces = detect.suppress(boxes, points, scores)
  assert [score for _, _, score in faces] == [0.9, 0.7, 0.55]
  # 0 and 2 overlap by 9*8 / (100 + 100 - 72) = 0.56; 3 is below the least score.
  mean = (0.9 * boxes[2] + 0.6 * boxes[0]) / 1.5
  np.testing.assert_allclose(faces[0][0], mean)
  np.testing.assert_allclose(faces[0][1], mean.reshape(2, 2))
  np.testing.assert_allclose(faces[1][0], boxes[1])
  np.testing.assert_allclose(faces[2][0], boxes[4])


def test_suppress_ends_on_empty_boxes():
  """Kills: an endless loop on a box without area, which overlaps nothing, itself included."""
  faces = detect.suppress(np.zeros((2, 4)), np.zeros((2, 1, 2)), np.array([0.8, 0.7]))
  assert [score for _, _, score in faces] == [0.8, 0.7]
  assert detect.suppress(np.zeros((0, 4)), np.zeros((0, 1, 2)), np.zeros(0)) == []


# --- views ---


def test_region_of_interest_levels_the_eyes():
  """Kills: the angle's sign, 1.5 times the short side, a centre between the eyes."""
  eyes = np.array([[10.0, 20.0], [20.0, 30.0]])  # The head leans clockwise by 45 degrees.
  view = detect.region_of_interest(np.array([0.0, 10.0, 40.0, 40.0]), eyes)
  assert view.centre == (20.0, 25.0)
  assert view.side == 60.0
  assert math.isclose(view.angle, math.pi / 4)
  # In the view both eyes have one height.
  turn = view.angle
  across, down = eyes[1] - eyes[0]
  assert abs(-across * math.sin(turn) + down * math.cos(turn)) < 1e-9


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.3])
@pytest.mark.parametrize("beyond", ["black", "edge"])
def test_view_equals_a_slow_sampler(angle, beyond):
  """Kills: transposed axes, half-pixel shifts, the turn's sign, wrong filling outside."""
  photo = np.random.default_rng(5).integers(1, 256, (9, 13, 3), np.uint8)
  view = detect._View((6.0, 4.5), 14.0, angle)
  got = view.of(photo, 8, beyond)
  cos, sin = math.cos(angle), math.sin(angle)
  for i in range(8):
    for j in range(8):
      u, v = ((j + 0.5) / 8 - 0.5) * 14, ((i + 0.5) / 8 - 0.5) * 14
      x, y = 6 + u * cos - v * sin - 0.5, 4.5 + u * sin + v * cos - 0.5
      value = np.zeros(3)
      for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
          share = (1 - abs(y - row)) * (1 - abs(x - column))
          if 0 <= row < 9 and 0 <= column < 13:
            value += share * photo[row, column]
          elif beyond == "edge":
            value += share * photo[min(max(row, 0), 8), min(max(column, 0), 12)]
      np.testing.assert_allclose(got[i, j], value, atol=1e-3)


def test_a_large_view_is_averaged():
  """Kills: sampling single pixels of a large face (which here hits the bright lines only)."""
  photo = np.zeros((96, 96, 3), np.uint8)
  photo[:, 5::12] = photo[:, 6::12] = 240  # Samples stand at 5.5 + 12 k.
  got = detect._View((48.0, 48.0), 96.0, 0.0).of(photo, 8, "edge")
  np.testing.assert_allclose(got, 240 * 2 / 12, atol=1)


def test_view_points_go_to_the_photo():
  """Kills: an offset between the pixels sampled and the points given back."""
  view = detect._View((30.0, 20.0), 10.0, math.pi / 2)
  got = view.to_photo(np.array([[0.5, 0.5], [1.0, 0.5], [0.5, 0.0]]))
  np.testing.assert_allclose(got, [[30, 20], [30, 25], [35, 20]], atol=1e-9)


# --- the crop ---


@pytest.mark.parametrize("box", [(40, 30, 104, 94), (-10, 20, 50, 70), (90, 80, 140, 139)])
def test_crop_keeps_points_on_their_pixels(box):
  """Kills: another scale per axis, offsets lost at the photo's edge, x and y swapped."""
  photo = np.zeros((120, 130, 3), np.uint8)
  detection = _detection(box)
  side = round((box[2] - box[0] + box[3] - box[1]) / 2)
  spot = np.array([[110.0, 100.0]]) if box[0] == 90 else np.array([[45.0, 55.0]])
  photo[int(spot[0, 1]) - 3 : int(spot[0, 1]) + 3, int(spot[0, 0]) - 3 : int(spot[0, 0]) + 3] = 255
  marked = detection.landmarks.copy()
  marked[7] = spot[0]
  pixels, points = detect.crop(photo, detect.Detection(detection.box, 0.9, marked))
  assert (pixels.shape, pixels.dtype) == ((256, 256, 3), np.uint8)
  assert (points.shape, points.dtype) == ((68, 2), np.float32)
  rows, columns = np.nonzero(pixels[..., 0] > 127)
  centre = [columns.mean() + 0.5, rows.mean() + 0.5]
  np.testing.assert_allclose(points[7], centre, atol=1.5)
  # Round trip: the crop's pixels back to the photo's.
  start = points[7] * side / 256 - spot[0]
  np.testing.assert_allclose(points * side / 256 - start[None], marked, atol=1e-3)


def test_crop_is_centred_with_the_official_side():
  """Kills: the box's corner as start, its long side as side, black beyond the edge."""
  photo = np.full((50, 60, 3), 90, np.uint8)
  pixels, points = detect.crop(photo, _detection((-20, 10, 20, 30)))  # side 30, centre (0, 20)
  assert (pixels == 90).all()
  corners = detect.Detection((-20.0, 10.0, 20.0, 30.0), 0.9, np.zeros((68, 2), np.float32))
  _, points = detect.crop(photo, corners)
  np.testing.assert_allclose(points[0], [15 * 256 / 30, -5 * 256 / 30], rtol=1e-5)


# --- choosing a face ---


def test_no_face_is_an_error_with_the_photo(tmp_path):
  """Kills: an IndexError; an error without file and size."""
  Image.new("RGB", (31, 22)).save(tmp_path / "p.png")
  with pytest.raises(ValueError, match=r"no face found in .*p\.png \(photo 31x22\) - "):
    detect.face_of_photo(tmp_path / "p.png", _Stub())


def test_several_faces_are_listed_left_to_right(tmp_path):
  """Kills: taking the best one silently; numbering by score."""
  Image.new("RGB", (200, 90)).save(tmp_path / "p.png")
  faces = [_detection((120, 5, 170, 55)), _detection((10, 9, 50, 49)), _detection((70, 0, 99, 31))]
  path, stub = tmp_path / "p.png", _Stub(*faces)
  listing = r"1: 10,9,50,49; 2: 70,0,99,31; 3: 120,5,170,55"
  with pytest.raises(ValueError, match=rf"3 faces found in .*p\.png.*--face N.*{listing}"):
    detect.face_of_photo(path, stub)
  for number in (0, 4):
    with pytest.raises(
      ValueError, match=rf"no face number {number} in .* expected 1\.\.3.*{listing}"
    ):
      detect.face_of_photo(path, stub, number)
  photo = media.read_image(path)
  pixels, points = detect.face_of_photo(path, stub, 3)
  np.testing.assert_array_equal(points, detect.crop(photo, faces[0])[1])
  assert pixels.shape == (256, 256, 3)
  alone = detect.face_of_photo(path, _Stub(faces[1]))
  np.testing.assert_array_equal(alone[1], detect.face_of_photo(path, stub, 1)[1])


# --- model files ---


def _models(monkeypatch):
  """Stands in for the real files: other bytes, their hashes known."""
  contents = {name: name.encode() * 3 for name in (detector_files.DETECTOR, detector_files.MESH)}
  models = {
    name: (f"mediapipe/modules/{name}", hashlib.sha256(data).hexdigest())
    for name, data in contents.items()
  }
  monkeypatch.setattr(detector_files, "_MODELS", models)
  return contents


def _wheel(path, contents):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("mediapipe/other.py", "raise SystemExit")
    archive.writestr("../outside.tflite", b"x")
    for name, data in contents.items():
      archive.writestr(f"mediapipe/modules/{name}", data)
  return path


def test_install_downloads_once_and_takes_two_files(tmp_path, monkeypatch):
  """Kills: extracting everything, installing the wheel, downloading on every call."""
  contents = _models(monkeypatch)
  commands = []

  def run(command, **kwargs):
    commands.append(command)
    _wheel(pathlib.Path(command[command.index("--dest") + 1]) / "mediapipe.whl", contents)
    return subprocess.CompletedProcess(command, 0, "", "")

  monkeypatch.setattr(subprocess, "run", run)
  folder = tmp_path / "a" / "faces"
  assert detect.install(folder) == folder
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
  assert commands[0][:5] == [sys.executable, "-m", "pip", "download", "mediapipe==0.10.21"]
  assert "--no-deps" in commands[0] and "--only-binary=:all:" in commands[0]
  detect.install(folder)
  assert len(commands) == 1
  (folder / detector_files.MESH).write_bytes(b"damaged")
  detect.install(folder)
  assert len(commands) == 2
  assert (folder / detector_files.MESH).read_bytes() == contents[detector_files.MESH]


def test_install_refuses_another_file(tmp_path, monkeypatch):
  """Kills: writing before checking; a missing member as a KeyError."""
  contents = _models(monkeypatch)
  wrong = dict(contents, **{detector_files.MESH: b"changed"})
  with pytest.raises(
    ValueError, match=r"face_landmark\.tflite in .* has 7 bytes, SHA-256 [0-9a-f]"
  ):
    detector_files.extract(_wheel(tmp_path / "w.whl", wrong), tmp_path)
  assert not (tmp_path / detector_files.MESH).exists()
  with pytest.raises(ValueError, match="has 0 bytes"):
    detector_files.extract(_wheel(tmp_path / "v.whl", {}), tmp_path)


def test_install_says_what_pip_said(tmp_path, monkeypatch):
  """Kills: a CalledProcessError without pip's words or a way out."""
  answer = subprocess.CompletedProcess([], 3, "", "No module named pip")
  monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
  message = r"could not download mediapipe==0\.10\.21 \(exit 3: No module named pip\).*by hand"
  with pytest.raises(RuntimeError, match=message):
    detect.install(tmp_path)


def test_default_folder_is_in_the_home(monkeypatch, tmp_path):
  """Kills: a folder in the package or the working directory."""
  monkeypatch.setenv("HOME", str(tmp_path))
  assert detect.default_folder() == tmp_path / ".cache" / "facejax" / "faces"


def test_load_refuses_missing_and_damaged_models(tmp_path, monkeypatch):
  """Kills: each refusal of load, from a folder and from a bundle."""
  with pytest.raises(
    FileNotFoundError, match=r"no face_detection_short_range\.tflite in .*facejax"
  ):
    detect.LiteRTDetector.load(tmp_path)
  (tmp_path / "face_detector.tflite").write_bytes(b"junk")
  with pytest.raises(FileNotFoundError, match=r"no face_landmark\.tflite .*found \['face_detector"):
    detect.LiteRTDetector.load(tmp_path)
  (tmp_path / "face_landmark.tflite").write_bytes(b"junk")
  with pytest.raises(ValueError, match=r"a model in .* cannot be run \(.*Flatbuffer"):
    detect.LiteRTDetector.load(tmp_path)
  (tmp_path / "x.task").write_bytes(b"junk")
  with pytest.raises(ValueError, match=r"x\.task is not a \.task bundle"):
    detect.LiteRTDetector.load(tmp_path / "x.task")
  monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[faces\]'"):
    detect.LiteRTDetector.load(tmp_path)


@pytest.mark.slow
def test_real_models_find_the_face(tmp_path):
  """Kills: swapped channels, a wrong input range or output order, mirrored or shifted landmarks."""
  folder = detect.install(tmp_path / "faces")
  detector = detect.LiteRTDetector.load(folder)
  photo = media.read_image(PHOTO)
  (found,) = detector.detect(photo)
  assert found.score > 0.9
  # By eye on the photograph: outer eye corners, nose tip, mouth corners, chin.
  _, points = detect.crop(photo, found)
  seen = {36: (42, 62), 45: (208, 53), 30: (129, 122), 48: (79, 173), 54: (181, 172), 8: (133, 245)}
  for index, place in seen.items():
    assert np.linalg.norm(points[index] - place) < 8, index
  # A bundle holds the same models under other names.
  with zipfile.ZipFile(tmp_path / "face.task", "w") as bundle:
    bundle.write(folder / detect.DETECTOR, "face_detector.tflite")
    bundle.write(folder / detect.MESH, "face_landmarks_detector.tflite")
  (again,) = detect.LiteRTDetector.load(tmp_path / "face.task").detect(photo)
  np.testing.assert_array_equal(again.landmarks, found.landmarks)
  # Small in a large picture: looked at twice, and found in the same place.
  small = Image.fromarray(photo).resize((photo.shape[1] * 3 // 10, photo.shape[0] * 3 // 10))
  canvas = Image.new("RGB", (512, 600), (90, 90, 90))
  canvas.paste(small, (100, 50))
  (tiny,) = detector.detect(np.array(canvas))
  error = (tiny.landmarks - [[100, 50]]) / 0.3 - found.landmarks
  assert np.linalg.norm(error, axis=1).mean() < 4
  assert detector.detect(np.zeros((50, 70, 3), np.uint8)) == []
