"""Scores of facial labels from the tokens of a picture. tokens, rules -> logits [n A], loss.

FaceInsight hands such scores to the language model; where they branch off is our choice, the paper
does not say: behind the projector and the landmark modules, from the mean of a picture's tokens and
the mean of its map's, side by side.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int8

from facejax.config import LabelsConfig
from facejax.knowledge import rules as rule_files
from facejax.knowledge.constraint import LabelScores, scores, total_loss
from facejax.knowledge.violations import compiled
from facejax.models.layers import INIT
from facejax.types import typed


def _related(_, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
  """A graph in which no label speaks to another."""
  return jnp.eye(shape[0], dtype=dtype)


class LabelHead(nn.Module):
  """Logits of the labels of a rule file.

  `prompts` [A D] and `graph` [A A] are constants that `facejax knowledge` makes of words and of a
  label table; a fresh model has random prompts and a graph without edges.
  """

  config: LabelsConfig
  dtype: Any = jnp.float32

  @nn.compact
  @typed
  def __call__(
    self,
    tokens: Float[Array, "n t P D"],
    maps: Float[Array, "n t Q D"] | None,
    maps_valid: Bool[Array, "n t"],
  ) -> Float[Array, "n A"]:
    """Logits of n pictures or clips, float32. Without a map its half of the features is 0."""
    size = len(rule_files.load(self.config.rules).labels)
    prompts = self.param("prompts", INIT, (size, tokens.shape[-1]))
    graph = self.param("graph", _related, (size, size))
    features = jnp.mean(tokens, axis=(1, 2), dtype=jnp.float32)
    if maps is not None:
      kept = jnp.where(maps_valid[..., None], jnp.mean(maps, axis=2, dtype=jnp.float32), 0)
      frames = jnp.maximum(jnp.sum(maps_valid, axis=1, keepdims=True), 1)
      features = jnp.concatenate([features, jnp.sum(kept, axis=1) / frames], axis=-1)
    head = LabelScores(self.config.depth, dtype=self.dtype, name="scores")
    return head(features.astype(self.dtype), prompts, graph)

  def scores(self, logits: Float[Array, "B M A"]) -> Float[Array, "B M A"]:
    """Probabilities: a softmax in each group of the rule file, a sigmoid elsewhere; float32."""
    groups = rule_files.load(self.config.rules).labels.group_indices
    return scores(logits.reshape(-1, logits.shape[-1]), groups).reshape(logits.shape)

  @typed
  def loss(
    self, logits: Float[Array, "n A"], values: Int8[Array, "n A"]
  ) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(sum, weight): L_bce + lambda L_c of labelled pictures, times how many there are.

    L_bce is a mean over known labels, L_c over rules and labelled pictures: unknown labels of such
    a picture must keep the rules, too.
    """
    cfg, rules = self.config, rule_files.load(self.config.rules)
    groups = rules.labels.group_indices
    labelled = jnp.any(values >= 0, axis=1)
    judged = jnp.broadcast_to(labelled[:, None], logits.shape)
    loss, _ = total_loss(logits, values, groups, compiled(rules), cfg.rule_weight, cfg.form, judged)
    weight = cfg.weight * jnp.sum(labelled, dtype=jnp.float32)
    return weight * loss, weight
