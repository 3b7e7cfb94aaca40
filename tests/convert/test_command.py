"""`facejax convert`, and what its folders are good for: chat's load_run, a stage's init_from."""

import dataclasses
import json
import re

import flax.traverse_util
import jax
import numpy as np
import pytest
import released_files as released
from by_hand import assert_same, flat
from safetensors.numpy import load_file, save_file

from facejax import checkpoint, cli, convert, stages, workdirs
from facejax.config import DataConfig, MeshConfig, RunConfig
from facejax.convert import export_configs, verify
from facejax.convert.writer import write_json
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import abstract_state


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A Face-LLaVA folder with a tokenizer's file."""
  folder = tmp_path_factory.mktemp("released")
  released.write_layout(folder, "face_llava/simple")
  (folder / "tokenizer.model").write_bytes(b"pieces")
  return folder


def run(capsys, *arguments) -> tuple[int, str]:
  status = cli.main(["convert", *map(str, arguments)])
  captured = capsys.readouterr()
  return status, captured.out + captured.err


def test_import_export_verify(tmp_path, source, capsys):
  """Kills: a command whose result the next one cannot read."""
  status, said = run(capsys, "import", source, tmp_path / "ours")
  count = sum(int(np.prod(s)) for n, s in released.face_llava().items() if "inv_freq" not in n)
  assert (status, f"face_llava: {count:,} parameters" in said) == (0, True), said
  assert "3 unused: model.layers.0.self_attn.rotary_emb.inv_freq" in said
  assert (tmp_path / "ours" / "tokenizer.model").read_bytes() == b"pieces"
  report = json.loads((tmp_path / "ours" / "source.json").read_text())
  assert (report["family"], report["layout"], report["missing"]) == ("face_llava", "simple", [])
  status, said = run(
    capsys, "export", tmp_path / "ours", tmp_path / "theirs", "--format=face_llava"
  )
  assert status == 0, said
  assert (tmp_path / "theirs" / "tokenizer.model").read_bytes() == b"pieces"
  again = json.loads((tmp_path / "theirs" / "config.json").read_text())
  assert again["mm_image_tower"] == "my/image"
  assert (
    again.items() >= {k: released.FACE_LLAVA[k] for k in ("vocab_size", "bos_token_id")}.items()
  )
  reference = tmp_path / "reference.npz"
  status, said = run(capsys, "verify", source, tmp_path / "theirs", "--save", reference)
  assert status == 0, said
  assert "layers and parameters are identical\nlogits at" in said
  assert "max abs error 0, mean KL 0 nats, top-1 agreement 100.00%" in said
  status, said = run(capsys, "verify", tmp_path / "ours", reference)
  assert "max abs error 0, mean KL 0 nats, top-1 agreement 100.00%" in said


def test_verify_says_where_and_how_much(tmp_path, capsys):
  """Kills: a layer's error told of another; KL of the wrong order; padding counted."""
  for seed, name in ((0, "a"), (0, "b")):
    weights = released.draw(released.llama("model.", "lm_head.weight"), seed)
    weights["model.layers.1.mlp.up_proj.weight"][3, 2] += 0.25 * (name == "b")
    released.write(tmp_path / name, weights, {**released.TEXT, "model_type": "llama"})
  status, said = run(capsys, "verify", tmp_path / "a", tmp_path / "b", "--no-logits")
  assert status == 0
  lines = said.splitlines()
  assert lines[0].startswith("decoder/blocks/up/kernel[1]: max abs error 0.25, values up to")
  assert lines[1] == "29 of 30 layers and parameters are identical"
  p, q = np.log([[[0.5, 0.25, 0.25], [1, 1, 1]]]), np.log([[[0.25, 0.5, 0.25], [1, 2, 3]]])
  found = verify.compare_logits(p, q, np.array([[True, False]]))
  assert found.positions == 1
  assert found.top1 == 0
  np.testing.assert_allclose(found.divergence, 0.5 * np.log(2) - 0.25 * np.log(2))
  np.testing.assert_allclose(found.error, np.log(2))


def test_verify_sees_a_number_that_is_none(tmp_path, capsys):
  """Kills: an error above 0, which NaN is not."""
  folders = [tmp_path / name for name in ("a", "b")]
  for folder in folders:
    released.write_layout(folder, "face_llava/simple")
  path = folders[1] / "model.safetensors"
  weights = dict(load_file(path))
  weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], np.nan)
  save_file(weights, path)
  for pair in (folders, folders[::-1]):
    status, said = run(capsys, "verify", *pair, "--no-logits")
    assert status == 0 and "decoder/norm/scale: max abs error nan" in said, said


def test_an_imported_folder_imported_again_can_be_exported(tmp_path, source, capsys):
  """Kills: our own family and config in place of what the folder was at first."""
  run(capsys, "import", source, tmp_path / "one")
  run(capsys, "import", tmp_path / "one", tmp_path / "two", "--dtype=bfloat16")
  first, second = (json.loads((tmp_path / n / "source.json").read_text()) for n in ("one", "two"))
  assert all(first[name] == second[name] for name in ("family", "layout", "config"))
  status, said = run(capsys, "export", tmp_path / "two", tmp_path / "x", "--format=face_llava")
  assert status == 0, said


def test_a_folder_without_a_tokenizer_says_so(tmp_path, capsys):
  """Kills: "ready for chat" with the demo's tokenizer; a slow Qwen2 tokenizer that is not seen."""
  released.write_layout(tmp_path / "plain", "face_llava/simple")
  _, said = run(capsys, "import", tmp_path / "plain", tmp_path / "ours")
  assert "no tokenizer beside" in said
  for name in ("vocab.json", "merges.txt"):
    (tmp_path / "plain" / name).write_text("{}")
  _, said = run(capsys, "import", tmp_path / "plain", tmp_path / "again")
  assert "no tokenizer" not in said
  assert checkpoint.load_run(tmp_path / "again")[0].data.tokenizer.endswith("vocab.json")


def test_verify_of_different_models(tmp_path, source, capsys):
  """Kills: a comparison of what both happen to have."""
  weights = released.draw(released.llama("model.", "lm_head.weight"))
  released.write(tmp_path / "text", weights, {**released.TEXT, "model_type": "llama"})
  status, said = run(capsys, "verify", source, tmp_path / "text")
  assert (status, "are different models: fusion/attention/k/bias only in" in said) == (2, True)
  status, said = run(capsys, "verify", tmp_path / "text", "--save", tmp_path / "x.npz")
  assert (status, "is a lone decoder and has no logits" in said) == (2, True)
  names = {**released.TEXT, "vocab_size": 23, "model_type": "llama"}
  weights = released.draw(released.llama("model.", "lm_head.weight", names))
  released.write(tmp_path / "other", weights, names)
  status, said = run(capsys, "verify", tmp_path / "text", tmp_path / "other")
  assert (status, "decoder/embedding [22, 24] in" in said) == (2, True)
  np.savez(tmp_path / "x.npz", logits=np.zeros(3))
  status, said = run(capsys, "verify", source, tmp_path / "x.npz")
  assert (status, "x.npz has no array 'batch/tokens' - expected logits" in said) == (2, True)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["import", "SRC"], "import .*: expected a DST behind it"),
    (["export", "SRC", "DST"], "--format is missing: expected one of face_llava, llava, llava_hf"),
    (["export", "SRC", "DST", "--format=internvl"], "expected InternVL's both, or neither"),
    (
      ["export", "SRC", "DST", "--format=llava"],
      "no place for a video encoder - exp",
    ),
    (["export", "SRC", "DST", "--format=face_lava"], "did you mean 'face_llava'"),
    (["import", "SRC", "DST", "--dtype=int8"], "--dtype int8: expected float32, bfloat16 or"),
    (["import", "SRC", "DST", "--tower=x"], "--tower x: expected KIND=FOLDER"),
    (["import", "SRC", "FULL"], "full has content: expected a new or empty folder"),
    (["import", "NOWHERE", "DST"], "weights .*nowhere do not exist"),
    (["export", "NOWHERE", "DST", "--format=llava"], "nowhere does not exist"),
  ],
)
def test_what_cannot_be_asked(tmp_path, source, capsys, arguments, message):
  """Kills: a traceback; a folder half written before the refusal."""
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "x").touch()
  places = {"SRC": source, "DST": tmp_path / "dst", "FULL": tmp_path / "full"}
  places["NOWHERE"] = tmp_path / "nowhere"
  status, said = run(capsys, *[places.get(a, a) for a in arguments])
  assert status == 2
  assert re.search(message, said), said
  assert not (tmp_path / "dst").exists()


def test_a_lone_encoder_is_not_imported_or_exported(tmp_path, capsys):
  """Kills: a RunConfig made up around an encoder."""
  weights = released.draw(released.clip("", released.VIT))
  released.write(tmp_path / "vit", weights, {**released.VIT, "model_type": "clip_vision_model"})
  status, said = run(capsys, "import", tmp_path / "vit", tmp_path / "x")
  assert (status, "is a lone image_encoder, no model to answer with" in said) == (2, True)
  status, said = run(capsys, "export", tmp_path / "vit", tmp_path / "x", "--format=llava")
  assert (status, "is a lone image_encoder, which no format is for" in said) == (2, True)
  with pytest.raises(ValueError, match="is a lone image_encoder - expected a whole model"):
    checkpoint.load_run(tmp_path / "vit")


def test_load_run_opens_both_folders(tmp_path, source):
  """Kills: chat and evaluate that need a training run; a relative tokenizer."""
  convert.import_folder(source, tmp_path / "ours", dtype="bfloat16")
  config, params, folder = checkpoint.load_run(tmp_path / "ours")
  assert (config.stages, folder) == ({}, tmp_path / "ours")
  assert config.data.tokenizer == str(tmp_path / "ours" / "tokenizer.model")
  assert {x.dtype.name for x in jax.tree.leaves(params)} == {"bfloat16"}
  straight, own, _ = checkpoint.load_run(source)
  assert straight.model == config.model
  assert_same(flat(own), flat(convert.load(source).params))


def test_a_stage_starts_from_a_released_folder(tmp_path, source):
  """Kills: a folder taken for a stage's name; landmark modules that start fresh unannounced."""
  video_llava = tmp_path / "video_llava"
  released.write(video_llava, released.draw(released.face_llava("none")), released.FACE_LLAVA, True)
  model = convert.load(source).config.model
  for init_from in (video_llava, tmp_path / "ours"):
    if init_from != video_llava:
      convert.import_folder(video_llava, init_from)
    stage = stages.stage1(4, 8, init_from=str(init_from))
    config = RunConfig(model=model, data=DataConfig(row_length=96), stages={"stage1": stage})
    workdirs.check_sources(config, tmp_path / "work", ["stage1"], False)
    assert workdirs.origin(tmp_path / "work", stage) == str(init_from)
    mesh = make_mesh(MeshConfig(data=8))
    abstract = abstract_state(FaceMLLM(model), stage, mesh)
    got = checkpoint.load_init(tmp_path / "work", stage, abstract)
    targets = flax.traverse_util.flatten_dict(abstract.params, sep="/")
    assert set(got.loaded) | set(got.missing) == set(targets)
    assert {n.split("/")[0] for n in got.missing} == {"fusion", "landmark_projector"}
    for name, x in got.params.items():
      assert (x.dtype, x.sharding) == (targets[name].dtype, targets[name].sharding)
    kernel = convert.load(video_llava).params["projector"]["fc1"]["kernel"]
    np.testing.assert_array_equal(got.params["projector/fc1/kernel"], kernel)
    strict = dataclasses.replace(stage, new=())
    with pytest.raises(ValueError, match="does not fit the model"):
      checkpoint.load_init(tmp_path / "work", strict, abstract)
  other = dataclasses.replace(config, stages={"stage1": stages.stage1(4, 8, str(tmp_path / "no"))})
  with pytest.raises(ValueError, match=r"init_from='.*no': expected .*or a folder of rel"):
    workdirs.check_sources(other, tmp_path / "work", ["stage1"], False)


def test_what_a_format_cannot_hold():
  """Kills: class maps or the paper's fusion lost on the way out."""
  tiny = presets.tiny()
  with pytest.raises(ValueError, match=r"no format has a place for segmentation\.mode='concat'"):
    export_configs.check(tiny, "face_llava")
  plain = dataclasses.replace(tiny, segmentation=type(tiny.segmentation)())
  paper = dataclasses.replace(plain, fusion=dataclasses.replace(plain.fusion, form="paper"))
  with pytest.raises(ValueError, match=r"the released code has no fusion\.form='paper'"):
    export_configs.check(paper, "face_llava")
  still = dataclasses.replace(plain, video=None)
  with pytest.raises(ValueError, match="no place for landmark modules - expected face_llava"):
    export_configs.check(still, "llava")


def test_a_parameter_without_a_name_is_refused(tmp_path, source):
  """Kills: a parameter that export leaves out in silence."""
  got = convert.load(source)
  params = {**got.params, "extra": {"kernel": np.zeros((2, 3))}}
  with pytest.raises(ValueError, match=r"face_llava has no name for extra/kernel \[2, 3\]"):
    convert.export(got.config, params, "face_llava", tmp_path / "x")
  assert not (tmp_path / "x").exists()


def test_an_export_without_a_likeness(tmp_path, source):
  """Kills: a config.json that lacks what the official loader needs."""
  got = convert.load(source)
  convert.export(got.config, got.params, "face_llava", tmp_path / "x", dtype="bfloat16")
  config = json.loads((tmp_path / "x" / "config.json").read_text())
  assert (config["torch_dtype"], config["mm_image_tower"], config["landmarks_projector_type"]) == (
    "bfloat16", "LanguageBind/LanguageBind_Image", "landmarks_region_projector"
  )  # fmt: skip
  assert convert.load(tmp_path / "x").config.model.decoder == got.config.model.decoder
  write_json(tmp_path / "x" / "config.json", {**config, "vocab_size": 23})
  with pytest.raises(ValueError, match=r"lm_head\.weight \[22, 24\]"):
    convert.load(tmp_path / "x")


def test_an_export_brings_its_own_files_and_the_tokenizer(tmp_path, source):
  """Kills: stale companions over what the format writes; a tokenizer that is left behind."""
  like = tmp_path / "like"
  released.write_layout(like, "llava_hf/files")
  (like / "tokenizer.model").write_bytes(b"pieces")
  (like / "generation_config.json").write_text('{"eos_token_id": 77}')
  got = convert.load(source)
  convert.export(got.config, got.params, "face_llava", tmp_path / "x", like=like)
  assert (tmp_path / "x" / "tokenizer.model").read_bytes() == b"pieces"
  said = json.loads((tmp_path / "x" / "generation_config.json").read_text())
  assert said["eos_token_id"] == 2
  convert.export(got.config, got.params, "face_llava", tmp_path / "y")
  assert (tmp_path / "y" / "tokenizer.model").read_bytes() == b"pieces"
