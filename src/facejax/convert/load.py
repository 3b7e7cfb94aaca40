"""A released folder -> parameters on the devices, each device's slice straight from the files.

  files.open_weights   headers of the shards
  released.read        config.json -> family and RunConfig
  families, tables     their names -> ours
  match.match          every parameter has its tensors, of its shape, or an error says which not
  Parameter.place      slices, layer by layer, to the devices

Until the last line no number has been read. The process then holds what the devices get and one
slice of a parameter at a time; the pages of the shards belong to the system's cache.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax

from facejax.config import DecoderConfig, ModelConfig, RunConfig, VitConfig
from facejax.convert import families, files, lora, released
from facejax.convert.folder import is_imported, own_table, read_config
from facejax.convert.mapped import Stored
from facejax.convert.match import Matched, Source, match
from facejax.convert.released import AnyConfig
from facejax.models import face_mllm
from facejax.weights import Loaded

Shapes = Mapping[str, tuple[int, ...]]


class Imported(NamedTuple):
  """A checkpoint of another project as ours."""

  config: Any  # RunConfig with stages {}; of a lone encoder or decoder, VitConfig or DecoderConfig
  params: dict[str, Any]  # our tree; without what is `missing`
  family: str
  loaded: tuple[str, ...]  # our names
  missing: tuple[str, ...]  # our names that the caller announced and the file has not
  unused: tuple[str, ...]  # their names: buffers, and what the caller announced


class Opened(NamedTuple):
  """A checkpoint whose names and shapes fit; no number of it is read."""

  config: AnyConfig
  family: str
  layout: str
  matched: Matched


# Where a released model keeps its encoders, which their own repositories publish too.
TOWERS = {
  "face_llava": {
    "image": "model.image_tower.image_tower.",
    "video": "model.video_tower.video_tower.",
  },
  "llava": {"vision": "model.vision_tower.vision_tower.vision_model."},
}


def load(
  source: str | Path,
  *,
  dtype: str | None = "float32",
  shardings: Any = None,
  model: ModelConfig | None = None,
  new: Sequence[str] = (),
  adapter: str | Path | None = None,
  towers: Mapping[str, str | Path] | None = None,
) -> Imported:
  """Reads a checkpoint in a released layout onto the devices.

  Args:
    source: a folder with config.json and weights.
    dtype: of the parameters; None keeps the file's.
    shardings: tree of shardings; the first local device holds everything if None.
    model: what to read them as, if not what config.json says: another picture size resamples the
      position embeddings as torch's bicubic interpolate does.
    new: regular expressions of names that only one side may have, ours or theirs.
    adapter: folder of a LoRA adapter in PEFT's layout, added to the weights.
    towers: folders of encoders ("image", "video"; LLaVA's is "vision") to take instead of those in
      `source`; by default its subfolders image_tower and so on, where there are any.

  Raises:
    FileNotFoundError: no weights or no config.json.
    ValueError: a damaged file, a missing key, or names and shapes that differ; lists them.
  """
  opened = open_checkpoint(source, model=model, new=new, adapter=adapter, towers=towers)
  places = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  parameters, missing, unused = opened.matched
  params = {path: p.place(places.get(path, device), dtype) for path, p in parameters.items()}
  tree = flax.traverse_util.unflatten_dict(params, sep="/")
  return Imported(opened.config, tree, opened.family, tuple(sorted(params)), missing, unused)


def load_into(source: str | Path, abstract: Any, new: Sequence[str] = ()) -> Loaded:
  """Reads a checkpoint into the types and the layout of a state's parameters.

  Args:
    source: a folder in a released layout, or an imported one.
    abstract: tree of ShapeDtypeStruct with shardings; tables of positions may have another number
      of rows than the file's.
    new: see load().

  Raises as load().
  """
  targets = flax.traverse_util.flatten_dict(abstract, sep="/")
  shapes = {path: tuple(x.shape) for path, x in targets.items()}
  parameters, missing, unused = open_checkpoint(source, targets=shapes, new=new).matched
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  params = {
    path: p.place(targets[path].sharding or device, targets[path].dtype)
    for path, p in parameters.items()
  }
  return Loaded(params, tuple(sorted(params)), missing, unused)


def open_checkpoint(
  source: str | Path,
  *,
  model: ModelConfig | None = None,
  targets: Shapes | None = None,
  new: Sequence[str] = (),
  adapter: str | Path | None = None,
  towers: Mapping[str, str | Path] | None = None,
) -> Opened:
  """Everything load() does before it reads numbers; arguments and errors are load()'s.

  targets: shapes by path of the parameters to find, if they are not just the model's.
  """
  source = Path(source)
  tensors = files.open_weights(source)
  folder = source if source.is_dir() else source.parent
  if is_imported(folder):
    if adapter:
      raise ValueError(f"{folder} is imported already: give the adapter {adapter} to the import")
    family, run = read_config(folder)
    config: AnyConfig = dataclasses.replace(run, model=model or run.model)
    whole, shapes = _shapes(config, family)
    layout, table = "facejax", own_table({*shapes, *tensors})
  else:
    towers = _towers(folder) if towers is None else {k: Path(v) for k, v in towers.items()}
    family, config = released.read(folder, tensors, towers)
    tensors = _with_towers(tensors, family, towers)
    if model and isinstance(config, RunConfig):
      config = dataclasses.replace(config, model=model)
    whole, shapes = _shapes(config, family)
    layout, table = families.layout(family, tensors, whole)
    if whole.decoder.tied:
      table = table._replace(drop=(*table.drop, r".*lm_head\.weight"))
  resample = model is not None or targets is not None
  matched = match(Source(str(source), tensors, table), whole, targets or shapes, new, resample)
  if adapter:
    matched = matched._replace(parameters=lora.attach(matched.parameters, adapter, family, whole))
  return Opened(config, family, layout, matched)


def _towers(folder: Path) -> dict[str, Path]:
  """Encoders beside the weights, in folders of their own."""
  kinds = {kind for kinds in TOWERS.values() for kind in kinds}
  return {k: folder / f"{k}_tower" for k in sorted(kinds) if (folder / f"{k}_tower").is_dir()}


def _with_towers(
  tensors: dict[str, Stored], family: str, towers: Mapping[str, Path]
) -> dict[str, Stored]:
  """The tensors with those of separate encoders in place of their own."""
  for kind, folder in towers.items():
    prefix = TOWERS.get(family, {}).get(kind)
    if prefix is None:
      raise ValueError(f"{folder}: a {family} model has no tower '{kind}'")
    found = files.open_weights(folder)
    level = "vision_model." if any(n.startswith("vision_model.") for n in found) else ""
    tensors = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
    for name, tensor in found.items():
      if name.startswith(level):
        tensors[prefix + name.removeprefix(level)] = tensor
  return tensors


@functools.lru_cache(maxsize=8)  # tracing takes a second
def _traced(config: ModelConfig) -> dict[str, tuple[int, ...]]:
  """Shapes by path. They do not depend on max_length, which the row that is traced may exceed."""
  text = dataclasses.replace(config.decoder, max_length=1 << 20)
  config = dataclasses.replace(config, decoder=text)
  shapes = flax.traverse_util.flatten_dict(face_mllm.init_shapes(config), sep="/")
  return {path: tuple(x.shape) for path, x in shapes.items()}


def _shapes(config: AnyConfig, family: str) -> tuple[ModelConfig, dict[str, tuple[int, ...]]]:
  """The model and its parameters' shapes by path; a lone part stands in a model of nothing else."""
  vit = VitConfig(image_size=1, patch=1, width=1, layers=1, heads=1, mlp=1, select_layer=-1)
  text = DecoderConfig(8, 2, layers=1, heads=1, kv_heads=1, head_width=2, mlp=1, max_length=1 << 20)
  if isinstance(config, RunConfig):
    whole, part = config.model, ""
  elif isinstance(config, DecoderConfig):
    whole, part = ModelConfig(image=vit, decoder=config), "decoder/"
  elif family == "video_encoder":
    vit = dataclasses.replace(vit, width=config.width)
    whole = ModelConfig(image=vit, decoder=text, video=config, frames=config.frames)
    part = "video_encoder/"
  else:
    whole, part = ModelConfig(image=config, decoder=text), "image_encoder/"
  return whole, {path: x for path, x in _traced(whole).items() if path.startswith(part)}
