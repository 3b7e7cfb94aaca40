"""A workdir as a trained run leaves it, with parameters that are drawn and not trained."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from facejax import checkpoint, config_io, stages
from facejax.config import DataConfig, RunConfig
from facejax.data.pipeline import load_tokenizer
from facejax.models import face_mllm, presets
from facejax.state import TrainState


def config(**model_changes) -> RunConfig:
  """Pictures of 12 px, clips of two frames through the same encoder, no clip slots in training."""
  model = presets.tiny()
  vocab = load_tokenizer("demo").vocab_size
  decoder = dataclasses.replace(model.decoder, vocab=vocab, max_length=160, layers=1)
  model = dataclasses.replace(model, decoder=decoder, video=None, **model_changes)
  return RunConfig(
    model=model,
    data=DataConfig(row_length=96, videos_per_row=0),
    stages={"base": stages.base(4, 2), "stage1": stages.stage1(9, 2)},
  )


def save(workdir: Path, run: RunConfig, stage: str = "stage1", step: int = 7) -> dict:
  """Writes one checkpoint of a stage and returns its parameters."""
  draw = np.random.default_rng(1)  # compiling the real initialisation takes seconds
  fresh = lambda x: jnp.asarray(draw.normal(0, 0.1, x.shape), x.dtype)
  params = jax.tree.map(fresh, face_mllm.init_shapes(run.model))
  state = TrainState(jnp.int32(step), params, {}, {"moment": jnp.zeros(3)}, jax.random.key(0))
  with checkpoint.Checkpoints(workdir / stage, keep=None) as checkpoints:
    checkpoints.save(step, state, {"config": config_io.to_dict(run)})
  return params
