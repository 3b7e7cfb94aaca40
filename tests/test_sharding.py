"""One table for every parameter, and errors that name what does not fit."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from facejax.config import LabelsConfig, MeshConfig, ModelConfig
from facejax.fake import fake_batch
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM, init_shapes
from facejax.models.presets import demo, face_llava_7b, tiny
from facejax.sharding import (
  MESH_AXES,
  PARAM_AXES,
  AxisRules,
  batch_sharding,
  constrain,
  make_mesh,
  param_shardings,
)


def names(tree):
  paths = jax.tree_util.tree_leaves_with_path(tree)
  return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


@pytest.fixture(scope="module")
def seven_b():
  return init_shapes(face_llava_7b())


def test_every_rule_is_used_by_a_preset(seven_b):
  # Kills: a rule whose parameter was renamed away.
  labels = dataclasses.replace(tiny(), labels=LabelsConfig())
  others = (demo(512), tiny(), presets.internvl3_1b(), labels)
  every = [*names(seven_b), *(name for config in others for name in names(init_shapes(config)))]
  first = lambda name: next(i for i, (p, _) in enumerate(PARAM_AXES) if re.fullmatch(p, name))
  assert {first(name) for name in every} == set(range(len(PARAM_AXES)))


def test_seven_b_layout(seven_b):
  # Kills: heads and width swapped, a scanned axis split, a large matrix on every device.
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  got = param_shardings(seven_b, mesh)
  blocks = got["decoder"]["blocks"]
  assert blocks["attention"]["q"]["kernel"].spec == P(None, ("fsdp", "context"), "tensor")
  assert blocks["attention"]["out"]["kernel"].spec == P(None, "tensor", ("fsdp", "context"))
  assert blocks["down"]["kernel"].spec == P(None, "tensor", ("fsdp", "context"))
  assert got["decoder"]["embedding"].spec == P("tensor", ("fsdp", "context"))
  assert got["decoder"]["norm"]["scale"].spec == P()
  assert got["video_encoder"]["rest"]["fc1"]["kernel"].spec == P(
    None, ("fsdp", "context"), "tensor"
  )
  assert got["landmark_projector"]["face"]["kernel"].spec == P(None, ("fsdp", "context"))
  copied = lambda s, x: x.size * 4 if s.is_fully_replicated else 0
  leaves = zip(jax.tree.leaves(got), jax.tree.leaves(seven_b), strict=True)
  assert sum(copied(s, x) for s, x in leaves) < 32e6


@pytest.fixture(scope="module", params=["internvl3_1b", "internvl3_8b", "internvl3_38b"])
def internvl3(request):
  config = getattr(presets, request.param)()
  return request.param, config, init_shapes(config)


def test_internvl3_on_eight_devices(internvl3):
  # Kills: a parameter of the biases, scales and norms without a line; a large one on every device.
  _, _, shapes = internvl3
  got = param_shardings(shapes, make_mesh(MeshConfig(data=1, fsdp=8)))
  encoder, projector = got["image_encoder"]["blocks"], got["projector"]
  assert encoder["attention_scale"].spec == encoder["mlp_scale"].spec == P()
  assert encoder["attention"]["q"]["kernel"].spec == P(None, ("fsdp", "context"), "tensor")
  assert projector["fc1"]["kernel"].spec == P(("fsdp", "context"), "tensor")
  copied = lambda s, x: x.size * 4 if s.is_fully_replicated else 0
  leaves = zip(jax.tree.leaves(got), jax.tree.leaves(shapes), strict=True)
  copies = [copied(s, x) for s, x in leaves]
  assert max(copies) < 14e6 and sum(copies) < 40e6


def test_internvl3_in_slices_of_heads(internvl3):
  # Kills: an axis left whole in silence; an error that does not say how far the axis divides. The
  # vocabulary of 151,674 is twice an odd number; InternViT-6B has 25 heads.
  name, config, shapes = internvl3
  for tensor in (4, 8):
    with pytest.raises(ValueError) as error:
      param_shardings(shapes, make_mesh(MeshConfig(data=1, fsdp=-1, tensor=tensor)))
    for path in (r"decoder/embedding \[151674, \d+\]: axis 0", r"decoder/head/kernel .*: axis 1"):
      problem = rf"{path} of size 151674 .* {tensor} parts along \('tensor',\), but into 2;"
      assert re.search(problem, str(error.value))
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  param_shardings(shapes, mesh)
  batch = fake_batch(config, rows=4, row_length=260)
  with jax.set_mesh(mesh):
    run = lambda: jax.eval_shape(lambda p: FaceMLLM(config).apply({"params": p}, batch), shapes)
    if name == "internvl3_38b":
      with pytest.raises(ValueError, match=r"\[4, 1025, 25, 128\]: .* 2 parts .*, but into 1;"):
        run()
    else:
      assert run().shape == (4, 260, 151_674)


def test_fewer_key_heads_than_slices_are_refused():
  # Kills: a head cut in two, which the kernel's own width, 2 x 12, would allow.
  decoder = dataclasses.replace(
    tiny().decoder, vocab=64, heads=4, kv_heads=2, head_width=12, mlp=32
  )
  config = ModelConfig(image=tiny().image, decoder=decoder)
  mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=4))
  batch = fake_batch(config, rows=2, row_length=12, images=0)
  shapes = init_shapes(config)
  kernel = shapes["decoder"]["blocks"]["attention"]["k"]["kernel"]
  assert kernel.shape[-1] % 4 == 0
  with (
    jax.set_mesh(mesh),
    pytest.raises(
      ValueError, match=r"'kv_heads', 'length', None\) of shape \[2, 2, 12, 12\]: axis 1 of size 2"
    ),
  ):
    jax.eval_shape(lambda p: FaceMLLM(config).apply({"params": p}, batch), shapes)


def test_errors_name_every_parameter():
  # Kills: an error that stops at the first, a catch-all rule, a dimension dropped in silence.
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  tree = {"decoder": {"head": {"kernel": jnp.ones((8, 7))}, "lost": jnp.ones(3)}, "x": jnp.ones(2)}
  with pytest.raises(ValueError) as error:
    param_shardings(tree, mesh)
  assert "decoder/lost [3]: no line of sharding.PARAM_AXES" in str(error.value)
  assert "x [2]: no line" in str(error.value)
  assert re.search(r"decoder/head/kernel \[8, 7\]: axis 1 of size 7 .* 2 parts", str(error.value))
  flat = {"decoder": {"head": {"kernel": jnp.ones(8)}}}
  with pytest.raises(ValueError, match=r"head/kernel \[8\]: the layout .* has 2 axes"):
    param_shardings(flat, mesh)


def test_rules():
  # Kills: a typo that means "replicate"; two dimensions on one mesh axis.
  with pytest.raises(AttributeError, match="hedas"):
    AxisRules().spec("hedas")
  with pytest.raises(ValueError, match="used twice"):
    AxisRules(width="tensor").spec("width", "heads")


def test_constrain():
  # Kills: a constraint that does nothing under a mesh; one that fails without a mesh.
  rules, x = AxisRules(), jnp.ones((8, 6))
  assert constrain(x, rules, "batch", "heads") is x
  with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
    got = jax.jit(lambda x: constrain(x, rules, "batch", "heads"))(x)
    assert got.sharding.spec == P(("data", "fsdp"), "tensor")
    with pytest.raises(ValueError, match=r"shape \[8, 5\]: axis 1 of size 5 .* 2 parts"):
      constrain(x[:, :5], rules, "batch", "heads")


def sizes(mesh):
  return tuple(mesh.shape.values())


def test_make_mesh():
  # Kills: -1 not resolved; devices left over in silence; explicit axes; axes in another order.
  assert MESH_AXES == ("data", "fsdp", "context", "tensor")
  assert sizes(make_mesh(MeshConfig(context=2, tensor=2))) == (2, 1, 2, 2)
  mesh = make_mesh(MeshConfig(data=1, fsdp=-1), jax.devices()[:3])
  assert mesh.axis_names == MESH_AXES and sizes(mesh) == (1, 3, 1, 1)
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
  assert batch_sharding(mesh).spec == P(("data", "fsdp"))
  for bad in (MeshConfig(tensor=3), MeshConfig(data=-1, fsdp=-1), MeshConfig(data=9, tensor=0)):
    with pytest.raises(ValueError, match=r"does not fit 8 devices"):
      make_mesh(bad)
