"""Released layouts: dataclasses of settings, each of which opens its folder as a Layout.

A class's fields are what a specification may say of such a source; `path` fields are relative to
the specification's folder. `open()` reads the index and gives a Layout; media are read on demand.

    llava               llava.py        the official Face-LLaVA (LLaVA) JSON
    fairfacegpt         fairfacegpt.py  FairFaceGPT as dataset.json
    fairfacegpt_folder  fairfacegpt.py  FairFaceGPT as its generation script leaves it
    celeba              celeba.py       attributes of pictures
    lfwa                lfwa.py         attributes of pictures
    utkface             utkface.py      age in file names
    raf_db              raf_db.py       expressions of pictures
    affectnet           affectnet.py    expressions of pictures, with valence and arousal
    dfew                dfew.py         expressions of clips
    disfa               disfa.py        action units of frames
    faceforensics       faceforensics.py  real and manipulated clips

The last eight are label tables (table.py): their conversations are ours, made by seeded templates.
"""

import dataclasses
import importlib
from typing import Any, Protocol

from facejax.config_checks import one_of
from facejax.records.raw import Layout

# Name in a specification -> module, class.
CLASSES = {
  "llava": ("llava", "Llava"),
  "fairfacegpt": ("fairfacegpt", "FairFaceGpt"),
  "fairfacegpt_folder": ("fairfacegpt", "FairFaceGptFolder"),
  "celeba": ("celeba", "CelebA"),
  "lfwa": ("lfwa", "Lfwa"),
  "utkface": ("utkface", "UtkFace"),
  "raf_db": ("raf_db", "RafDb"),
  "affectnet": ("affectnet", "AffectNet"),
  "dfew": ("dfew", "Dfew"),
  "disfa": ("disfa", "Disfa"),
  "faceforensics": ("faceforensics", "FaceForensics"),
}


class Opener(Protocol):
  """Settings of a layout."""

  def open(self) -> Layout:
    """Reads the index. Raises FileNotFoundError or ValueError, naming the file and the line."""
    ...


def load(name: str, where: str = "layout") -> type[Any]:
  """The class of a layout. Raises ValueError for an unknown name, with the nearest one."""
  one_of(where, name, tuple(CLASSES))
  module, kind = CLASSES[name]
  return getattr(importlib.import_module(f"{__name__}.{module}"), kind)


def path(default: Any = "") -> Any:
  """A field that holds a path, or a tuple of paths; without a default where that is `...`."""
  default = dataclasses.MISSING if default is ... else default
  return dataclasses.field(default=default, metadata={"path": True})  # type: ignore[call-overload]
