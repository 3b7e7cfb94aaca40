"""Graph convolution, scores and their loss against loops; gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from rule_sets import made

from facejax.knowledge import constraint
from facejax.knowledge.constraint import (
  LabelGraph,
  LabelScores,
  embed_prompts,
  label_loss,
  scores,
  total_loss,
)
from facejax.knowledge.violations import compiled

RNG = np.random.default_rng(0)
PROMPTS = RNG.normal(size=(5, 3)).astype(np.float32)
GRAPH = RNG.random((5, 5)).astype(np.float32)
FEATURES = RNG.normal(size=(2, 7)).astype(np.float32)
INPUTS = tuple(jnp.asarray(x) for x in (FEATURES, PROMPTS, GRAPH))
GROUPS = ((0, 3), (1, 2, 5))


def randomised(params, seed=0):
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(seed)
  drawn = [jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32) for x in leaves]
  return jax.tree.unflatten(tree, drawn)


def convolved(weights, residual):
  """T^l = rho(C T^(l-1) W) with loops over labels."""
  x = PROMPTS.astype(np.float64)
  for layer, w in enumerate(weights):
    rows = []
    for i in range(5):
      taken = sum(float(GRAPH[i, j]) * x[j] for j in range(5))
      rows.append(taken @ w.astype(np.float64))
    x = np.array(rows)
    if layer < len(weights) - 1:
      x = np.where(x > 0, x, 0.2 * x)
  return x + PROMPTS if residual else x


@pytest.mark.parametrize("residual", [True, False])
def test_graph_convolution_equals_a_loop(residual):
  """Kills: the graph transposed, rho after the last layer or missing, another slope, the residual
  of a layer for that of the prompts."""
  module = LabelGraph(3, residual)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *INPUTS[1:])["params"]
  sizes = [shapes[f"layer{i}"]["kernel"].shape for i in range(3)]
  assert sizes == [(3, 6), (6, 6), (6, 3)] and list(shapes["layer0"]) == ["kernel"]
  params = randomised(shapes)
  got = jax.jit(module.apply)({"params": params}, *INPUTS[1:])
  weights = [np.asarray(params[f"layer{i}"]["kernel"]) for i in range(3)]
  np.testing.assert_allclose(got, convolved(weights, residual), rtol=2e-5, atol=1e-5)


def test_a_fresh_graph_changes_nothing():
  """Kills: a residual module that scrambles the prompts before it has learned anything; a deep one
  without residual that starts at 0 and never learns."""
  module = LabelGraph()
  fresh = jax.jit(lambda m, *x: m.init_with_output(jax.random.key(0), *x)[0], static_argnums=0)
  np.testing.assert_array_equal(fresh(module, *INPUTS[1:]), PROMPTS)
  np.testing.assert_array_equal(fresh(LabelGraph(0), *INPUTS[1:]), PROMPTS)
  got = fresh(LabelGraph(residual=False), *INPUTS[1:])
  assert np.abs(got).max() > 0.01


def test_logits_equal_a_loop():
  """Kills: products for cosines, a scale that is not exp of its parameter, another label's bias."""
  module = LabelScores(depth=2)
  shapes = jax.eval_shape(module.init, jax.random.key(0), *INPUTS)["params"]
  params = randomised(shapes)
  got = jax.jit(module.apply)({"params": params}, *INPUTS)
  params = jax.tree.map(np.asarray, params)
  labels = convolved([np.asarray(params["graph"][f"layer{i}"]["kernel"]) for i in (0, 1)], True)
  image = FEATURES @ params["project"]["kernel"] + params["project"]["bias"]
  for b in range(2):
    for n in range(5):
      cosine = image[b] @ labels[n] / np.linalg.norm(image[b]) / np.linalg.norm(labels[n])
      expected = np.exp(params["log_scale"]) * cosine + params["bias"][n]
      np.testing.assert_allclose(got[b, n], expected, rtol=1e-4)
  fresh = jax.jit(module.init)(jax.random.key(0), *INPUTS)["params"]
  np.testing.assert_allclose(np.exp(fresh["log_scale"]), constraint.SCALE, rtol=1e-6)


def test_bfloat16_stays_near_and_gives_float32():
  """Kills: cosines or logits in bfloat16 (steps of 1/16 at a logit of 10)."""
  module, rough = LabelScores(), LabelScores(dtype=jnp.bfloat16)
  params = randomised(jax.eval_shape(module.init, jax.random.key(0), *INPUTS))
  exact = jax.jit(module.apply)(params, *INPUTS)
  got = jax.jit(rough.apply)(params, *INPUTS)
  assert got.dtype == jnp.float32
  assert 0 < np.abs(got - exact).max() < 0.1
  assert len(np.unique(np.asarray(got) * 16 % 1)) > 5


def test_zero_features_have_finite_gradients():
  # Kills: x / |x| at 0, and gradients to the prompts, which are constants.
  module = LabelScores()
  zero = jnp.zeros((2, 7))
  params = jax.jit(module.init)(jax.random.key(0), zero, *INPUTS[1:])
  loss = lambda p, t: module.apply(p, zero, t, INPUTS[2]).sum()
  own, prompts = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, INPUTS[1])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(own))
  assert (prompts == 0).all()


LOGITS = RNG.normal(size=(9, 6)).astype(np.float32) * 2
VALUES = np.array(
  [
    [1, 0, 1, 0, 1, 0],
    [0, -1, -1, 1, 0, -1],
    [-1, 0, -1, -1, -1, -1],
    [0, 1, 1, 0, 1, 0],  # two present in one group, none in the other
    [-1, 0, 0, 0, -1, 0],
    [0, -1, 0, -1, 1, 0],
    [-1, -1, -1, -1, -1, -1],
    [1, 0, 0, 1, 0, 1],
    [1, -1, 1, -1, -1, 0],
  ],
  np.int8,
)


def loss_by_hand(logits):
  total = number = 0
  for x, row in zip(logits.astype(np.float64), VALUES.tolist(), strict=True):
    if row[4] >= 0:  # the one label outside groups
      p = 1 / (1 + np.exp(-x[4]))
      total -= np.log(p if row[4] else 1 - p)
      number += 1
    for group in GROUPS:
      has = [row[i] for i in group]
      p = np.exp(x[list(group)]) / np.exp(x[list(group)]).sum()
      maybe = [h == 1 for h in has] if 1 in has else [h == -1 for h in has]
      if all(h == -1 for h in has) or not any(maybe):
        continue
      total -= np.log(sum(q for q, m in zip(p, maybe, strict=True) if m))
      number += 1
  return total, number


def test_loss_equals_a_loop():
  """Kills: an unknown label taken for absent, a group that counts once a label, a group without
  any present label that would be an infinite loss, a mean for a sum."""
  total, number = jax.jit(label_loss, static_argnums=2)(LOGITS, VALUES, GROUPS)
  expected = loss_by_hand(LOGITS)
  np.testing.assert_allclose(total, expected[0], rtol=1e-5)
  assert number == expected[1] and np.isfinite(total)


def test_gradients_of_the_loss_equal_finite_differences():
  """Kills: a gradient through what is unknown, NaN from a group that counts as nothing."""
  got = jax.jit(jax.grad(lambda x: label_loss(x, VALUES, GROUPS)[0]))(jnp.asarray(LOGITS))
  for place in np.ndindex(LOGITS.shape):
    moved = [LOGITS.astype(np.float64) for _ in range(2)]
    moved[0][place] += 1e-4
    moved[1][place] -= 1e-4
    slope = (loss_by_hand(moved[0])[0] - loss_by_hand(moved[1])[0]) / 2e-4
    np.testing.assert_allclose(got[place], slope, atol=2e-5)
  assert (np.asarray(got)[6] == 0).all()


def test_gradients_of_the_head_equal_finite_differences():
  """Kills: a stopped gradient in the graph, the cosine or the scale."""
  module = LabelScores()
  params = randomised(jax.eval_shape(module.init, jax.random.key(0), *INPUTS), 3)
  flat, back = ravel_pytree(params)
  target = jnp.asarray(RNG.normal(size=(2, 5)), jnp.float32)
  loss = jax.jit(lambda v: jnp.sum(module.apply(back(v), *INPUTS) * target))
  got = np.asarray(jax.jit(jax.grad(loss))(flat))
  for i in range(0, len(flat), 5):
    step = np.zeros(len(flat), np.float32)
    step[i] = 1e-2
    slope = (loss(flat + step) - loss(flat - step)) / 2e-2
    np.testing.assert_allclose(got[i], slope, rtol=2e-2, atol=2e-2)
  assert (np.abs(got) > 1e-6).mean() > 0.9


def test_total_loss():
  """Kills: the weight on the other term, logits where scores belong, sums for means."""
  told = made(6, ("exactly_one", "ad"), ("implies", "ef"), ("exactly_one", "bcf"))
  arrays = compiled(told)
  got, parts = jax.jit(lambda x: total_loss(x, VALUES, GROUPS, arrays, 0.3, "hinge"))(LOGITS)
  known, number = loss_by_hand(LOGITS)
  s = np.asarray(jax.jit(lambda x: scores(x, GROUPS))(LOGITS))
  broken = np.maximum(s[:, 4] - s[:, 5], 0).sum() / (3 * len(s))  # a softmax is never out of one
  np.testing.assert_allclose(parts["label_loss"], known / number, rtol=1e-5)
  np.testing.assert_allclose(parts["rule_loss"], broken, rtol=1e-4)
  np.testing.assert_allclose(got, known / number + 0.3 * broken, rtol=1e-5)


def test_scores_of_groups():
  """Kills: a sigmoid inside a group, a softmax over all labels."""
  got = np.asarray(jax.jit(lambda x: scores(x, GROUPS))(LOGITS))
  for group in GROUPS:
    e = np.exp(LOGITS[:, group])
    np.testing.assert_allclose(got[:, group], e / e.sum(1, keepdims=True), rtol=1e-5)
  np.testing.assert_allclose(got[:, 4], 1 / (1 + np.exp(-LOGITS[:, 4])), rtol=1e-5)


def test_prompts_from_embeddings():
  """Kills: a sum for a mean over tokens, the mean over labels left in."""
  table = RNG.normal(size=(11, 4)).astype(np.float16)
  got = embed_prompts(table, [[1, 2, 2], [7], [3, 10]])
  means = [
    np.mean([table[i].astype(np.float64) for i in ids], 0) for ids in ([1, 2, 2], [7], [3, 10])
  ]
  np.testing.assert_allclose(got, means - np.mean(means, 0), atol=1e-3)
  assert got.dtype == np.float32
  with pytest.raises(ValueError, match="prompt 1 of 2 has 0 tokens"):
    embed_prompts(table, [[1], []])
