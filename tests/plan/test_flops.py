"""FLOPs that a step needs, against products counted in its jaxpr; how full rows are."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from conftest import small

from facejax import stages
from facejax.config import ModelConfig, SegmentationConfig
from facejax.data.order import Order
from facejax.fake import fake_batch
from facejax.models import face_mllm, presets
from facejax.models.face_mllm import FaceMLLM
from facejax.plan import flops, mix

FULL = mix.Fill(samples=1, tokens=1.0, pictures=1.0, clips=1.0, pairs=1.0)


def products(jaxpr) -> float:
  """FLOPs of all dot_generals of a jaxpr, loops counted: the slow and independent way."""
  total = 0.0
  for e in jaxpr.eqns:
    if e.primitive.name == "dot_general":
      (contracted, _), _ = e.params["dimension_numbers"]
      left = e.invars[0].aval.shape
      total += 2.0 * math.prod(e.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
    times = e.params["length"] if e.primitive.name == "scan" else 1
    if "branches" in e.params:  # of platforms: each has the same products
      total += max(products(branch.jaxpr) for branch in e.params["branches"])
    inner = [v for v in e.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
    total += times * sum(products(getattr(v, "jaxpr", v)) for v in inner)
  return total


def traced(model: ModelConfig, batch, trainable: tuple[str, ...]) -> float:
  """FLOPs of loss and gradients of the parameters that match, with nothing computed twice."""
  params = face_mllm.init_shapes(model)
  stage = dataclasses.replace(stages.base(1, 1), trainable=trainable)
  train, frozen = stages.split(params, stage)

  def loss(train, frozen):
    total, _ = FaceMLLM(model).apply({"params": stages.merge(train, frozen)}, batch, method="loss")
    return total

  zeros = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
  jaxpr = jax.make_jaxpr(jax.grad(loss))(zeros(train), zeros(frozen))
  optimised, _ = jax.interpreters.partial_eval.dce_jaxpr(
    jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars)
  )
  return products(optimised)


def with_maps(model: ModelConfig) -> ModelConfig:
  """Maps through the picture's encoder, into positions of their own."""
  vit = model.image
  maps = SegmentationConfig("concat", vit.image_size, vit.grid, 3 * vit.width, form="image")
  return dataclasses.replace(model, segmentation=maps)


@pytest.mark.parametrize("maps", [False, True], ids=["pictures", "maps"])
@pytest.mark.parametrize(
  "trainable", [(".*",), (r"(?!(image|video)_encoder/).*",), ("projector/.*",), ("decoder/.*",)]
)
def test_the_count_is_that_of_the_products_that_are_traced(trainable, maps):
  # Kills: a gradient that is not needed counted, one that is needed forgotten, a block behind the
  # selected one, a patch too many; maps that an encoder sees for nothing. The program's attention
  # is over all pairs of a row, ours over half, and it computes its scores once more for the
  # backward pass; the loss its products too.
  model = with_maps(small().model) if maps else small().model
  config = small(model=model)
  rows, L = 2, config.data.row_length
  batch = fake_batch(model, rows, L, images=1)
  stage = dataclasses.replace(config.stages["stage2"], rows=rows, trainable=trainable)
  train, _ = stages.split(face_mllm.init_shapes(model), stage)
  parts = flops.count(model, config.data, stage, train, FULL)
  d, vit = model.decoder, model.image
  ours = sum(part.total for part in parts.values())
  pairs = 2.0 * d.layers * d.heads * d.head_width * L * L * rows
  ours += parts["attention"].total  # the half above the diagonal
  ours += pairs * (parts["attention"].backward > 0)  # scores again
  scores = 2.0 * (vit.grid**2 + 1) ** 2 * vit.width * rows * (1 + maps)
  ours += scores * (parts["image_encoder"].backward > 0)
  theirs = traced(model, batch, trainable)
  assert theirs == pytest.approx(ours, rel=0.08)


def test_six_flops_a_parameter_and_token():
  # Kills: an embedding counted as a product, the head forgotten, two FLOPs taken for one.
  model = presets.face_llava_7b()
  config = small(model=model)
  data = dataclasses.replace(config.data, row_length=4352, images_per_row=6, videos_per_row=1)
  stage = stages.stage2(steps=1, rows=3)
  train, _ = stages.split(face_mllm.init_shapes(model), stage)
  parts = flops.count(model, data, stage, train, FULL)
  decoder = parts["decoder"].total + parts["head"].total
  assert decoder == 6 * flops.decoder_parameters(model) * 3 * 4352
  assert flops.decoder_parameters(model) == 6_607_077_376
  assert parts["image_encoder"].backward == parts["video_encoder"].backward == 0
  first = dataclasses.replace(stage, trainable=(r"(landmark_projector|fusion)/.*",))
  train, _ = stages.split(face_mllm.init_shapes(model), first)
  frozen = flops.count(model, data, first, train, FULL)
  assert frozen["decoder"].total == pytest.approx(parts["decoder"].total * 2 / 3)
  assert frozen["projector"].backward == 0


def test_half_the_positions_are_half_the_useful_flops():
  # Kills: padding, or an empty picture slot, counted as useful.
  config = small()
  stage = config.stages["stage2"]
  train, _ = stages.split(face_mllm.init_shapes(config.model), stage)
  half = dataclasses.replace(FULL, tokens=0.5, pictures=0.25, pairs=0.125)
  full, less = (flops.count(config.model, config.data, stage, train, f) for f in (FULL, half))
  assert less["decoder"].total == full["decoder"].total
  assert less["decoder"].useful == 0.5 * full["decoder"].total
  assert less["image_encoder"].useful == 0.25 * full["image_encoder"].total
  assert less["attention"].total == less["attention"].useful == 0.125 * full["attention"].total


def test_the_fill_of_rows_is_that_of_their_samples(monkeypatch):
  # Kills: clips in rows that hold none, a row's squares summed before they are squared.
  config = small()
  data = dataclasses.replace(config.data, row_length=700, images_per_row=3)
  model = dataclasses.replace(
    config.model, image=dataclasses.replace(config.model.image, image_size=48)
  )
  rows = []
  original = Order.row
  monkeypatch.setattr(Order, "row", lambda self, i: rows.append(original(self, i)) or rows[-1])
  fill = mix.measure(model, data)
  visual = 12 * 12
  sizes = mix._samples(visual, 0, mix.VisualTable(model, 3, 0))
  lengths = [[int(sizes[p.number][0]) for p in row] for row in rows]
  assert fill.clips == 0 and fill.samples == np.mean([len(r) for r in lengths])
  assert fill.tokens == pytest.approx(np.mean([sum(r) for r in lengths]) / 700)
  assert fill.pairs == pytest.approx(np.mean([sum(n * n for n in r) for r in lengths]) / 700**2)
  assert min(min(r) for r in lengths) > visual + 35


def test_tiles_that_no_sample_joins_are_left_out(monkeypatch):
  # Kills: a tile joined by two samples left out, padding taken for part of the last sample.
  config = small()
  data = dataclasses.replace(config.data, row_length=60)
  monkeypatch.setattr(mix, "_rows", lambda *a: [[np.array([15]), np.array([20])]])
  ids = np.repeat([0, 1, 2], [15, 20, 29])  # 64 positions in 8 tiles of 8
  tiles = [set(range(ids[8 * i], ids[8 * i + 7] + 1)) for i in range(8)]
  run = sum(bool(tiles[i] & tiles[j]) for i in range(8) for j in range(i + 1))
  assert mix.tiles(config.model, data, 8) == pytest.approx(run / 36)
