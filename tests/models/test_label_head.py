"""Scores of labels from visual tokens, their loss beside the answer's, and what fills the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.config import LabelsConfig, SegmentationConfig
from facejax.fake import fake_batch
from facejax.knowledge import rules
from facejax.models import presets
from facejax.models.face_mllm import FaceMLLM, init_shapes
from facejax.models.label_head import LabelHead

RULES = """
name = "four"
labels = ["beard", "mustache", "young", "old"]

[[rule]]
kind = "implies"
from = ["mustache"]
to = ["beard"]
because = "a mustache is a beard here"

[[rule]]
kind = "exactly_one"
of = ["young", "old"]
because = "one or the other"
"""
CASES = {"plain": {}, "rules only in part": {"rule_weight": 0.5, "weight": 3.0, "form": "product"}}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("rules") / "four.toml"
  path.write_text(RULES)
  return str(path)


def config(file, segmentation=None, **settings):
  model = dataclasses.replace(
    presets.tiny(), video=None, fusion=None, labels=LabelsConfig(file, **settings)
  )
  return model if segmentation is None else dataclasses.replace(model, segmentation=segmentation)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", CASES)
def test_loss_is_that_of_a_loop(file, name):
  """Kills: unlabelled pictures that count, means over something else, lambda left out, a weight
  that scales the loss but not its share."""
  settings = LabelsConfig(file, **CASES[name])
  logits = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
  values = np.array([[1, 0, 1, 0], [-1, -1, -1, -1], [0, -1, -1, -1], [-1, 1, 0, 1]], np.int8)
  nats, known, broken, judged, pictures = 0.0, 0, 0.0, 0, 0
  for x, v in zip(logits, values, strict=True):
    pictures += bool((v >= 0).any())
    young = sigmoid(x[2] - x[3])  # a softmax of two
    s = [sigmoid(x[0]), sigmoid(x[1]), young, 1 - young]
    for i in (0, 1):
      if v[i] >= 0:
        nats, known = nats - np.log(s[i] if v[i] else 1 - s[i]), known + 1
    if 1 in v[2:]:
      nats, known = nats - np.log(s[2 + list(v[2:]).index(1)]), known + 1
    if (v >= 0).any():
      judged += 2
      broken += max(s[1] - s[0], 0) if settings.form == "hinge" else s[1] * (1 - s[0])
  head = LabelHead(settings)
  total, weight = head.apply({}, jnp.asarray(logits), jnp.asarray(values), method="loss")
  assert float(weight) == settings.weight * pictures == settings.weight * 3
  want = nats / known + settings.rule_weight * broken / judged
  np.testing.assert_allclose(total / weight, want, rtol=1e-5)


def test_features_are_means_of_what_is_there(file):
  """Kills: absent maps that dilute the mean, maps and pictures swapped, classes left out of it."""
  tokens = jnp.arange(24.0).reshape(1, 2, 3, 4)
  maps = jnp.arange(16.0).reshape(1, 2, 2, 4)
  head = LabelHead(LabelsConfig(file, depth=0))
  valid = jnp.array([[False, True]])
  params = head.init(jax.random.key(0), tokens, maps, valid)["params"]
  kernel = params["scores"]["project"]["kernel"]
  assert kernel.shape == (8, 4)
  features = np.concatenate([np.asarray(tokens)[0].mean((0, 1)), np.asarray(maps)[0, 1].mean(0)])
  image = features @ np.asarray(kernel)
  prompts = np.asarray(params["prompts"])
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  got = head.apply({"params": params}, tokens, maps, valid)
  np.testing.assert_allclose(got[0], 10 * unit(prompts) @ unit(image), rtol=1e-5)
  none = head.apply({"params": params}, tokens, maps * jnp.nan, jnp.zeros((1, 2), bool))
  assert np.isfinite(none).all() and (none != got).any()


@pytest.mark.parametrize("mode", ["concat", "add", "off"])
def test_the_answer_s_loss_and_the_labels_add_up(file, mode, randomise):
  """Kills: a head that no mode of maps feeds, labels that leak into the answer's loss, prompts or
  the graph trained, values of another picture."""
  seg = SegmentationConfig(mode="add", size=12, grid=3, width=22, classes=7)
  maps = {"concat": None, "add": seg, "off": SegmentationConfig()}[mode]
  model = config(file, maps, weight=2.0)
  batch = fake_batch(model, rows=2, row_length=60, images=2, seed=1)
  params = jax.tree.map(jnp.asarray, randomise(init_shapes(model)))
  run = lambda model, method: jax.jit(
    lambda p, b: FaceMLLM(model).apply({"params": p}, b, method=method)
  )
  apply = run(model, "loss")
  total, weight = apply(params, batch)
  with_labels = lambda x: batch.replace(images=batch.images.replace(labels=x))
  plain, tokens = apply(params, with_labels(-jnp.ones((2, 2, 4), jnp.int8)))
  bare = {name: x for name, x in params.items() if name != "labels"}
  absent = dataclasses.replace(model, labels=None)
  want = run(absent, "loss")(bare, with_labels(None))
  np.testing.assert_allclose((plain, tokens), want, rtol=1e-6)
  _, out = run(model, "embed")(params, batch)
  flat = [x.reshape(4, 4) for x in (out["image/labels"], batch.images.labels)]
  own = LabelHead(model.labels).apply({}, *flat, method="loss")
  np.testing.assert_allclose((total - plain, weight - tokens), own, rtol=1e-4)
  grads = jax.jit(jax.grad(lambda p: apply(p, batch)[0]))(params)["labels"]
  assert not grads["prompts"].any() and not grads["graph"].any()
  assert all(np.asarray(x).any() for x in jax.tree.leaves(grads["scores"]))
  scores = run(model, "label_scores")(params, batch)
  np.testing.assert_allclose(scores[..., 2] + scores[..., 3], 1, rtol=1e-6)


def test_a_rule_file_s_labels_size_the_head():
  """Kills: a head of another size than the rules speak of."""
  model = dataclasses.replace(presets.tiny(), labels=LabelsConfig())
  shapes = init_shapes(model)["labels"]
  assert shapes["graph"].shape == (40, 40) == (len(rules.load("celeba40").labels),) * 2
  assert shapes["prompts"].shape == (40, model.decoder.width)
