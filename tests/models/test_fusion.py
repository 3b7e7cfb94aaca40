"""Landmark projector, projector, both fusions and the map stream against loops."""

import dataclasses

import jax
import jax.numpy as jnp
import model_reference as reference
import numpy as np
import pytest

from facejax.config import FusionConfig, MeshConfig, SegmentationConfig
from facejax.faces import synthetic
from facejax.faces.landmarks import shapes
from facejax.models.fusion import FUSIONS, proximity
from facejax.models.landmark_projector import LandmarkProjector
from facejax.models.projector import Projector
from facejax.models.segmentation_stream import SegmentationEncoder, add_maps, class_shares
from facejax.sharding import make_mesh, param_shardings

B, T, D = 2, 3, 20
CONFIG = FusionConfig(heads=4, branch_scale=0.37)
DRAW = np.random.default_rng(5)


def inputs(tokens):
  array = lambda *shape: jnp.asarray(DRAW.normal(size=shape), jnp.float32)
  landmarks = jnp.asarray(DRAW.random((B, T, 68, 2)), jnp.float32)
  present = jnp.arange(B * T).reshape(B, T) % 3 > 0
  return array(B, T, tokens, D), array(B, T, 9, D), landmarks, present


@pytest.mark.parametrize("tokens", [16, 17])
@pytest.mark.parametrize(
  ("form", "grid"), [("released", "xy"), ("masked", "xy"), ("masked", "yx"), ("paper", "xy")]
)
def test_fusion_equals_a_loop(form, grid, tokens, randomise):
  # Kills: the residual or branch scale left out, the outer norm applied, x and y swapped, a mask of
  # the other sign, a class token with a distance, weights of another head order, a distance for
  # its softmax, a switch of the axes that does nothing.
  args = inputs(tokens)
  module = FUSIONS[form](dataclasses.replace(CONFIG, form=form, grid=grid))
  p = randomise(jax.eval_shape(module.init, jax.random.key(0), *args)["params"])
  fused, out = module.apply({"params": p}, *args)
  assert out["weights"].shape == (B, T, CONFIG.heads, tokens, 9)
  for b, t in np.ndindex(B, T):
    patches, regions, landmarks = (np.asarray(x[b, t], np.float64) for x in args[:3])
    if not args[3][b, t]:
      continue
    if form == "released":
      want, weights = reference.released_fusion(p, patches, regions, CONFIG)
    elif form == "masked":
      want, weights = reference.masked_fusion(p, patches, regions, landmarks, module.config)
    else:
      want, weights = reference.paper_fusion(p, patches, regions, landmarks, CONFIG)
    np.testing.assert_allclose(fused[b, t], want, atol=1e-5)
    np.testing.assert_allclose(out["weights"][b, t], weights, atol=1e-5)


def test_the_masked_form_has_the_released_parameters():
  # Kills: an output projection, biases left out, another name, a parameter without a layout.
  shapes = jax.eval_shape(
    FUSIONS["masked"](dataclasses.replace(CONFIG, form="masked")).init,
    jax.random.key(0),
    *inputs(16),
  )["params"]
  names = {
    jax.tree_util.keystr(p, simple=True, separator="/"): x.shape
    for p, x in jax.tree_util.tree_leaves_with_path(shapes)
  }
  dense = {
    f"{n}/{part}": (D, D)[: 2 - (part == "bias")]
    for n in ("attention/q", "attention/k", "attention/v", "linear")
    for part in ("kernel", "bias")
  }
  norms = {f"{n}/{part}": (D,) for n in ("norm", "outer_norm") for part in ("scale", "bias")}
  assert names == dense | norms
  shardings = param_shardings({"fusion": shapes}, make_mesh(MeshConfig(data=4, fsdp=2)))
  assert not shardings["fusion"]["attention"]["v"]["kernel"].is_fully_replicated


def test_fusion_settings_that_contradict_are_refused():
  # Kills: either check; a swap that is silently not done.
  with pytest.raises(ValueError, match=r"FusionConfig.form is 'maskd'.*did you mean 'masked'"):
    FusionConfig(form="maskd")
  with pytest.raises(ValueError, match=r"FusionConfig.grid is 'zx', expected one of xy, yx"):
    FusionConfig(grid="zx")
  with pytest.raises(ValueError, match=r"grid='yx' with form='paper'"):
    FusionConfig(form="paper", grid="yx")


@pytest.mark.parametrize("form", ["released", "masked", "paper"])
def test_absent_landmarks_change_nothing(form, randomise):
  # Kills: adding zero times the branch; NaN of an absent frame in a gradient.
  patches, regions, landmarks, present = inputs(16)
  hole = present[:, :, None, None]
  regions, landmarks = (jnp.where(hole, x, jnp.nan) for x in (regions, landmarks))
  module = FUSIONS[form](dataclasses.replace(CONFIG, form=form))
  shapes = jax.eval_shape(module.init, jax.random.key(0), patches, regions, landmarks, present)
  p = randomise(shapes["params"])
  run = lambda p, x: module.apply({"params": p}, x, regions, landmarks, present)[0]
  fused = run(p, patches)
  np.testing.assert_array_equal(fused[~present], patches[~present])
  assert (jnp.abs(fused - patches).max(axis=(2, 3)) > 1e-3)[present].all()
  grads = jax.grad(lambda p, x: jnp.sum(run(p, x) ** 2), (0, 1))(p, patches)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_proximity_has_a_finite_slope_where_it_is_zero():
  # Kills: a square root at zero.
  landmarks = jnp.full((1, 1, 68, 2), 0.5)  # every centroid on the centre of the one patch
  value, slope = jax.value_and_grad(lambda x: proximity(x, 1).sum())(landmarks)
  assert value == 0 and np.isfinite(slope).all()


def test_proximity_refuses_other_grids():
  # Kills: the check.
  with pytest.raises(ValueError, match="15 tokens a frame"):
    proximity(jnp.zeros((1, 1, 68, 2)), 15)


def test_projectors_equal_a_loop(randomise):
  # Kills: regions in another order or range, (y, x), no global token, no GELU.
  landmarks = jnp.asarray(DRAW.random((B, T, 68, 2)), jnp.float32)
  module = LandmarkProjector(D)
  p = randomise(jax.eval_shape(module.init, jax.random.key(0), landmarks)["params"])
  got = module.apply({"params": p}, landmarks)
  for b, t in np.ndindex(B, T):
    want = reference.region_tokens(p, np.asarray(landmarks[b, t], np.float64))
    np.testing.assert_allclose(got[b, t], want, atol=1e-5)
  x = jnp.asarray(DRAW.normal(size=(B, T, 4, 7)), jnp.float32)
  p = randomise(jax.eval_shape(Projector(D).init, jax.random.key(0), x)["params"])
  want = reference.linear(p["fc2"], reference.gelu(reference.linear(p["fc1"], np.asarray(x))))
  np.testing.assert_allclose(Projector(D).apply({"params": p}, x), want, atol=1e-5)


def test_landmarks_stay_float32_in_a_bfloat16_model():
  # Kills: coordinates rounded to 8 bits: 0.5 and 0.5005 would give the same token.
  module = LandmarkProjector(D, dtype=jnp.bfloat16)
  at = lambda c: jnp.full((1, 1, 68, 2), c, jnp.float32)
  p = module.init(jax.random.key(0), at(0.5))
  p = jax.tree.map(lambda x: x * 4096, p)
  assert not (module.apply(p, at(0.5)) == module.apply(p, at(0.5005))).all()


SEG = SegmentationConfig(mode="concat", size=6, grid=3, width=11, classes=5)


@pytest.mark.parametrize("mode", ["concat", "add"])
def test_segmentation_equals_a_loop(mode, randomise):
  # Kills: cells column by column, a sum for a share, an id outside the classes counted.
  cfg = dataclasses.replace(SEG, mode=mode)
  maps = jnp.asarray(DRAW.integers(0, 7, (B, T, 6, 6), np.uint8))
  module = SegmentationEncoder(cfg, D)
  p = randomise(jax.eval_shape(module.init, jax.random.key(0), maps)["params"])
  got = module.apply({"params": p}, maps)
  for b, t in np.ndindex(B, T):
    want = reference.segmentation_tokens(p, np.asarray(maps[b, t]), cfg)
    np.testing.assert_allclose(got[b, t], want, atol=1e-5)


def test_a_fresh_add_module_changes_nothing():
  # Kills: a last layer that does not start at zero.
  maps = jnp.asarray(DRAW.integers(0, 5, (B, T, 6, 6), np.uint8))
  for mode, zero in (("add", True), ("concat", False)):
    module = SegmentationEncoder(dataclasses.replace(SEG, mode=mode), D)
    tokens = module.apply(module.init(jax.random.key(0), maps), maps)
    assert bool((tokens == 0).all()) == zero


@pytest.mark.parametrize("front", [0, 1])
def test_add_maps(front):
  # Kills: the class token touched, absent maps added, present ones not.
  tokens, maps = (jnp.asarray(DRAW.normal(size=(B, T, n, D)), jnp.float32) for n in (9 + front, 9))
  present = jnp.arange(B * T).reshape(B, T) % 2 > 0
  got = add_maps(tokens, jnp.where(present[..., None, None], maps, jnp.nan), present)
  np.testing.assert_array_equal(got[~present], tokens[~present])
  np.testing.assert_array_equal(got[:, :, :front], tokens[:, :, :front])
  np.testing.assert_array_equal(got[present][:, front:], (tokens[:, :, front:] + maps)[present])


def test_class_shares_never_hold_a_one_hot_map():
  # Kills: a one-hot map in memory: 4 * 19 bytes a pixel.
  maps = jax.ShapeDtypeStruct((4, 1, 224, 224), jnp.uint8)
  shares = jax.jit(class_shares, static_argnums=(1, 2)).lower(maps, 16, 19).compile()
  assert shares.memory_analysis().temp_size_in_bytes < 4 * 224 * 224 * 8


def test_maps_of_another_size_are_refused():
  # Kills: the check.
  with pytest.raises(ValueError, match=r"maps of 8x8 pixels, expected 6x6"):
    SegmentationEncoder(SEG, D).init(jax.random.key(0), jnp.zeros((1, 1, 8, 8), jnp.uint8))


def test_whitened_landmark_projectors_hear_faces_and_not_noise():
  # Kills: kernels that are not whitened (head position fills 62 % of every token), statistics of
  # another point order, a mean that is not taken out, gains that grow where faces do not vary.
  points = lambda seed: synthetic.face(seed, size=64, split="validation").landmarks / 64
  landmarks = jnp.asarray(np.stack([points(seed) for seed in range(200)]), jnp.float32)[:, None]
  module = LandmarkProjector(96, fresh="whitened")
  p = module.init(jax.random.key(0), landmarks)
  tokens = np.asarray(module.apply(p, landmarks))[:, 0]
  mean = module.apply(p, jnp.asarray(shapes().mean).reshape(1, 1, 68, 2))
  np.testing.assert_allclose(mean, 0, atol=1e-3)
  noise = np.random.default_rng(0).normal(0, 0.0014, landmarks.shape).astype(np.float32)
  heard = np.asarray(module.apply(p, landmarks + noise))[:, 0] - tokens
  for region in range(tokens.shape[1]):
    own = tokens[:, region] - tokens[:, region].mean(0)
    assert 1 < own.std() < 2  # about 1 of the region and 1 of the whole face
    strengths = np.linalg.svd(own, compute_uv=False) ** 2
    assert strengths[0] / strengths.sum() < 0.3
    assert heard[:, region].std() < 0.3 * own.std()


def test_a_way_along_the_mean_is_heard_too():
  # Kills: centring by projection, which deletes how far a face is from the corner of the crop.
  module = LandmarkProjector(96, fresh="whitened")
  at = lambda scale: jnp.asarray(shapes().mean * scale, jnp.float32).reshape(1, 1, 68, 2)
  p = module.init(jax.random.key(0), at(1.0))
  assert float(jnp.abs(module.apply(p, at(1.05))).mean()) > 0.05


def test_fresh_landmark_projectors_do_not_depend_on_the_mesh():
  # Kills: other numbers on another mesh than rounding makes (one in the last of 24 bits).
  mesh = make_mesh(MeshConfig(fsdp=8, data=1))
  module = LandmarkProjector(96, fresh="whitened")
  draw = lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, 68, 2)))["params"]
  tree = {"landmark_projector": jax.eval_shape(draw)}
  layout = param_shardings(tree, mesh)["landmark_projector"]
  split = jax.jit(draw, out_shardings=layout)()
  for one, many in zip(jax.tree.leaves(jax.jit(draw)()), jax.tree.leaves(split), strict=True):
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-4)  # kernels reach 90
