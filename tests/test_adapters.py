"""Adapters and quantised kernels against NumPy: numbers, gradients, layouts, counts, refusals."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from jax.sharding import PartitionSpec as P

from facejax import lora, quantize, stages, state, train
from facejax.config import LoraConfig, MeshConfig, OptimConfig, RunConfig, StageConfig
from facejax.config_io import from_dict, override, to_dict
from facejax.fake import fake_batch
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM, init_shapes
from facejax.models.layers import Dense
from facejax.sharding import make_mesh, param_shardings

MODEL = tiny_run.model(fusion=False)
SHAPES = init_shapes(MODEL)


def drawn(shapes, seed=0, spread=0.3):
  """A tree of random numbers."""
  draw = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(draw.normal(0, spread, x.shape), x.dtype), shapes)


def stage(trainable=(), **changes) -> StageConfig:
  return StageConfig(trainable, OptimConfig(1e-2), 6, 16, lora=LoraConfig(**changes))


@pytest.mark.parametrize(
  ("name", "count"), [("1b", 8_798_208), ("8b", 40_370_176), ("38b", 134_217_728)]
)
def test_facellm_trains_what_its_authors_train(name, count):
  """Kills: a linear left out, one too many (head, projector, vision), another rank."""
  one = stages.adapters(1, 1, "")
  shapes = lora.with_adapters(init_shapes(getattr(presets, f"internvl3_{name}")()), one.lora)
  trainable, frozen = stages.split(shapes, one)
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(trainable)) == count
  names = {path.rpartition("/")[2] for path in lora.flatten(trainable)}
  assert names == {"lora_a", "lora_b"}
  assert not any(name.endswith(("lora_a", "lora_b")) for name in lora.flatten(frozen))
  assert one.optim == OptimConfig(1e-5, 0.0, "cosine", 0.9, 0.999, 1e-8, 0.0, clip_norm=1.0)
  assert (one.lora.rank, one.lora.alpha, one.trainable) == (16, 32.0, ())


def reference(x, w, a, b, scale, bias):
  """Loops: sum over inputs, then over the rank."""
  y = np.zeros((len(x), w.shape[1]))
  for n in range(len(x)):
    for o in range(w.shape[1]):
      low = [sum(x[n, i] * a[i, r] for i in range(w.shape[0])) for r in range(a.shape[1])]
      y[n, o] = sum(x[n, i] * w[i, o] for i in range(w.shape[0])) + bias[o]
      y[n, o] += scale * sum(low[r] * b[r, o] for r in range(a.shape[1]))
  return y


def test_dense_and_its_gradients_against_loops():
  """Kills: a scale forgotten or squared, A and B swapped, a gradient without the other half."""
  N, I, O, R, scale = 5, 7, 4, 3, 2.5
  draw = np.random.default_rng(1)
  x, w, a, b = (draw.normal(size=s) for s in ((N, I), (I, O), (I, R), (R, O)))
  bias, g = draw.normal(size=O), draw.normal(size=(N, O))
  f32 = lambda v: jnp.asarray(v, jnp.float32)
  params = {"kernel": f32(w), "lora_a": f32(a), "lora_b": f32(b), "lora_scale": f32(scale),
            "bias": f32(bias)}  # fmt: skip
  apply = lambda p, x: Dense(O).apply({"params": p}, x)
  np.testing.assert_allclose(apply(params, f32(x)), reference(x, w, a, b, scale, bias), atol=1e-5)
  value = lambda p, x: jnp.sum(apply(p, x) * f32(g))
  grads, dx = jax.grad(value, (0, 1))(params, f32(x))
  np.testing.assert_allclose(grads["lora_a"], scale * x.T @ (g @ b.T), atol=1e-4)
  np.testing.assert_allclose(grads["lora_b"], scale * (x @ a).T @ g, atol=1e-4)
  np.testing.assert_allclose(dx, g @ w.T + scale * (g @ b.T) @ a.T, atol=1e-4)


def test_half_precision_products_sum_in_float32():
  """Kills: adapters rounded where they are kept; sums in bfloat16 (256 terms would lose 1 %)."""
  draw = np.random.default_rng(2)
  x, a = (draw.normal(size=s).astype(np.float32) for s in ((3, 256), (256, 4)))
  params = {"kernel": jnp.zeros((256, 5)), "lora_a": jnp.asarray(a), "lora_scale": jnp.float32(1),
            "lora_b": jnp.ones((4, 5))}  # fmt: skip
  y = Dense(5, False, jnp.bfloat16).apply({"params": params}, jnp.asarray(x))
  half = lambda v: np.asarray(v.astype(jnp.bfloat16), float)
  low = half(jnp.asarray(half(jnp.asarray(x)) @ half(jnp.asarray(a)), jnp.float32))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(y, float), low.sum(1)[:, None] * np.ones(5), rtol=2**-8)


def test_fresh_adapters_change_nothing_and_are_spread_as_peft_draws_them():
  """Kills: B that is not zero; A drawn by another rule; layers that share their draw."""
  config = LoraConfig(rank=6, alpha=3.0, targets=("decoder/blocks/(up|gate|down)", ".*/head"))
  flat = jax.jit(lambda key: lora.draw(SHAPES, config, key))(jax.random.key(4))
  assert not any(x.any() for name, x in flat.items() if name.endswith("lora_b"))
  assert all((x == 0.5).all() for name, x in flat.items() if name.endswith("lora_scale"))
  for name, inputs in (("decoder/blocks/down", 34), ("decoder/head", 24)):
    a = np.asarray(flat[f"{name}/lora_a"])
    bound = math.sqrt(2 / (1 + 5)) * math.sqrt(3 / inputs)
    assert bound * 0.98 < np.abs(a).max() < bound
    assert abs(np.std(a) / (bound / math.sqrt(3)) - 1) < 0.1
  assert not np.array_equal(*flat["decoder/blocks/down/lora_a"])
  assert flat["decoder/blocks/up/lora_a"].shape == (2, 24, 6)
  same = flat["decoder/blocks/up/lora_a"] == flat["decoder/blocks/gate/lora_a"]
  assert not same.all()


def test_every_linear_reads_its_adapter():
  """Kills: a pattern that matches what no Dense reads, whose adapters would never train."""
  config = dataclasses.replace(presets.tiny())
  adapted = lora.with_adapters(init_shapes(config), LoraConfig(rank=2, targets=(".*",)))
  assert not any("lora" in name for name in lora.flatten(adapted["landmark_projector"]))
  batch = fake_batch(config, 2, 60, images=1, videos=1)
  params = drawn(adapted)
  own, rest = {}, {}
  for name, x in lora.flatten(params).items():
    (own if name.endswith("lora_b") else rest)[name] = x
  loss = lambda own: (
    FaceMLLM(config).apply({"params": lora.unflatten({**rest, **own})}, batch).sum()
  )
  grads = jax.jit(jax.grad(loss))(own)
  assert len(grads) > 30
  assert [name for name, g in grads.items() if not jnp.abs(g).max() > 0] == [
    name
    for name in grads
    if "/rest/" in name  # layers behind the one whose output is used
  ]


@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_quantised_kernels_against_numpy(base):
  """Kills: a scale of another axis, blocks along the wrong axis, a level off by one."""
  draw = np.random.default_rng(5)
  kernel = draw.normal(size=(3, 48, 5)).astype(np.float32) * np.exp(draw.normal(size=(3, 48, 1)))
  held, scale = jax.jit(quantize.quantized, static_argnums=1)(jnp.asarray(kernel), base)
  shapes = quantize.shapes(jax.ShapeDtypeStruct(kernel.shape, jnp.bfloat16), base)
  assert [(x.shape, x.dtype) for x in shapes] == [(x.shape, x.dtype) for x in (held, scale)]
  again = np.stack(
    [quantize.dequantized(h, s, jnp.float32) for h, s in zip(held, scale, strict=True)]
  )
  levels = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
  ]) if base == "nf4" else np.arange(-128, 128) / 127.5  # fmt: skip
  block = 16 if base == "nf4" else 48
  for layer in range(3):
    for start in range(0, 48, block):
      for o in range(5):
        part = kernel[layer, start : start + block, o]
        largest = np.abs(part).max()
        for i, number in enumerate(part):
          least = np.abs(levels * largest - number).min()
          got = again[layer, start + i, o]
          assert abs(got - number) == pytest.approx(least, abs=1e-5 * largest)
          assert np.abs(levels * largest - got).min() < 1e-5 * largest
  assert scale.shape == (3, 48 // block, 5)


@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_a_quantised_dense_is_one_of_dequantised_weights(base):
  """Kills: a backward pass through other weights than the forward pass; a gradient of the base."""
  draw = np.random.default_rng(6)
  kernel, x, a, b = (
    jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((24, 7), (2, 3, 24), (24, 2), (2, 7))
  )
  held, scale = quantize.quantized(kernel, base)
  adapter = {"lora_a": a, "lora_b": b, "lora_scale": jnp.float32(0.5)}
  plain = {"kernel": quantize.dequantized(held, scale, jnp.float32), **adapter}
  small = {"kernel": held, "kernel_scale": scale, **adapter}
  apply = lambda p, x: Dense(7, False).apply({"params": p}, x)
  np.testing.assert_allclose(apply(small, x), apply(plain, x), atol=1e-5)
  value = lambda p, x: jnp.sum(jnp.sin(apply(p, x)))
  np.testing.assert_allclose(jax.grad(value, 1)(small, x), jax.grad(value, 1)(plain, x), atol=1e-5)
  assert float(jnp.abs(plain["kernel"] - kernel).max()) > 1e-3


def test_layouts_follow_the_kernel():
  """Kills: a whole adapter or scale on every device; a rank that is split."""
  one = stage(rank=2, base="nf4", targets=(r"decoder/blocks/(down|attention/[kq])",))
  config = presets.internvl3_1b()
  mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
  abstract = state.abstract_state(FaceMLLM(config), one, mesh)
  flat = lora.flatten(abstract.params)
  spec = lambda name: tuple(flat[f"decoder/blocks/{name}"].sharding.spec)
  width = ("fsdp", "context")
  assert spec("down/lora_a") == (None, "tensor", None)
  assert spec("down/lora_b") == (None, None, width)
  assert spec("attention/k/lora_a") == (None, width, None)
  assert spec("attention/k/lora_b") == (None, None, "tensor")
  assert spec("attention/k/lora_scale") == (None,)
  assert spec("attention/k/kernel_scale") == (None, width, "tensor")
  assert flat["decoder/blocks/attention/k/kernel_scale"].shape == (24, 14, 128)
  assert flat["decoder/blocks/up/kernel"].dtype == jnp.uint4  # frozen without an adapter, too
  assert flat["decoder/head/kernel"].dtype == jnp.bfloat16
  column = jax.ShapeDtypeStruct((24, 1, 128), jnp.float32)
  tree = {"decoder": {"blocks": {"attention": {"k": {"kernel_scale": column}}}}}
  got = jax.tree.leaves(param_shardings(tree, mesh))[0]
  assert got.spec == P(None, None, "tensor")  # int8: one scale for all inputs


def run_steps(one: StageConfig, mesh_config: MeshConfig, steps: int = 3):
  model, mesh = FaceMLLM(MODEL), make_mesh(mesh_config)
  abstract = state.abstract_state(model, one, mesh)
  begun = state.init_state(model, one, abstract, 0)
  before = jax.device_get(begun.frozen)
  step = train.make_train_step(model, one, mesh)
  losses = []
  with jax.set_mesh(mesh):
    for seed in range(steps):
      batch = jax.tree.map(np.asarray, fake_batch(MODEL, 16, 23, seed=seed))
      begun, metrics = step(begun, train.put(batch, 16, mesh))
      losses.append(float(metrics["loss"]))
  return losses, before, jax.device_get(begun)


@pytest.mark.parametrize("base", ["model", "nf4"])
def test_sharded_steps_equal_those_of_rows_alone(base):
  """Kills: adapters or scales that a split axis changes; a base that a step changes."""
  one = stage(rank=3, base=base)
  alone = run_steps(one, MeshConfig(data=8))
  split = run_steps(one, MeshConfig(data=4, fsdp=2))
  np.testing.assert_allclose(split[0], alone[0], atol=1e-5)
  assert alone[0][-1] != alone[0][0]
  for _, before, after in (alone, split):
    tiny_run.assert_equal(before, after.frozen)
    trained = lora.flatten(after.trainable)
    assert all(np.abs(x).max() > 0 for x in trained.values())


def flops(one: StageConfig | None) -> float:
  """Of the loss and its gradient, by XLA's count; layers are written out, so each counts."""
  config = dataclasses.replace(
    MODEL, image=dataclasses.replace(MODEL.image, width=5), segmentation=dataclasses.replace(
      MODEL.segmentation, mode="off"),
    decoder=dataclasses.replace(MODEL.decoder, width=96, mlp=256, layers=3, vocab=13),
  )  # fmt: skip
  shapes = lora.with_adapters(init_shapes(config), one.lora if one else None)
  trained, kept = stages.split(
    shapes, one or StageConfig((r"decoder/blocks/.*",), OptimConfig(0), 1, 1)
  )
  batch = jax.eval_shape(lambda: fake_batch(config, 4, 32))
  loss = lambda trained, kept, batch: FaceMLLM(config).apply(
    {"params": stages.merge(trained, kept)}, batch
  ).sum()  # fmt: skip
  compiled = jax.jit(jax.grad(loss)).lower(trained, kept, batch).compile()
  kernels = sum(
    math.prod(x.shape)
    for name, x in lora.flatten(init_shapes(config)).items()
    if name.startswith("decoder/blocks/") and name.endswith("kernel")
  )
  return compiled.cost_analysis()["flops"] / (kernels * 4 * 32)


def test_a_frozen_kernel_gets_no_gradient():
  """Kills: a gradient of the base that is computed and thrown away (6 a weight, not 4)."""
  full = flops(None)
  adapted = flops(stage(rank=1))
  assert 1.6 < full - adapted < 2.0, (full, adapted)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rank": 0}, r"LoraConfig\.rank=0: expected at least 1"),
    ({"alpha": 0.0}, r"LoraConfig\.alpha=0\.0: expected above 0"),
    ({"base": "nf5"}, r"LoraConfig\.base is 'nf5', expected one of model, int8, nf4; .* 'nf4'\?"),
    ({"targets": ()}, r"LoraConfig\.targets=\(\): expected at least one"),
    ({"targets": ("decoder/blocks/upp",)}, r"'decoder/blocks/upp' matches no linear; near it: deco"
     r"der/blocks/up"),
    ({"targets": ("decoder/(",)}, r"LoraConfig\.targets: 'decoder/\(' is no pattern"),
    ({"rank": 23, "targets": ("segmentation/fc1",)}, r"rank=23: segmentation/fc1 is \[\d+ 22\] - "
     r"expected a rank of at most 22"),
  ],
)  # fmt: skip
def test_what_cannot_be_adapted(change, message):
  """Kills: an adapter of nothing, or one that is larger than its kernel."""
  with pytest.raises(ValueError, match=message):
    lora.with_adapters(SHAPES, LoraConfig(**change))


def test_what_may_train_beside_adapters():
  """Kills: a kernel that trains under its adapter; a scale that trains; adapters that do not."""
  config = LoraConfig(rank=2)
  shapes = lora.with_adapters(SHAPES, config)
  with pytest.raises(
    ValueError, match=r"'decoder/\.\*' trains decoder/blocks/attention/k/kernel, wh"
  ):
    stages.split(shapes, stage(("decoder/.*",)))
  trained, _ = stages.split(shapes, stage(("projector/.*", "decoder/blocks/up/lora_.*")))
  names = set(lora.flatten(trained))
  assert {name for name in names if name.startswith("projector/")} == {
    f"projector/{fc}/{leaf}" for fc in ("fc1", "fc2") for leaf in ("kernel", "bias")
  }
  assert sum(name.endswith("lora_a") for name in names) == 7
  assert not any(name.endswith("lora_scale") for name in names)


def test_missing_qwix_is_told(monkeypatch):
  """Kills: an ImportError from within a step that does not say what to install."""
  monkeypatch.setitem(__import__("sys").modules, "qwix", None)
  with pytest.raises(ModuleNotFoundError, match=r"base='int8' and 'nf4' need qwix.*facejax\[qlora"):
    quantize.quantized(jnp.ones((8, 3)), "int8")


def test_the_table_shows_how_the_base_is_held():
  """Kills: half bytes counted as whole ones; scales counted as parameters of the model."""
  config = dataclasses.replace(
    presets.internvl3_1b(), decoder=dataclasses.replace(presets.QWEN25_05B, layers=2)
  )
  mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
  one = stage(base="nf4")
  abstract = state.abstract_state(FaceMLLM(config), one, mesh)
  lines = [line.split() for line in stages.table(abstract.params, one).split("\n")]
  decoder = next(line for line in lines if line[0] == "decoder")
  kernels = 2 * (896 * 896 * 2 + 2 * 896 * 128 + 3 * 896 * 4864)
  rest = 2 * 151_674 * 896 + 2 * (896 + 2 * 128)
  norms, adapters = 5 * 896, 8_798_208 // 12
  assert decoder[1] == f"{kernels + rest + norms + adapters:,}"
  held = kernels // 2 + kernels // 64 * 4 + 2 * rest + 4 * norms + 4 * adapters + 4 * 2 * 7
  assert decoder[-2:] == [f"{held:,}", f"{8 * adapters:,}"]


def test_settings_from_the_command_line():
  """Kills: adapters that a saved run forgets; a setting that cannot be reached."""
  run = RunConfig(MODEL, tiny_run.config().data, {"lora": stage(rank=2)})
  run = override(run, ["stages.lora.lora.base=int8", "stages.lora.lora.targets=a,b/[qk]"])
  assert run.stages["lora"].lora == LoraConfig(rank=2, base="int8", targets=("a", "b/[qk]"))
  assert from_dict(RunConfig, to_dict(run)) == run


def test_merging_rounds_once():
  """Kills: a merge in the kernel's own type, where small changes are lost; a lost dtype."""
  kernel = jnp.asarray([[1.0, 2.0], [-3.0, 0.5]], jnp.bfloat16)
  part = {"kernel": kernel, "lora_a": jnp.full((2, 1), 0.003), "lora_b": jnp.ones((1, 2)),
          "lora_scale": jnp.float32(2), "bias": jnp.ones(2)}  # fmt: skip
  tree = {"decoder": {"head": part}}
  merged = lora.merge(tree, "float32")["decoder"]["head"]
  assert set(merged) == {"kernel", "bias"}
  np.testing.assert_allclose(merged["kernel"], np.asarray(kernel, float) + 0.006, atol=1e-6)
  half = lora.merge(tree)["decoder"]["head"]["kernel"]
  assert half.dtype == jnp.bfloat16
  np.testing.assert_array_equal(half, merged["kernel"].astype(jnp.bfloat16))
  plain = {"decoder": {"head": {"kernel": kernel}}}
  assert lora.merge(plain)["decoder"]["head"]["kernel"] is kernel
