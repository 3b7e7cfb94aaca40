"""How far apart are two checkpoints? parameters layer by layer, then the logits on fixed input.

A reference may also be a file of arrays: the input, as a Batch's fields by path, and "logits".
`facejax convert verify A --save FILE` writes one; a script around other code may too.
"""

import dataclasses
import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import ModelConfig, RunConfig
from facejax.convert.load import load, open_checkpoint
from facejax.fake import fake_batch
from facejax.models.face_mllm import FaceMLLM
from facejax.types import Batch, Media
from facejax.visual_table import VisualTable

_TEXT = 24  # tokens of text in a row of the fixed input, at most


class Difference(NamedTuple):
  """Of one parameter, or one layer of it."""

  name: str
  error: float  # the largest, absolute
  scale: float  # the largest value of A, absolute


class Agreement(NamedTuple):
  """Of two sets of logits, over the positions that hold a token."""

  error: float  # the largest, absolute
  divergence: float  # mean KL(A || B), nats
  top1: float  # share of positions with the same likeliest token
  positions: int


def compare_parameters(a: str | Path, b: str | Path) -> list[Difference]:
  """The largest differences of each layer of each parameter, in float32; one layer at a time.

  Raises ValueError if the two do not have the same parameters of the same shapes; else as load().
  """
  first, second = open_checkpoint(a), open_checkpoint(b)
  ours, theirs = first.matched.parameters, second.matched.parameters
  alone = [f"{path} only in {a}" for path in sorted(set(ours) - set(theirs))]
  alone += [f"{path} only in {b}" for path in sorted(set(theirs) - set(ours))]
  alone += [
    f"{path} {list(ours[path].shape)} in {a}, {list(theirs[path].shape)} in {b}"
    for path in sorted(set(ours) & set(theirs))
    if ours[path].shape != theirs[path].shape
  ]
  if alone:
    raise ValueError(f"{a} and {b} are different models: {'; '.join(alone[:8])}")
  found = []
  for path in sorted(ours):
    stacked = ours[path].stacked or theirs[path].stacked
    for layer in range(ours[path].shape[0] if stacked else 1):
      first_axis = slice(layer, layer + 1) if stacked else slice(None)
      index = (first_axis, *(slice(None),) * (len(ours[path].shape) - 1))
      x, y = (p[path].read(index, "float32") for p in (ours, theirs))
      name = f"{path}[{layer}]" if stacked else path
      found.append(Difference(name, float(np.abs(x - y).max()), float(np.abs(x).max())))
  return found


def compare_logits(expected: np.ndarray, found: np.ndarray, real: np.ndarray) -> Agreement:
  """Of [B L V] logits at the positions where `real` [B L] is true."""
  p, q = (x[real].astype(np.float64) for x in (expected, found))
  log = lambda x: (
    x
    - x.max(-1, keepdims=True)
    - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
  )
  divergence = (np.exp(log(p)) * (log(p) - log(q))).sum(-1).mean()
  same = (p.argmax(-1) == q.argmax(-1)).mean()
  return Agreement(float(np.abs(p - q).max()), float(divergence), float(same), len(p))


def fixed_batch(model: ModelConfig) -> Batch:
  """A row with a picture, and a clip if the model has an encoder for clips; the same for all."""
  videos = int(model.video is not None)
  length = VisualTable(model, 1, videos).size + _TEXT
  return fake_batch(model, 1, min(length, model.decoder.max_length), 1, videos, seed=0)


def logits(source: str | Path, batch: Batch | None = None) -> tuple[np.ndarray, Batch]:
  """Logits [B L V] of a checkpoint, computed in float32, and the batch they are of."""
  imported = load(source)
  if not isinstance(imported.config, RunConfig):
    raise ValueError(f"{source} is a lone {imported.family} and has no logits - expected a model")
  model = dataclasses.replace(imported.config.model, dtype="float32", remat="none")
  batch = fixed_batch(model) if batch is None else batch
  with jax.default_matmul_precision("highest"):
    found = _compiled(model)({"params": imported.params}, batch)
  return np.asarray(found), batch


@functools.lru_cache(maxsize=1)  # the two that are compared are one model
def _compiled(model: ModelConfig) -> Callable:
  return jax.jit(FaceMLLM(model).apply)


def save_reference(path: str | Path, found: np.ndarray, batch: Batch) -> None:
  """Writes logits and the batch they are of."""
  arrays = {f"batch/{name}": np.asarray(x) for name, x in _fields(batch).items()}
  with Path(path).open("wb") as file:  # np.savez would append .npz to the name
    np.savez_compressed(file, allow_pickle=False, logits=found, **arrays)


def load_reference(path: str | Path) -> tuple[np.ndarray, Batch]:
  """What save_reference wrote. Raises ValueError naming the array that is missing."""
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (zipfile.BadZipFile, ValueError, AttributeError) as error:
    raise ValueError(f"{path} is no file of verify --save: {error}") from error
  wanted = ["logits", *(f"batch/{n}" for n in _names())]
  for name in wanted:
    if name not in arrays:
      raise ValueError(f"{path} has no array '{name}' - expected {', '.join(wanted)}")
  tree: dict[str, Any] = flax.traverse_util.unflatten_dict(
    {n.removeprefix("batch/"): jnp.asarray(x) for n, x in arrays.items() if n != "logits"}, sep="/"
  )
  images, videos = (Media(**tree.pop(kind)) for kind in ("images", "videos"))
  return arrays["logits"], Batch(**tree, images=images, videos=videos)


def _names() -> list[str]:
  own = [f.name for f in dataclasses.fields(Batch) if f.name not in ("images", "videos")]
  # No logit depends on labels.
  read = [f.name for f in dataclasses.fields(Media) if f.name != "labels"]
  return own + [f"{kind}/{name}" for kind in ("images", "videos") for name in read]


def _fields(batch: Batch) -> dict[str, jax.Array]:
  """By "/"-joined path."""
  get = lambda name: getattr(getattr(batch, name.split("/")[0]), name.split("/")[1])
  return {name: get(name) if "/" in name else getattr(batch, name) for name in _names()}
