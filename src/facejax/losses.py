"""Next-token cross-entropy. logits [B L V], targets, weights [B L] -> (sum, weight).

Sums, not means: micro-batches and devices hold different numbers of answer tokens, so their means
must not be averaged; their sums and weights may be added, and divided once at the end.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from facejax.types import typed


@typed
def next_token(
  logits: Float[Array, "B L V"], targets: Int[Array, "B L"], weights: Float[Array, "B L"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Weighted sum of -log p(target) in nats, computed in float32, and the sum of the weights.

  A position of weight 0 adds exactly 0, to the gradient too, whatever its target is.
  """
  logits = logits.astype(jnp.float32)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  nll = jax.nn.logsumexp(logits, axis=-1) - chosen
  weights = weights.astype(jnp.float32)
  return jnp.sum(nll * weights), jnp.sum(weights)


@typed
def per_weight(total: Float[Array, "*any"], weight: Float[Array, ""]) -> Float[Array, "*any"]:
  """total / weight, and 0 / 0 = 0: a step whose samples were all refused changes nothing."""
  return total / jnp.where(weight > 0, weight, 1)
