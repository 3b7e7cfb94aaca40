"""The vision encoder against a loop over pixels, tokens and heads."""

import dataclasses

import internvl_reference
import jax
import jax.numpy as jnp
import model_reference as reference
import numpy as np
import pytest

from facejax.config import MeshConfig, VitConfig
from facejax.models.presets import tiny
from facejax.models.vit import Vit, normalise, patchify
from facejax.sharding import batch_sharding, make_mesh, param_shardings


def pixels(cfg, clips, frames):
  shape = (clips, frames, cfg.image_size, cfg.image_size, 3)
  return jnp.asarray(np.random.default_rng(3).integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize("change", [{}, {"activation": "quick_gelu"}, {"select_layer": -1}])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_equals_a_loop(kind, change, randomise):
  # Kills: patches or pixels column by column, an early or late layer, the class token kept or
  # dropped, temporal attention over tokens, its embedding outside the residual, frames mixed.
  cfg = dataclasses.replace(getattr(tiny(), kind), **change)
  x = pixels(cfg, 3, cfg.frames or 1)
  params = randomise(jax.eval_shape(Vit(cfg).init, jax.random.key(0), x)["params"])
  features, out = jax.jit(Vit(cfg).apply)({"params": params}, x)
  for clip in range(3):
    states, final = reference.vit_hidden_states(params, np.asarray(x[clip]), cfg)
    want = states[cfg.select_layer]
    np.testing.assert_allclose(out["embeddings"][clip], states[0], atol=1e-5)
    np.testing.assert_allclose(out["selected"][clip], want, atol=2e-5)
    np.testing.assert_allclose(out["final"][clip], final, atol=2e-5)
    np.testing.assert_array_equal(
      features, out["selected"] if cfg.tokens == "all" else out["selected"][:, :, 1:]
    )


def test_blocks_behind_the_selected_one_cost_nothing(randomise):
  # Kills: features computed from the last block; unused blocks that survive in the program.
  cfg = dataclasses.replace(tiny().image, layers=19, select_layer=-10)  # 10 used, 9 not: loops
  x = pixels(cfg, 2, 1)
  params = randomise(jax.eval_shape(Vit(cfg).init, jax.random.key(0), x)["params"])
  run = jax.jit(lambda p: Vit(cfg).apply({"params": p}, x)[0])
  broken = {**params, "rest": jax.tree.map(lambda a: a * np.nan, params["rest"])}
  np.testing.assert_array_equal(run(broken), run(params))
  loops = lambda f: f.lower(params).compile().as_text().count(" while(")
  whole = jax.jit(lambda p: Vit(cfg).apply({"params": p}, x))
  assert loops(whole) == loops(run) + 1


def test_patches_are_a_torch_convolution():
  # Kills: another order of (row, column, channel) than the docstring's.
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 6, 6, 3)), jnp.float32)
  weight = np.random.default_rng(1).normal(size=(5, 3, 2, 2)).astype(np.float32)
  got = patchify(x, 2).reshape(9, -1) @ weight.transpose(2, 3, 1, 0).reshape(-1, 5)
  want = jax.lax.conv(x[0].transpose(0, 3, 1, 2), weight, (2, 2), "VALID")[0]
  np.testing.assert_allclose(got, want.reshape(5, 9).T, atol=1e-5)


INTERN = VitConfig(
  image_size=12,
  patch=4,
  width=20,
  layers=3,
  heads=5,
  mlp=28,
  select_layer=-1,
  eps=1e-3,  # large enough to see
  layout="intern",
  statistics="imagenet",
)
SIX_B = {"norm": "rms", "qkv_bias": False, "qk_norm": True}


@pytest.mark.parametrize(
  "change", [{}, SIX_B, {"tokens": "all", "select_layer": -2}, {"frames": 2}]
)
def test_intern_equals_a_loop(change, randomise):
  # Kills: a norm before or behind the blocks, a scale left out or on the other branch, the patch
  # bias lost, CLIP's statistics, queries normed head by head, values normed, the class token kept.
  cfg = dataclasses.replace(INTERN, **change)
  x = pixels(cfg, 2, cfg.frames or 3)
  params = randomise(jax.eval_shape(Vit(cfg).init, jax.random.key(0), x)["params"])
  features, out = jax.jit(Vit(cfg).apply)({"params": params}, x)
  for clip in range(2):
    states = internvl_reference.vit_hidden_states(params, np.asarray(x[clip]), cfg)
    want = states[cfg.select_layer]
    np.testing.assert_allclose(out["embeddings"][clip], states[0], atol=1e-5)
    np.testing.assert_allclose(out["final"][clip], states[-1], atol=5e-5)
    np.testing.assert_allclose(
      features[clip], want if cfg.tokens == "all" else want[:, 1:], atol=5e-5
    )


def test_a_norm_over_heads_on_several_devices(randomise):
  # Kills: queries normed over a device's own heads.
  cfg = dataclasses.replace(INTERN, heads=4, **SIX_B)
  x = pixels(cfg, 4, 1)
  params = randomise(jax.eval_shape(Vit(cfg).init, jax.random.key(0), x)["params"])
  run = jax.jit(lambda p, x: Vit(cfg).apply({"params": p}, x)[0])
  want = run(params, x)
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  with jax.set_mesh(mesh):
    shardings = param_shardings({"image_encoder": params}, mesh)["image_encoder"]
    got = run(jax.device_put(params, shardings), jax.device_put(x, batch_sharding(mesh)))
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_parameters_of_both_intern_sizes():
  # Kills: a parameter renamed, one too many (a bias of q in 6B), a fresh scale other than 0.1.
  for change, norms in (({}, {"scale", "bias"}), (SIX_B, {"scale"})):
    cfg = dataclasses.replace(INTERN, **change)
    init = lambda cfg=cfg: Vit(cfg).init(jax.random.key(0), pixels(cfg, 1, 1))["params"]
    params = jax.eval_shape(init)
    assert set(params) == {"class_embedding", "positions", "patch", "blocks"}
    assert set(params["patch"]) == {"kernel", "bias"}
    blocks = params["blocks"]
    dense = {"attention_scale", "mlp_scale", "fc1", "fc2", "attention"}
    assert set(blocks) == {"attention_norm", "mlp_norm"} | dense
    assert set(blocks["mlp_norm"]) == set(blocks["attention_norm"]) == norms
    for name in ("attention_scale", "mlp_scale"):
      fresh = jax.jit(lambda init=init, name=name: init()["blocks"][name])()
      np.testing.assert_array_equal(fresh, np.full((3, 20), np.float32(0.1)))
    attention = blocks["attention"]
    assert set(attention["q"]) == ({"kernel", "bias"} if cfg.qkv_bias else {"kernel"})
    assert set(attention["out"]) == {"kernel", "bias"}
    assert set(attention) - {"q", "k", "v", "out"} == (
      {"q_norm", "k_norm"} if cfg.qk_norm else set()
    )


def test_normalise():
  # Kills: 256 for 255, mean and deviation swapped, blue first, another table than the named one.
  got = normalise(jnp.array([[255, 0, 51]], jnp.uint8))[0]
  want = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (0.2 - 0.40821073) / 0.27577711]
  np.testing.assert_allclose(got, want, atol=1e-6)
  got = normalise(jnp.array([[255, 0, 51]], jnp.uint8), "imagenet")[0]
  want = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_normalised_pixels_are_taken_as_they_are(randomise):
  # Kills: normalising twice.
  cfg = tiny().image
  x = pixels(cfg, 1, 1)
  params = {"params": randomise(jax.eval_shape(Vit(cfg).init, jax.random.key(0), x)["params"])}
  got, want = Vit(cfg).apply(params, normalise(x))[0], Vit(cfg).apply(params, x)[0]
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_refusals():
  # Kills: either check.
  cfg = tiny().video
  with pytest.raises(ValueError, match="pictures of 12x12 pixels, expected 8x8"):
    Vit(cfg).init(jax.random.key(0), jnp.zeros((1, 2, 12, 12, 3), jnp.uint8))
  with pytest.raises(ValueError, match=r"clips of 3 frames.*made for 2"):
    Vit(cfg).init(jax.random.key(0), jnp.zeros((1, 3, 8, 8, 3), jnp.uint8))
