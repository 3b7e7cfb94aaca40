"""A released folder -> parameters on the devices. Each device's slice comes straight from the files.

  files.open_weights   headers of the shards                        nothing is read
  configs              config.json -> RunConfig
  tables               their names -> ours
  match                every parameter has its tensors, of its shape, or an error says which not
  place                slices, layer by layer, to the devices

The process holds what the devices get and one slice of a layer at a time; the pages of the shards
belong to the system's cache.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax

from facejax.config import ModelConfig, RunConfig
from facejax.convert import configs, files, tables
from facejax.convert.parameter import Parameter, match
from facejax.models import face_mllm


class Imported(NamedTuple):
  """A checkpoint of another project as ours."""

  config: RunConfig  # stages is {}
  params: dict[str, Any]  # our tree; without what is `missing`
  family: str
  loaded: tuple[str, ...]  # our names
  missing: tuple[str, ...]  # our names that the caller announced and the file has not
  unused: tuple[str, ...]  # their names: buffers, and what the caller announced


class Opened(NamedTuple):
  """A checkpoint whose names and shapes fit; no number of it is read."""

  config: RunConfig
  family: str
  parameters: dict[str, Parameter]
  missing: tuple[str, ...]
  unused: tuple[str, ...]


def load(
  source: str | Path,
  *,
  dtype: str | None = "float32",
  shardings: Any = None,
  model: ModelConfig | None = None,
  new: Sequence[str] = (),
) -> Imported:
  """Reads a checkpoint in a released layout onto the devices.

  Args:
    source: a folder with config.json and weights.
    dtype: of the parameters; None keeps the file's.
    shardings: tree of shardings; the first local device holds everything if None.
    model: what to read them as, if not what config.json says: another picture size resamples the
      position embeddings as torch's bicubic interpolate does.
    new: regular expressions of names that only one side may have, ours or theirs.

  Raises:
    FileNotFoundError: no weights or no config.json.
    ValueError: a damaged file, a missing key, or names and shapes that differ; lists them.
  """
  opened = open_checkpoint(source, model=model, new=new)
  places = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  params = {
    path: parameter.place(places.get(path, device), dtype)
    for path, parameter in opened.parameters.items()
  }
  tree = flax.traverse_util.unflatten_dict(params, sep="/")
  loaded = tuple(sorted(params))
  return Imported(opened.config, tree, opened.family, loaded, opened.missing, opened.unused)


def open_checkpoint(
  source: str | Path, *, model: ModelConfig | None = None, new: Sequence[str] = ()
) -> Opened:
  """Everything load() does before it reads numbers: the errors are load()'s."""
  folder = Path(source)
  tensors = files.open_weights(folder)
  folder = folder if folder.is_dir() else folder.parent
  family = "face_llava"
  config = configs.face_llava(folder, tensors)
  shapes = face_mllm.init_shapes(model or config.model)
  targets = {n: x.shape for n, x in flax.traverse_util.flatten_dict(shapes, sep="/").items()}
  name, table = tables.layout(family, tensors, model or config.model)
  plan = tables.expand(table, model or config.model)
  found = match(targets, plan, tensors, table, new, resample=model is not None, where=str(folder))
  return Opened(config, family, *found)
