"""Released layouts: one module each, with a dataclass of its settings that opens it.

A class's fields are what a specification may say of such a source; `path` fields are relative to
the specification's folder. `open()` reads the index and gives a Layout; media are read on demand.
"""

import dataclasses
import importlib
from typing import Any, Protocol

from facejax.config_checks import one_of
from facejax.records.raw import Layout

# Name in a specification: class in the module of that name.
CLASSES = {"llava": "Llava"}


class Opener(Protocol):
  """Settings of a layout."""

  def open(self) -> Layout:
    """Reads the index. Raises FileNotFoundError or ValueError, naming the file and the line."""
    ...


def load(name: str, where: str = "layout") -> type[Any]:
  """The class of a layout. Raises ValueError for an unknown name, with the nearest one."""
  one_of(where, name, tuple(CLASSES))
  return getattr(importlib.import_module(f"{__name__}.{name}"), CLASSES[name])


def path(required: bool = False) -> Any:
  """A field that holds a path, or a tuple of paths; "" where there is none."""
  default = dataclasses.MISSING if required else ""
  return dataclasses.field(default=default, metadata={"path": True})  # type: ignore[call-overload]
