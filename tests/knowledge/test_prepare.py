"""The file that a label head starts from, and what reads labels: rows, batches, a stage."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from facejax import checkpoint, cli, config_io, weights
from facejax.config import LabelsConfig
from facejax.data.pipeline import Pipeline
from facejax.knowledge import cooccurrence, prepare, rules
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import abstract_state

DEMO = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"
FACES = 9
LABELS = rules.load("drawn_faces").labels


def demo(faces=FACES, **stage):
  config = config_io.load(DEMO)
  synthetic = dataclasses.replace(config.data.synthetic, faces=faces)
  return dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, labels=LabelsConfig("drawn_faces")),
    data=dataclasses.replace(config.data, synthetic=synthetic),
    stages={"stage1": dataclasses.replace(config.stages["stage1"], **stage)},
  )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  path = tmp_path_factory.mktemp("labels") / "labels.safetensors"
  graph = {"tau": 0.5, "omega": 0.3, "reweight": "paper"}
  return path, prepare.write(demo(), "stage1", path, graph)


def batch(faces=FACES):
  pipeline = Pipeline(demo(faces).model, demo(faces).data, rows=8)
  return pipeline, pipeline.batch(0)[0]


def test_what_is_said_of_a_face_reaches_its_slot():
  """Kills: labels in another face's slot, another set's order, unknown where the table speaks."""
  pipeline, got = batch()
  assert got.images.labels.dtype == np.int8 and got.images.labels.shape[-1] == len(LABELS)
  column = {name: i for i, name in enumerate(LABELS.labels)}
  seen = 0
  for row in range(8):
    for slot, index in enumerate(dict.fromkeys(got.sample_id[row][got.sample_id[row] >= 0])):
      source = pipeline.schedule.sources["synthetic"]
      said, values = source.labels(int(index)), got.images.labels[row, slot]
      for name, has in said["attributes"].items():
        assert values[column[name]] == has
      assert values[column[said["expression"]]] == 1
      seen += 1
    assert (got.images.labels[row, slot + 1 :] == -1).all()
  assert seen >= 8


def test_a_sample_whose_labels_are_wrong_is_refused_by_name(monkeypatch):
  """Kills: a run that ends at, or trains on, one wrong label; a count that does not say where."""
  pipeline, _ = batch()
  source = pipeline.schedule.sources["synthetic"]
  wrong = source.name(int(pipeline.batch(0)[0].sample_id[0, 0]))
  whole = type(source).__getitem__

  def damaged(self, index):
    sample = whole(self, index)
    return dataclasses.replace(sample, labels={"age": "x", "race": 5} if sample.id == wrong else {})

  monkeypatch.setattr(type(source), "__getitem__", damaged)
  monkeypatch.setattr(type(source), "labels", lambda self, index: self[index].labels)
  _, refused = pipeline.batch(0)
  assert {r.id for r in refused} == {wrong}
  assert f"sample '{wrong}': race is 5 - expected a word or null - correct" in refused[0].reason
  with pytest.raises(ValueError, match=f"sample '{wrong}': race is 5"):
    prepare.counted([source], LABELS, None)


def test_the_file_holds_the_statistics_of_the_sources(written):
  """Kills: a graph of other settings or labels, prompts of other words or tokens."""
  path, counts = written
  pipeline, _ = batch()
  source = pipeline.schedule.sources["synthetic"]
  said = [source.labels(i) for i in range(FACES)]
  both = sum(x["attributes"]["Eyeglasses"] and x["attributes"]["Bangs"] for x in said)
  column = LABELS.labels.index
  assert counts.rows == FACES
  assert counts.together[column("Eyeglasses"), column("Bangs")] == both
  got = safetensors.numpy.load_file(path)
  p = cooccurrence.conditional(counts)
  np.testing.assert_array_equal(got["labels/graph"], cooccurrence.graph(p, 0.5, 0.3))
  embedding = prepare.read_embedding("facejax:demo_base.safetensors")
  ids = [pipeline.form.tokenizer.encode(f"a face with {LABELS.say(x)}") for x in LABELS.labels]
  means = np.stack([embedding[x].astype(np.float32).mean(0) for x in ids])
  np.testing.assert_allclose(got["labels/prompts"], means - means.mean(0), atol=1e-6)


def test_a_stage_starts_over_it(written, tmp_path):
  """Kills: a file that is read and dropped, or that hides what init_from lacks."""
  path, _ = written
  config = demo(over=(str(path),), new=(r"(landmark_projector|fusion|segmentation)/.*",))
  abstract = abstract_state(FaceMLLM(config.model), config.stages["stage1"], make_mesh(config.mesh))
  with pytest.raises(ValueError, match="missing: labels/scores/bias"):
    checkpoint.load_init(tmp_path, config.stages["stage1"], abstract)
  stage = dataclasses.replace(config.stages["stage1"], new=(".*",))
  found = checkpoint.load_init(tmp_path, stage, abstract)
  want = safetensors.numpy.load_file(path)
  for name, values in want.items():
    np.testing.assert_array_equal(found.params[name], values.astype(found.params[name].dtype))
  assert not set(want) & set(found.missing) and "decoder/embedding" in found.loaded
  alone = checkpoint.load_init(tmp_path, dataclasses.replace(stage, init_from=""), abstract)
  assert set(alone.params) == set(want) and "decoder/embedding" in alone.missing


def test_files_that_do_not_fit_are_named(written, tmp_path):
  """Kills: a file of another model laid over in part, in silence."""
  path, _ = written
  targets = {"decoder/embedding": jax.ShapeDtypeStruct((3,), np.float32)}
  found = weights.Loaded({}, (), tuple(targets), ())
  with pytest.raises(ValueError, match="has labels/graph and 1 more that the model has not"):
    weights.with_over(found, [str(path)], targets)
  with pytest.raises(FileNotFoundError, match="check init_from and over"):
    weights.with_over(found, [str(tmp_path / "no.safetensors")], targets)


@pytest.mark.parametrize(
  "flags, message",
  [
    (["out.npz", f"--config={DEMO}"], "expected a name that ends in .safetensors"),
    (["o.safetensors", f"--config={DEMO}"], "model has labels=None"),
    (["o.safetensors", f"--config={DEMO}", "--stage=stage9"], "--stage is 'stage9'"),
  ],
)
def test_bad_commands(flags, message, capsys):
  """Kills: a traceback, or a file nobody can use."""
  assert cli.main(["data", "labels", *flags]) == 2
  assert message in capsys.readouterr().err


class Silent:
  """A source whose table is about something else."""

  def __len__(self):
    return 2

  def fingerprint(self):
    return {"source": "silent"}

  def labels(self, index):
    return {"manipulated": bool(index)}


def test_sources_and_weights_that_cannot_serve(tmp_path):
  """Kills: statistics of nothing; prompts of weights that have no words."""
  with pytest.raises(ValueError, match="2 samples say nothing of the labels of 'age_gender_race'"):
    prepare.counted([Silent()], rules.load("age_gender_race").labels, None)
  with pytest.raises(FileNotFoundError, match="no folder of released weights"):
    prepare.read_embedding(str(tmp_path))
  weights.save_weights(tmp_path / "part.safetensors", {"projector": np.ones(2, np.float32)})
  with pytest.raises(ValueError, match="has no decoder/embedding"):
    prepare.read_embedding(str(tmp_path / "part.safetensors"))
