"""The correlation constraint. features [B E], prompts [N d], graph [N N] -> logits [B N], loss.

Of the paper: T^l = rho(C T^(l-1) W^(l-1)), from the embeddings T^0 of a prompt for each label, and
L = L_bce + L_c. Depth, widths, rho, the residual, the scores and the groups are our choice.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import constant, glorot_uniform, zeros
from jaxtyping import Array, Bool, Float, Int8

from facejax.knowledge.violations import RuleArrays, rule_loss
from facejax.losses import per_weight
from facejax.models.layers import Dense
from facejax.types import typed

SLOPE = 0.2  # of LeakyReLU below 0; ML-GCN's
SCALE = 10.0  # of cosines at the start: logits of -10..10


class LabelGraph(nn.Module):
  """Prompts that have taken up those of related labels.

  Attributes:
    depth: graph convolutions, d -> 2d -> ... -> d; with 0 of them the prompts come back.
    residual: adds the prompts to the result. The last layer then starts at 0, so a fresh module
      returns the prompts bit for bit; without it, it starts as a random map of the label space.
    dtype: of the products.
  """

  depth: int = 2
  residual: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typed
  def __call__(
    self, prompts: Float[Array, "N d"], graph: Float[Array, "N N"]
  ) -> Float[Array, "N d"]:
    """Returns an embedding of each label, float32."""
    if self.depth == 0:
      return prompts.astype(jnp.float32)
    width, x = prompts.shape[1], prompts
    for layer in range(self.depth):
      last = layer == self.depth - 1
      init = zeros if last and self.residual else glorot_uniform()
      taken = graph.astype(self.dtype) @ x.astype(self.dtype)
      features = width if last else 2 * width
      x = Dense(features, bias=False, dtype=self.dtype, kernel_init=init, name=f"layer{layer}")(
        taken
      )
      x = x if last else nn.leaky_relu(x, SLOPE)
    x = x.astype(jnp.float32)
    return x + prompts.astype(jnp.float32) if self.residual else x


class LabelScores(nn.Module):
  """Logits of labels: scale * cos(projected features, label) + bias of the label.

  The scale is learned as its logarithm, so that it stays positive. Cosines are float32.

  Attributes:
    depth: of the graph convolution; 0: no correlation constraint, the same head otherwise.
    residual: of LabelGraph.
    dtype: of the products of features and prompts with matrices.
  """

  depth: int = 2
  residual: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  @typed
  def __call__(
    self,
    features: Float[Array, "B E"],
    prompts: Float[Array, "N d"],
    graph: Float[Array, "N N"],
  ) -> Float[Array, "B N"]:
    """Returns logits, float32. Prompts and graph are constants: no gradient is taken of them."""
    prompts, graph = jax.lax.stop_gradient((prompts, graph))
    labels = LabelGraph(self.depth, self.residual, self.dtype, name="graph")(prompts, graph)
    image = Dense(prompts.shape[1], dtype=self.dtype, name="project")(features)
    scale = jnp.exp(self.param("log_scale", constant(np.log(SCALE)), ()))
    bias = self.param("bias", zeros, (len(prompts),))
    cosines = jnp.einsum("Bd,Nd->BN", unit(image), unit(labels), precision="highest")
    return scale * cosines + bias[None]


@typed
def unit(x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
  """Rows over their length, float32; a row of zeros stays one, with finite gradients."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))


def scores(logits: jax.Array, groups: Sequence[Sequence[int]]) -> jax.Array:
  """Logits [B N] -> probabilities [B N]: a softmax in each group, a sigmoid elsewhere; float32."""
  logits = logits.astype(jnp.float32)
  result = jax.nn.sigmoid(logits)
  for group in groups:
    places = np.asarray(group)
    result = result.at[:, places].set(jax.nn.softmax(logits[:, places], axis=-1))
  return result


def label_loss(
  logits: Float[Array, "B N"], values: Int8[Array, "B N"], groups: Sequence[Sequence[int]]
) -> tuple[jax.Array, jax.Array]:
  """L_bce: the sum of losses of what is known, in nats, and how many there are.

  A label outside groups counts as one binary cross-entropy, where it is known. A group counts as
  one: -log of the probability that its softmax gives to the labels that may be the true one. That
  is the present one; if none is present, those unknown. A group of which nothing is known, or all
  labels are absent (noise), counts as nothing.

    values  -1 -1 -1    1  0  0     0 -1 -1            0  0  0
    loss     0          -log p_0    -log (p_1 + p_2)   0

  Args:
    logits: of LabelScores.
    values: 1, 0 or -1.
    groups: LabelSet.group_indices.
  """
  logits = logits.astype(jnp.float32)
  alone = np.ones(logits.shape[1], bool)
  for group in groups:
    alone[np.asarray(group)] = False
  known = (values >= 0) & jnp.asarray(alone)[None]
  signed = jnp.where(values == 1, logits, -logits)
  total, weight = -jnp.sum(jnp.where(known, jax.nn.log_sigmoid(signed), 0)), jnp.sum(known)
  for group in groups:
    places = np.asarray(group)
    own, has = logits[:, places], values[:, places]
    present = has == 1
    allowed = jnp.where(jnp.any(present, 1, keepdims=True), present, has != 0)
    counted = jnp.any(allowed, 1) & jnp.any(has >= 0, 1)
    allowed = allowed | ~counted[:, None]  # a row that counts as nothing has a loss of exactly 0
    inside = jax.nn.logsumexp(jnp.where(allowed, own, -jnp.inf), axis=-1)
    loss = jax.nn.logsumexp(own, axis=-1) - inside
    total += jnp.sum(jnp.where(counted, loss, 0))
    weight += jnp.sum(counted)
  return total, weight.astype(jnp.float32)


def total_loss(
  logits: Float[Array, "B N"],
  values: Int8[Array, "B N"],
  groups: Sequence[Sequence[int]],
  rules: RuleArrays,
  weight: float = 1.0,
  form: str = "product",
  judged: Bool[Array, "B N"] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """L = L_bce + weight * L_c, and both of its means; the paper shows no weight, which is 1.

  A mean over the rows that are given; `judged` as in rule_loss. To add up micro-batches, add the
  sums and numbers of label_loss and rule_loss, and divide once.
  """
  known = per_weight(*label_loss(logits, values, groups))
  broken = per_weight(*rule_loss(scores(logits, groups), rules, form, judged))
  return known + weight * broken, {"label_loss": known, "rule_loss": broken}


def embed_prompts(
  embedding: Float[np.ndarray, "V d"], tokens: Sequence[Sequence[int]]
) -> Float[np.ndarray, "N d"]:
  """T^0 from the model's own text side: the mean of a prompt's token embeddings; float32.

  The mean over labels is taken off: embeddings of one vocabulary share a direction, along which
  all labels would look alike to a cosine.

  Raises ValueError for a prompt without tokens.
  """
  if empty := [i for i, ids in enumerate(tokens) if not len(ids)]:
    raise ValueError(f"prompt {empty[0]} of {len(tokens)} has 0 tokens - expected at least one")
  means = np.stack([np.asarray(embedding[list(ids)], np.float32).mean(0) for ids in tokens])
  return means - means.mean(0)
