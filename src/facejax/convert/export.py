"""Our parameters -> a folder that another project's code opens: weights, config.json, tokenizer.

What load() read comes out byte for byte, if no type is asked for.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from facejax.config import DecoderConfig, ModelConfig, RunConfig
from facejax.convert import export_configs, families, files, tables, writer
from facejax.convert.configs import Fields
from facejax.convert.families import FAMILIES
from facejax.convert.folder import COMPANIONS, TOKENIZER, copy_companions, is_imported
from facejax.convert.parameter import Parameter
from facejax.convert.released import family_of
from facejax.convert.tables import FORMS, Piece

FORMATS = tuple(export_configs.WRITERS)


class _Part(NamedTuple):
  """A parameter, or a layer of it, as a tensor of theirs or a third of one."""

  path: str
  layer: int | None
  piece: Piece


def export(
  config: RunConfig,
  params: Mapping[str, Any],
  family: str,
  folder: str | Path,
  *,
  dtype: str | None = None,
  like: str | Path | None = None,
  shard: int = writer.SHARD,
) -> list[str]:
  """Writes a checkpoint in another project's layout; returns the names of its weight files.

  Args:
    config: of the run.
    params: our tree of arrays, or parameters by path as open_checkpoint() gives them.
    family: one of FORMATS.
    folder: new or empty.
    dtype: of the weights; None keeps each parameter's.
    like: an imported or a released folder: its tokenizer files and the like go along, and if it is
      of that family, so do the values of its config.json that ours does not say (token ids), and
      its choice of names.
    shard: bytes a file, at most, unless one tensor is larger.

  Raises:
    FileExistsError: the folder has content.
    ValueError: an unknown family, or one that cannot hold the model; names a parameter.
  """
  folder = Path(folder)
  layout = export_configs.check(config.model, family)
  likeness = _likeness(Path(like), config.model) if like else _Likeness("", "", {})
  base = likeness.config if likeness.family == family else {}
  if likeness.family == family and layout == "files":
    layout = likeness.layout or layout
  flat = _flat(params)
  dtypes = {path: np.dtype(jnp.dtype(dtype)) if dtype else p.dtype for path, p in flat.items()}
  entries = [
    writer.Entry(name, shape, dtypes[parts[0].path], _reader(flat, parts, dtype))
    for name, shape, parts in _plan(config.model, family, layout, flat)
  ]
  if family in ("face_llava", "llava"):
    entries += _frequencies(config.model.decoder, entries[-1].dtype)
  writer.prepare(folder)
  names = writer.write(folder, "model", entries, shard)
  tokenizer = Path(config.data.tokenizer)
  if like:
    copy_companions(Path(like), folder, COMPANIONS if base else TOKENIZER)
  elif tokenizer.exists():
    copy_companions(tokenizer if tokenizer.is_dir() else tokenizer.parent, folder, TOKENIZER)
  written = export_configs.WRITERS[family](config, dict(base), str(entries[0].dtype))
  # Last: without config.json the folder is none, so a half written one is not taken for whole.
  for name in sorted(written, key=lambda name: name == "config.json"):
    writer.write_json(folder / name, written[name])
  return names


class _Likeness(NamedTuple):
  """What a folder was: family, layout of names ("" if it has no weights) and config.json."""

  family: str
  layout: str
  config: Mapping[str, Any]


def _likeness(folder: Path, model: ModelConfig) -> _Likeness:
  if is_imported(folder):
    report = files.read_json(folder / "source.json")
    return _Likeness(report["family"], report["layout"], report["config"])
  if not (folder / "config.json").is_file():
    return _Likeness("", "", {})
  fields = Fields.read(folder / "config.json")
  family, layout = family_of(fields), ""
  if family in FAMILIES and files.weights_in(folder):
    layout, _ = families.layout(family, files.open_weights(folder), model)
  return _Likeness(family, layout, fields.data)


def _frequencies(text: DecoderConfig, dtype: np.dtype) -> list[writer.Entry]:
  """The rotary frequencies, which transformers 4.31 kept as a buffer in each layer."""
  powers = np.arange(0, text.head_width, 2).astype(np.float32) / np.float32(text.head_width)
  table = (1 / np.float32(text.rope_theta) ** powers).astype(dtype)
  name = "model.layers.{}.self_attn.rotary_emb.inv_freq".format
  return [writer.Entry(name(i), table.shape, dtype, lambda: [table]) for i in range(text.layers)]


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
  """By path. A Parameter is a tuple, so it is a leaf to flax."""
  return dict(flax.traverse_util.flatten_dict(dict(params), sep="/"))


def _plan(
  config: ModelConfig, family: str, layout: str, flat: Mapping[str, Any]
) -> list[tuple[str, tuple[int, ...], list[_Part]]]:
  """(name, shape, parts) of each tensor to write, in the table's order."""
  plans = tables.expand(FAMILIES[family][layout], config)
  for path in flat:
    if path not in plans:
      raise ValueError(
        f"{family} has no name for {path} {list(flat[path].shape)}; export without it"
      )
  names: dict[str, list[_Part]] = {}
  shapes: dict[str, tuple[int, ...]] = {}
  for path, plan in plans.items():
    for number, piece in enumerate(plan.pieces if path in flat else ()):
      own = flat[path].shape[1:] if plan.stacked else flat[path].shape
      shapes[piece.theirs] = piece.shape(tuple(own))
      layer = number if plan.stacked else None
      names.setdefault(piece.theirs, []).append(_Part(path, layer, piece))
  return [(name, shapes[name], parts) for name, parts in names.items()]


def _reader(
  flat: Mapping[str, Any], parts: list[_Part], dtype: str | None
) -> Callable[[], Iterable[np.ndarray]]:
  """Reads a tensor's parts one after another: q, k and v of a fused one."""

  def read() -> Iterable[np.ndarray]:
    for part in sorted(parts, key=lambda p: p.piece.part or 0):
      own = _own(flat[part.path], part.layer)
      yield FORMS[part.piece.form].theirs(own if dtype is None else own.astype(jnp.dtype(dtype)))

  return read


def _own(parameter: Any, layer: int | None) -> np.ndarray:
  """One layer of an array or of a stored parameter, on the host."""
  if not isinstance(parameter, Parameter):
    return np.asarray(parameter if layer is None else parameter[layer])
  if layer is None:
    return parameter.read()
  rest = (slice(None),) * (len(parameter.shape) - 1)
  return parameter.read((slice(layer, layer + 1), *rest))[0]
