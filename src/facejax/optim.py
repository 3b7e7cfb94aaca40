"""AdamW and its learning rate. OptimConfig, steps -> optax.GradientTransformation.

Face-LLaVA's released scripts use AdamW with linear warm-up over 3 % of the steps and a cosine to
zero, no weight decay and, because DeepSpeed's file does not ask for it, no gradient clipping.
"""

import math
import re
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from facejax.config import OptimConfig

# One number a channel: pulling a norm's scale towards 0 would shrink features, not prevent overfit.
_UNDECAYED = r"(.*/)?(scale|bias)"


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
  """The rate of update s = 0, 1, ..., of S = steps, with W = ceil(warmup * S).

  peak * s / W for s < W, so the first update has rate 0; then peak * (1 + cos(pi (s-W)/(S-W))) / 2,
  or peak with schedule "constant". This is the schedule of the released scripts.
  """
  warmup = math.ceil(config.warmup * steps)

  def rate(s):
    s = jnp.asarray(s, jnp.float32)
    done = jnp.clip((s - warmup) / max(1, steps - warmup), 0, 1)
    after = 0.5 * (1 + jnp.cos(jnp.pi * done)) if config.schedule == "cosine" else 1.0
    return config.peak_lr * jnp.where(s < warmup, s / max(1, warmup), after)

  return rate


def decayed(params: Any) -> Any:
  """True for each parameter that weight decay applies to: all but norms and biases."""
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  return flax.traverse_util.unflatten_dict(
    {name: not re.fullmatch(_UNDECAYED, name) for name in flat}, sep="/"
  )


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
  """AdamW, after clipping of the global norm if the config asks for it."""
  adamw = optax.adamw(
    learning_rate(config, steps),
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    weight_decay=config.weight_decay,
    mask=decayed,
  )
  # Either way the state has the same structure, so that --allow-change can accept a new clip_norm.
  clip = (
    optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
  )
  return optax.chain(clip, adamw)


def global_norm(tree: Any) -> jax.Array:
  """Euclidean norm of all leaves together, in float32."""
  return optax.tree.norm(jax.tree.map(lambda x: x.astype(jnp.float32), tree))
