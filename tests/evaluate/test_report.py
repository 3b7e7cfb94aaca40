"""The report of a small run: one page, self-contained, honest, escaped."""

import base64
import dataclasses
import json
import os
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

from facejax import checkpoint, config_io, stages
from facejax.evaluate import figures, report, run
from facejax.faces import questions, synthetic
from facejax.generate import Answer
from facejax.models import face_mllm
from facejax.state import TrainState

FACES = 3
EVIL = '<script>alert("x")</script> & <b>'


@pytest.fixture(scope="module")
def config():
  settings = [f"evaluate.faces={FACES}", "evaluate.bootstrap=20", "model.image.layers=1"]
  config = config_io.load("configs/demo.py", [*settings, "model.decoder.layers=1"])
  return dataclasses.replace(
    config, stages={"stage1": stages.stage1(4, 2), "stage2": stages.stage2(6, 2)}
  )


def write_evaluation(config, folder, first_answer, when):
  """Results of true answers but one; predictions of each task."""
  rng = np.random.default_rng(0)
  samples, truths = run._questions(config)
  answers = []
  for sample in samples:
    *_, face, task = sample.id.split("/")
    labels = synthetic.face(int(face), split="test").labels
    answers.append(Answer(questions.answer(task, labels, rng), (5,), True))
  answers[0] = Answer(first_answer, (5,), False)
  records = run._records(config, samples, truths, answers)
  results = run.score(config, records) | {
    "faces": FACES,
    "split": "test",
    "modalities": list(config.data.modalities),
  }
  folder.mkdir(parents=True)
  (folder / "results.json").write_text(json.dumps(results))
  lines = [json.dumps(run._plain(record)) + "\n" for record in records]
  (folder / "predictions.jsonl").write_text("".join(lines))
  os.utime(folder / "results.json", (when, when))


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run & more")
  params = jax.jit(lambda: face_mllm.init(config.model, jax.random.key(0)))()
  state = TrainState(np.int32(6), params, {}, {"moment": np.zeros(3)}, jax.random.key(0))
  with checkpoint.Checkpoints(folder / "stage2", keep=None) as checkpoints:
    checkpoints.save(6, state, {"config": config_io.to_dict(config)})
  for stage in ("stage1", "stage2"):
    (folder / stage).mkdir(exist_ok=True)
    records = [json.dumps({"step": i, "loss": 3 / i}) for i in range(1, 5)]
    (folder / stage / "metrics.jsonl").write_text("\n".join(records) + "\n")
  masked = dataclasses.replace(config, data=dataclasses.replace(config.data, modalities=()))
  write_evaluation(masked, folder / "base", "Hm.", 1000)
  write_evaluation(config, folder / "stage1" / "evaluate", "Hm.", 2000)
  write_evaluation(config, folder / "stage2" / "evaluate", EVIL, 3000)
  write_evaluation(masked, folder / "stage2" / "evaluate_masked", "masked answer", 4000)
  return folder


@pytest.fixture(scope="module")
def page(workdir):
  return report.report(workdir).read_text()


class Tags(HTMLParser):
  """Open tags that were not closed, and the tags there are."""

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
  saved = {path.read_bytes() for path in (workdir / "report").glob("*.png")}
  embedded = {base64.b64decode(s.removeprefix("data:image/png;base64,")) for s in sources}
  assert embedded == saved and all(x.startswith(b"\x89PNG") for x in saved)
  names = {path.stem for path in (workdir / "report").glob("*.png")}
  assert names == {"losses", "confusions", "faces", "attention_0", "attention_1"}
  assert not re.search(r"https?://|<link|<script", page)
  assert "All faces here are synthetic faces" in page


def test_text_of_the_model_is_escaped(page, workdir):
  """Kills: an answer or a folder name that becomes markup."""
  assert EVIL not in page
  assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &lt;b&gt;" in page
  assert f"<h1>{workdir.name.replace('&', '&amp;')}</h1>" in page


def test_runs_side_by_side_in_order(page):
  """Kills: a run left out, another order, the masked run's answers shown."""
  heads = re.findall(r"<th>([^<]*)</th>", page.split("</tr>")[0])
  assert heads == ["", "base", "stage1", "stage2", "stage2, masked"]
  inputs = page.split("inputs besides pixels")[1].split("</tr>")[0]
  cells = re.findall(r'<td class="number">([^<]*)</td>', inputs)
  assert cells == ["none", "landmarks, segmentation", "landmarks, segmentation", "none"]
  row = page.split("deepfake, accuracy")[1].split("</tr>")[0]
  assert row.count("1.000 <small>[1.000, 1.000]</small>") == 4
  assert "masked answer" not in page


def test_verdicts_are_visible(page):
  """Kills: right and wrong swapped or not shown."""
  count = lambda name: len(re.findall(f'<td class="{name}">', page))
  assert (count("wrong"), count("right")) == (1, FACES * 5 - 1)
  assert '<td class="wrong">✗ states no label</td>' in page


@pytest.mark.parametrize(
  "task, parsed, truth, right, words",
  [
    ("expression", "fear", "anger", False, "✗ wrong"),
    ("expression", "fear", "fear", True, "✓ right"),
    ("deepfake", False, False, True, "✓ right"),
    ("age", 30.0, 35.0, True, "✓ off by 5 years"),
    ("age", 30.0, 35.5, False, "✗ off by 5.5 years"),
    ("action_units", [6, 12], [4, 12], False, "✗ missed AU4; extra AU6"),
    ("action_units", [], [], True, "✓ right"),
    ("attributes", ["Bald"], [], False, "✗ extra Bald"),
    ("attributes", None, [], False, "✗ states no label"),
  ],
)
def test_verdict(task, parsed, truth, right, words):
  """Kills: an empty set as a failure, missed and extra swapped."""
  record = {"task": task, "parsed": parsed, "truth": truth}
  assert report.verdict(record) == (right, words)


def test_attention_maps_are_the_models(config, workdir):
  """Kills: the wrong axis averaged, weights of another face, maps for a model without landmarks."""
  _, params, _ = checkpoint.load_run(workdir)
  faces = [synthetic.face(i, split="test") for i in range(2)]
  weights = report.attention(config, params, faces)
  assert [w.shape for w in weights] == [(64, 9)] * 2
  np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)
  alone = report.attention(config, params, faces[1:])
  np.testing.assert_allclose(alone[0], weights[1], rtol=1e-4)
  assert np.abs(weights[0] - weights[1]).max() > 1e-6
  blind = dataclasses.replace(config, data=dataclasses.replace(config.data, modalities=()))
  assert report.attention(blind, params, faces) == []


def test_attention_panel_lies_over_its_patch():
  """Kills: rows and columns swapped, a class token taken for a patch."""
  weights = np.zeros((65, 9))
  weights[0] = 5  # the class token
  weights[1 + 2 * 8 + 6, 3] = 1  # patch in row 2, column 6
  figure = figures.attention(synthetic.face(0), weights)
  panel = figure.axes[3].images[1]
  assert np.argwhere(panel.get_array() == 1).tolist() == [[2, 6]]
  assert panel.get_extent() == [0, 112, 112, 0]
  assert figure.axes[3].get_title().startswith("nose")


def test_nothing_to_report_is_refused(tmp_path):
  """Kills: an empty page."""
  with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path} has no evaluation")):
    report.find_runs(tmp_path)
