"""Photographs and clips to answers: what the model is given, what the reply says, each refusal."""

import dataclasses
import json
import re

import av
import numpy as np
import pytest
import saved_run
from PIL import Image

from facejax import chat as chat_module
from facejax import checkpoint
from facejax.chat import chat
from facejax.config import LabelsConfig
from facejax.faces import detect
from facejax.generate import Answer, Sampling
from facejax.knowledge import rules
from facejax.knowledge.handoff import Handoff
from facejax.knowledge.telling import Telling

SHORT = Sampling(new_tokens=3)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  saved_run.save(folder, saved_run.config())
  return folder


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
  """Whoever runs the tests may have the detector installed."""
  monkeypatch.setattr(detect, "default_folder", lambda: tmp_path / "models")


@pytest.fixture
def asked(monkeypatch):
  """The samples that reach the model, which answers in no time."""
  samples = []

  class Stub:
    def __init__(self, config, params):
      del config, params

    def label_scores(self, given):
      size = len(rules.load("age_gender_race").labels)
      return np.where(np.arange(size) == len(given) + 1, 0.9, 0.1)[None]

    def answer(self, given, sampling):
      samples.extend(given)
      return [Answer("She smiles.", (5, 6), sampling is not SHORT)]

  monkeypatch.setattr(chat_module, "Answerer", Stub)
  return samples


def noise(shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def picture(path, width=40, height=40):
  Image.fromarray(noise((height, width, 3))).save(path)
  return path


def clip(path, width=32, height=32, frames=7):
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    for i in range(frames):
      grey = np.full((height, width, 3), 30 * i, np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
    container.mux(stream.encode())
  return path


def points(*front, seed=4):
  return np.random.default_rng(seed).uniform(9, 250, (*front, 68, 2)).astype(np.float32)


def install(monkeypatch, *found):
  """A detector that finds `found`; returns the folders that were loaded."""
  loaded = []

  class Stub:
    def detect(self, image):
      assert image.dtype == np.uint8 and image.ndim == 3
      return list(found)

  def load(path=None):
    loaded.append(path)
    return Stub()

  monkeypatch.setattr(detect.LiteRTDetector, "load", load)
  return loaded


def detection(left, seed=3):
  """A face of 80 x 80 px whose points lie in its box."""
  inside = np.random.default_rng(seed).uniform(0, 80, (68, 2)) + np.array([[left, 30]])
  return detect.Detection((left, 30, left + 80, 110), 0.875, inside.astype(np.float32))


@pytest.mark.parametrize("given", [True, False])
def test_a_photograph_becomes_a_crop_with_landmarks(workdir, asked, monkeypatch, tmp_path, given):
  """Kills: the whole photo given to the model; points in pixels, or of the photo; a lost --detector
  or the installed models not used."""
  face = detection(100)
  loaded = install(monkeypatch, face)
  models = tmp_path / ("mine" if given else "models")
  models.mkdir()
  (models / detect.DETECTOR).touch()
  photo = picture(tmp_path / "photo.png", 400, 200)
  reply = chat(workdir, photo, " How old? ", detector=str(models) if given else None)
  assert loaded == [models]
  (sample,) = asked
  assert [(t.role, t.text) for t in sample.conversation] == [("human", "<image>\nHow old?")]
  (medium,) = sample.media
  pixels = np.asarray(Image.open(photo))
  want = Image.fromarray(pixels[30:110, 100:180]).resize((256, 256), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(medium.pixels, np.asarray(want)[None])
  np.testing.assert_allclose(
    medium.landmarks, (face.landmarks - [[100, 30]])[None] / 80, rtol=1e-5, atol=1e-6
  )
  assert reply.text == "She smiles."
  assert reply.metadata == {
    "landmarks": f"detected by MediaPipe's face mesh, models in {models}",
    "face": "left, top, right, bottom 100, 30, 180, 110 of 400x200 px, score 0.88",
    "segmentation": "none; photographs and clips come without class maps",
    "inputs": "pixels and landmarks",
    "checkpoint": "stage1, step 7 of 9",
  }


def test_one_of_several_faces(workdir, asked, monkeypatch, tmp_path):
  """Kills: --face ignored; the first or the most confident face taken without asking."""
  install(monkeypatch, detection(250), detection(20))
  photo = picture(tmp_path / "two.png", 400, 200)
  with pytest.raises(ValueError, match=r"2 faces found in .*two.png .* choose one with --face N"):
    chat(workdir, photo, "Who?", detector=str(tmp_path))
  reply = chat(workdir, photo, "Who?", detector=str(tmp_path), face=2)
  assert reply.metadata["face"].startswith("left, top, right, bottom 250, 30, 330, 110 of")
  with pytest.raises(ValueError, match=r"no face number 3 in .*expected 1\.\.2"):
    chat(workdir, photo, "Who?", detector=str(tmp_path), face=3)
  install(monkeypatch)
  with pytest.raises(ValueError, match=r"no face found in .*two.png \(photo 400x200\)"):
    chat(workdir, photo, "Who?", detector=str(tmp_path))
  assert len(asked) == 1


@pytest.mark.parametrize("form", ["npy", "json"])
def test_landmarks_from_a_file_mean_a_crop(workdir, asked, monkeypatch, tmp_path, form):
  """Kills: detection although the points are given; points not divided by the crop's 256 px."""
  install(monkeypatch)  # would find no face
  path, given = tmp_path / f"points.{form}", points()
  np.save(path, given) if form == "npy" else path.write_text(json.dumps(given.tolist()))
  crop = picture(tmp_path / "crop.png", 512, 512)  # any size
  reply = chat(workdir, crop, "Why?", detector=str(tmp_path), landmarks=str(path), sampling=SHORT)
  (medium,) = asked[0].media
  np.testing.assert_array_equal(medium.pixels, np.asarray(Image.open(crop))[None])
  np.testing.assert_allclose(medium.landmarks, given[None] / 256, rtol=1e-6)
  assert reply.metadata["landmarks"] == f"from {path}"
  assert reply.metadata["inputs"] == "pixels and landmarks"
  assert reply.metadata["answer"] == "cut after 3 tokens"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[[1, 2], [3]]", r"points.json is no JSON list of points \(.*inhomogeneous"),
    ("[[1, 2", r"points.json is no JSON list of points \(Expecting"),
    ("[" * 100_000, r"points.json is no JSON list of points \(maximum recursion"),
    ('[{"x": 1}]', r"landmarks of shape \(1,\), type object - expected \(68, 2\)"),
    (json.dumps([[9, 8]] * 67), r"landmarks of shape \(67, 2\)"),
    (json.dumps([[0.25, 0.75]] * 68), r"landmarks in 0.25..0.75 .* multiply by 256"),
  ],
  ids=["ragged", "cut", "deep", "objects", "too few", "normalised"],
)
def test_landmarks_that_do_not_fit(workdir, tmp_path, text, message):
  """Kills: JSON that is not checked as .npy is."""
  (tmp_path / "points.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    chat(workdir, picture(tmp_path / "c.png"), "Why?", landmarks=str(tmp_path / "points.json"))


def test_without_a_detector_a_small_square_is_a_crop(workdir, asked, tmp_path):
  """Kills: a photograph given to the model as if it were a crop; silence about what is missing."""
  reply = chat(workdir, picture(tmp_path / "crop.png", 300, 300), "Why?")
  assert asked[0].media[0].landmarks is None
  assert reply.metadata["landmarks"].startswith(
    "none; no face detector is installed - run `facejax"
  )
  assert reply.metadata["face"].startswith("the whole picture (300x300 px), taken as a face crop")
  assert reply.metadata["inputs"] == "pixels"
  for width, height, face in ((301, 301, None), (40, 41, None), (40, 40, 1)):
    photo = picture(tmp_path / "photo.png", width, height)
    with pytest.raises(
      ValueError,
      match=rf"photo.png \({width}x{height} px\).* `facejax faces install` .*--landmarks",
    ):
      chat(workdir, photo, "Why?", face=face)
  assert len(asked) == 1


def test_a_missing_detector_that_was_named_is_an_error(workdir, tmp_path):
  """Kills: going on without the detector that was asked for."""
  with pytest.raises((FileNotFoundError, ModuleNotFoundError), match="face_detection_short_range"):
    chat(workdir, picture(tmp_path / "c.png"), "Why?", detector=str(tmp_path / "nowhere"))


def test_landmarks_that_the_stage_did_not_learn_are_not_read(tmp_path, asked):
  """Kills: fresh landmark modules of the base stage, or of no stage's modalities, disturbing it."""
  saved_run.save(tmp_path / "run", saved_run.config(), "base", step=2)
  np.save(tmp_path / "points.npy", points())
  crop = picture(tmp_path / "crop.png")
  reply = chat(tmp_path / "run", crop, "Why?", landmarks=str(tmp_path / "points.npy"))
  assert asked[0].media[0].landmarks is None
  assert reply.metadata["inputs"] == "pixels"
  assert reply.metadata["checkpoint"] == "base, step 2 of 4"


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
  """A checkpoint without landmark modules."""
  folder = tmp_path_factory.mktemp("blind")
  saved_run.save(folder, saved_run.config(fusion=None))
  return folder


def test_landmarks_without_modules_for_them_are_refused(blind, asked, tmp_path):
  """Kills: landmarks taken and dropped in silence; a refusal of what comes without them."""
  np.save(tmp_path / "points.npy", points())
  given = str(tmp_path / "points.npy")
  for path in (picture(tmp_path / "crop.png"), clip(tmp_path / "film.mp4")):
    message = rf"--landmarks {given}: the checkpoint in {blind} has no landmark modules \(model.fus"
    with pytest.raises(ValueError, match=message):
      chat(blind, path, "Why?", landmarks=given)
    reply = chat(blind, path, "Why?")
    assert reply.metadata["landmarks"].startswith("none; this checkpoint has no landmark modules")
    assert reply.metadata["inputs"] == "pixels"
  assert len(asked) == 2


def test_without_landmark_modules_any_picture_is_taken(blind, asked, monkeypatch, tmp_path):
  """Kills: a crop asked for, with landmarks that are refused; detected landmarks that reach it."""
  photo = picture(tmp_path / "photo.png", 400, 200)
  reply = chat(blind, photo, "Why?")
  assert asked[0].media[0].pixels.shape == (1, 200, 400, 3)
  want = "the whole picture (400x200 px), as it is; no face was looked for"
  assert reply.metadata["face"] == want
  with pytest.raises(ValueError, match=r"of which face 2 is asked for, .* no face detector"):
    chat(blind, photo, "Why?", face=2)
  install(monkeypatch, detection(100))
  reply = chat(blind, photo, "Why?", detector=str(tmp_path))
  assert asked[1].media[0].pixels.shape == (1, 256, 256, 3)
  assert asked[1].media[0].landmarks is None
  assert reply.metadata["landmarks"].startswith("none; this checkpoint has no landmark modules")


def test_labels_are_said_in_front_of_the_question(asked, tmp_path, monkeypatch):
  """Kills: labels that reach no prompt, or every prompt; a head that is not there; another head."""
  saved_run.save(tmp_path / "run", saved_run.config(labels=LabelsConfig("age_gender_race")))
  crop, how = picture(tmp_path / "crop.png"), Handoff(order="score", item="{label}", limit=1)
  reply = chat(tmp_path / "run", crop, "Why?", telling=Telling(how, project=False))
  words = rules.load("age_gender_race").labels
  said = f"Detected attributes: {words.say(words.labels[2])}."
  assert asked[0].conversation[-1].text == f"<image>\n{said}\nWhy?"
  assert reply.metadata["labels"] == f"from its label head: {said}"
  unsure = dataclasses.replace(how, threshold=0.95)
  reply = chat(tmp_path / "run", crop, "Why?", telling=Telling(unsure, project=False))
  assert reply.metadata["labels"] == "from its label head: none is sure enough"
  reply = chat(tmp_path / "run", crop, "Why?")
  assert asked[2].conversation[-1].text == "<image>\nWhy?" and "labels" not in reply.metadata


def test_labels_without_a_head_are_refused(workdir, asked, tmp_path):
  """Kills: a face looked for, and then a crash; labels dropped in silence."""
  crop = picture(tmp_path / "crop.png")
  with pytest.raises(ValueError, match=r"from the label head, but the model has none"):
    chat(workdir, crop, "Why?", telling=Telling(Handoff(order="score")))
  assert not asked


def test_imported_weights_have_no_step(blind, asked, monkeypatch, tmp_path):
  """Kills: a crash where a folder has no checkpoints of a run; a stage looked up in it."""
  config, params, _ = checkpoint.load_run(blind)
  config = dataclasses.replace(config, stages={})
  monkeypatch.setattr(checkpoint, "load_run", lambda folder: (config, params, tmp_path / "weights"))
  reply = chat(tmp_path, picture(tmp_path / "crop.png"), "Why?")
  assert reply.metadata["checkpoint"] == f"{tmp_path}/weights, as imported"
  assert len(asked) == 1


def test_a_clip_gives_its_frames_and_their_landmarks(workdir, asked, tmp_path):
  """Kills: one frame for a clip; landmarks of other frames than the chosen ones."""
  film, given = clip(tmp_path / "film.mp4"), points(7)
  np.save(tmp_path / "points.npy", given)
  reply = chat(workdir, film, "Why?", landmarks=str(tmp_path / "points.npy"))
  (sample,) = asked
  assert sample.conversation[0].text == "<video>\nWhy?"
  (medium,) = sample.media
  assert medium.kind == "video"
  np.testing.assert_allclose(medium.pixels.mean((1, 2, 3)), [0, 180], atol=4)
  np.testing.assert_allclose(medium.landmarks, given[[0, 6]] / 256, rtol=1e-6)
  assert reply.metadata["frames"] == "2 of 7"
  assert reply.metadata["inputs"] == "pixels and landmarks"
  reply = chat(workdir, film, "Why?")
  assert asked[1].media[0].landmarks is None
  assert reply.metadata["landmarks"] == "none; no --landmarks given for the clip"


def test_the_model_answers_about_pictures_and_clips(workdir, tmp_path):
  """Kills: a clip refused since training had no clip slots; landmarks that do not reach fusion."""
  np.save(tmp_path / "points.npy", points())
  crop = picture(tmp_path / "crop.png")
  for path, landmarks in (
    (crop, None),
    (crop, str(tmp_path / "points.npy")),
    (clip(tmp_path / "film.mp4"), None),
  ):
    reply = chat(workdir, path, "Is it real?", landmarks=landmarks, sampling=SHORT)
    assert isinstance(reply.text, str)
    assert reply.metadata["checkpoint"] == "stage1, step 7 of 9"


def test_what_cannot_be_asked(workdir, tmp_path):
  """Kills: an error from deep below for what a user gets wrong first."""
  crop = picture(tmp_path / "crop.png")
  text = tmp_path / "notes.txt"
  text.write_text("no picture")
  wide = clip(tmp_path / "wide.mp4", width=48)
  np.save(tmp_path / "points.npy", points())
  given = str(tmp_path / "points.npy")
  oblong = picture(tmp_path / "oblong.png", 50, 40)
  for arguments, options, error, message in (
    ((tmp_path / "gone.png", "Why?"), {}, FileNotFoundError, r"gone.png: no such file"),
    ((tmp_path, "Why?"), {}, FileNotFoundError, r"no such file"),
    ((text, "Why?"), {}, ValueError, r"notes.txt \(10 bytes\) cannot be decoded"),
    ((crop, " \n"), {}, ValueError, r"the question is empty \(' \\n'\)"),
    ((crop, "<image> Why?"), {}, ValueError, r"placeholders \[image, image\]"),
    ((crop, "Why?"), {"landmarks": given, "face": 1}, ValueError, r"--face 1 chooses among"),
    ((wide, "Why?"), {"face": 2}, ValueError, r"--face 2 chooses among .*wide.mp4"),
    ((wide, "Why?"), {}, ValueError, r"wide.mp4 is 48x32 px - expected the square crop"),
    ((oblong, "Why?"), {"landmarks": given}, ValueError, r"oblong.png is 50x40 px"),
  ):
    with pytest.raises(error, match=message):
      chat(workdir, *arguments, **options)


def test_a_clip_that_is_too_long_for_the_model(tmp_path):
  """Kills: a clip cut to what fits, or an error that does not say what does not fit."""
  run = saved_run.config()
  decoder = dataclasses.replace(run.model.decoder, max_length=96)
  model = dataclasses.replace(run.model, decoder=decoder, frames=40)
  saved_run.save(tmp_path / "run", dataclasses.replace(run, model=model))
  film = clip(tmp_path / "film.mp4")
  with pytest.raises(
    ValueError, match=re.escape(f"sample {str(film)!r}: the prompt takes ") + ".* made for 96"
  ):
    chat(tmp_path / "run", film, "Why?")
