"""An index through `facejax data landmarks`: crops, points, a new index, refusals by name."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import small_media
from PIL import Image
from small_media import DETECTOR, dataset, photo, points_in, turns, write_clip, write_index

from facejax import chat, cli
from facejax.config import DecoderConfig, LlavaConfig, ModelConfig, VitConfig
from facejax.data import media
from facejax.data.llava import LlavaSource
from facejax.data.pipeline import load_tokenizer
from facejax.data.rows import RowFormat
from facejax.extract import landmarks
from facejax.extract.dataset import Place
from facejax.extract.landmarks import Settings, extract_landmarks
from facejax.faces import detect
from facejax.visual_table import VisualTable

REAL = pathlib.Path(__file__).parents[1] / "data" / "grace_hopper.jpg"


_DEFAULT = Settings()


def _extract(index, out, settings=_DEFAULT, workers=0, **folders):
  return extract_landmarks(Place(index, out, **folders), DETECTOR, settings, workers)


def _written(summary):
  samples = json.loads(summary.written.read_text())
  return {sample.get("id"): sample for sample in samples}, summary.written.parent


def _report(summary):
  return json.loads(summary.report.read_text())


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_index_is_completed(tmp_path, workers):
  """Kills: samples dropped, reordered or renamed, points of another face, crops of another size."""
  index = dataset(tmp_path / "in")
  summary = _extract(index, tmp_path / "out", workers=workers)
  samples, out = _written(summary)
  assert list(samples) == ["a", "b", "c", "e", "f", "g"]
  assert (summary.samples, summary.left_out, summary.files, summary.refused) == (7, 1, 5, 1)
  assert summary.counts == {"cropped": 3, "kept": 1, "several faces": 1}
  assert samples["e"]["image"] == samples["a"]["image"] and samples["e"]["source"] == "kept"
  assert samples["g"] == json.loads(index.read_text())[6]
  for name, side in (("a", 40), ("b", 50)):
    paths = [samples[name][field] for field in ("image", "landmarks_2d")]
    picture, points = (out / (p[0] if isinstance(p, list) else p) for p in paths)
    assert media.read_image(picture).shape == (256, 256, 3)
    expected = points_in(0, 0, 256).astype(np.float32) / 256
    np.testing.assert_allclose(media.read_landmarks(points), expected, atol=1e-6)
    # The pixel that marks the corner covers the crop's first 256 / side pixels.
    assert (media.read_image(picture)[0, 0] == (255, side, 0)).all()
  assert isinstance(samples["b"]["image"], list) and isinstance(samples["a"]["image"], str)
  kept = out / samples["c"]["image"]
  assert os.stat(kept).st_ino == os.stat(tmp_path / "in/images/crop.png").st_ino
  np.testing.assert_allclose(
    np.load(out / samples["c"]["landmarks_2d"]), 2 * points_in(8, 8, 100), rtol=1e-6
  )
  clip = media.read_video(out / samples["f"]["video"], 9)
  assert clip.pixels.shape == (9, 256, 256, 3) and clip.total == 9
  assert media.read_landmarks(out / samples["f"]["landmarks_2d"], clip).shape == (9, 68, 2)
  report = _report(summary)
  assert [entry["sample"] for entry in report["left_out"]] == ["train.json:3 (id d)"]
  assert "no face found in" in report["left_out"][0]["reason"]
  assert report["refused"][0]["file"].endswith("none.png")
  assert "2 faces, the largest taken (left, top, right, bottom: 80, 20, 130, 70" in str(report)


def test_second_run_writes_nothing(tmp_path):
  """Kills: a second run that works, or touches a file it wrote."""
  index, out = dataset(tmp_path / "in"), tmp_path / "out"
  _extract(index, out)
  # A link under media/ is the input's own file, whose time would change with it.
  files = [p for p in out.rglob("*") if p.is_file() and "media" not in p.parts]
  for path in files:
    os.utime(path, (5, 5))
  assert _extract(index, out).fresh == 0
  assert {p.stat().st_mtime for p in files} == {5} and len(files) == 10


def test_training_reads_the_result(tmp_path):
  """Kills: an index that the training source refuses; landmarks of another file, scale or frame."""
  summary = _extract(dataset(tmp_path / "in"), tmp_path / "out")
  encoder = VitConfig(image_size=12, patch=6, width=4, layers=1, heads=1, mlp=4, select_layer=-1)
  tokenizer = load_tokenizer("demo")
  sizes = {"vocab": tokenizer.vocab_size, "max_length": 512, "kv_heads": 1, "head_width": 8}
  decoder = DecoderConfig(width=8, layers=1, heads=1, mlp=8, **sizes)
  form = RowFormat(
    VisualTable(ModelConfig(image=encoder, decoder=decoder, frames=3), 1, 1), 300, tokenizer
  )
  source = LlavaSource(LlavaConfig((str(summary.written),)), form, max_refused=0)
  samples = [source[n] for n in range(len(source))]
  shapes = [[m.landmarks.shape for m in sample.media] for sample in samples]
  assert shapes == [[(1, 68, 2)]] * 4 + [[(3, 68, 2)], []]
  np.testing.assert_allclose(samples[3].media[0].landmarks[0], points_in(0, 0, 1), atol=1e-6)
  np.testing.assert_allclose(samples[4].media[0].landmarks[2], points_in(0, 0, 1), atol=1e-6)


def test_media_that_appear_later_complete_the_index(tmp_path):
  """Kills: a refusal for a missing file that outlives the file's arrival."""
  index, out = dataset(tmp_path / "in"), tmp_path / "out"
  lost = tmp_path / "in/images/two.png"
  lost.rename(tmp_path / "away.png")
  first = _extract(index, out)
  assert first.left_out == 2 and "two.png: no such file" in str(_report(first))
  (tmp_path / "away.png").rename(lost)
  second = _extract(index, out)
  assert (second.fresh, second.left_out) == (1, 1)


def test_crop_is_asked_for_or_not(tmp_path):
  """Kills: --crop that keeps crops, --no-crop that cuts or takes oblong pictures."""
  index = dataset(tmp_path / "in")
  cut = _extract(index, tmp_path / "cut", Settings(crop=True))
  assert cut.counts["cropped"] == 4 and "kept" not in cut.counts
  kept = _extract(index, tmp_path / "kept", Settings(crop=False))
  assert kept.counts == {"kept": 1} and kept.left_out == 5
  assert "one.png is 150x120 px - --no-crop expects square" in str(_report(kept))
  large = write_index(
    tmp_path / "in", [{"id": 0, "image": "large.png", "conversations": turns("image")}]
  )
  Image.fromarray(photo((30, 20, 200), height=301, width=301)).save(tmp_path / "in/large.png")
  assert _extract(large, tmp_path / "o").counts == {"cropped": 1}
  assert landmarks.CROP_LIMIT == chat.CROP_LIMIT


def test_several_faces_can_be_refused(tmp_path):
  """Kills: the official rule not followed where it is asked for."""
  summary = _extract(dataset(tmp_path / "in"), tmp_path / "o", Settings(several="refuse"))
  assert summary.left_out == 2 and "2 faces found in" in str(_report(summary))
  with pytest.raises(ValueError, match="several='all', max_gap=5"):
    Settings(several="all")
  with pytest.raises(ValueError, match="max_gap=-1"):
    Settings(max_gap=-1)


def test_gaps_of_clips_are_filled_and_told(tmp_path):
  """Kills: frames dropped where no face is (T no longer fits the clip), gaps filled in silence."""
  frames = [photo((30 + n, 20, 40)) if n not in (3, 4) else photo() for n in range(10)]
  frames[6] = photo((36, 20, 40), (100, 50, 30))
  write_clip(tmp_path / "c.mkv", frames)
  index = write_index(tmp_path, [{"video": "c.mkv", "conversations": turns("video")}])
  summary = _extract(index, tmp_path / "out", Settings(crop=False))
  assert summary.left_out == 1  # 150 x 120 is no crop
  summary = _extract(index, tmp_path / "out")
  assert summary.counts == {"cropped": 1, "frames filled": 1, "several faces": 1}
  note = _report(summary)["notes"][0]["note"]
  assert "no face in frames 3, 4, filled" in note
  assert "in 1 of 10 frames, one followed (left, top, right, bottom: 30, 20, 70, 60 of" in note
  strict = _extract(index, tmp_path / "out", Settings(max_gap=1))
  assert "2 of 10 frames, 2 of them in a row from frame 3" in str(_report(strict))


def test_clips_that_are_crops_keep_their_pixels(tmp_path):
  """Kills: points in pixels of the clip where those of a crop of 256 are meant."""
  write_clip(tmp_path / "c.mkv", [photo((8, 8, 70 + n), height=96, width=96) for n in range(4)])
  index = write_index(tmp_path, [{"video": "c.mkv", "conversations": turns("video")}])
  summary = _extract(index, tmp_path / "out")
  assert summary.counts == {"kept": 1}
  (sample,) = json.loads(summary.written.read_text())
  assert (tmp_path / "out" / sample["video"]).read_bytes() == (tmp_path / "c.mkv").read_bytes()
  points = np.load(tmp_path / "out" / sample["landmarks_2d"])
  expected = [points_in(8, 8, 70 + n) * 256 / 96 for n in range(4)]
  np.testing.assert_allclose(points, expected, rtol=1e-5)


def test_cropping_a_mapped_photograph_is_refused(tmp_path):
  """Kills: a map of the whole photograph left beside the crop of its face."""
  dataset(tmp_path)
  Image.fromarray(np.ones((120, 150), np.uint8)).save(tmp_path / "map.png")
  Image.fromarray(np.ones((128, 128), np.uint8)).save(tmp_path / "map2.png")
  samples = [
    {"image": name, "segmentation": ids, "conversations": turns("image")}
    for name, ids in (("images/one.png", "map.png"), ("images/crop.png", "map2.png"))
  ]
  summary = _extract(write_index(tmp_path, samples), tmp_path / "out")
  (sample,) = json.loads(summary.written.read_text())
  assert media.read_segmentation(tmp_path / "out" / sample["segmentation"]).shape == (128, 128)
  assert "one.png has a class map and was cropped" in _report(summary)["left_out"][0]["reason"]


def test_points_that_training_would_refuse_are_refused_here(tmp_path):
  """Kills: points written without the reader's own checks."""
  Image.fromarray(photo((0, 0, 10), height=100, width=100)).save(tmp_path / "p.png")
  index = write_index(tmp_path, [{"image": "p.png", "conversations": turns("image")}])

  class Far(small_media.SquareDetector):
    def detect(self, image):
      return [
        detect.Detection(found.box, 0.9, found.landmarks * 20) for found in super().detect(image)
      ]

  choice = landmarks.DetectorChoice(Far, "far")
  summary = extract_landmarks(Place(index, tmp_path / "out"), choice)
  assert "landmarks of" in str(_report(summary)) and "expected pixels of a 256x256" in str(
    _report(summary)
  )


def test_indexes_that_cannot_be_completed(tmp_path):
  """Kills: an index overwritten by its completed self; a sample of no schema that ends the run."""
  index = dataset(tmp_path)
  with pytest.raises(ValueError, match=r"holds train\.json itself, which would be overwritten"):
    _extract(index, tmp_path)
  with pytest.raises(FileNotFoundError, match=r"no index file .*none\.json - check the command's"):
    _extract(tmp_path / "none.json", tmp_path / "out")
  index = write_index(tmp_path, [3, {"image": "../a.png", "conversations": turns("image")}])
  summary = _extract(index, tmp_path / "out")
  assert summary.left_out == 2 and "'../a.png' is not inside" in str(_report(summary))


def test_text_that_is_no_unicode_is_kept(tmp_path):
  """Kills: hours of work lost to one sample's text when the index is written."""
  dataset(tmp_path / "in")
  said = [{"from": "human", "value": "<image>\nÄrger?\ud83d"}, turns("image")[1]]
  index = write_index(tmp_path / "in", [{"image": "images/one.png", "conversations": said}])
  summary = _extract(index, tmp_path / "out")
  assert json.loads(summary.written.read_text())[0]["conversations"] == said


def test_media_on_another_disk_are_copied(tmp_path, monkeypatch):
  """Kills: a step that needs hard links."""

  def refuse(*_):
    raise OSError("cross-device link")

  monkeypatch.setattr(os, "link", refuse)
  samples, out = _written(_extract(dataset(tmp_path / "in"), tmp_path / "out"))
  copied = out / samples["c"]["image"]
  assert copied.read_bytes() == (tmp_path / "in/images/crop.png").read_bytes()


def test_folders_of_media_may_lie_elsewhere(tmp_path):
  """Kills: --image-folder taken for both kinds, or for none."""
  index = dataset(tmp_path / "in")
  shutil.move(tmp_path / "in/clip.mkv", tmp_path / "clip.mkv")
  (tmp_path / "else").mkdir()
  index = pathlib.Path(shutil.move(index, tmp_path / "else"))
  folders = {"image_folder": str(tmp_path / "in"), "video_folder": str(tmp_path)}
  assert _extract(index, tmp_path / "out", **folders).left_out == 1


def test_jpeg_stays_jpeg(tmp_path):
  """Kills: a crop of a JPEG blown up to a PNG; the wrong suffix for either."""
  shutil.copy(REAL, tmp_path / "a.jpg")
  image = Image.open(REAL)

  class Whole:
    def detect(self, image):
      return [detect.Detection((10.0, 10.0, 80.0, 80.0), 1.0, points_in(10, 10, 70))]

  index = write_index(tmp_path, [{"image": "a.jpg", "conversations": turns("image")}])
  choice = landmarks.DetectorChoice(Whole, "whole")
  summary = extract_landmarks(Place(index, tmp_path / "o"), choice, Settings(crop=True))
  (sample,) = json.loads(summary.written.read_text())
  with Image.open(tmp_path / "o" / sample["image"]) as crop:
    assert (crop.format, crop.size) == ("JPEG", (256, 256)) and image.format == "JPEG"


# --- the command line, with MediaPipe's models ---

needs_models = pytest.mark.skipif(
  not (detect.default_folder() / detect.DETECTOR).is_file(),
  reason="needs the face models: facejax faces install",
)


@needs_models
def test_command_on_a_photograph(tmp_path, capsys):
  """Kills: a flag that is read and dropped, an exit status that hides what was left out."""
  shutil.copy(REAL, tmp_path / "a.jpg")
  Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "black.png")
  both = [{"image": name, "conversations": turns("image")} for name in ("a.jpg", "black.png")]
  argv = ["data", "landmarks", str(write_index(tmp_path, both)), str(tmp_path / "out")]
  assert cli.main([*argv, "--workers", "0"]) == 1
  out = capsys.readouterr().out
  assert "2 files, 2 of them worked on now" in out and "1 without a usable face" in out
  assert "train.json: 1 of 2 samples" in out
  (sample,) = json.loads((tmp_path / "out/train.json").read_text())
  crop = media.read_image(tmp_path / "out" / sample["image"])
  points = media.read_landmarks(tmp_path / "out" / sample["landmarks_2d"])
  (again,) = detect.LiteRTDetector.load().detect(crop)
  assert np.linalg.norm(again.landmarks / 256 - points, axis=1).mean() < 4 / 256
  write_index(tmp_path, both[:1])
  assert cli.main([*argv, "--workers", "1"]) == 0
  assert "1 files, 0 of them worked on now\n" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("extra", "match"),
  [
    (["--workers", "-1"], "--workers -1: expected 0 or more"),
    (["--detector", "/nowhere"], "no face_detection_short_range.tflite in /nowhere"),
    (["--max-gap", "-2"], "max_gap=-2"),
  ],
)
def test_command_refuses(tmp_path, capsys, extra, match):
  """Kills: a bad setting found out in a worker, or taken."""
  if "--detector" not in extra and not (detect.default_folder() / detect.DETECTOR).is_file():
    pytest.skip("needs the face models: facejax faces install")
  argv = ["data", "landmarks", str(write_index(tmp_path, [])), str(tmp_path / "out"), *extra]
  assert cli.main(argv) == 2
  assert match in capsys.readouterr().err


@needs_models
def test_command_stops_at_ctrl_c(tmp_path, capsys, monkeypatch):
  """Kills: a traceback, or status 0, for a run that was stopped."""

  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(landmarks, "extract_landmarks", stop)
  argv = ["data", "landmarks", str(write_index(tmp_path, [])), str(tmp_path / "out")]
  assert cli.main(argv) == 130
  assert "the same command continues" in capsys.readouterr().err


@needs_models
def test_detector_fingerprint_is_that_of_its_files(tmp_path):
  """Kills: another model whose results are taken for the old one's."""
  shutil.copytree(detect.default_folder(), tmp_path / "models")
  first = landmarks.litert(tmp_path / "models").fingerprint
  assert first == landmarks.litert().fingerprint
  with open(tmp_path / "models" / detect.DETECTOR, "ab") as file:
    file.write(b"\0" * 16)
  assert landmarks.litert(tmp_path / "models").fingerprint != first
