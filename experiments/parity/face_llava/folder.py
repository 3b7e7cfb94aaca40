"""A folder of reference data -> its arrays, and the model that its weights make."""

import dataclasses
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from facejax import convert
from facejax.config import ModelConfig, RunConfig
from facejax.data.tokenizer import Tokenizer

Arrays = dict[str, np.ndarray]

WEIGHTS, MASKED = "weights.safetensors", "weights_masked_cross_attn.safetensors"
_ARRAYS = ("inputs", "vision", "e2e", "preprocess")
_OBJECTS = ("config", "grads", "conversations")
_FUSION = "model.landmarks_cross_attn."  # what MASKED replaces
# Without these nothing can be computed, whatever the other files hold.
_INPUTS = ("image_pixels", "video_pixels", "landmarks_image", "landmarks_video")


class Folder(NamedTuple):
  """The reference data of one variant, as its README describes the files."""

  path: pathlib.Path
  inputs: Arrays
  vision: Arrays
  e2e: Arrays
  preprocess: Arrays
  config: dict[str, Any]
  grads: dict[str, Any]
  conversations: dict[str, Any]
  tokenizer: Tokenizer


class Model(NamedTuple):
  """A model and its parameters, in float32."""

  run: RunConfig
  params: dict[str, Any]

  @property
  def config(self) -> ModelConfig:
    """What `params` are of."""
    return self.run.model


def read(path: str | os.PathLike) -> Folder:
  """Reads a folder of references.

  Raises FileNotFoundError listing every file that is not there, ValueError naming one that cannot
  be read or lacks a part that nothing can be computed without.
  """
  path = pathlib.Path(path)
  names = [f"{n}.npz" for n in _ARRAYS] + [f"{n}.json" for n in _OBJECTS]
  names += [WEIGHTS, MASKED, "image_tower_config.json", "video_tower_config.json"]
  names += ["tokenizer.model"]
  missing = [name for name in names if not (path / name).is_file()]
  if missing:
    raise FileNotFoundError(
      f"{path} lacks {', '.join(missing)} - expected a folder of Face-LLaVA references - give the "
      "folder that holds config.json and e2e.npz"
    )
  arrays = {name: _npz(path / f"{name}.npz") for name in _ARRAYS}
  objects = {name: _json(path / f"{name}.json") for name in _OBJECTS}
  absent = [name for name in _INPUTS if name not in arrays["inputs"]]
  absent += [name for name in ("samples", "templates") if name not in objects["conversations"]]
  if absent:
    raise ValueError(
      f"{path}: no {', '.join(absent)} in inputs.npz or conversations.json - the comparisons start "
      "from them - take the folder as the reference script wrote it"
    )
  tokenizer = Tokenizer.load(path / "tokenizer.model")
  # The references of the model were made so, whatever tokenizer_config.json says.
  tokenizer = dataclasses.replace(tokenizer, legacy=False)
  return Folder(path, **arrays, **objects, tokenizer=tokenizer)


def _npz(file: pathlib.Path) -> Arrays:
  try:
    with np.load(file) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(f"{file} is no NumPy archive ({error}) - copy it again") from error


def _json(file: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(file.read_text())
  except (UnicodeDecodeError, json.JSONDecodeError) as error:
    raise ValueError(f"{file} is not JSON ({error}) - copy it again") from error
  if not isinstance(value, dict):
    raise ValueError(f"{file} holds a {type(value).__name__}, expected an object - copy it again")
  return value


def load_models(folder: Folder) -> Mapping[str, Model]:
  """The models "simple" and "masked", read by convert.load as any released checkpoint is.

  Raises ValueError if the weights do not fit the configs, naming the tensors.
  """
  models = {"simple": _load(folder.path)}
  with tempfile.TemporaryDirectory() as copy:
    masked = pathlib.Path(copy)
    for file in folder.path.iterdir():
      if file.suffix in (".json", ".model"):
        (masked / file.name).symlink_to(file.resolve())
    weights = _tensors(folder.path / WEIGHTS)
    weights = {n: x for n, x in weights.items() if not n.startswith(_FUSION)}
    safetensors.numpy.save_file(weights | _tensors(folder.path / MASKED), masked / WEIGHTS)
    models["masked"] = _load(masked)
  return models


def _tensors(file: pathlib.Path) -> Arrays:
  try:
    return safetensors.numpy.load_file(file)
  except safetensors.SafetensorError as error:
    raise ValueError(f"{file} is no safetensors file ({error}) - copy it again") from error


def _load(path: pathlib.Path) -> Model:
  imported = convert.load(path)
  config = dataclasses.replace(imported.config.model, dtype="float32", remat="none")
  if config.fusion is None:
    raise ValueError(
      f"{path / WEIGHTS}: no landmark modules - the references need them - take the folder's own "
      "weights"
    )
  return Model(dataclasses.replace(imported.config, model=config), imported.params)
