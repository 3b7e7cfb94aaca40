"""Benchmarks by name: dataclasses of settings, each of which opens its folder as a Benchmark.

    facexbench           facexbench.py     48 files of questions with four options
    rafdb, affectnet     expression.py     expressions of pictures
    dfew, cremad         expression.py     expressions of clips
    disfa, bp4d          action_units.py   action units of frames
    celeba               attributes.py     forty attributes
    utkface, morph       age.py            years
    ffpp                 deepfake.py       real and manipulated clips
    fairface_age, fairface_gender, fairface_race   fairface.py

All take the release's own folder; what each expects in it is said in its module.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facejax.config_checks import one_of
from facejax.evaluate.protocol import Benchmark

CLASSES: Mapping[str, tuple[str, str]] = {
  "facexbench": ("facexbench", "FaceXBench"),
  "rafdb": ("expression", "RafDbBenchmark"),
  "affectnet": ("expression", "AffectNetBenchmark"),
  "dfew": ("expression", "DfewBenchmark"),
  "cremad": ("expression", "CremaDBenchmark"),
  "disfa": ("action_units", "DisfaBenchmark"),
  "bp4d": ("action_units", "Bp4dBenchmark"),
  "celeba": ("attributes", "CelebABenchmark"),
  "utkface": ("age", "UtkFaceBenchmark"),
  "morph": ("age", "MorphBenchmark"),
  "ffpp": ("deepfake", "FaceForensicsBenchmark"),
  "fairface_age": ("fairface", "FairFaceAge"),
  "fairface_gender": ("fairface", "FairFaceGender"),
  "fairface_race": ("fairface", "FairFaceRace"),
}


def load(name: str, flag: str = "--suite") -> type[Any]:
  """The class of a benchmark's settings. Raises ValueError for an unknown name, of `flag`."""
  one_of(flag, name, tuple(CLASSES))
  module, kind = CLASSES[name]
  return getattr(importlib.import_module(f"{__name__}.{module}"), kind)


def open_benchmark(
  name: str, folder: str | Path, options: Mapping[str, str], flag: str = "--set"
) -> Benchmark:
  """Opens a benchmark in a folder; options are its settings as text, given with `flag`.

  Raises:
    FileNotFoundError: files of the release that are not there.
    ValueError: an unknown name or option, a value that does not fit, or a damaged file.
  """
  kind = load(name)
  fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "folder"}
  values = {}
  for option, text in options.items():
    one_of(f"{flag} {name}.{option}: the option", option, tuple(fields))
    values[option] = _value(f"{flag} {name}.{option}", text, fields[option].default)
  return kind(folder=str(folder), **values).open()


def _value(where: str, text: str, default: Any) -> Any:
  """A text as the type of a setting's default."""
  if isinstance(default, bool):
    one_of(where, text, ("true", "false"))
    return text == "true"
  if isinstance(default, int):
    if not text.lstrip("-").isdecimal():
      raise ValueError(f"{where} is {text!r} - expected a whole number")
    return int(text)
  if isinstance(default, tuple):
    return tuple(part for part in text.split("+") if part)
  return text
