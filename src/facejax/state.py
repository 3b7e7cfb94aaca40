"""What training carries from step to step. FaceMLLM, StageConfig, mesh -> TrainState.

Gradients and optimiser slots exist for the trainable half alone. The state is born sharded: shapes
first, then layouts, then one compiled initialisation that writes each slice where it lives. Call
these functions outside jax.set_mesh: the model's init runs on one row, which no mesh divides.
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax import stages
from facejax.config import StageConfig
from facejax.models import face_mllm
from facejax.models.face_mllm import FaceMLLM
from facejax.optim import make_optimizer
from facejax.sharding import param_shardings

# Parameters that the model reads in float32 whatever its dtype: rounded, they would change what it
# computes. They are few: 1,691,648 of Face-LLaVA-7B's 7,551,840,256.
_FLOAT32 = r"landmark_projector/.*|segmentation/(classes|positions)|(.*/)?\w*norm/(scale|bias)"


@flax.struct.dataclass
class TrainState:
  """One pytree in, one pytree out of a step."""

  step: Any  # int32 scalar: updates done, which is also the next batch's number
  trainable: Any  # float32 masters
  frozen: Any  # in the compute dtype, but for what enters float32 sums
  opt_state: optax.OptState
  rng: Any  # the key that fresh parameters were drawn with

  @property
  def params(self) -> dict:
    """All parameters in one tree."""
    return stages.merge(self.trainable, self.frozen)


def abstract_state(model: FaceMLLM, stage: StageConfig, mesh: Mesh) -> TrainState:
  """Shapes, types and shardings of a stage's state; nothing is computed.

  Frozen parameters are held in the compute dtype where the forward pass casts them to it anyway:
  with bfloat16 that halves them. Trainable ones stay float32, as does what sums in float32 read.
  Raises ValueError as stages.split does.
  """
  trainable, frozen = stages.split(face_mllm.init_shapes(model.config), stage)
  frozen = _held(frozen, model.config.dtype)
  optimizer = make_optimizer(stage.optim, stage.steps)
  layout_of = lambda tree: param_shardings(tree, mesh, model.rules) if tree else {}
  everywhere = NamedSharding(mesh, PartitionSpec())
  opt_state = jax.eval_shape(optimizer.init, trainable)
  opt_layout = optax.tree_utils.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    opt_state,
    layout_of(trainable),
    transform_non_params=lambda _: everywhere,
  )
  shapes = TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32),
    trainable=trainable,
    frozen=frozen,
    opt_state=opt_state,
    rng=jax.eval_shape(lambda: jax.random.key(0)),
  )
  layout = TrainState(
    step=everywhere,
    trainable=layout_of(trainable),
    frozen=layout_of(frozen),
    opt_state=opt_layout,
    rng=everywhere,
  )
  place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  return jax.tree.map(place, shapes, layout)


def _held(frozen: Any, dtype: str) -> Any:
  """The shapes of frozen parameters in the types they are held in."""
  flat = flax.traverse_util.flatten_dict(frozen, sep="/")
  kept = lambda name: jnp.float32 if re.fullmatch(_FLOAT32, name) else jnp.dtype(dtype)
  return flax.traverse_util.unflatten_dict(
    {name: jax.ShapeDtypeStruct(x.shape, kept(name)) for name, x in flat.items()}, sep="/"
  )


def init_state(
  model: FaceMLLM,
  stage: StageConfig,
  abstract: TrainState,
  seed: int,
  loaded: Mapping[str, jax.Array] | None = None,
) -> TrainState:
  """Fresh parameters from `seed`, except those of `loaded` ("/"-joined name -> placed array).

  A parameter that is loaded is never drawn: it is no output of the compiled initialisation.
  """
  loaded = loaded or {}
  target = flax.traverse_util.flatten_dict(abstract.params, sep="/")
  fresh = {name: x for name, x in target.items() if name not in loaded}

  def draw():
    rng = jax.random.key(seed)  # made here: several processes cannot put one array on all devices
    flat = flax.traverse_util.flatten_dict(face_mllm.init(model.config, rng), sep="/")
    drawn = {name: flat[name].astype(x.dtype) for name, x in fresh.items()}
    return drawn, jnp.zeros((), jnp.int32), rng

  layout = _shardings((fresh, abstract.step, abstract.rng))
  drawn, step, rng = jax.jit(draw, out_shardings=layout)()
  params = flax.traverse_util.unflatten_dict({**loaded, **drawn}, sep="/")
  trainable, frozen = stages.split(params, stage)
  optimizer = make_optimizer(stage.optim, stage.steps)
  opt_state = jax.jit(optimizer.init, out_shardings=_shardings(abstract.opt_state))(trainable)
  return TrainState(step, trainable, frozen, opt_state, rng)


def _shardings(abstract: Any) -> Any:
  return jax.tree.map(lambda x: x.sharding, abstract)
