"""Layers and attention against sums written out one by one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models import attention
from facejax.models.attention import (
  Attention,
  attend,
  attention_weights,
  causal_mask,
  rope,
  rope_table,
  stretched_theta,
)
from facejax.models.layers import ACTIVATIONS, Dense, LayerNorm, RMSNorm, matmul, rows, unroll

B, L, S, N, K, H = 2, 5, 7, 6, 3, 4


@pytest.fixture(scope="module")
def case():
  draw = np.random.default_rng(0)
  array = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
  mask = draw.random((B, L, S)) < 0.6
  mask[1, 3] = False
  return array(B, L, N, H), array(B, S, K, H), array(B, S, K, H), jnp.asarray(mask)


def slow(q, k, v, mask, bias):
  out = []
  for b, n in np.ndindex(B, N):
    key, value = k[b, :, n // (N // K)], v[b, :, n // (N // K)]
    e = jnp.where(mask[b], jnp.exp(q[b, :, n] @ key.T / math.sqrt(H) + bias[b]), 0)
    out.append(e @ value / jnp.where(mask[b].any(-1), e.sum(-1), 1)[:, None])
  return jnp.stack(out).reshape(B, N, L, H).swapaxes(1, 2)


def test_attend_and_its_gradients(case):
  # Kills: scale inverted or left out, n % K for n // G, a hidden slot seen, k and v swapped, any
  # error in the hand-written backward pass.
  q, k, v, mask = case
  bias = jnp.asarray(np.random.default_rng(1).normal(size=(B, L, S)), jnp.float32)
  loss = lambda f: lambda *x: jnp.sum(f(x[0], x[1], x[2], mask, x[3]) ** 3)
  np.testing.assert_allclose(attend(q, k, v, mask, bias), slow(q, k, v, mask, bias), atol=2e-6)
  got = jax.grad(loss(attend), (0, 1, 2, 3))(q, k, v, bias)
  want = jax.grad(loss(slow), (0, 1, 2, 3))(q, k, v, bias)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def test_nothing_visible_gives_zeros(case):
  # Kills: the uniform average of a row whose logits are all at the fill value; NaN from -inf.
  q, k, v, mask = case
  np.testing.assert_array_equal(attend(q, k, v, mask)[1, 3], np.zeros((N, H)))
  grads = jax.grad(lambda v: attend(q, k, v, mask)[1, 3].sum())(v)
  np.testing.assert_array_equal(grads, np.zeros_like(v))


def test_weights_are_those_that_mix(case):
  # Kills: query heads in another order than attend()'s.
  q, k, v, mask = case
  weights = attention_weights(q, k, mask)
  mixed = jnp.einsum("BNLS,BSNH->BLNH", weights, jnp.repeat(v, N // K, axis=2))
  want = attend(q, k, v, mask)
  np.testing.assert_allclose(jnp.where(mask.any(-1)[..., None, None], mixed, 0), want, atol=2e-6)


def test_attend_in_bfloat16_has_float32_softmax(case):
  # Kills: a softmax in the compute dtype. 2^-8 is bfloat16's rounding of a result near 1.
  q, k, v = (x.astype(jnp.bfloat16) for x in case[:3])
  mask = case[3]
  got = attend(q, k, v, mask)
  assert got.dtype == jnp.bfloat16
  want = attend(*(x.astype(jnp.float32) for x in (q, k, v)), mask)
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=2e-2)
  assert attention_weights(q, k, mask).dtype == jnp.float32


def test_causal_mask():
  # Kills: <= for <, a segment seeing another, padding seeing padding.
  got = causal_mask(jnp.array([[1, 1, 2, 2, 2, 0]]))[0]
  want = ["x.....", "xx....", "..x...", "..xx..", "..xxx.", "......"]
  np.testing.assert_array_equal(got, [[c == "x" for c in line] for line in want])


@pytest.mark.parametrize("form", [attention._turn_by_halves, attention._turn_by_matrix])
def test_rope(form, monkeypatch):
  # Kills: interleaved pairs, a wrong sign, theta ignored, positions taken from the array index; a
  # backward pass that turns the other way, in the TPU's form too.
  monkeypatch.setattr(attention, "_turn_by_halves", form)
  x, slope = np.random.default_rng(0).normal(size=(2, 1, 2, 3, 8)).astype(np.float32)
  positions = [4, 0, 11]
  table = rope_table(jnp.array([positions]), 8, 50.0)
  got, pull = jax.vjp(lambda x: rope(x, table), jnp.asarray(x))
  back = np.asarray(pull(jnp.asarray(slope))[0])
  for n, i in np.ndindex(2, 3):
    for j in range(4):
      angle = positions[i] * 50.0 ** (-j / 4)
      turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
      np.testing.assert_allclose(got[0, n, i, j::4], turn @ x[0, n, i, j::4], atol=1e-5)
      np.testing.assert_allclose(back[0, n, i, j::4], turn.T @ slope[0, n, i, j::4], atol=1e-5)


def test_dynamic_ntk():
  # Kills: the length of the row or the batch for the segment's, d / (d - 2) upside down, a base
  # below theta, a lone token behind a cache taken for a short row. InternVL3's own numbers.
  base = lambda n: 1e6 * (2 * n / 32768 - 1) ** (128 / 126)
  positions = jnp.array([[65535, 0, 40000, 40001, 32767], [32768, 32769, 0, 0, 0]])
  got = stretched_theta(positions, 128, 1e6, 32768, 2.0)
  want = [[base(65536), 1e6, base(40002), base(40002), 1e6], [base(32770)] * 2 + [1e6] * 3]
  np.testing.assert_allclose(got, want, rtol=1e-6)
  np.testing.assert_array_equal(got == 1e6, np.array(want) == 1e6)
  table = rope_table(positions, 128, got)
  for b, i, j in ((0, 0, 1), (0, 2, 63), (1, 1, 20)):
    angle = int(positions[b, i]) * want[b][i] ** (-j / 64)
    # Float32 angles: 65535 radians are known to 0.004.
    np.testing.assert_allclose(table[0, b, i, j], math.cos(angle), atol=0.02)
    np.testing.assert_allclose(table[1, b, i, j], math.sin(angle), atol=0.02)


def test_matmul_keeps_float32_sums_in_both_directions():
  # Kills: sums in bfloat16, a float32 product in the backward pass, dx and dw swapped; on a TPU,
  # gradients that devices would add up in float32.
  draw = np.random.default_rng(0)
  x, w, g = (jnp.asarray(draw.normal(size=s), jnp.bfloat16) for s in ((9, 5), (5, 3), (9, 3)))
  run = lambda x, w, g: jax.vjp(lambda x, w: matmul(x, w, jnp.bfloat16, rows(2)), x, w)[1](g)
  y = matmul(x, w, jnp.bfloat16, rows(2))
  dx, dw = run(x, w, g)
  exact = lambda a, b: np.asarray(a, np.float64) @ np.asarray(b, np.float64)
  for got, want in ((y, exact(x, w)), (dx, exact(g, w.T)), (dw, exact(x.T, g))):
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, jnp.asarray(want, jnp.float32).astype(jnp.bfloat16))
  for platform, sums in (("cpu", "f32>"), ("tpu", "bf16>")):
    text = jax.jit(run).trace(x, w, g).lower(lowering_platforms=(platform,)).as_text()
    dots = [line for line in text.splitlines() if "dot_general" in line]
    assert len(dots) == 2 and all(line.rstrip().endswith(sums) for line in dots), dots


def test_layers():
  # Kills: bias dropped, kernel transposed, a norm without its scale or eps, tanh GELU.
  draw = np.random.default_rng(0)
  x = draw.normal(size=(2, 3, 5)).astype(np.float32)
  p = {"kernel": draw.normal(size=(5, 4)), "bias": draw.normal(size=4)}
  want = np.einsum("abi,io->abo", x, p["kernel"]) + p["bias"]
  p = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), p)
  np.testing.assert_allclose(Dense(4).apply({"params": p}, jnp.asarray(x)), want, atol=1e-5)
  scale, bias = (draw.normal(size=5).astype(np.float32) for _ in range(2))
  got = RMSNorm(0.3).apply({"params": {"scale": scale}}, jnp.asarray(x))
  np.testing.assert_allclose(
    got, x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.3) * scale, atol=1e-6
  )
  got = LayerNorm(0.3).apply({"params": {"scale": scale, "bias": bias}}, jnp.asarray(x))
  want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.3) * scale + bias
  np.testing.assert_allclose(got, want, atol=1e-6)
  for value in (-1.7, 0.4):
    exact = value * 0.5 * (1 + math.erf(value / math.sqrt(2)))
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.float32(value)), exact, atol=1e-6)
    quick = value / (1 + math.exp(-1.702 * value))
    np.testing.assert_allclose(ACTIVATIONS["quick_gelu"](jnp.float32(value)), quick, atol=1e-6)


def test_modules_work_alone():
  # Kills: an attribute named "init" that hides Module.init.
  x = jnp.ones((2, 3, 8))
  assert Dense(4).init(jax.random.key(0), x)["params"]["kernel"].shape == (8, 4)
  assert set(Attention(2).init(jax.random.key(0), x, x)["params"]) == {"q", "k", "v", "out"}
  assert unroll(4) == 4 and unroll(32) == 1


def test_heads_must_divide():
  # Kills: the check.
  x = jnp.ones((2, 3, 8))
  with pytest.raises(ValueError, match="width 8 does not divide into heads=3"):
    Attention(3).init(jax.random.key(0), x, x)
