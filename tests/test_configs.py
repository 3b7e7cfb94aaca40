"""Every file of configs/: builds, has layouts for its parameters and trains what it says."""

import math
import re
from pathlib import Path

import flax.traverse_util
import jax
import pytest

from facejax import config_io, lora, stages
from facejax.config import LoraConfig, MeshConfig, OptimConfig
from facejax.models import face_mllm
from facejax.sharding import make_mesh, param_shardings

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
COUNTS = {
  "demo": 2_259_840, "demo_base": 2_259_840, "demo_lora": 2_259_840, "face_llava_7b": 7_551_840_256,
  "facellm_1b": 938_193_024, "facellm_8b": 7_944_373_760, "facellm_38b": 38_388_164_992,
  "faceinsight_7b": 7_184_715_369, "demo_faceinsight": 2_259_879,
}  # fmt: skip


def count(tree) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds(path):
  """Kills: a config left behind by a rename, a preset of another size, an idle stage."""
  config = config_io.load(path)
  shapes = face_mllm.init_shapes(config.model)
  assert count(shapes) == COUNTS[path.stem]
  mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  assert len(jax.tree.leaves(param_shardings(shapes, mesh))) == len(jax.tree.leaves(shapes))
  for stage in config.stages.values():
    whole = lora.with_adapters(shapes, stage.lora)
    trainable, frozen = stages.split(whole, stage)
    assert count(trainable) + count(frozen) == count(whole) and count(trainable) > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_opens_with_its_command(path):
  """Kills: a config whose command names another file."""
  text = path.read_text()
  assert text.startswith('"""')
  commands = re.findall(r"--config ([\w./]+)", text)
  assert all((path.parents[1] / c).is_file() for c in commands)
  assert commands or "python experiments/" in text


def test_face_llava_stages_train_what_the_paper_trains():
  """85,078,016 face parameters in stage 1, all but both encoders in stage 2 (released scripts)."""
  config = config_io.load(next(f for f in FILES if f.stem == "face_llava_7b"))
  shapes = face_mllm.init_shapes(config.model)
  first, _ = stages.split(shapes, config.stages["stage1"])
  second, frozen = stages.split(shapes, config.stages["stage2"])
  assert count(first) == 593_920 + 561_152 + 83_922_944
  assert count(frozen) == 303_179_776 + 404_187_136
  names = {n.split("/")[0] for n in flax.traverse_util.flatten_dict(second, sep="/")}
  assert names == {"projector", "landmark_projector", "fusion", "decoder"}


@pytest.mark.parametrize(
  ("size", "trained", "rows", "steps"),
  [("1b", 8_798_208, 80, 1096), ("8b", 40_370_176, 80, 1096), ("38b", 134_217_728, 12, 7303)],
)
def test_facellm_is_trained_as_its_script_does(size, trained, rows, steps):
  """Kills: another batch or number of steps (7303 is the released checkpoint's name), a warm-up."""
  config = config_io.load(next(f for f in FILES if f.stem == f"facellm_{size}"))
  stage = config.stages["lora"]
  assert stage.optim == OptimConfig(1e-5, 0.0, "cosine", 0.9, 0.999, 1e-8, 0.0, clip_norm=1.0)
  assert (stage.rows, stage.steps, stage.lora) == (rows, steps, LoraConfig(16, 32.0))
  whole = lora.with_adapters(face_mllm.init_shapes(config.model), stage.lora)
  assert count(stages.split(whole, stage)[0]) == trained
  data = config.data
  assert (data.row_length, data.images_per_row, data.max_tiles) == (2048, 1, 1)
  assert (data.template, data.resize, data.sources) == ("internvl_system", "stretch", ("llava",))


@pytest.mark.parametrize("size", ["1b", "8b", "38b"])
def test_facellm_tiles(size):
  """Kills: an option that is not read; rows that cannot hold the tiles of one picture."""
  file = next(f for f in FILES if f.stem == f"facellm_{size}")
  one, several = (config_io.load(f"{file}:{name}") for name in ("one_tile", "multi_tile"))
  assert one == config_io.load(file) and one.data.max_tiles == 1
  assert several.data.max_tiles == 12 and several.model == one.model
  assert several.data.images_per_row == 12 + 1
  assert 13 * several.model.tokens("image") < several.data.row_length
  with pytest.raises(ValueError, match=r"no option 'tiles': expected one_tile, multi_tile"):
    config_io.load(f"{file}:tiles")
