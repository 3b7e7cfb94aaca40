"""A released folder -> an imported one, a layer at a time: no parameter is ever whole in memory."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from facejax import config_io
from facejax.config import RunConfig
from facejax.convert import files, writer
from facejax.convert.folder import copy_companions, is_imported
from facejax.convert.load import open_checkpoint


def import_folder(
  source: str | Path,
  folder: str | Path,
  *,
  dtype: str | None = None,
  new: Sequence[str] = (),
  adapter: str | Path | None = None,
  towers: Mapping[str, str | Path] | None = None,
) -> dict:
  """Writes an imported folder, a layer at a time; returns what source.json says.

  Args:
    source: a folder in a released layout.
    folder: new or empty.
    dtype: of the weights; None keeps the file's.
    new: see load().
    adapter: see load().
    towers: see load().

  Raises FileExistsError if the folder has content, else as load().
  """
  source, folder = Path(source), Path(folder)
  opened = open_checkpoint(source, new=new, adapter=adapter, towers=towers)
  if not isinstance(opened.config, RunConfig):
    raise ValueError(
      f"{source} is a lone {opened.family}, no model to answer with - name it in a stage's "
      "init_from, or as the tower of a model"
    )
  writer.prepare(folder)
  parameters, missing, unused = opened.matched
  entries = [
    writer.Entry(path, p.shape, jnp.dtype(dtype or p.dtype), functools.partial(p.layers, dtype))
    for path, p in parameters.items()
  ]
  names = writer.write(folder, "weights", entries)
  beside = source if source.is_dir() else source.parent
  copy_companions(beside, folder)
  report = {
    "source": str(source),
    "family": opened.family,
    "layout": opened.layout,
    "adapter": str(adapter) if adapter else None,
    "files": {name: (folder / name).stat().st_size for name in names},
    "parameters": sum(int(np.prod(p.shape)) for p in parameters.values()),
    "missing": list(missing),
    "unused": list(unused),
    "config": files.read_json(beside / "config.json"),
    "tokenizer": Path(opened.config.data.tokenizer).name,
  }
  if is_imported(beside):  # what it was before is what it can be exported as
    first = files.read_json(beside / "source.json")
    report |= {name: first[name] for name in ("family", "layout", "config")}
  writer.write_json(folder / "source.json", report)
  data = dataclasses.replace(opened.config.data, tokenizer=str(report["tokenizer"]))
  config = dataclasses.replace(opened.config, data=data)
  # Last: without it the folder is none, so one that was left half written is not taken for whole.
  (folder / "config.json").write_text(config_io.to_json(config) + "\n")
  return report
