"""facejax's side: a training step, or greedy decoding, of the checkpoint in a folder.

And a step of each of Face-LLaVA's stages, with landmark modules, which transformers has not.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import shapes
import sizes

from facejax import convert, generate, stages, train
from facejax.config import FusionConfig, MeshConfig, ModelConfig, OptimConfig, StageConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import abstract_state, init_state
from facejax.types import Batch, Media


def to_batch(arrays: Mapping[str, np.ndarray], landmarks: bool = False) -> Batch:
  """The arrays of shapes.batch, without maps, and with drawn landmarks or none."""
  arrays, draw = dict(arrays), np.random.default_rng(0)
  media = {}
  for kind in ("images", "videos"):
    pixels = arrays.pop(kind)
    lead = pixels.shape[:3]
    media[kind] = Media(
      pixels=pixels,
      landmarks=draw.random((*lead, 68, 2), np.float32),
      landmarks_valid=np.full(lead, landmarks),
      segmentation=np.zeros((*lead, 0, 0), np.uint8),
      segmentation_valid=np.zeros(lead, bool),
    )
  return Batch(**arrays, **media)


class _Training:
  """A model, a stage and a batch, ready to step."""

  def __init__(self, config: ModelConfig, stage: StageConfig, batch: Batch, params: Any):
    model, mesh = FaceMLLM(config), make_mesh(MeshConfig(data=1), jax.devices()[:1])
    abstract = abstract_state(model, stage, mesh)
    placed = flax.traverse_util.flatten_dict(abstract.params, sep="/")
    params = {name: jax.device_put(x, placed[name].sharding) for name, x in params.items()}
    self._state = init_state(model, stage, abstract, 0, params)
    self._step = train.make_train_step(model, stage, mesh)
    self._mesh = mesh
    with jax.set_mesh(mesh):
      self._batch = train.put(batch, stage.rows, mesh)

  def run(self) -> float:
    """One step; its loss in nats a target token."""
    with jax.set_mesh(self._mesh):
      self._state, metrics = self._step(self._state, self._batch)
    return float(metrics["loss"])


class Step(_Training):
  """Forward, backward and AdamW, every parameter trained."""

  def __init__(self, folder: pathlib.Path, batch: str, dtype: str):
    made = to_batch(np.load(folder / f"{batch}.npz"))
    optim = OptimConfig(sizes.RATE, warmup=0.0, schedule="constant")
    stage = StageConfig(trainable=(".*",), optim=optim, steps=99, rows=len(made.tokens))
    params = convert.load(folder / "weights").params
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    super().__init__(shapes.model(dtype), stage, made, flat)


class _Stage(_Training):
  """A step of a stage of Face-LLaVA, from random weights."""

  stage: Callable[..., StageConfig]

  def __init__(self, folder: pathlib.Path, batch: str, dtype: str):
    made = to_batch(np.load(folder / f"{batch}.npz"), landmarks=True)
    config = dataclasses.replace(shapes.model(dtype), fusion=FusionConfig())
    stage = type(self).stage(99, len(made.tokens), init_from="")
    super().__init__(config, stage, made, {})


class Stage1(_Stage):
  """The landmark modules learn, all else is frozen."""

  stage = staticmethod(stages.stage1)


class Stage2(_Stage):
  """All but the vision encoder learns."""

  stage = staticmethod(stages.stage2)


class Decode:
  """Prefill and sizes.NEW tokens for rows of one picture's prompt."""

  new = sizes.NEW

  def __init__(self, folder: pathlib.Path, batch: str, dtype: str):
    self._model = FaceMLLM(shapes.model(dtype))
    self._params: Any = convert.load(folder / "weights", dtype=dtype).params
    self._batch = jax.tree.map(jnp.asarray, to_batch(np.load(folder / f"{batch}.npz")))
    self._keys = jax.random.split(jax.random.key(0), len(self._batch.tokens))
    self._sampling = generate.Sampling(new_tokens=self.new)

  def run(self) -> list[list[int]]:
    """The tokens of each row."""
    out = generate.generate(self._model, self._params, self._batch, self._keys, self._sampling)
    return np.asarray(out[0]).tolist()


class Prefill(Decode):
  """The first token only."""

  new = 1
