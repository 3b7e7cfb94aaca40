"""Config files, overrides and JSON: what is accepted, and what each refusal says."""

import dataclasses
import json
import re

import pytest

from facejax import config_io
from facejax.config import (
  DataConfig,
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  OptimConfig,
  RunConfig,
  SegmentationConfig,
  StageConfig,
  SyntheticConfig,
  VitConfig,
)

VIT = VitConfig(image_size=28, patch=7, width=12, layers=3, heads=2, mlp=20)
DECODER = DecoderConfig(
  vocab=64, width=24, layers=2, heads=4, kv_heads=2, head_width=6, mlp=40, max_length=128
)
MODEL = ModelConfig(image=VIT, decoder=DECODER, fusion=FusionConfig())
SHUFFLED = dataclasses.replace(MODEL, projector="pixel_shuffle")
RUN = RunConfig(
  model=MODEL,
  data=DataConfig(row_length=100),
  stages={"base": StageConfig(trainable=(".*",), optim=OptimConfig(1e-3), steps=10, rows=8)},
)


def test_json_keeps_every_field():
  """Kills: a tuple that comes back as a list, a None lost, a field skipped."""
  run = dataclasses.replace(RUN, seed=5)
  back = config_io.from_dict(RunConfig, json.loads(config_io.to_json(run)))
  assert back == run != RUN


@pytest.mark.parametrize(
  ("setting", "read", "value"),
  [
    ("stages.base.optim.peak_lr=2e-5", lambda c: c.stages["base"].optim.peak_lr, 2e-5),
    ("stages.base.optim.clip_norm=1", lambda c: c.stages["base"].optim.clip_norm, 1.0),
    ("data.modalities=landmarks", lambda c: c.data.modalities, ("landmarks",)),
    ("data.modalities=", lambda c: c.data.modalities, ()),
    ("data.llava.index=a.json,b.json", lambda c: c.data.llava.index, ("a.json", "b.json")),
    ("data.sources=llava", lambda c: c.data.sources, ("llava",)),
    ("data.sources=2024,1e5", lambda c: c.data.sources, ("2024", "1e5")),
    ("data.sources=('llava')", lambda c: c.data.sources, ("llava",)),
    ("data.weights=3", lambda c: c.data.weights, (3.0,)),
    ("data.weights=(3)", lambda c: c.data.weights, (3.0,)),
    ("model.fusion=None", lambda c: c.model.fusion, None),
    ("model.decoder.tied=True", lambda c: c.model.decoder.tied, True),
  ],
)
def test_override_sets_the_field(setting, read, value):
  """Kills: an override that is parsed but not applied, or applied to another field."""
  assert read(RUN) != value
  assert read(config_io.override(RUN, [setting])) == value


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    (
      "stages.base.optim.peek_lr=1",
      "--config.stages.base.optim: no field 'peek_lr'; did you mean 'peak_lr'?",
    ),
    ("data.rowlength=3", "--config.data: no field 'rowlength'; did you mean 'row_length'?"),
    ("stages.bose.steps=3", "--config.stages: no field 'bose'; did you mean 'base'?"),
    ("zzz=3", "--config: no field 'zzz'; it has model, data"),
    ("seed", "--config.seed: expected --config.seed=VALUE"),
    ("seed.more=1", "--config.seed.more: config.seed is 0, it has no fields"),
    ("data=3", "--config.data: is a group of fields"),
    ("data.seed=x", "--config.data.seed: cannot read 'x' as int"),
    (
      "stages.base.trainable=(a|b)/.*",
      "cannot read '(a|b)/.*' as tuple - if it is one text, write ('(a|b)/.*',)",
    ),
    ("data.seed=1.5", "config.data.seed: expected int, got 1.5 (float)"),
    ("data.seed=True", "config.data.seed: expected int, got True (bool)"),
    ("data.weights=x", "config.data.weights[0]: expected float, got 'x' (str)"),
    ("data.weights=nan", "Mixture: weight nan of source 'synthetic' - expected above 0"),
    ("data.weights=inf", "Mixture: weight inf of source 'synthetic' - expected above 0"),
    ("data.weights=-1", "Mixture: weight -1.0 of source 'synthetic' - expected above 0"),
    ("data.modalities=landmark", "is 'landmark', expected one of landmarks, segmentation; did you"),
  ],
)
def test_bad_override_says_what_to_do(setting, message):
  """Kills: an unknown key that is ignored, a value of another type that is cast silently."""
  with pytest.raises(ValueError, match=re.escape(message)):
    config_io.override(RUN, [setting])


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda: dataclasses.replace(VIT, patch=5), "image_size=28 must be a multiple of patch=5"),
    (lambda: dataclasses.replace(VIT, tokens="patch"), "did you mean 'patches'?"),
    (lambda: dataclasses.replace(VIT, activation="relu"), "VitConfig.activation is 'relu'"),
    (lambda: dataclasses.replace(VIT, select_layer=-5), "select_layer=-5: expected -1 to -4"),
    (lambda: FusionConfig(form="mask"), "FusionConfig.form is 'mask'"),
    (lambda: SegmentationConfig(mode="sum"), "SegmentationConfig.mode is 'sum'"),
    (
      lambda: SegmentationConfig("add", size=10, grid=4, width=3),
      "size=10 must be a multiple of grid=4",
    ),
    (lambda: dataclasses.replace(DECODER, kv_heads=3), "heads=4 is no multiple of self.kv_heads=3"),
    (lambda: dataclasses.replace(MODEL, dtype="float16"), "ModelConfig.dtype is 'float16'"),
    (lambda: dataclasses.replace(MODEL, remat="some"), "ModelConfig.remat is 'some'"),
    (lambda: dataclasses.replace(MODEL, fusion=FusionConfig(heads=7)), "fusion.heads=7"),
    (
      lambda: dataclasses.replace(MODEL, video=dataclasses.replace(VIT, frames=5)),
      "frames=8 but the video encoder's temporal embedding is made for 5",
    ),
    (
      lambda: dataclasses.replace(MODEL, segmentation=SegmentationConfig("add", 10, 5, 3)),
      "needs segmentation.grid=4",
    ),
    (
      lambda: dataclasses.replace(SHUFFLED, segmentation=SegmentationConfig("add", 8, 4, 3)),
      "needs segmentation.grid=2, the image tokens a side behind the projector; got 4",
    ),
    (lambda: SegmentationConfig("add", 10, 5, 3, form="vit"), "form='vit' and vit=None"),
    (lambda: SegmentationConfig("add", 10, 5, 3, vit=VIT), "with form='vit', and None with"),
    (
      lambda: dataclasses.replace(
        MODEL, segmentation=SegmentationConfig("concat", 10, 5, 3, form="image")
      ),
      "size=10, grid=5, but its ViT takes",
    ),
    (
      lambda: dataclasses.replace(
        MODEL, segmentation=SegmentationConfig("concat", 10, 5, 3, projector="image")
      ),
      "segmentation.projector='image' with segmentation.form='shares'",
    ),
    (
      lambda: dataclasses.replace(SHUFFLED, video=dataclasses.replace(VIT, image_size=35)),
      "but the video encoder has 5 a side and tokens='patches'",
    ),
    (
      lambda: dataclasses.replace(SHUFFLED, image=dataclasses.replace(VIT, tokens="all")),
      "but the image encoder has 4 a side and tokens='all'",
    ),
    (lambda: dataclasses.replace(MODEL, projector="shuffle"), "projector is 'shuffle'"),
    (lambda: dataclasses.replace(VIT, layout="internvl"), "did you mean 'intern'?"),
    (lambda: dataclasses.replace(VIT, norm="batch"), "VitConfig.norm is 'batch'"),
    (lambda: dataclasses.replace(VIT, statistics="imagnet"), "did you mean 'imagenet'?"),
    (lambda: dataclasses.replace(DECODER, rope_factor=0.5), "rope_factor=0.5: expected at least 1"),
    (lambda: SyntheticConfig(split="tset"), "did you mean 'test'?"),
    (lambda: SyntheticConfig(turns=6), "SyntheticConfig.turns=6: expected 1 to 5"),
    (lambda: DataConfig(9, sources=()), "Mixture.sources=(): expected at least one"),
    (lambda: DataConfig(9, sources=("a", "b"), weights=(1.0,)), "1 weights for 2 sources"),
    (lambda: DataConfig(9, sources=("a",), weights=(0.0,)), "weight 0.0 of source 'a'"),
    (lambda: DataConfig(row_length=9, resize="none"), "DataConfig.resize is 'none'"),
    (lambda: DataConfig(row_length=9, template="vicuna"), "did you mean 'vicuna_v1'?"),
    (lambda: DataConfig(row_length=9, min_tiles=2), "min_tiles=2, max_tiles=1 - expected 1 <="),
    (lambda: DataConfig(row_length=9, max_tiles=2), "max_tiles=2 with resize='pad' - tiles"),
    (lambda: OptimConfig(1.0, schedule="cos"), "OptimConfig.schedule is 'cos'"),
    (
      lambda: dataclasses.replace(RUN.stages["base"], accumulate=3),
      "rows=8 is no multiple of self.accumulate=3",
    ),
  ],
)
def test_values_that_cannot_work_are_refused_where_they_are_set(build, message):
  """Kills: a check dropped, or a message that names another value."""
  with pytest.raises(ValueError, match=re.escape(message)):
    build()


STAGE = RUN.stages["base"]


@pytest.mark.parametrize(
  ("config", "field", "value", "expected"),
  [
    *((VIT, name, 0, "at least 1") for name in ("image_size", "patch", "width", "layers", "heads")),
    (VIT, "frames", -1, "at least 0"),
    (FusionConfig(), "heads", 0, "at least 1"),
    *((SegmentationConfig("add", 8, 4, 3), x, 0, "at least 1") for x in ("size", "grid", "width")),
    (SegmentationConfig(), "classes", 0, "at least 1"),
    *((DECODER, name, 0, "at least 1") for name in ("vocab", "layers", "kv_heads", "max_length")),
    (MODEL, "frames", 0, "at least 1"),
    (SyntheticConfig(), "faces", 0, "at least 1"),
    (SyntheticConfig(), "turns", 0, "1 to 5"),
    (SyntheticConfig(), "landmark_noise", -0.1, "at least 0"),
    (SyntheticConfig(), "tasks", ("age", "age"), "at least one, and each once"),
    (RUN.data, "row_length", 0, "at least 1"),
    (RUN.data, "workers", -1, "at least 0"),
    (RUN.data, "seed", -1, "at least 0"),
    (RUN.data, "max_refused", 1.5, "0 to 1"),
    (STAGE.optim, "peak_lr", -1.0, "at least 0"),
    (STAGE.optim, "peak_lr", float("nan"), "at least 0"),
    (STAGE.optim, "clip_norm", -1.0, "at least 0"),
    (STAGE.optim, "warmup", 3.0, "0 to 1"),
    *((STAGE, name, 0, "at least 1") for name in ("steps", "rows", "accumulate")),
    *((RUN.evaluate, x, 0, "at least 1") for x in ("faces", "rows", "new_tokens", "bootstrap")),
    (RUN.evaluate, "tasks", (), "at least one, and each once"),
    *((RUN, name, 0, "at least 1") for name in ("checkpoint_every", "keep", "log_every")),
    (RUN, "seed", -1, "at least 0"),
  ],
)
def test_a_number_out_of_range_is_refused_by_name(config, field, value, expected):
  """Kills: keep=0, which trains and saves nothing; ZeroDivisionError and StopIteration later on."""
  message = f"{type(config).__name__}.{field}={value}: expected {expected}"
  with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
    dataclasses.replace(config, **{field: value})


def test_other_choices_of_lists_are_refused():
  """Kills: a stage that reads nothing because of a typo; an evaluation of a split without faces."""
  with pytest.raises(ValueError, match=r"StageConfig\.modalities is 'landmark', .* did you mean"):
    dataclasses.replace(STAGE, modalities=("landmark",))
  with pytest.raises(ValueError, match=r"EvaluateConfig\.split is 'tets', .* did you mean 'test'"):
    dataclasses.replace(RUN.evaluate, split="tets")


def test_a_stage_reads_what_the_data_have_and_it_trains_with():
  """Kills: maps shown to a stage that never saw one; an order that depends on the stage."""
  assert RUN.reads("base") == RUN.reads("no stage") == ("landmarks", "segmentation")
  stage = dataclasses.replace(STAGE, modalities=("segmentation", "landmarks"))
  run = dataclasses.replace(RUN, stages={"a": stage})
  assert run.reads("a") == ("landmarks", "segmentation")
  run = dataclasses.replace(run, stages={"a": dataclasses.replace(stage, modalities=())})
  assert run.reads("a") == ()
  narrow = dataclasses.replace(RUN.data, modalities=("landmarks",))
  assert dataclasses.replace(RUN, data=narrow).reads("base") == ("landmarks",)


def test_missing_config_file_is_named(tmp_path):
  """Kills: a bare traceback for a mistyped path; a file without get_config taken as empty."""
  with pytest.raises(FileNotFoundError, match=r"nowhere\.py does not exist, .* clone of facejax"):
    config_io.load(tmp_path / "nowhere.py")
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(ValueError, match=r"empty\.py: a config file defines get_config"):
    config_io.load(tmp_path / "empty.py")


def test_options_of_a_config_file(tmp_path):
  """Kills: an option that outranks the command line, or is dropped; an unknown one ignored."""
  text = "from facejax import config_io\nget_config = lambda: config_io.load('configs/demo.py')\n"
  file = tmp_path / "mine.py"
  file.write_text(text + "OPTIONS = {'short': ('seed=7', 'keep=5')}\n")
  found = config_io.load(f"{file}:short", ["keep=3"])
  assert (found.seed, found.keep) == (7, 3) and config_io.load(file).seed == 0
  with pytest.raises(ValueError, match=r"mine\.py has no option 'long': expected short"):
    config_io.load(f"{file}:long")
  with pytest.raises(ValueError, match=r"mine\.py: names no option - expected FILE\.py:NAME"):
    config_io.load(f"{file}:")
  file.write_text(text)
  with pytest.raises(ValueError, match=r"no option 'short': expected none, it has no OPTIONS"):
    config_io.load(f"{file}:short")


def test_missing_and_unknown_fields_of_json_are_named():
  """Kills: a record of another version read as if it were complete."""
  data = config_io.to_dict(RUN)
  del data["model"]
  with pytest.raises(ValueError, match="RunConfig needs a field 'model'"):
    config_io.from_dict(RunConfig, data)
  with pytest.raises(ValueError, match="no field 'sed' in RunConfig; did you mean 'seed'"):
    config_io.from_dict(RunConfig, config_io.to_dict(RUN) | {"sed": 1})


def test_a_rope_factor_makes_room():
  """Kills: samples bounded by max_length although the base stretches; a length rounded up."""
  decoder = dataclasses.replace(DECODER, rope_factor=1.26)
  assert decoder.longest == 161  # of 161.28
