"""Attention kernels beside the plain one: the CPU's, and the TPU's, interpreted."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.config import MeshConfig
from facejax.models import kernels
from facejax.models.blocks import attend_blocks
from facejax.models.kernels import attend_segments, kernel_for, splash_attention
from facejax.plan import topology
from facejax.sharding import AxisRules, make_mesh


def rows(B, L, N, K, H):
  """q, k, v and the ids of three segments with padding behind them; rows differ."""
  draw = np.random.default_rng(0)
  x = [jnp.asarray(draw.normal(size=(B, heads, L, H)), jnp.float32) for heads in (N, K, K)]
  ends = draw.integers(L // 4, L // 3, (B, 1))
  ids = np.arange(L)[None] // ends + 1
  return *x, jnp.asarray(np.where(ids > 3, 0, ids), jnp.int32)


@pytest.mark.parametrize(
  ("L", "H", "scattered", "cores"),
  [(37, 16, 0, 1), (420, 128, 0, 1), (420, 16, 1, 1), (37, 8, 0, 2)],
)
def test_splash_is_the_plain_attention(L, H, scattered, cores, monkeypatch):
  """Kills: padding seen by a query, heads or rows padded with numbers, a scale left out, heads of
  a group mixed up (also where two cores share them), padding that is not 0, a tile left out that a
  segment reaches or another row's; each in the gradients too."""
  monkeypatch.setattr(kernels, "_TILE", 128)
  q, k, v, ids = rows(2, L, 4, 2, H)
  if scattered:  # a segment of one position a row, and one that comes back behind others
    ids = ids.at[0, 200].set(9).at[1, 130:].set(1)
  slope = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32)

  def both(attention):
    out, pull = jax.vjp(lambda q, k, v: attention(q, k, v, ids), q, k, v)
    return out, pull(slope)

  got = both(functools.partial(splash_attention, cores=cores, interpret=True))
  want = both(functools.partial(attend_segments, kernel="xla", rules=AxisRules()))
  padding = np.asarray(ids) == 0
  assert (np.asarray(want[0]).swapaxes(1, 2)[padding] == 0).all() and padding.any()
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), got, want)


@pytest.mark.parametrize(
  ("name", "heads", "split"), [("v5p:2x2x1", 4, [4]), ("v5p:2x2x1", 3, []), ("v5e:2x2", 4, [])]
)
def test_both_cores_of_a_chip_share_the_heads(name, heads, split):
  """Kills: backward kernels on one of a v5p's two cores; heads that two do not divide cut in two;
  a grid with an axis more (2 to 4 % of the kernel) on chips of one core."""
  x = jax.ShapeDtypeStruct((4, heads, 256, 128), jnp.bfloat16)
  ids = jax.ShapeDtypeStruct((4, 256), jnp.int32)
  attention = functools.partial(attend_segments, kernel="splash", rules=AxisRules())
  loss = lambda q, k, v, ids: attention(q, k, v, ids).astype(jnp.float32).sum()
  with jax.set_mesh(make_mesh(MeshConfig(data=1, fsdp=-1), topology.describe(name).devices)):
    program = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(x, x, x, ids)
  grids = [call.params["grid_mapping"] for call in equations(program.jaxpr, "pallas_call")]
  assert len(grids) == 3  # forward, by keys and values, by queries
  for grid in grids:
    assert [grid.grid[axis] for axis in grid.vmapped_dims] == split


def equations(jaxpr, name):
  """Those of a primitive, in all jaxprs within."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == name:
      yield equation
      continue
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from equations(inner, name)


def test_splash_leaves_out_tiles(monkeypatch):
  """Kills: tiles computed between segments that do not meet: NaN times 0 would be NaN."""
  monkeypatch.setattr(kernels, "_TILE", 128)
  q, k, v, _ = rows(1, 384, 2, 1, 128)
  ids = jnp.repeat(jnp.array([[1, 2, 3]], jnp.int32), 128, axis=1)
  loss = lambda v: splash_attention(q, k, v, ids, interpret=True)[:, :, 128:].sum()
  total, slope = jax.value_and_grad(loss)(v.at[:, :, :128].set(jnp.nan))
  assert np.isfinite(total) and np.isfinite(slope[:, :, 128:]).all()


def test_splash_on_a_mesh(monkeypatch):
  """Kills: rows, segment ids or heads handed to another device than their queries."""
  monkeypatch.setattr(
    kernels, "splash_attention", functools.partial(splash_attention, interpret=True)
  )
  q, k, v, ids = rows(4, 21, 8, 4, 8)
  with jax.set_mesh(make_mesh(MeshConfig(data=1, fsdp=2, context=2, tensor=2))):
    got = jax.jit(functools.partial(attend_segments, kernel="splash", rules=AxisRules()))(
      q, k, v, ids
    )
    assert got.addressable_shards[0].data.shape == (2, 2, 21, 8)
  want = attend_segments(q, k, v, ids, "xla", AxisRules())
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("ids", ["segments", "scattered", "padding"])
def test_tiles_are_the_plain_attention(ids):
  """Kills: a tile left out that a segment reaches, for rows whose first segments end within a tile
  or that come back to a segment; the running maximum or sum of another tile; the last, partial
  tile; heads of a group mixed up; padding that is not 0, or NaN. Each in the gradients too."""
  q, k, v, segments = rows(5, 43, 6, 3, 4)
  if ids == "scattered":
    segments = jnp.asarray(np.random.default_rng(3).integers(0, 4, (5, 43)), jnp.int32)
  if ids == "padding":
    segments = segments.at[1].set(0)
  slope = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32)

  @functools.partial(jax.jit, static_argnums=0)
  def both(attention):
    out, pull = jax.vjp(lambda q, k, v: attention(q, k, v, segments), q, k, v)
    return out, pull(slope)

  got = both(functools.partial(attend_blocks, tile=8))
  want = both(functools.partial(attend_segments, kernel="xla", rules=AxisRules()))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), got, want)


def test_tiles_on_a_mesh_and_short_rows(monkeypatch):
  """Kills: rows, segment ids or heads handed to another device than their queries; a loop over the
  tiles of all rows, split by the partitioner; short rows cut into tiles."""
  q, k, v, ids = rows(4, 21, 8, 4, 8)
  want = attend_segments(q, k, v, ids, "xla", AxisRules())
  np.testing.assert_array_equal(attend_segments(q, k, v, ids, "blocks", AxisRules()), want)
  monkeypatch.setattr(kernels, "_PAIRS", 20)
  monkeypatch.setattr(kernels, "attend_blocks", functools.partial(attend_blocks, tile=8))
  with jax.set_mesh(make_mesh(MeshConfig(data=1, fsdp=2, context=2, tensor=2))):
    got = jax.jit(functools.partial(attend_segments, kernel="blocks", rules=AxisRules()))(
      q, k, v, ids
    )
    assert got.addressable_shards[0].data.shape == (2, 2, 21, 8)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_the_tpu_kernel_is_chosen_for_a_tpu():
  """Kills: the host's platform taken for the target's, when a plan compiles for another."""
  assert [kernel_for("auto", platform) for platform in ("cpu", "tpu", "gpu", "cuda")] == [
    "blocks",
    "splash",
    "cudnn",
    "cudnn",
  ]
  assert kernel_for("xla", "tpu") == "xla"
