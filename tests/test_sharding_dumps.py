"""Where every parameter of every preset lies, on meshes of pods: tests/goldens/sharding.

python tests/test_sharding_dumps.py    writes them anew; a change shows in the commit
"""

import dataclasses
import pathlib

import pytest
from jax.sharding import AbstractMesh

from facejax import sharding
from facejax.config import SegmentationConfig
from facejax.models import presets
from facejax.models.face_mllm import init_shapes

FOLDER = pathlib.Path(__file__).parent / "goldens/sharding"
MAPS = SegmentationConfig(mode="concat", size=256, grid=16, width=256)
MODELS = {
  "face_llava_7b": presets.face_llava_7b(),
  "llava_15_7b_maps": dataclasses.replace(presets.llava_15_7b(), segmentation=MAPS),
  "internvl3_1b": presets.internvl3_1b(),
  "internvl3_8b": presets.internvl3_8b(),
  "internvl3_38b": presets.internvl3_38b(),
}
# Chips: 256 in one slice, the same by tensor slices, 4 x 128 with split rows, 8. In 256 parts the
# widths of InternVL3-1B (896) and of InternViT-6B (3200) do not divide, nor its 25 heads in 2.
MESHES = {
  "face_llava_7b": [(1, 256, 1, 1), (1, 64, 1, 4), (4, 64, 2, 1), (1, 8, 1, 1)],
  "llava_15_7b_maps": [(1, 256, 1, 1), (1, 64, 1, 4), (1, 8, 1, 1)],
  "internvl3_1b": [(2, 128, 1, 1), (1, 4, 1, 2)],
  "internvl3_8b": [(1, 256, 1, 1), (1, 64, 2, 2), (1, 8, 1, 1)],
  "internvl3_38b": [(2, 128, 1, 1), (1, 64, 2, 1), (1, 16, 1, 1)],
}
CASES = [(model, mesh) for model, meshes in MESHES.items() for mesh in meshes]
REPLICATED = 32e6  # bytes of a device, of 16e9 on the smallest chip


def path(model, mesh):
  return FOLDER / f"{model}-{'x'.join(map(str, mesh))}.txt"


def dump(model, mesh):
  """A line a parameter: name, shape, layout, bytes a device, devices with the same slice."""
  held = sharding.table(init_shapes(MODELS[model]), AbstractMesh(mesh, sharding.MESH_AXES))
  lines = [f"{h.name} {list(h.shape)} {tuple(h.spec)} {h.bytes} x{h.copies}" for h in held]
  return held, "\n".join(lines) + "\n"


@pytest.mark.parametrize(("model", "mesh"), CASES)
def test_layouts_are_those_on_file(model, mesh):
  """Kills: a rule that matches another parameter, an axis that is no longer split, an order of
  mesh axes that moves slices to other chips; and anything large on every device."""
  held, text = dump(model, mesh)
  assert text == path(model, mesh).read_text()
  devices = mesh[0] * mesh[1] * mesh[2] * mesh[3]
  everywhere = sorted((h.bytes, h.name) for h in held if h.copies == devices)
  assert sum(size for size, _ in everywhere) < REPLICATED, everywhere[-3:]
  assert {h.copies for h in held} <= {devices, mesh[0], mesh[0] * mesh[3]}


if __name__ == "__main__":
  FOLDER.mkdir(exist_ok=True)
  for case in CASES:
    path(*case).write_text(dump(*case)[1])
