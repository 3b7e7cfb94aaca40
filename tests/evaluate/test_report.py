"""The report of a small run: one page, self-contained, honest, escaped, and whole without input."""

import base64
import dataclasses
import functools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_run

from facejax.data import resize
from facejax.evaluate import figures, report, run
from facejax.faces import questions, synthetic
from facejax.generate import Answer
from facejax.models.face_mllm import FaceMLLM

FACES = 8
EVIL = '<script>alert("x")</script> & <b>'


@pytest.fixture(scope="module")
def config():
  config = saved_run.config()
  settings = dataclasses.replace(config.evaluate, faces=FACES, bootstrap=20)
  return dataclasses.replace(config, evaluate=settings)


class Truthful:
  """Knows the answers, but for its first, which is markup."""

  def __init__(self, config, params, mesh=None):
    del config, params, mesh

  def answer(self, samples, sampling, **_):
    answers = []
    for sample in samples:
      *_, face, task = sample.id.split("/")
      seed = int(face)
      labels = synthetic.face(seed, size=48, split="test").labels
      good = questions.answer(task, labels, np.random.default_rng(seed))
      answers.append(EVIL if (task, seed) == ("expression", 0) else good)
    return [Answer(text, (5,), True) for text in answers]


def evaluated(config, folder, modalities):
  with mock.patch.object(run, "Answerer", Truthful):
    return run.evaluate(config, None, folder, modalities=modalities)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
  """As the demo leaves it; and an evaluation that came later."""
  folder = tmp_path_factory.mktemp("run & more")
  saved_run.save(folder, config)
  for stage in ("base", "stage1"):
    (folder / stage).mkdir(exist_ok=True)
    lines = [json.dumps({"step": i, "loss": 3 / i}) for i in range(1, 5)]
    (folder / stage / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
  runs = {
    "base": evaluated(config, folder / "base", ()),
    "stage 1": evaluated(config, folder / "stage1" / "evaluate", ("landmarks", "segmentation")),
    "<masked>": evaluated(config, folder / "stage1" / "evaluate_masked", ()),
  }
  (folder / "results.json").write_text(json.dumps({**runs["stage 1"], "runs": runs}))
  fewer = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, faces=2))
  evaluated(fewer, folder / "stage1" / "evaluate-no_landmarks", ("segmentation",))
  return folder


@pytest.fixture(scope="module")
def page(workdir):
  return report.report(workdir).read_text()


class Tags(HTMLParser):
  """The tags there are; those left open."""

  def __init__(self, text):
    super().__init__()
    self.open, self.seen = [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))
    if tag not in ("meta", "img"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_page_is_whole_and_self_contained(page, workdir):
  """Kills: a link to a file or host, an image that is not the saved one, an unclosed tag."""
  tags = Tags(page)
  assert tags.open == []
  sources = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
  saved = {path.stem: path.read_bytes() for path in (workdir / "report").glob("*.png")}
  embedded = [base64.b64decode(s.removeprefix("data:image/png;base64,")) for s in sources]
  assert set(embedded) == set(saved.values())
  assert all(data.startswith(b"\x89PNG") for data in embedded)
  faces = {f"face_{seed}" for seed in range(6)}
  assert set(saved) == {"losses", "confusion", "attention_0", "attention_1", *faces}
  assert not re.search(r"https?://|<link|<script|@import", page)
  assert "synthetic and held out" in page and "(split test)" in page
  assert "Last stage: stage1, step 7." in page
  assert 'class="missing"' not in page


def test_faces_that_were_trained_on_are_called_so():
  """Kills: a page that says held out whatever was evaluated."""
  assert "<strong>All faces here are synthetic and held out</strong>" in report._what_faces(
    "test", held_out=True
  )
  page = report._what_faces("<train>", held_out=False)
  assert "synthetic and not held out" in page and "(split &lt;train&gt;)" in page


def test_all_text_is_escaped(page, workdir):
  """Kills: an answer, a folder or a run whose name becomes markup."""
  assert EVIL not in page and "<masked>" not in page
  assert "<td>&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &lt;b&gt;</td>" in page
  assert f"<h1>{workdir.name.replace('&', '&amp;')}</h1>" in page
  assert "<th>&lt;masked&gt;</th>" in page


def test_runs_stand_side_by_side(page):
  """Kills: a run left out or twice, another order, intervals or inputs of another run."""
  heads = re.findall(r"<th>([^<]*)</th>", page.split("</tr>")[0])
  assert heads == ["", "base", "stage 1", "&lt;masked&gt;", "stage1/evaluate-no_landmarks"]

  def row(words):
    line = page.split(f"<tr><th>{words}</th>")[1].split("</tr>")[0]
    return re.findall(r'<td class="number">([^<]*)</td>', line)

  assert row("picture and") == ["nothing", "landmarks, segmentation", "nothing", "segmentation"]
  assert row("faces") == [f"{FACES} (test)"] * 3 + ["2 (test)"]
  assert row(report.HEADLINES["deepfake_accuracy"]) == ["1.000 [1.000, 1.000]"] * 4
  accuracy = row(report.HEADLINES["expression_accuracy"])
  assert accuracy[1].startswith("0.875 [") and accuracy[3].startswith("0.500 [")
  assert row("answers without a label") == [f"1 of {5 * FACES}"] * 3 + ["1 of 10"]


def test_a_metric_that_is_undefined_is_a_dash():
  """Kills: "None", or an error, where a metric has no value."""
  assert report._cell(None) == report._cell({"value": None, "low": None, "high": None}) == "–"


def test_groups_are_shown(page):
  """Kills: a page without groups by default, a gap without its groups."""
  assert "Groups, " in page and "some gap always shows" in page
  assert "skin " in page and "age 40-49" in page


def test_a_gap_names_both_groups():
  """Kills: worst and best swapped."""
  gap = {"worst": "dark", "best": "light", "gap": {"value": 4, "low": 1, "high": 7, "n": 60}}
  group = {"n": 60, "parse_failures": 0, "age_mae": {"value": 9, "low": 8, "high": 10, "n": 60}}
  results = {"fairness": {"age": {"skin": {"groups": {"dark": group}, "gaps": {"age_mae": gap}}}}}
  text = report._groups(results, Path("stage1"))
  assert "4.000 [1.000, 7.000], dark behind light" in text and "9.000 [8.000, 10.000]" in text
  assert "has no results by group" in report._groups({}, Path("stage1"))


def test_samples_are_the_first_faces_with_their_marks(page):
  """Kills: right and wrong swapped or not shown, a question lost, chosen faces."""
  count = lambda name: len(re.findall(f'<td class="{name}">', page))
  assert (count("wrong"), count("right")) == (1, 6 * 5 - 1)
  assert '<td class="wrong">✗ states no label</td>' in page
  asked = re.findall("<tr><td>([^<]*)</td>", page)
  assert len(asked) == 30 and set(asked) <= {q for qs in questions.QUESTIONS.values() for q in qs}
  assert re.findall(r"<h3>([^<]*)</h3>", page) == [f"Synthetic face {i}" for i in range(6)]


@pytest.mark.parametrize(
  ("task", "label", "truth", "right", "words"),
  [
    ("expression", "fear", "anger", False, "✗ wrong"),
    ("expression", "fear", "fear", True, "✓ right"),
    ("deepfake", False, False, True, "✓ right"),
    ("deepfake", False, True, False, "✗ wrong"),
    ("age", 30.0, 35.0, True, "✓ off by 5 years"),
    ("age", 30.0, 35.5, False, "✗ off by 5.5 years"),
    ("action_units", [6, 12], [4, 12], False, "✗ missed AU4; wrongly AU6"),
    ("action_units", [12, 6], [6, 12], True, "✓ right"),
    ("action_units", [], [], True, "✓ right"),
    ("attributes", ["Bald"], [], False, "✗ wrongly Bald"),
    ("attributes", None, [], False, "✗ states no label"),
  ],
)
def test_verdict(task, label, truth, right, words):
  """Kills: an empty set as a failure, missed and wrong swapped, order of a set."""
  assert report.verdict({"task": task, "parsed": label, "truth": truth}) == (right, words)


def test_labels_in_words():
  """Kills: true as 1, a number without its unit, an empty cell."""
  words = [report._words(x) for x in (True, False, [1, 12], ["Bald", "Bangs"], [], 31, "fear")]
  assert words == ["fake", "real", "AU1, AU12", "Bald, Bangs", "none", "31 years", "fear"]


def test_attention_is_the_models(config, tmp_path):
  """Kills: another axis averaged, weights of another face, landmarks in another unit or dropped."""
  params = saved_run.save(tmp_path, config)
  faces = [synthetic.face(i, size=48, split="test") for i in range(2)]
  got = report.attention(config, params, faces)
  assert got.shape == (2, 9, 9)
  np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-5)
  model = FaceMLLM(config.model)

  def weigh(module, pixels, points):
    features, _ = module.image_encoder(pixels)
    regions = module.landmark_projector(points)
    present = jnp.ones((1, 1), bool)
    return module.fusion(module.projector(features), regions, points, present)[1]["weights"]

  weigh = jax.jit(functools.partial(model.apply, {"params": params}, method=weigh))
  for face, weights in zip(faces, got, strict=True):
    small = resize.resize(face.image[None], 12, "pad")
    want = weigh(small[None], face.landmarks[None, None] / np.float32(48))
    np.testing.assert_allclose(weights, np.mean(want[0, 0], axis=0), rtol=1e-4)
  assert np.abs(got[0] - got[1]).max() > 1e-6


def test_attention_panel_lies_over_its_patch():
  """Kills: rows and columns swapped, a class token taken for a patch, another region's panel."""
  weights = np.zeros((65, 9))
  weights[0] = 5  # the class token
  weights[1 + 2 * 8 + 6, 3] = 1  # patch in row 2, column 6
  figure = figures.attention(synthetic.face(0), weights)
  panel = figure.axes[3].images[1]
  assert np.argwhere(panel.get_array() == 1).tolist() == [[2, 6]]
  assert panel.get_extent() == [0, 112, 112, 0]
  assert figure.axes[3].get_title() == "nose\n0.000 to 1.000"


def test_figures_show_what_they_are_given():
  """Kills: a stage's curve under another's name, counts transposed, a class map not coloured."""
  curves = {"a": [{"step": 2, "loss": 5.0}], "b": [{"step": 3, "loss": 7.0}]}
  panels = figures.losses(curves).axes
  assert [(p.get_title(), p.lines[0].get_xydata().tolist()) for p in panels] == [
    ("a", [[2, 5]]),
    ("b", [[3, 7]]),
  ]
  counts = {"deepfake": {"classes": ["real", "fake"], "matrix": [[1, 2, 3], [4, 5, 6]]}}
  (axes,) = figures.confusions(counts).axes
  placed = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
  assert placed == {(0, 0): "1", (0, 1): "2", (0, 2): "3", (1, 0): "4", (1, 1): "5", (1, 2): "6"}
  assert [t.get_text() for t in axes.get_xticklabels()] == ["real", "fake", "no label"]
  drawn = synthetic.face(3, size=48)
  plain, pointed, mapped = figures.face(drawn).axes
  np.testing.assert_array_equal(plain.images[0].get_array(), drawn.image)
  points = np.concatenate([line.get_xydata() for line in pointed.lines])
  np.testing.assert_allclose(points, drawn.landmarks)
  assert (mapped.images[0].get_array()[0, 0] == (24, 24, 28)).all()  # background


def test_what_is_missing_is_said(tmp_path):
  """Kills: an error, or an empty heading, where a run was trained and not evaluated."""
  config = saved_run.config(fusion=None)
  saved_run.save(tmp_path, config)
  page = report.report(tmp_path).read_text()
  missing = re.findall(r'<h2>([^<]*)</h2>\n<p class="missing">([^<]*)</p>', page)
  assert missing == [
    ("Results", f"Nothing was evaluated yet - run facejax evaluate --workdir {tmp_path}."),
    ("Training loss", "No stage has a metrics.jsonl - train writes it as it goes."),
    ("Confusion, stage1", "stage1 has no confusion matrices - evaluate it first."),
    ("Groups, stage1", "stage1 has no results by group - evaluate it first."),
    ("Faces and answers, stage1", "stage1 has no predictions.jsonl - evaluate it first."),
    (
      "Attention to face regions, stage1",
      "stage1 does not read landmarks - a later stage has this section.",
    ),
  ]
  assert len(missing) == page.count("<h2>")


def test_stage_without_landmarks_has_no_attention(config, tmp_path):
  """Kills: the fresh, weights of a stage that never read landmarks shown as a result."""
  trained_on = dataclasses.replace(config.evaluate, split="train")
  saved_run.save(tmp_path, dataclasses.replace(config, evaluate=trained_on), "base", step=2)
  page = report.report(tmp_path).read_text()
  assert "synthetic and not held out" in page
  assert "base does not read landmarks" in page and "Last stage: base, step 2." in page


def test_damaged_or_absent_input_is_named(config, tmp_path):
  """Kills: an error without the file."""
  with pytest.raises(FileNotFoundError, match=r"has no checkpoint: expected .*STAGE/checkpoints"):
    report.report(tmp_path)
  saved_run.save(tmp_path, config)
  folder = tmp_path / "stage1" / "evaluate"
  folder.mkdir()
  (folder / "predictions.jsonl").write_text('{"face": 0')
  with pytest.raises(ValueError, match=r"predictions.jsonl has a line that is no JSON \(Expecting"):
    report.report(tmp_path)
  (folder / "predictions.jsonl").unlink()
  (folder / "results.json").write_text("{")
  with pytest.raises(ValueError, match=r"evaluate/results.json is no JSON \(Expecting"):
    report.report(tmp_path)
