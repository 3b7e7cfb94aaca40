"""What a run was, as JSON, and whether a resume is the same run. RunConfig, Pipeline -> dict.

A name is that of the command line, such as model.dtype or stages.stage1.optim.peak_lr. Of the data
the fingerprint counts, not the settings: its entries are named data.seed, data.rows, and so on.
"""

import importlib.metadata
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from facejax import config_io
from facejax.config import RunConfig

_PACKAGES = ("facejax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# What may differ without asking: how often, on which devices, in which pieces. With another mesh,
# `accumulate` or `remat` the sums are equal up to the rounding of another order.
_FREE = (
  r"(mesh|evaluate|track|versions|devices)\..*",
  r"checkpoint_every|keep|log_every",
  r"model\.(remat|attention)",
  r"stages\.{stage}\.(accumulate|rows|modalities|mixtures.*)",  # but for accumulate, fingerprinted
  r"stages\.(?!{stage}\.).*",  # another stage
)


# How long, too, where no learning rate depends on it: a cosine and a warm-up are shares of `steps`.
_STEPS = r"stages\.{stage}\.steps"


def settings(config: RunConfig) -> dict[str, Any]:
  """What all processes of a run must have in common, by name. Of the data its fingerprint counts.

  Where the data lies may differ from machine to machine.
  """
  tree = {name: value for name, value in config_io.to_dict(config).items() if name != "data"}
  return _flat({**tree, "versions": versions()})


def versions() -> dict[str, str]:
  """Of Python and of the libraries that a run is computed with."""
  return {
    "python": ".".join(map(str, sys.version_info[:2])),
    **{name: importlib.metadata.version(name) for name in _PACKAGES},
  }


class Difference(NamedTuple):
  """One named value of the saved run and of this one."""

  name: str
  old: Any
  new: Any
  free: bool  # changes neither the mathematics nor the data

  def __str__(self) -> str:
    return f"{self.name}: {self.old!r} -> {self.new!r}"


def describe(
  config: RunConfig, stage: str, fingerprint: Mapping, mesh: Mesh, start: str | None = None
) -> dict:
  """The record that is saved with each checkpoint.

  `fingerprint` is the pipeline's, `start` says which checkpoint the stage starts from; None if that
  is no longer there, which is no difference.
  """
  record = {
    "stage": stage,
    "start": start,
    "config": config_io.to_dict(config),
    "fingerprint": dict(fingerprint),
    "devices": dict(mesh.shape),
    "versions": versions(),
  }
  return json.loads(json.dumps(record))  # tuples become lists, as they will be when read back


def differences(saved: Mapping, current: Mapping, done: int) -> list[Difference]:
  """Every named value that differs between two records of a stage, of which `done` steps are done.

  Mixtures of samples may differ freely where they start at a step that is not done yet.
  """
  old, new = _named(saved), _named(current)
  if None in (old["start"], new["start"]):
    old["start"] = new["start"] = None
  optim = current["config"]["stages"][current["stage"]]["optim"]
  steady = optim["schedule"] == "constant" and not optim["warmup"]
  free = "|".join(f"(?:{pattern})" for pattern in (*_FREE, *([_STEPS] if steady else ())))
  free = free.replace("{stage}", re.escape(current["stage"]))
  if _past(saved, done) == _past(current, done):
    free += r"|data\.mixtures\..*"
  return [
    Difference(name, old.get(name), new.get(name), bool(re.fullmatch(free, name)))
    for name in sorted(set(old) | set(new))
    if old.get(name) != new.get(name)
  ]


def check(
  saved: Mapping, current: Mapping, allow_change: Sequence[str], done: int, where: str
) -> list[str]:
  """Lines that say what has changed since step `done`, if all of it is free or allowed.

  An entry of allow_change allows the value of that name, or all values of that group: "data",
  "stages.stage1.optim". Raises ValueError listing each difference that is not allowed.
  """
  allowed = [entry.removeprefix("config.") for entry in allow_change]
  covered = lambda name: any(name == entry or name.startswith(f"{entry}.") for entry in allowed)
  found = differences(saved, current, done)
  if refused := [d for d in found if not d.free and not covered(d.name)]:
    lines = "\n  ".join(map(str, refused))
    names = dict.fromkeys(re.sub(r"^data\.mixtures\..*", "data.mixtures", d.name) for d in refused)
    started = any(re.fullmatch(r"data\.mixtures\.\d+\.start", d.name) for d in refused)
    later = f" (a mixture from step {done} on is free)" if started else ""
    raise ValueError(
      f"{where} was saved by a run with other settings (saved -> now):\n  {lines}\n"
      f"These change the mathematics or the data. Set them back{later}, or accept them with "
      f"--allow-change={','.join(names)}"
    )
  return [str(d) for d in found]


def _past(record: Mapping, done: int) -> list:
  """The mixtures that any of the first `done` steps drew from."""
  return [m for m in record["fingerprint"].get("mixtures", ()) if m["start"] < done]


def _named(record: Mapping) -> dict[str, Any]:
  """A record as {dotted name: value}; of the config's data section the fingerprint stands in."""
  config = {name: value for name, value in record["config"].items() if name != "data"}
  tree = {
    **config,
    "start": record["start"],
    "data": record["fingerprint"],
    "devices": record["devices"],
    "versions": record["versions"],
  }
  return _flat(tree)


def _flat(tree: Mapping) -> dict[str, Any]:
  """{"a": {"b": 1}} as {"a.b": 1}."""
  flat: dict[str, Any] = {}

  def walk(value, name):
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
      value = dict(enumerate(value))
    if isinstance(value, Mapping) and value:
      for key, inner in value.items():
        walk(inner, f"{name}.{key}" if name else str(key))
    else:
      flat[name] = value

  walk(tree, "")
  return flat
