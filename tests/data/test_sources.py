"""Sources: what is drawn, what is read, and every refusal with its words."""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest
import small_data
from PIL import Image

from facejax.config import LlavaConfig, SyntheticConfig
from facejax.data import llava
from facejax.data.llava import LlavaSource
from facejax.data.media import MediaError
from facejax.data.pipeline import load_tokenizer
from facejax.data.rows import RowFormat
from facejax.data.sources import SyntheticSource
from facejax.faces import synthetic
from facejax.visual_table import VisualTable


@pytest.fixture
def form(model) -> RowFormat:
  return RowFormat(VisualTable(model, 2, 1), 200, load_tokenizer("demo"))


def points(*lead: int) -> np.ndarray:
  return np.random.default_rng(1).uniform(20, 230, (*lead, 68, 2)).astype(np.float32)


def test_a_drawn_sample_is_a_pure_function_of_its_index():
  # kills: a generator that runs on between samples; questions that ignore the seed
  source = SyntheticSource(SyntheticConfig(faces=50, turns=2), 48, 100, seed=3)
  again = SyntheticSource(SyntheticConfig(faces=50, turns=2), 48, 100, seed=3)
  _ = [again[i] for i in (9, 2)]
  assert source[7].conversation == again[7].conversation
  np.testing.assert_array_equal(source[7].media[0].pixels, again[7].media[0].pixels)
  other = dataclasses.replace(source, seed=4)
  np.testing.assert_array_equal(source[7].media[0].pixels, other[7].media[0].pixels)
  texts = lambda s: [s[i].conversation for i in range(6)]
  assert texts(source) != texts(other) and source.fingerprint() != other.fingerprint()
  assert source.fingerprint() == again.fingerprint() and json.dumps(source.fingerprint())


def test_a_drawn_sample_holds_its_face(monkeypatch):
  # kills: another split's face; landmarks in pixels; a map of another face; labels of another face
  config = SyntheticConfig(split="test", faces=50, tasks=("age",), landmark_noise=0.0)
  source = SyntheticSource(config, 48, 100)
  face = synthetic.face(5, size=48, split="test")
  sample = source[5]
  (medium,) = sample.media
  np.testing.assert_array_equal(medium.pixels[0], face.image)
  np.testing.assert_array_equal(medium.segmentation[0], face.segmentation)
  np.testing.assert_allclose(medium.landmarks[0] * 48, face.landmarks, rtol=1e-6)
  assert sample.id == "synthetic/test/5" == source.name(5) and len(source) == 50
  asked = []
  monkeypatch.setattr(
    "facejax.faces.questions.answer", lambda task, labels, rng: asked.append(labels) or "yes"
  )
  assert source[5].conversation[1].text == "yes" and asked == [face.labels]


def test_landmarks_are_as_inexact_as_detected_ones():
  # kills: exact points; the same shift for all points or all faces; another shift on every reading
  exact = SyntheticSource(SyntheticConfig(faces=9, tasks=("age",), landmark_noise=0.0), 32, 100)
  noisy = SyntheticSource(SyntheticConfig(faces=9, tasks=("age",), landmark_noise=0.01), 32, 100)
  points = lambda source, i: source[i].media[0].landmarks
  shifts = np.stack([points(noisy, i) - points(exact, i) for i in range(9)])
  assert 0.009 < shifts.std() < 0.011 and abs(shifts.mean()) < 0.001
  assert 0.009 < shifts.std(0).mean() * np.sqrt(9 / 8) < 0.0115 and len(np.unique(shifts)) > 1000
  np.testing.assert_array_equal(points(noisy, 3), points(noisy, 3))


def test_tasks_are_equally_frequent_and_differ_within_a_sample(monkeypatch):
  # kills: always the first tasks; a task asked twice of one face; a placeholder in a later turn
  monkeypatch.setattr("facejax.faces.questions.question", lambda task, rng: task)
  config = SyntheticConfig(faces=400, turns=2)
  monkeypatch.setattr(SyntheticSource, "_draw", lambda self, kind, index: (None, None))
  monkeypatch.setattr("facejax.data.sources._said", lambda labels: {})
  monkeypatch.setattr("facejax.faces.questions.answer", lambda task, labels, rng: "yes")
  source = SyntheticSource(config, 32, 100)
  asked = [[turn.text for turn in source[i].conversation[::2]] for i in range(400)]
  first = Counter(turns[0].removeprefix("<image>\n") for turns in asked)
  assert set(first) == set(config.tasks)
  assert all(50 < n < 110 for n in first.values()), first  # 80 expected, sd 8
  assert all(one.startswith("<image>\n") and "<" not in two for one, two in asked)
  assert all(one.removeprefix("<image>\n") != two for one, two in asked)


def test_presence_is_asked_several_times_and_labels_need_no_drawing(monkeypatch):
  # kills: a placeholder in a later turn or none; labels of another face; a face drawn for them
  config = SyntheticConfig(split="test", faces=9, tasks=("age", "presence"), turns=2)
  source = SyntheticSource(config, 48, 100)
  drawn = source[4]
  texts = [turn.text for turn in drawn.conversation]
  assert len(texts) == 10 and texts[0].startswith("<image>\n") and "<" not in "".join(texts[1:])
  assert sum(text in ("Yes.", "No.") for text in texts[1::2]) == 4
  monkeypatch.setattr(SyntheticSource, "_draw", None)
  assert source.labels(4) == drawn.labels != source.labels(5)


def test_clips_and_pictures_alternate():
  # kills: kinds or frames that are ignored; a size that the renderer refuses
  source = SyntheticSource(SyntheticConfig(faces=4), 20, 100, kinds=("image", "video"), frames=3)
  assert [source[i].media[0].kind for i in range(4)] == ["image", "video"] * 2
  assert source[1].media[0].pixels.shape == (3, 48, 48, 3)
  assert source[1].media[0].landmarks.shape == (3, 68, 2)
  assert source[1].conversation[0].text.startswith("<video>\n")


def test_an_unknown_task_is_refused():
  # kills: a misspelt task that is found only when it is drawn
  with pytest.raises(ValueError, match=r"data.synthetic.tasks has 'ages' - expected some of .*age"):
    SyntheticSource(SyntheticConfig(tasks=("age", "ages")), 32, 100)


def test_a_record_is_read(folder, form):
  # kills: landmarks not divided by 256; a second file's media taken for the first's
  marks = points()
  segmentation = np.arange(144, dtype=np.uint8).reshape(12, 12) % 19
  folder.image("a.png", seed=1), folder.image("b.png", seed=2)
  folder.array("b.npy", marks)
  Image.fromarray(segmentation).save(folder.path / "b_map.png")
  folder.add(
    "<image><image>\nWho?",
    image=["a.png", "b.png"],
    landmarks_2d=[None, "b.npy"],
    segmentation=[None, "b_map.png"],
  )
  folder.add("How are you?", "Well.", id="greeting")
  source = LlavaSource(LlavaConfig((folder.index(),)), form, 0)
  assert len(source) == 2 and source.refusals == ()
  assert [source.name(i) for i in range(2)] == ["train.json:0 (id 0)", "train.json:1 (id greeting)"]
  first, second = source[0].media
  np.testing.assert_array_equal(first.pixels[0], np.asarray(Image.open(folder.path / "a.png")))
  np.testing.assert_array_equal(second.pixels[0], np.asarray(Image.open(folder.path / "b.png")))
  assert first.landmarks is None and first.segmentation is None
  np.testing.assert_allclose(second.landmarks[0], marks / 256, rtol=1e-6)
  np.testing.assert_array_equal(second.segmentation[0], segmentation)
  assert source[1].media == () and source[1].conversation[1].text == "Well."


def test_what_is_not_read_is_not_looked_at(folder, form):
  # kills: a sample refused for the lack of a file that the stage ignores
  folder.add(image=folder.image(), landmarks_2d="gone.npy", segmentation="gone.png")
  config = LlavaConfig((folder.index(),))
  bare = LlavaSource(config, dataclasses.replace(form, modalities=()), 0)
  assert bare[0].media[0].landmarks is None and bare[0].media[0].segmentation is None
  with pytest.raises(ValueError, match=r"gone\.npy: no such file"):
    LlavaSource(config, form, 0)


def test_indexes_are_joined_in_order(folder, form, tmp_path):
  # kills: only the first file read; the folder of the first file used for both; names that collide
  folder.add(image=folder.image("a.png", seed=1))
  one = folder.index("train.json")
  other = type(folder)(tmp_path / "other")
  other.path.mkdir()
  other.add(image=other.image("a.png", seed=2))
  two = other.index("train.json")
  source = LlavaSource(LlavaConfig((one, two)), form, 0)
  assert [source.name(i) for i in range(2)] == [f"{one}:0 (id 0)", f"{two}:0 (id 0)"]
  assert (source[0].media[0].pixels != source[1].media[0].pixels).any()
  swapped = LlavaSource(LlavaConfig((two, one)), form, 0)
  assert swapped.fingerprint()["index"] == source.fingerprint()["index"][::-1]
  assert swapped.fingerprint() != source.fingerprint()
  folder.records[0]["conversations"][1]["value"] = "Somebody."
  folder.index("train.json")
  changed = LlavaSource(LlavaConfig((one, two)), form, 0)
  assert changed.fingerprint() != source.fingerprint()


def test_media_folders(folder, form):
  # kills: image_folder used for videos
  (folder.path / "pictures").mkdir()
  (folder.path / "clips").mkdir()
  folder.add(image="a.png"), folder.image("pictures/a.png")
  small_data.write_clip(folder.path / "clips/c.mp4", 6)
  folder.add("<video>\nWho?", video="c.mp4")
  config = LlavaConfig((folder.index(),), str(folder.path / "pictures"), str(folder.path / "clips"))
  source = LlavaSource(config, form, 0)
  assert [source[i].media[0].kind for i in range(2)] == ["image", "video"]


@pytest.mark.parametrize("stored", ["every frame", "the chosen"])
def test_landmarks_and_maps_of_a_clip(folder, form, stored):
  # kills: the first frames' landmarks for frames spread over the clip
  small_data.write_clip(folder.path / "c.mp4", 9)
  marks, maps = points(9), np.stack([np.full((32, 32), t, np.uint8) for t in range(9)])
  taken = slice(None) if stored == "every frame" else [0, 4, 8]
  folder.array("c.npy", marks[taken]), folder.array("c_map.npy", maps[taken])
  folder.add("<video>\nWho?", video="c.mp4", landmarks_2d="c.npy", segmentation="c_map.npy")
  (medium,) = LlavaSource(LlavaConfig((folder.index(),)), form, 0)[0].media
  assert np.abs(medium.pixels[:, 16, 16, 0].astype(int) - [0, 80, 160]).max() < 12
  np.testing.assert_allclose(medium.landmarks, marks[[0, 4, 8]] / 256, rtol=1e-6)
  assert medium.segmentation[:, 0, 0].tolist() == [0, 4, 8]


def test_media_follow_their_placeholders(folder, form):
  # kills: media in the order of fields; landmarks in another order than media
  small_data.write_clip(folder.path / "c.mp4", 6)
  marks = points()
  folder.array("a.npy", marks)
  folder.add(
    "<image> then <video>?", image=folder.image(), video="c.mp4", landmarks_2d=["a.npy", None]
  )
  first, second = LlavaSource(LlavaConfig((folder.index(),)), form, 0)[0].media
  assert (first.kind, second.kind) == ("image", "video")
  np.testing.assert_allclose(first.landmarks[0], marks / 256, rtol=1e-6)
  assert second.landmarks is None


def _truncated_header(folder):
  folder.image("t.png")
  (folder.path / "t.png").write_bytes((folder.path / "t.png").read_bytes()[:20])
  return {"image": "t.png"}


def _huge(folder):
  Image.new("1", (9000, 9000)).save(folder.path / "huge.png")
  return {"image": "huge.png"}


def _link_out(folder):
  outside = folder.path.parent / f"{folder.path.name}_secret.png"
  Image.new("RGB", (12, 12)).save(outside)
  (folder.path / "link.png").symlink_to(outside)
  return {"image": "link.png"}


def _flat_clip(folder):
  small_data.write_clip(folder.path / "c.mp4", 6)
  folder.array("l.npy", points())
  return {"question": "<video>", "video": "c.mp4", "landmarks_2d": "l.npy"}


REFUSED = {
  "one frame's landmarks for a clip": (
    _flat_clip,
    r"l\.npy: array of shape \(68, 2\) - expected \(n, 68, 2\)",
  ),
  "a missing picture": (lambda f: {"image": "gone.png"}, r"gone\.png: no such file"),
  "a missing clip": (
    lambda f: {"question": "<video>", "video": "gone.mp4"},
    r"gone\.mp4: no such file",
  ),
  "a path that leaves": (lambda f: {"image": "../a.png"}, r"path '\.\./a\.png' is not inside"),
  "an absolute path": (lambda f: {"image": "/etc/a.png"}, r"path '/etc/a\.png' is not inside"),
  "a link that leaves": (_link_out, r"path 'link\.png' is not inside"),
  "a truncated header": (_truncated_header, r"t\.png has no picture's header"),
  "81 million pixels": (_huge, r"huge\.png: 9000x9000 pixels by its header - at most 64000000"),
  "landmarks of 5 points": (
    lambda f: {"landmarks_2d": f.array("l.npy", points()[:5])},
    r"l\.npy: landmarks of shape \(5, 2\), type float32 - expected \(68, 2\)",
  ),
  "normalised landmarks": (
    lambda f: {"landmarks_2d": f.array("l.npy", points() / 256)},
    r"landmarks in .* look already normalised",
  ),
  "landmarks far outside": (
    lambda f: {"landmarks_2d": f.array("l.npy", points() * 4)},
    r"landmarks in .* expected pixels of a 256x256 crop",
  ),
  "landmarks of a picture that is no crop": (
    lambda f: {"image": f.image("wide.png", 8, 12), "landmarks_2d": f.array("l.npy", points())},
    r"wide\.png is 12x8 px and has landmarks",
  ),
  "a map of three axes": (
    lambda f: {"segmentation": f.array("m.npy", np.zeros((1, 12, 12), np.uint8))},
    r"m\.npy: array of shape \(1, 12, 12\) - expected \(n, n\)",
  ),
  "a missing map": (lambda f: {"segmentation": "m.png"}, r"m\.png: no such file"),
  "no answer": (
    lambda f: {"conversations": [{"from": "human", "value": "<image>\nWho?"}]},
    r"turn 0: the question has no answer",
  ),
  "an empty answer": (lambda f: {"answer": " "}, r"turn 1: the answer is empty"),
  "an unknown role": (
    lambda f: {"conversations": [{"from": "user", "value": "<image>\nWho?"}]},
    r"turn 0: unknown role 'user'",
  ),
  "no conversation": (lambda f: {"conversations": "hi"}, r"'conversations' is \"hi\" - expected a"),
  "a turn without text": (
    lambda f: {"conversations": [{"from": "human"}]},
    r"turn {\"from\": \"human\"} - expected",
  ),
  "a placeholder without a picture": (
    lambda f: {"question": "<image><image>\nWho?"},
    r"placeholders \[image, image\] but the media are \[image\]",
  ),
  "a picture without a placeholder": (
    lambda f: {"question": "Who?"},
    r"placeholders \[\] but the media are \[image\]",
  ),
  "a text too long": (
    lambda f: {"answer": "A face. " * 90},
    r"takes \d{3} tokens \(4 of them visual\), a row has 200",
  ),
  "too many pictures": (
    lambda f: {"question": "<image><image><image>", "image": ["a.png"] * 3},
    r"has 3 image\(s\), a row has 2 image slot\(s\) - raise data.images_per_row",
  ),
  "too few landmarks": (
    lambda f: {"question": "<image><image>", "image": ["a.png"] * 2, "landmarks_2d": "l.npy"},
    r"landmarks_2d has 1 entries for 2 media",
  ),
  "a path that is none": (lambda f: {"image": 7}, r"'image' holds 7 - expected a path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(folder, form, case):
  # kills: a bad sample that is replaced, skipped in silence, or found only while training
  change, message = REFUSED[case]
  folder.image("a.png")
  folder.add(**{"image": "a.png"})
  changed = change(folder)
  if "video" not in changed:
    changed = {"image": "a.png", **changed}
  folder.add(**changed)
  folder.add(**{"image": "a.png"}, id="last")
  source = LlavaSource(LlavaConfig((folder.index(),)), form, max_refused=0.34)
  (refusal,) = source.refusals
  assert refusal.id == "train.json:1 (id 1)" and len(source) == 2
  assert source.name(1) == "train.json:2 (id last)"
  with pytest.raises(ValueError, match=r"1 of 3 samples .* data.max_refused=0.33 allows 0") as info:
    LlavaSource(LlavaConfig((folder.index(),)), form, max_refused=0.33)
  for text in (refusal.reason, str(info.value)):
    assert "sample 'train.json:1 (id 1)'" in text
    assert re.search(message, text), text


def test_a_clip_where_rows_have_no_slot(folder, form):
  # kills: a clip that is silently left out when videos_per_row is 0
  small_data.write_clip(folder.path / "c.mp4", 6)
  folder.add("<video>\nWho?", video="c.mp4")
  none = dataclasses.replace(form, table=dataclasses.replace(form.table, videos=0))
  with pytest.raises(ValueError, match=r"has 1 video\(s\), .* raise data.videos_per_row"):
    LlavaSource(LlavaConfig((folder.index(),)), none, 0)


def test_videos_need_a_decoder(folder, form, monkeypatch):
  # kills: a run that stops at its first clip, hours later
  small_data.write_clip(folder.path / "c.mp4", 6)
  folder.add("<video>\nWho?", video="c.mp4")
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ModuleNotFoundError, match=r"PyAV .* pip install -e '.\[video\]'"):
    LlavaSource(LlavaConfig((folder.index(),)), form, 0)


def test_decoding_fails_by_name(folder, form):
  # kills: a failure that names the file and not the sample; landmarks of another clip's length
  folder.image("a.png", y=200, x=200)
  (folder.path / "a.png").write_bytes((folder.path / "a.png").read_bytes()[:3000])
  small_data.write_clip(folder.path / "c.mp4", 9)
  folder.array("c.npy", points(5))
  folder.add(image="a.png")
  folder.add("<video>\nWho?", video="c.mp4", landmarks_2d="c.npy")
  source = LlavaSource(LlavaConfig((folder.index(),)), form, 0)
  with pytest.raises(MediaError, match=r"sample 'train.json:0 \(id 0\)': .*a\.png.* cannot be dec"):
    source[0]
  with pytest.raises(MediaError, match=r"sample 'train.json:1 \(id 1\)': .*shape \(5, 68, 2\)"):
    source[1]


def test_ten_refusals_are_listed(folder, form):
  # kills: a list of a million lines; a count without the rest
  for i in range(12):
    folder.add(image=f"gone{i}.png")
  with pytest.raises(ValueError, match=r"12 of 12 samples .*(?s:.*)and 2 more") as info:
    LlavaSource(LlavaConfig((folder.index(),)), form, 0.5)
  assert str(info.value).count("no such file") == 10


@pytest.mark.parametrize(
  "content,message",
  [
    (b'[{"id": 1},\n  oops]', r"train\.json, line 2, column 3: Expecting value"),
    (b'{"id": 1}', r"train\.json holds a dict - expected a JSON list"),
    (b'["\xff"]', r"train\.json: byte 2 is not UTF-8"),
  ],
)
def test_an_index_that_is_none(folder, form, content, message):
  # kills: a parser's bare message; a dict whose keys are taken for samples
  (folder.path / "train.json").write_bytes(content)
  with pytest.raises(ValueError, match=message):
    LlavaSource(LlavaConfig((str(folder.path / "train.json"),)), form, 1)


def test_an_index_that_is_missing(folder, form):
  # kills: no samples and no word
  with pytest.raises(FileNotFoundError, match=r"no index file .*gone\.json"):
    LlavaSource(LlavaConfig((str(folder.path / "gone.json"),)), form, 1)
  with pytest.raises(ValueError, match=r"data\.llava\.index is empty"):
    LlavaSource(LlavaConfig(), form, 1)
  (folder.path / "odd.json").write_text("[3]")
  with pytest.raises(ValueError, match=r"sample 'odd.json:0' is a int - expected a JSON object"):
    LlavaSource(LlavaConfig((str(folder.path / "odd.json"),)), form, 0)


def test_order_survives_many_samples(folder, form, monkeypatch, capsys):
  # kills: chunks that are lost or out of order; progress of a small index
  monkeypatch.setattr(llava, "_CHUNK", 3)
  folder.image("a.png")
  for i in range(11):
    folder.add(image="a.png" if i % 4 else "gone.png")
  source = LlavaSource(LlavaConfig((folder.index(),)), form, 1)
  assert [source.name(i) for i in range(len(source))] == [
    f"train.json:{i} (id {i})" for i in range(11) if i % 4
  ]
  assert capsys.readouterr().err == ""
  monkeypatch.setattr(llava, "_PROGRESS", 10)
  LlavaSource(LlavaConfig((folder.index(),)), form, 1)
  assert "checking samples: 100%" in capsys.readouterr().err
