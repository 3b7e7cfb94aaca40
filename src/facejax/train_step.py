"""One update of a stage. TrainState, Batch -> TrainState, metrics; and batches onto the mesh."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax import chips, losses, stages
from facejax.config import StageConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.optim import global_norm, learning_rate, make_optimizer
from facejax.sharding import batch_sharding, constrain
from facejax.state import TrainState, abstract_state
from facejax.types import Batch

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(model: FaceMLLM, stage: StageConfig, mesh: Mesh) -> Step:
  """The jitted step; call it under jax.set_mesh(mesh). It consumes (donates) the state.

  Micro-batch a has the rows a, a + A, a + 2A, ... of a batch, so that cutting a batch moves nothing
  between devices. Gradients are summed and divided once by the number of target tokens.

  The metrics are float32 scalars: loss (nats a target token), weight (target tokens), the norms of
  the gradient before clipping, of the update and of the trainable parameters after it, and the
  learning rate of this update.
  """
  model = model.clone(platform=mesh.devices.flat[0].platform)
  abstract = abstract_state(model, stage, mesh)
  optimizer = make_optimizer(stage.optim, stage.steps)
  rate = learning_rate(stage.optim, stage.steps)
  A = stage.accumulate

  def loss(trainable, frozen, batch):
    return model.apply({"params": stages.merge(trainable, frozen)}, batch, method="loss")

  def cut(x):
    x = x.reshape(x.shape[0] // A, A, *x.shape[1:]).swapaxes(0, 1)
    return constrain(x, model.rules, None, "batch")

  def train_step(state: TrainState, batch: Batch):
    def add(sums, micro):
      value = jax.value_and_grad(loss, has_aux=True)(state.trainable, state.frozen, micro)
      return jax.tree.map(jnp.add, sums, value), None

    zero = jnp.zeros((), jnp.float32)
    zeros = ((zero, zero), jax.tree.map(jnp.zeros_like, state.trainable))
    ((total, weight), grads), _ = jax.lax.scan(add, zeros, jax.tree.map(cut, batch))
    grads = jax.tree.map(lambda g: losses.per_weight(g, weight), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    metrics = {
      "loss": losses.per_weight(total, weight),
      "weight": weight,
      "grad_norm": global_norm(grads),
      "update_norm": global_norm(updates),
      "param_norm": global_norm(trainable),
      "learning_rate": rate(state.step),
    }
    new = dataclasses.replace(state, step=state.step + 1, trainable=trainable, opt_state=opt_state)
    return new, metrics

  layout = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(
    train_step,
    donate_argnums=0,
    in_shardings=(layout, batch_sharding(mesh, model.rules)),
    out_shardings=(layout, NamedSharding(mesh, PartitionSpec())),
    compiler_options=chips.compiler_options(mesh),
  )


def put(batch: Batch, rows: int, mesh: Mesh) -> Batch:
  """This process's NumPy rows -> arrays of all `rows` rows over the mesh."""
  sharding = batch_sharding(mesh)
  place = lambda x: jax.make_array_from_process_local_data(
    sharding, np.asarray(x), (rows, *x.shape[1:])
  )
  with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX counts it implicit
    return jax.tree.map(place, batch)
