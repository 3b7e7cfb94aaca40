"""What is asked, what is written down, and how answers become results."""

import dataclasses
import json
from unittest import mock

import jax
import numpy as np
import pytest

from facejax import config_io
from facejax.data.pipeline import row_format
from facejax.data.rows import encode
from facejax.evaluate import run
from facejax.faces import questions, scene, synthetic
from facejax.generate import Answer
from facejax.models import face_mllm, presets
from facejax.types import Sample
from facejax.visual_table import VisualTable

FACES = 7


@pytest.fixture(scope="module")
def config():
  settings = [f"evaluate.faces={FACES}", "evaluate.rows=4", "evaluate.bootstrap=20"]
  return config_io.load("configs/demo.py", settings)


class FakeAnswerer:
  """Says what `say(task, face, labels)` says; keeps what it was asked."""

  say = staticmethod(lambda task, face, labels: "")
  asked: list[Sample] = []
  modalities: tuple[str, ...] = ()

  def __init__(self, config, params, mesh=None):
    FakeAnswerer.modalities = config.data.modalities
    self.split, self.size = config.evaluate.split, config.model.image.image_size

  def answer(self, samples, sampling, seed=0, progress=None):
    FakeAnswerer.asked = list(samples)
    progress(len(samples))
    answers = []
    for sample in samples:
      *_, face, task = sample.id.split("/")
      labels = synthetic.face(int(face), size=self.size, split=self.split).labels
      answers.append(Answer(self.say(task, int(face), labels), (5,), True))
    return answers


def evaluated(config, folder, say, **arguments):
  with (
    mock.patch.object(run, "Answerer", FakeAnswerer),
    mock.patch.object(FakeAnswerer, "say", staticmethod(say)),
  ):
    return run.evaluate(config, None, folder, **arguments)


def true_answer(task, face, labels):
  return questions.answer(task, labels, np.random.default_rng(face))


def test_true_answers_score_perfectly(config, tmp_path):
  """Kills: truths of another face or task, a parser for another task, failures miscounted."""
  results = evaluated(config, tmp_path, true_answer)
  for key in run.HEADLINES:
    best = 0 if key == "age_mae" else 1
    assert results[key] == {"value": best, "low": best, "high": best, "n": FACES}
  assert results["parse_failures"] == dict.fromkeys(questions.TASKS, 0)
  assert len(results["attribute_accuracy_each"]) == 12 and 0 < len(results["au_f1"]) <= 15
  for task in ("expression", "deepfake"):
    matrix = np.array(results["confusion"][task]["matrix"])
    assert np.trace(matrix) == matrix.sum() == FACES
  assert json.loads((tmp_path / "results.json").read_text()) == results


def test_answers_without_a_label_are_worst(config, tmp_path):
  """Kills: failures dropped, or counted as the empty set or as the mean age."""
  results = evaluated(config, tmp_path, lambda task, face, labels: "Hm.")
  assert results["parse_failures"] == dict.fromkeys(questions.TASKS, FACES)
  for key in run.HEADLINES:
    if key != "age_mae":
      assert results[key]["value"] == 0
  ages = [synthetic.face(i, split="test").labels.age for i in range(FACES)]
  worst = np.mean([max(round(a) - 5, 80 - round(a)) for a in ages])
  assert results["age_mae"]["value"] == pytest.approx(worst)
  assert results["confusion"]["deepfake"]["classes"] == ["real", "fake"]
  assert np.array(results["confusion"]["expression"]["matrix"])[:, -1].sum() == FACES


def test_results_are_told_by_group(config, tmp_path):
  """Kills: groups of other faces, a metric of one task under another's name, groups not stored."""
  says = lambda task, face, labels: true_answer(task, face, labels) if labels.age < 30 else "Hm."
  found = evaluated(config, tmp_path, says)["fairness"]
  faces = [synthetic.face(i, split="test").labels for i in range(FACES)]
  bands = found["expression"]["age"]["groups"]
  assert sum(group["n"] for group in bands.values()) == FACES
  young = {name for name in bands if name in ("3-9", "10-19", "20-29")}
  assert young and young != set(bands)
  for name, group in bands.items():
    assert group["expression_accuracy"]["value"] == (1 if name in young else 0)
    assert group["n"] == sum(run.groups_of(x)["age"] == name for x in faces)
  assert set(found["age"]["skin"]["groups"]) <= {"dark", "medium", "light"}
  assert "age_mae" in next(iter(found["age"]["skin"]["groups"].values()))
  assert not found["deepfake"]["age"]["gaps"]  # no two groups of 30 among seven faces
  record = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
  assert record["groups"] == run.groups_of(faces[0])


def test_skin_tones_are_thirds_of_the_people():
  """Kills: a tone that nearly nobody has."""
  tones = []
  for number in list(scene.IDENTITIES["test"])[::10]:
    labels = mock.Mock(identity=number, age=30.0)
    tones.append(run.groups_of(labels)["skin"])
  assert all(0.25 < tones.count(tone) / len(tones) < 0.42 for tone in ("dark", "medium", "light"))


def test_impossible_age_is_no_age(config, tmp_path):
  """Kills: a mean ruined by one answer of 999 years."""
  results = evaluated(config, tmp_path, lambda task, face, labels: "999 years old.")
  assert results["parse_failures"]["age"] == FACES
  assert results["age_mae"]["value"] <= 75


def test_questions_are_of_held_out_faces_and_repeat(config, tmp_path):
  """Kills: the training split, one wording for all faces, wording that follows the parameters."""
  evaluated(config, tmp_path, true_answer)
  first = FakeAnswerer.asked
  evaluated(config, tmp_path, lambda *_: "", modalities=())
  again = FakeAnswerer.asked
  assert FakeAnswerer.modalities == ()
  assert [s.conversation for s in first] == [s.conversation for s in again]
  assert [s.id for s in first] == [
    f"synthetic/test/{i}/{task}" for task in questions.TASKS for i in range(FACES)
  ]
  for task in questions.TASKS:
    texts = {s.conversation[0].text for s in first if s.id.endswith(task)}
    assert len(texts) > 1
    assert texts <= {"<image>\n" + text for text in questions.QUESTIONS[task]}
  face = synthetic.face(2, size=112, split="test")
  np.testing.assert_array_equal(first[2].media[0].pixels[0], face.image)
  noise = config.data.synthetic.landmark_noise
  off = first[2].media[0].landmarks[0] - face.landmarks / 112
  assert 0.8 * noise < off.std() < 1.2 * noise and np.abs(off).max() < 5 * noise


def test_recorded_prompt_is_what_the_model_reads(config, tmp_path):
  """Kills: a record of another template, or without its system sentence."""
  evaluated(config, tmp_path, true_answer)
  records = [json.loads(x) for x in (tmp_path / "predictions.jsonl").read_text().splitlines()]
  assert len(records) == FACES * len(questions.TASKS)
  form = dataclasses.replace(
    row_format(config.model, config.data), table=VisualTable(config.model, 1, 0)
  )
  for i in (0, 9, 34):
    record = records[i]
    row = encode([FakeAnswerer.asked[i]], [i], form, prompt=True)
    text = (row.segment_ids > 0) & (row.visual_index < 0)
    read = form.tokenizer.decode(row.tokens[text].tolist())
    assert read.split() == record["prompt"].replace("<image>", "").split()
    labels = synthetic.face(record["face"], split="test").labels
    truth = questions.truth(record["task"], labels)
    assert record["truth"] == (sorted(truth) if isinstance(truth, frozenset) else truth)
    assert record["parsed"] == record["truth"] and record["stopped"] is True


def test_selected_tasks_only(config, tmp_path):
  """Kills: evaluate.tasks as a dead setting."""
  evaluate = dataclasses.replace(config.evaluate, tasks=("age", "deepfake"))
  results = evaluated(dataclasses.replace(config, evaluate=evaluate), tmp_path, true_answer)
  assert set(results["parse_failures"]) == {"age", "deepfake"}
  assert set(run.HEADLINES) & set(results) == {"age_mae", "deepfake_accuracy"}


def test_reads_no_more_than_the_config(config, tmp_path):
  """Kills: maps shown to a model whose config reads none, as modalities given replace data's."""
  data = dataclasses.replace(config.data, modalities=("landmarks",))
  narrow = dataclasses.replace(config, data=data)
  both = evaluated(narrow, tmp_path, true_answer, modalities=("landmarks", "segmentation"))
  assert both["modalities"] == ["landmarks"] and FakeAnswerer.modalities == ("landmarks",)
  assert evaluated(narrow, tmp_path, true_answer, modalities=("segmentation",))["modalities"] == []


@pytest.mark.parametrize(
  "change, modalities, words",
  [
    ({"tasks": ("ages",)}, None, r"evaluate.tasks is 'ages', expected .*did you mean 'age'"),
    ({}, ("landmark",), r"'landmark', expected .*did you mean 'landmarks'"),
  ],
)
def test_refused_before_answering(config, tmp_path, change, modalities, words):
  """Kills: a refusal behind minutes of answering, or none."""
  changed = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, **change))
  with (
    mock.patch.object(run, "Answerer", side_effect=AssertionError("answering began")),
    pytest.raises(ValueError, match=words),
  ):
    run.evaluate(changed, None, tmp_path, modalities=modalities)


def test_undefined_score_is_left_out(config):
  """Kills: NaN in results.json, which is not JSON."""
  none = frozenset()
  records = [{"task": "action_units", "parsed": none, "truth": none}]
  evaluate = dataclasses.replace(config.evaluate, tasks=("action_units",))
  results = run.score(dataclasses.replace(config, evaluate=evaluate), records)
  assert results == {"parse_failures": {"action_units": 0}, "au_f1": {}}


def test_table_shows_runs_side_by_side(config, tmp_path):
  """Kills: columns swapped, an interval without its ends, a crash where a run lacks a metric."""
  good = evaluated(config, tmp_path, true_answer)
  bad = evaluated(config, tmp_path, lambda *_: "Hm.")
  del bad["age_mae"]
  lines = run.table({"good": good, "bad": bad}).splitlines()
  assert lines[0].split() == ["good", "bad"]
  assert lines[1].split("  ")[-1].strip() == "0.000 [0.000, 0.000]"
  assert "1.000 [1.000, 1.000]" in lines[1]
  assert next(x for x in lines if x.startswith("age")).endswith("-")
  assert lines[-1].split()[-6:] == ["0", "of", "35", "35", "of", "35"]


def test_a_real_model_is_evaluated(config, tmp_path):
  """Kills: an interface to data and generation that does not fit, faces too small to be drawn."""
  tiny = presets.tiny()
  model = dataclasses.replace(
    tiny,
    video=None,  # without fusion and clips it compiles in a fraction of the time
    fusion=None,
    decoder=dataclasses.replace(tiny.decoder, vocab=config.model.decoder.vocab, max_length=352),
    segmentation=dataclasses.replace(tiny.segmentation, classes=19),
  )
  small = dataclasses.replace(
    config.evaluate, faces=3, rows=2, new_tokens=4, tasks=("age", "deepfake")
  )
  config = dataclasses.replace(config, model=model, evaluate=small)
  params = jax.jit(lambda: face_mllm.init(model, jax.random.key(0)))()
  results = run.evaluate(config, params, tmp_path, modalities=("segmentation",))
  assert results["modalities"] == ["segmentation"] and results["age_mae"]["n"] == 3
  lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
  assert [(r["face"], r["task"]) for r in map(json.loads, lines)] == [
    (face, task) for task in ("age", "deepfake") for face in range(3)
  ]
