"""What training carries from step to step. FaceMLLM, StageConfig, mesh -> TrainState.

Gradients and optimiser slots exist for the trainable half alone. The state is born sharded: shapes
first, then layouts, then one compiled initialisation that writes each slice where it lives. Call
these functions outside jax.set_mesh: the model's init runs on one row, which no mesh divides.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax import lora, quantize, stages
from facejax.config import StageConfig
from facejax.models import face_mllm
from facejax.models.face_mllm import FaceMLLM
from facejax.optim import make_optimizer
from facejax.sharding import param_shardings

# Parameters that the model reads in float32 whatever its dtype: rounded, they would change what it
# computes. They are few: 1,691,648 of Face-LLaVA-7B's 7,551,840,256.
_FLOAT32 = (
  r"landmark_projector/.*|segmentation/(classes|positions)|(.*/)?\w*norm/(scale|bias)|"
  r"(.*/)?lora_scale"
)
# The kernels that stage.lora.base quantises where they are frozen: nearly all of a model, without
# what first reads pixels and last writes scores.
_QUANTIZED = r"\w+/(blocks|rest)/.*/kernel"


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
  with bfloat16 that halves them; or quantised, if stage.lora.base asks for it. Trainable ones stay
  float32, as does what sums in float32 read. Raises ValueError as stages.split does, and
  lora.with_adapters.
  """
  params = lora.with_adapters(face_mllm.init_shapes(model.config), stage.lora)
  trainable, frozen = stages.split(params, stage)
  frozen = _quantized(_held(frozen, model.config.dtype), stage)
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


def as_loaded(abstract: TrainState, model: FaceMLLM) -> TrainState:
  """The state before its base is quantised: what parameters are read and drawn as."""
  flat = lora.flatten(abstract.frozen)
  for name in [name for name in flat if name.endswith("/kernel_scale")]:
    del flat[name]
    kernel = name.removesuffix("_scale")
    sharding = flat[kernel].sharding
    dtype = jnp.dtype(model.config.dtype)
    flat[kernel] = jax.ShapeDtypeStruct(flat[kernel].shape, dtype, sharding=sharding)
  return dataclasses.replace(abstract, frozen=lora.unflatten(flat))


def _quantized(frozen: Any, stage: StageConfig) -> Any:
  """The shapes of frozen parameters with those kernels quantised that stage.lora.base asks for."""
  if not stage.lora or stage.lora.base == "model":
    return frozen
  flat = lora.flatten(frozen)
  for name in [name for name in flat if re.fullmatch(_QUANTIZED, name)]:
    flat[name], flat[f"{name}_scale"] = quantize.shapes(flat[name], stage.lora.base)
  return lora.unflatten(flat)


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
  return assemble(stage, abstract, *draw(model, stage, abstract, seed, loaded))


def draw(
  model: FaceMLLM,
  stage: StageConfig,
  abstract: TrainState,
  seed: int,
  loaded: Mapping[str, jax.Array] | None = None,
) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
  """(parameters by path, the step 0, the key): all that init_state() does before quantising."""
  loaded = loaded or {}
  target = lora.flatten(as_loaded(abstract, model).params)
  fresh = {name: x for name, x in target.items() if name not in loaded}

  def drawing():
    rng = jax.random.key(seed)  # made here: several processes cannot put one array on all devices
    tree = face_mllm.init(model.config, rng)
    flat = lora.flatten(tree)
    if stage.lora:
      flat |= lora.draw(tree, stage.lora, jax.random.fold_in(rng, 1))
    drawn = {name: flat[name].astype(x.dtype) for name, x in fresh.items()}
    return drawn, jnp.zeros((), jnp.int32), rng

  layout = _shardings((fresh, abstract.step, abstract.rng))
  drawn, step, rng = jax.jit(drawing, out_shardings=layout)()
  return {**loaded, **drawn}, step, rng


def assemble(
  stage: StageConfig, abstract: TrainState, params: dict[str, jax.Array], step: Any, rng: Any
) -> TrainState:
  """A state of what draw() returns; `params` is emptied of each kernel that is quantised."""
  target = lora.flatten(abstract.params)
  held: dict[str, jax.Array] = {}
  for name in list(params):
    kernel = params.pop(name)
    if f"{name}_scale" in target:
      places = target[name].sharding, target[f"{name}_scale"].sharding
      shrink = jax.jit(quantize.quantized, static_argnums=1, out_shardings=places)
      assert stage.lora
      held[name], held[f"{name}_scale"] = shrink(kernel, stage.lora.base)
    else:
      held[name] = kernel
  trainable, frozen = stages.split(lora.unflatten(held), stage)
  optimizer = make_optimizer(stage.optim, stage.steps)
  opt_state = jax.jit(optimizer.init, out_shardings=_shardings(abstract.opt_state))(trainable)
  return TrainState(step, trainable, frozen, opt_state, rng)


def _shardings(abstract: Any) -> Any:
  return jax.tree.map(lambda x: x.sharding, abstract)
