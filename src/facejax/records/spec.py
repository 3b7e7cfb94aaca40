"""A specification: which released folders become which sources. JSON, or a .py with get_spec().

    {"sources": [{"name": "raf_db",             the folder that is written, and the source's name
                  "layout": "raf_db",           a released layout: records/layouts
                  "licence": "research only",   kept with every sample
                  "folder": "RAF-DB/basic",     and what else the layout asks for
                  "split": "train"}, ...]}

Paths are relative to the folder of the specification.
"""

import dataclasses
import difflib
import importlib.util
import json
import pathlib
import re
from typing import Any

from facejax import config_io
from facejax.config_checks import within
from facejax.records import layouts

PART = 4096  # samples


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """A source to build.

  Attributes:
    name: of the source and of its folder: letters, digits, _ and -.
    layout: name of the released layout.
    licence: of the samples, as they may be used; any words.
    options: the layout's settings, opened by options.open().
    part: samples that are written at once, a shard each; a killed build repeats one part.
  """

  name: str
  layout: str
  licence: str
  options: Any
  part: int = PART

  def __post_init__(self):
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name):
      raise ValueError(
        f"source name {self.name!r} - expected letters, digits, _ and -, as it names a folder - "
        "rename it"
      )
    within(self, "part", 1)

  def identity(self, digest: str) -> dict:
    """What the built records follow from, as JSON values; folders may move.

    Args:
      digest: of the layout's index.
    """
    moving = [f.name for f in dataclasses.fields(self.options) if f.metadata.get("path")]
    options = {k: v for k, v in dataclasses.asdict(self.options).items() if k not in moving}
    return json.loads(
      json.dumps(
        {
          "layout": self.layout,
          "licence": self.licence,
          "part": self.part,
          "options": options,
          "index": digest,
        }
      )
    )


def load(path: str | pathlib.Path) -> tuple[SourceSpec, ...]:
  """Reads a specification.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no JSON, unknown, missing or mistyped names, or two sources of one name.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"no specification {path}, looked for in {pathlib.Path.cwd()} - expected JSON, or a .py with "
      "get_spec() - check the path"
    )
  data = _run(path) if path.suffix == ".py" else _parse(path)
  if not isinstance(data, dict) or not isinstance(data.get("sources"), (list, tuple)):
    raise ValueError(f'{path}: expected {{"sources": [...]}}, got {_shown(data)}')
  if unknown := sorted(set(data) - {"sources"}):
    raise ValueError(f"{path}: no field '{unknown[0]}' beside 'sources' - remove it")
  sources = tuple(
    _source(entry, f"{path}: sources[{i}]", path.parent) for i, entry in enumerate(data["sources"])
  )
  names = [source.name for source in sources]
  if not names:
    raise ValueError(f"{path}: 'sources' is empty - name at least one")
  for name in names:
    if names.count(name) > 1:
      raise ValueError(f"{path}: {names.count(name)} sources are named '{name}' - rename them")
  return sources


def _parse(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_bytes())
  except ValueError as error:  # no JSON, or no UTF-8
    raise ValueError(f"{path} is no JSON ({error}) - expected a specification") from error


def _run(path: pathlib.Path) -> Any:
  spec = importlib.util.spec_from_file_location(f"facejax_spec_{path.stem}", path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_spec"):
    raise ValueError(f"{path}: a specification in Python defines get_spec() -> dict")
  return module.get_spec()


def _source(entry: Any, where: str, root: pathlib.Path) -> SourceSpec:
  if not isinstance(entry, dict):
    raise ValueError(f"{where} is {_shown(entry)} - expected an object")
  for name, kind in (("name", str), ("layout", str), ("licence", str), ("part", int)):
    value = entry.get(name, PART if name == "part" else None)
    if type(value) is not kind:
      near = difflib.get_close_matches(name, [key for key in entry if key != name], 1)
      hint = f"; '{near[0]}' is no field" if near else ""
      raise ValueError(f"{where}.{name}: expected {kind.__name__}, got {_shown(value)}{hint}")
  own = {name: entry[name] for name in ("name", "layout", "licence", "part") if name in entry}
  layout = layouts.load(own["layout"], f"{where}.layout")
  given = {name: value for name, value in entry.items() if name not in own}
  options = config_io.from_dict(layout, given, where)
  paths = [f.name for f in dataclasses.fields(layout) if f.metadata.get("path")]
  placed = {name: _below(root, getattr(options, name)) for name in paths}
  return SourceSpec(**own, options=dataclasses.replace(options, **placed))


def _below(root: pathlib.Path, value: Any) -> Any:
  if isinstance(value, tuple):
    return tuple(_below(root, item) for item in value)
  return str(root.resolve() / value) if value else value


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else text[:77] + "..."
