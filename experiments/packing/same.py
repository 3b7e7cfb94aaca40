"""Loss and gradients of the same samples, packed and one to a row."""

import jax
import numpy as np
import small

from facejax import losses
from facejax.config import DataConfig
from facejax.data import pipeline, rows
from facejax.models import face_mllm
from facejax.models.face_mllm import FaceMLLM

_TOLERANCE = 1e-5


def compare() -> dict:
  """Largest differences over all parameters, in units of each gradient's largest entry."""
  config = small.model(layers=2, width=32, vision=32)
  samples = [small.Noise("image", [3, 40, 17, 90], 224, 8, 0)[i] for i in range(4)]
  samples += [small.Noise("video", [25, 8], 224, 8, 0)[i] for i in range(2)]
  form = lambda length, images, videos: pipeline.row_format(
    config, DataConfig(length, images_per_row=images, videos_per_row=videos)
  )
  packed = rows.collate([
    rows.encode(samples[:2] + samples[4:5], range(3), form(3072, 2, 1)),
    rows.encode(samples[5:] + samples[2:4], range(3), form(3072, 2, 1)),
  ])  # fmt: skip
  alone = rows.collate([rows.encode([s], [0], form(2304, 1, 1)) for s in samples])
  params = face_mllm.init(config, jax.random.key(0))

  @jax.jit
  def run(params, batch):
    def loss(params):
      logits = FaceMLLM(config).apply({"params": params}, batch)
      total, weight = losses.next_token(logits, batch.targets, batch.loss_weights)
      return total / weight

    return jax.value_and_grad(loss)(params)

  with jax.default_matmul_precision("highest"):
    (one, grads), (other, others) = run(params, packed), run(params, alone)
  pairs = zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(others), strict=True)
  named = {
    jax.tree_util.keystr(path, simple=True, separator="/"): (np.asarray(a), np.asarray(b))
    for (path, a), b in pairs
  }
  # A key's bias moves all scores of a query alike: its gradient is 0, and what is left is rounding.
  zero = {name: pair for name, pair in named.items() if name.endswith("k/bias")}
  worst = {
    name: float(np.abs(a - b).max() / np.abs(b).max())
    for name, (a, b) in named.items()
    if name not in zero and np.abs(b).max() > 0
  }
  name = max(worst, key=worst.__getitem__)
  result = {
    "samples": len(samples),
    "parameters_compared": len(worst),
    "of_zero_gradient": len(named) - len(worst),
    "largest_of_key_biases": max(float(np.abs(pair).max()) for pair in zero.values()),
    "largest_gradient": max(float(np.abs(b).max()) for _, b in named.values()),
    "tolerance": _TOLERANCE,
    "loss_packed": float(one),
    "loss_alone": float(other),
    "loss_difference": abs(float(one) - float(other)),
    "largest_gradient_difference": worst[name],
    "of": name,
    "equal": abs(float(one - other)) < _TOLERANCE and worst[name] < _TOLERANCE,
  }
  print(result, flush=True)
  return result
