"""A stage's adapters as PEFT's files, and merged: out, in again, and the same numbers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import released_files as released
from by_hand import flat

from facejax import checkpoint, cli, config_io, convert, lora, stages
from facejax.config import FusionConfig, LoraConfig, MeshConfig
from facejax.convert.lora import export_adapter
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import abstract_state

LORA = LoraConfig(rank=3, alpha=7.5)


@pytest.fixture
def stage_dir(tmp_path):
  """A stage whose adapters were drawn, not trained, over a tiny InternVL; and its folder."""
  base = released.write(
    tmp_path / "base", released.draw(released.internvl_hf()), released.internvl_config(False)
  )
  run = convert.open_checkpoint(base).config
  stage = dataclasses.replace(stages.adapters(5, 4, str(base)), lora=LORA)
  model = dataclasses.replace(run.model, dtype="float32")
  run = dataclasses.replace(run, model=model, stages={"lora": stage})
  save(tmp_path / "run", run)
  return tmp_path / "run/lora"


def save(workdir, run):
  """Writes a checkpoint whose adapters are random."""
  stage, mesh = run.stages["lora"], make_mesh(MeshConfig(), jax.devices()[:1])
  abstract = abstract_state(FaceMLLM(run.model), stage, mesh)
  begun = checkpoint.start(run, workdir, "lora", abstract)
  draw = np.random.default_rng(2)
  fill = lambda x: jax.device_put(draw.normal(0, 0.2, x.shape).astype(np.float32), x.sharding)
  state = dataclasses.replace(begun.state, trainable=jax.tree.map(fill, begun.state.trainable))
  with checkpoint.Checkpoints(workdir / "lora", keep=None) as checkpoints:
    meta = {"config": config_io.to_dict(run), "stage": "lora", "base": begun.base}
    checkpoints.save(5, state, meta)


def test_round_trip_through_peft_files(stage_dir, tmp_path, capsys):
  """Kills: A for B, a missing transpose, a layer at another's place, alpha without its rank."""
  arguments = ["convert", "export", str(stage_dir), str(tmp_path / "peft"), "--format", "peft"]
  assert cli.main(arguments) == 0
  assert "adapters of 21 modules" in capsys.readouterr().out
  arguments = ["convert", "export", str(stage_dir), str(tmp_path / "hf"), "--format", "internvl_hf"]
  assert cli.main(arguments) == 0
  base, merged = (
    flat(convert.load(tmp_path / "base").params),
    flat(convert.load(tmp_path / "hf").params),
  )
  added = flat(convert.load(tmp_path / "base", adapter=tmp_path / "peft").params)
  assert set(added) == set(merged) == set(base)
  changed = {name for name in base if not np.array_equal(base[name], added[name])}
  assert len(changed) == 7
  for name in base:
    np.testing.assert_allclose(merged[name], added[name], atol=1e-6, rtol=0)
  params = lora.flatten(checkpoint.load_params(stage_dir))
  a, b = params["decoder/blocks/down/lora_a"][1], params["decoder/blocks/down/lora_b"][1]
  wanted = np.asarray(base["decoder/blocks/down/kernel"][1], float)
  for r in range(3):
    wanted = wanted + 2.5 * np.outer(np.asarray(a)[:, r], np.asarray(b)[r]).astype(float)
  np.testing.assert_allclose(merged["decoder/blocks/down/kernel"][1], wanted, atol=1e-6)


def test_what_peft_is_told(stage_dir, tmp_path):
  """Kills: targets that peft would find in the vision tower as well, or in no module."""
  export_adapter(*loaded(stage_dir), tmp_path / "peft")
  fields = json.loads((tmp_path / "peft/adapter_config.json").read_text())
  assert (fields["r"], fields["lora_alpha"], fields["peft_type"]) == (3, 7.5, "LORA")
  assert fields["base_model_name_or_path"] == str(tmp_path / "base")
  patterns = fields["target_modules"].split("|")
  assert sorted(p.rpartition(".")[2] for p in patterns) == sorted(
    f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
  )
  assert all(p.startswith(r"model\.language_model\.layers\.[0-9]+\.") for p in patterns)


def loaded(folder):
  config, params, stage_dir = checkpoint.load_run(folder)
  return config, stage_dir.name, params


def test_what_peft_cannot_hold(stage_dir, tmp_path):
  """Kills: half of what trained left out in silence; an adapter whose linear exists only here."""
  config, stage, params = loaded(stage_dir)
  with pytest.raises(ValueError, match="stage 'base' has no adapters"):
    export_adapter(config, "base", params, tmp_path / "a")
  more = dataclasses.replace(config.stages[stage], trainable=("projector/.*",))
  with pytest.raises(ValueError, match=r"stage 'lora' trained projector/\.\* beside its adapters"):
    export_adapter(dataclasses.replace(config, stages={stage: more}), stage, params, tmp_path / "a")
  adapters = {"image_encoder": {"patch": {"lora_a": np.ones((48, 2)), "lora_b": np.ones((2, 10))}}}
  with pytest.raises(ValueError, match="internvl_hf has no linear layer of its own for image_enco"):
    export_adapter(config, stage, adapters, tmp_path / "a")
  fused = dataclasses.replace(config.model, fusion=FusionConfig())
  with pytest.raises(ValueError, match="format peft: format face_llava: the model has projector="):
    export_adapter(dataclasses.replace(config, model=fused), stage, params, tmp_path / "a")
  assert not (tmp_path / "a").exists()
