"""Parameters <-> one .safetensors file, strictly. params <-> {"decoder/embedding": array, ...}.

A name that only one side has is an error unless it was announced: a loader that skips what it does
not know trains a half-random model without saying so.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy


class Loaded(NamedTuple):
  """Parameters by "/"-joined name, and what became of each name."""

  params: dict[str, jax.Array]
  loaded: tuple[str, ...]
  missing: tuple[str, ...]  # of the model, not in the source; they start fresh
  unused: tuple[str, ...]  # in the source, not of the model


def located(source: str | Path) -> Path:
  """A weight file's path; "facejax:NAME" is one that ships with the package."""
  name = str(source).removeprefix("facejax:")
  return Path(__file__).parent / "assets" / name if name != str(source) else Path(source)


def save_weights(path: str | Path, params: Any, dtype: str | None = None) -> None:
  """Writes a tree of parameters, each in its own type or all in `dtype` ("bfloat16", ...)."""
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  arrays = {name: np.asarray(jax.device_get(x)) for name, x in flat.items()}
  if dtype:
    arrays = {name: x.astype(jax.numpy.dtype(dtype)) for name, x in arrays.items()}
  # reshaped, as ascontiguousarray makes a scalar, such as a head's scale, an array of one
  contiguous = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}
  safetensors.numpy.save_file(contiguous, path, metadata={"format": "facejax"})


def load_weights(path: str | Path, shapes: Any, new: Sequence[str] = ()) -> Loaded:
  """Reads the parameters of a model from a file, each process only the slices that it holds.

  Args:
    path: a .safetensors file whose names are ours; "facejax:NAME" is one of the package.
    shapes: tree of ShapeDtypeStruct, whose dtype the result gets, and whose sharding if it has one.
    new: regular expressions of names that only one side may have.

  Raises:
    FileNotFoundError: no such file.
    ValueError: names or shapes differ; lists all of them.
  """
  path = _existing(path)
  targets = flax.traverse_util.flatten_dict(shapes, sep="/")
  with safetensors.safe_open(path, framework="np") as file:
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    loaded, missing, unused = compare_names(targets, found, new, str(path))
    read = lambda name: _place(targets[name], file.get_slice(name).__getitem__)
    return Loaded({name: read(name) for name in loaded}, loaded, missing, unused)


def _place(target: jax.ShapeDtypeStruct, read: Callable[[tuple], np.ndarray]) -> jax.Array:
  """An array on the devices; `read` is asked for the slices of this process alone."""
  sharding = target.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  piece = lambda index: np.asarray(read(index)).astype(target.dtype)
  return jax.make_array_from_callback(target.shape, sharding, piece)


def overlay(params: Any, loaded: Mapping[str, jax.Array]) -> dict:
  """A tree of parameters with those in `loaded` (by "/"-joined name) in place of its own."""
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  return flax.traverse_util.unflatten_dict({**flat, **loaded}, sep="/")


def with_over(
  found: Loaded, files: Sequence[str], targets: Mapping[str, jax.ShapeDtypeStruct]
) -> Loaded:
  """Parameters of .safetensors files in place of those found; a file holds some of a model's.

  Raises as load_weights(), and ValueError for a parameter that the model has not.
  """
  params, taken = dict(found.params), set()
  for path in files:
    names = safetensors_names(path)
    if strange := [name for name in names if name not in targets]:
      near = difflib.get_close_matches(strange[0], targets, 1)
      raise ValueError(
        f"{path} has {strange[0]} and {len(strange) - 1} more that the model has not - expected "
        "some of its parameters"
        + (f", such as {near[0]}" if near else "")
        + " - check StageConfig.over and the model's config"
      )
    own = {name: targets[name] for name in names}
    params |= load_weights(path, flax.traverse_util.unflatten_dict(own, sep="/")).params
    taken |= set(names)
  missing = tuple(name for name in found.missing if name not in taken)
  return Loaded(params, tuple(sorted({*found.loaded, *taken})), missing, found.unused)


def safetensors_names(path: str | Path) -> list[str]:
  """Names of the arrays in a file. Raises FileNotFoundError."""
  with safetensors.safe_open(_existing(path), framework="np") as file:
    return sorted(file.keys())


def _existing(path: str | Path) -> Path:
  path = located(path)
  if not path.is_file():
    raise FileNotFoundError(f"weights {path} do not exist; check init_from and over")
  return path


def with_copies(
  found: Loaded, copies: Sequence[tuple[str, str]], targets: Mapping[str, jax.ShapeDtypeStruct]
) -> Loaded:
  """What was missing of a component, taken from another one: ("image_encoder", "its_copy"), ...

  Raises ValueError for a parameter that the other component has not, or has in another shape.
  """
  params, taken = dict(found.params), set()
  for source, copy in copies:
    for name in found.missing:
      if not name.startswith(f"{copy}/"):
        continue
      origin, target = source + name.removeprefix(copy), targets[name]
      if origin not in params or params[origin].shape != target.shape:
        have = list(params[origin].shape) if origin in params else "not there"
        raise ValueError(
          f"StageConfig.copied: {name} {list(target.shape)} from {origin}, which is {have} - "
          "expected the same shape - give both components one configuration, or name it in new"
        )
      params[name] = jax.device_put(
        params[origin].astype(target.dtype), target.sharding, may_alias=False
      )
      taken.add(name)
  missing = tuple(name for name in found.missing if name not in taken)
  return Loaded(params, tuple(sorted({*found.loaded, *taken})), missing, found.unused)


def compare_names(
  targets: Mapping[str, Any], found: Mapping[str, Sequence[int]], new: Sequence[str], where: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
  """(loaded, missing, unused) names, sorted.

  Args:
    targets: the model's parameters by name, anything with a shape.
    found: shapes in the source by name.
    new: regular expressions; a name of one side alone must match one in full.
    where: the source, for the message.

  Raises ValueError listing every name that is missing, unexpected or of another shape.
  """
  announced = lambda name: any(re.fullmatch(pattern, name) for pattern in new)
  missing = tuple(sorted(set(targets) - set(found)))
  unused = tuple(sorted(set(found) - set(targets)))
  loaded = tuple(sorted(set(targets) & set(found)))
  problems = []
  for name in missing:
    if not announced(name):
      near = difflib.get_close_matches(name, unused, 1)
      hint = f"; near it: {near[0]}" if near else ""
      problems.append(f"missing: {name} {list(targets[name].shape)}{hint}")
  problems += [f"unexpected: {n} {list(found[n])}" for n in unused if not announced(n)]
  for name in loaded:
    if tuple(found[name]) != tuple(targets[name].shape):
      problems.append(
        f"shape: {name} is {list(found[name])}, the model has {list(targets[name].shape)}"
      )
  if problems:
    raise ValueError(
      f"{where} does not fit the model ({len(problems)} differences):\n  "
      + "\n  ".join(problems)
      + "\nParameters that start fresh or stay unused must match a pattern of the stage's `new`."
    )
  return loaded, missing, unused
