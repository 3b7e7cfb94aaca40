"""Both modes on drawn faces, with a model that is a table of scores."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from facejax import checkpoint, cli
from facejax.config import EvaluateConfig, LabelsConfig, SyntheticConfig
from facejax.faces import scene
from facejax.knowledge import asking, modes, rules
from facejax.knowledge.tables import known

sys.path.append(str(Path(__file__).parents[1]))
import saved_run

RULES = rules.load("drawn_faces")
FACES = 6


def config(**data):
  made = saved_run.config(labels=LabelsConfig("drawn_faces"))
  drawn = SyntheticConfig(faces=40, tasks=("age",))
  return dataclasses.replace(
    made,
    data=dataclasses.replace(made.data, synthetic=drawn, **data),
    evaluate=EvaluateConfig(faces=FACES, bootstrap=20),
  )


def truth(i, split="test"):
  labels = scene.sample(i, split).labels
  grades = {f"AU{u}": 5 * grade for u, grade in labels.action_units.items()}
  units = {f"AU{u}": 0 for u in (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 25, 26)} | grades
  said = {"attributes": labels.attributes, "intensities": units, "expression": labels.expression}
  return known(said, RULES.labels)


class Model:
  """Knows the truth, and says yes too often: by 2 in log-odds."""

  def __init__(self, config, params):
    self.reads, self.asked = config.data.modalities, 0
    params.append(self)

  def scores(self, i, shift):
    odds = np.where(truth(i) == 1, 3.0, -1.0) + shift
    return 1 / (1 + np.exp(-odds))

  def label_scores(self, samples):
    assert [s.id for s in samples] == [f"synthetic/test/{i}" for i in range(len(samples))]
    return np.stack([self.scores(i, 0) for i in range(len(samples))])

  def opening(self, text):
    return {asking.YES: 1, asking.NO: 2}[text]

  def chances(self, samples, tokens):
    self.asked = len(samples)
    yes = np.concatenate([self.scores(i, 2) for i in range(len(samples) // len(RULES.labels))])
    return np.stack([yes, 1 - yes], 1)


@pytest.fixture
def models(monkeypatch):
  """The models that were made, in place of their parameters."""
  monkeypatch.setattr(modes, "Answerer", Model)
  return []


def test_a_head_is_judged(models, tmp_path):
  """Kills: labels of another split's faces, scores without the rules beside them, a result that is
  not written, one of other parameters taken for it, inputs that the model was not trained with."""
  got = modes.evaluate(config(), models, "head", tmp_path, modalities=("segmentation",), of="a")
  rows = got["rows"]
  assert list(rows) == ["label head", "label head + rules"]
  assert rows["label head"]["accuracy"]["value"] == rows["label head"]["macro_f1"]["value"] == 1
  assert rows["label head"]["false"]["value"] == 0 < rows["label head"]["ece"]["value"]
  assert rows["label head + rules"]["violations"]["value"] == 0
  assert rows["label head"]["accuracy"]["n"] == FACES and models[0].reads == ("segmentation",)
  assert json.loads((tmp_path / "results.json").read_text()) == got
  again = modes.evaluate(config(), models, "head", tmp_path, modalities=("segmentation",), of="a")
  assert again == got and len(models) == 1
  modes.evaluate(config(), models, "head", tmp_path, modalities=("segmentation",), of="b")
  assert len(models) == 2
  (tmp_path / "results.json").write_text("{")
  modes.evaluate(config(), models, "head", tmp_path, of="b")
  assert len(models) == 3 and models[2].reads == config().data.modalities


def test_answers_are_corrected_without_training(models, tmp_path, monkeypatch):
  """Kills: all faces asked where a hundred are enough, prevalences of the wrong table or of none,
  rules that are left out of the last row, rows that are all the same."""
  monkeypatch.setattr(modes, "ASKED", 4)
  got = modes.evaluate(config(), models, "answers", tmp_path)
  rows = got["rows"]
  assert list(rows) == ["yes and no", "+ prevalence", "+ couplings", "+ rules", "all three"]
  assert models[0].asked == 4 * len(RULES.labels) and got["settings"]["faces"] == 4
  value = lambda row, key: rows[row][key]["value"]
  assert value("yes and no", "accuracy") < 0.8 < value("+ prevalence", "accuracy")
  assert value("yes and no", "violations") > 0 == value("+ rules", "violations")
  assert value("all three", "violations") == 0
  assert value("+ couplings", "ece") != value("yes and no", "ece")
  text = modes.table(got).splitlines()
  assert text[0].split()[0] == "mean" and text[5].startswith("all three  ") and len(text) == 6


def test_modes_that_cannot_be(models, tmp_path):
  # Kills: scores of a head that there is not; a source that falls back to another.
  plain = dataclasses.replace(config(), model=saved_run.config().model)
  with pytest.raises(ValueError, match=r"the model has labels=None - expected a LabelsConfig"):
    modes.evaluate(plain, models, "head", tmp_path)
  with pytest.raises(ValueError, match=r"source.*'both'"):
    modes.evaluate(config(), models, "both", tmp_path)
  assert not models


def test_the_command(models, tmp_path, monkeypatch, capsys):
  """Kills: another stage's inputs or folder, --faces that is dropped, flags that contradict."""
  monkeypatch.setattr(checkpoint, "load_run", lambda *given: (config(), models, tmp_path / "base"))
  argv = ["evaluate", f"--workdir={tmp_path}", "--labels=head", "--faces=3"]
  assert cli.main(argv) == 0
  out = capsys.readouterr().out
  assert "label head + rules" in out and f"{tmp_path}/base/labels-head/results.json" in out
  made = json.loads((tmp_path / "base" / "labels-head" / "results.json").read_text())
  assert made["settings"]["faces"] == 3 and made["settings"]["of"] == "as imported"
  assert models[0].reads == ()  # those of the stage "base"
  assert cli.main([*argv, "--without=landmarks"]) == 2
  assert "--without landmarks with --labels" in capsys.readouterr().err
  assert cli.main(["evaluate", "--suite=celeba", "--labels=head"]) == 2
  assert "--labels=head is about drawn faces" in capsys.readouterr().err
