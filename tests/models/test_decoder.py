"""The decoder against a loop over positions and heads, and its cache against itself."""

import dataclasses

import jax
import jax.numpy as jnp
import model_reference as reference
import numpy as np
import pytest

from facejax.models import decoder
from facejax.models.decoder import Decoder
from facejax.models.presets import tiny

CFG = tiny().decoder
B, L = 3, 9
SEGMENTS = jnp.array([[1] * 4 + [2] * 3 + [0] * 2, [1] * 9, [1] * 2 + [0] * 7])
POSITIONS = jnp.array([[*range(4), *range(3), 0, 0], [*range(9)], [0, 1] + [0] * 7])


def build(cfg, randomise, **kw):
  """A decoder whose two methods give logits, its parameters, and an input."""
  module = Decoder(cfg, **kw)
  x = jnp.asarray(np.random.default_rng(2).normal(size=(B, L, cfg.width)), jnp.float32)
  both = lambda m, x: m.logits(m(x, POSITIONS, SEGMENTS)[0]) + m.embed(SEGMENTS).sum() * 0
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, method=both))["params"]
  return (
    module,
    randomise(shapes),
    x,
    jax.jit(lambda p, x: module.apply({"params": p}, x, method=both)),
  )


@pytest.mark.parametrize(
  "change",
  [
    {},
    {"qkv_bias": True, "tied": True, "layers": 9},
    {"max_length": 3, "rope_factor": 3.5, "rope_theta": 7.0},
  ],
)
def test_equals_a_loop(change, randomise):
  # Kills: gate and up swapped, GELU for SiLU, rope on v, rope after the cache, positions ignored,
  # a missing bias, the head used although tied; the loop of nine layers and the unrolled two; the
  # base of a segment of 4 or 9 left alone, that of 3 stretched, or by its neighbour's length.
  cfg = dataclasses.replace(CFG, **change)
  _, p, x, run = build(cfg, randomise)
  logits = run(p, x)
  head = p["embedding"].T if cfg.tied else p["head"]["kernel"]
  for b in range(B):
    hidden = reference.decoder(
      p, np.asarray(x[b], np.float64), POSITIONS[b].tolist(), SEGMENTS[b], cfg
    )
    np.testing.assert_allclose(logits[b], hidden @ head, atol=5e-5)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_number(remat, randomise):
  # Kills: a policy that is not applied; one that changes the result.
  _, p, x, plain = build(CFG, randomise)
  other = build(CFG, randomise, remat=remat)[3]
  loss = lambda f: jax.grad(lambda p: jnp.sum(jnp.sin(f(p, x))))
  for a, b in zip(*(jax.tree.leaves(loss(f)(p)) for f in (plain, other)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  text = lambda f: str(jax.make_jaxpr(loss(f))(p))
  dots = lambda f: text(f).count("dot_general")
  assert dots(other) > dots(plain)


def test_full_keeps_less_than_dots_and_dots_less_than_none(randomise):
  # Kills: both names giving one policy.

  def dots(remat):
    _, p, x, run = build(CFG, randomise, remat=remat)
    return str(jax.make_jaxpr(jax.grad(lambda p: jnp.sum(run(p, x))))(p)).count("dot_general")

  assert dots("full") > dots("dots") > dots("none")


def test_later_positions_and_other_segments_have_no_influence(randomise):
  # Kills: <= for < in the mask, a segment that sees another, padding that sees anything.
  _, p, x, run = build(CFG, randomise)
  reach = jax.jacobian(lambda x: run(p, x).sum(-1))(x)
  reach = jnp.abs(reach).sum(-1) > 0  # [b i b' j]
  for b, i in np.ndindex(B, L):
    same = SEGMENTS[b] == SEGMENTS[b, i]
    want = np.zeros((B, L), bool)
    want[b] = (np.arange(L) <= i) & same if SEGMENTS[b, i] else np.arange(L) == i
    np.testing.assert_array_equal(reach[b, i], want)


def test_bfloat16_gives_float32_logits_of_the_same_model(randomise):
  # Kills: logits rounded to bfloat16; parameters kept in bfloat16.
  _, p, x, run = build(CFG, randomise)
  half = build(CFG, randomise, dtype=jnp.bfloat16)[3](p, x)
  assert half.dtype == jnp.float32
  assert (half != half.astype(jnp.bfloat16)).any()
  full = run(p, x)
  assert jnp.abs(half - full).max() < 0.1 * jnp.abs(full).max()


def test_a_row_of_short_segments_may_be_longer_than_the_decoder(randomise):
  # Kills: a base stretched by the length of the row, or at a factor of 1; a row that is refused.
  long, short = dataclasses.replace(CFG, max_length=99), dataclasses.replace(CFG, max_length=4)
  _, p, x, run = build(long, randomise)
  np.testing.assert_array_equal(build(short, randomise)[3](p, x), run(p, x))


def test_a_factor_changes_nothing_up_to_max_length(randomise):
  # Kills: a base stretched at n = max_length; by the length of the row, 9, where its segments have
  # 4 and 3. Bit for bit.
  _, p, x, plain = build(CFG, randomise)
  at_limit = build(dataclasses.replace(CFG, max_length=9, rope_factor=1.7), randomise)[3]
  np.testing.assert_array_equal(at_limit(p, x), plain(p, x))
  stretched = build(dataclasses.replace(CFG, max_length=6, rope_factor=1.7), randomise)[3]
  np.testing.assert_array_equal(stretched(p, x)[0], plain(p, x)[0])
  assert (stretched(p, x)[1] != plain(p, x)[1]).any()


def test_what_a_block_keeps_lies_by_rows_on_a_tpu():
  """Kills: an order left to the TPU compiler (3 to 4 % of a decoder); one forced on a CPU."""
  x = jax.ShapeDtypeStruct((2, 3, 5), jnp.bfloat16)
  traced = jax.jit(decoder._by_rows).trace(x)
  text = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()
  assert "LayoutConstraint" in text("tpu") and "LayoutConstraint" not in text("cpu")
