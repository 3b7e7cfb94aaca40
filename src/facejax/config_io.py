"""A config file or JSON -> RunConfig -> JSON, strictly.

A file in configs/ defines `get_config() -> RunConfig`. On the command line any field is reached as
`--config.stages.stage1.optim.peak_lr=2e-5`: an unknown name is an error that proposes the nearest
one, and a value of another type is refused. Records (checkpoints, reports) hold the resolved
config as JSON, never as code.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections

from facejax.config import RunConfig


def to_dict(config) -> dict:
  """A config as plain data."""
  return dataclasses.asdict(config)


def to_json(config) -> str:
  """A config as JSON, sorted, one field a line: equal configs give equal text."""
  return json.dumps(to_dict(config), indent=1, sort_keys=True)


def from_dict(kind, data: Mapping, where: str = "config"):
  """Builds the dataclass `kind` from plain data; unknown, missing or mistyped fields are errors."""
  fields = {f.name: f for f in dataclasses.fields(kind)}
  hints = typing.get_type_hints(kind)
  for name in data:
    if name not in fields:
      near = difflib.get_close_matches(name, fields, 1)
      hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(fields)}"
      raise ValueError(f"{where}: no field '{name}' in {kind.__name__}{hint}")
  for name, field in fields.items():
    required = field.default is dataclasses.MISSING
    if required and field.default_factory is dataclasses.MISSING and name not in data:
      raise ValueError(f"{where}: {kind.__name__} needs a field '{name}'")
  return kind(**{n: _value(hints[n], v, f"{where}.{n}") for n, v in data.items()})


def _value(hint, value, where: str):
  """Converts plain data to the annotated type, or says what was expected."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    if value is None:
      return None
    return _value(next(a for a in args if a is not type(None)), value, where)
  if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
    return from_dict(hint, value, where)
  if origin is dict and isinstance(value, Mapping):
    return {k: _value(args[1], v, f"{where}.{k}") for k, v in value.items()}
  if origin is tuple and isinstance(value, (list, tuple)):
    return tuple(_value(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
  if isinstance(value, _Part):
    value = str(value) if hint is str else _number(value)
  if hint is float and type(value) is int:
    return float(value)
  if isinstance(hint, type) and type(value) is hint:
    return value
  name = getattr(hint, "__name__", str(hint))
  raise ValueError(f"{where}: expected {name}, got {value!r} ({type(value).__name__})")


class _Part(str):
  """Of a tuple on the command line: the field says whether 2024 is a folder or a number."""


def _number(part: _Part) -> float | str:
  try:
    return float(part)
  except ValueError:
    return str(part)


def load(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
  """Runs a config file (Python, yours) and applies overrides such as "data.seed=3".

  A file may have OPTIONS, {name: overrides}; FILE.py:NAME applies those of that name first.
  """
  path, option = _option(Path(path))
  if not path.is_file():
    raise FileNotFoundError(
      f"config file {path} does not exist, looked for in {Path.cwd()} - expected such as "
      "configs/demo.py in a clone of facejax - go there, or give --config"
    )
  spec = importlib.util.spec_from_file_location(f"facejax_config_{path.stem}", path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"{path}: a config file defines get_config() -> RunConfig")
  options = getattr(module, "OPTIONS", {})
  if option and option not in options:
    raise ValueError(
      f"{path} has no option '{option}': expected {', '.join(options) or 'none, it has no OPTIONS'}"
    )
  return override(module.get_config(), [*options.get(option, ()), *overrides])


def _option(path: Path) -> tuple[Path, str]:
  """FILE.py:NAME -> the file and the name, "" without one."""
  stem, colon, option = path.name.partition(".py:")
  if colon and not option:
    raise ValueError(f"{path} names no option - expected FILE.py:NAME, or FILE.py for none")
  return (path.with_name(f"{stem}.py"), option) if colon else (path, "")


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
  """Applies "dotted.name=value" settings; a tuple is written as a,b or ('a', 'b')."""
  data = ml_collections.ConfigDict(to_dict(config), sort_keys=False, convert_dict=True)
  for item in overrides:
    name, sep, text = item.partition("=")
    if not sep:
      raise ValueError(f"--config.{item}: expected --config.{item}=VALUE")
    *parents, last = name.split(".")
    node, where = data, "config"
    for part in parents:
      _check_name(node, part, where)
      node, where = node[part], f"{where}.{part}"
      if not isinstance(node, ml_collections.ConfigDict):
        raise ValueError(f"--config.{name}: {where} is {node!r}, it has no fields")
    _check_name(node, last, where)
    with node.ignore_type():
      node[last] = _parse(text, node[last], f"config.{name}")
  return from_dict(RunConfig, data.to_dict())


def _check_name(node, name: str, where: str) -> None:
  if name not in node:
    near = difflib.get_close_matches(name, list(node), 1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(node)}"
    raise ValueError(f"--{where}: no field '{name}'{hint}")


def _parse(text: str, old, where: str):
  """A command-line value, typed as the value it replaces."""
  if isinstance(old, ml_collections.ConfigDict):
    if text == "None":
      return None
    raise ValueError(f"--{where}: is a group of fields; set one of {', '.join(old)}, or None")
  if isinstance(old, str):
    return text
  if isinstance(old, tuple) and not text.startswith(("(", "[")):
    return tuple(_Part(p) for p in text.split(",") if p)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError) as error:
    hint = f" - if it is one text, write ('{text}',)" if isinstance(old, tuple) else ""
    raise ValueError(f"--{where}: cannot read '{text}' as {type(old).__name__}{hint}") from error
  if not isinstance(old, tuple):
    return value
  return tuple(value) if isinstance(value, (list, tuple)) else (value,)  # ('a') is a text
