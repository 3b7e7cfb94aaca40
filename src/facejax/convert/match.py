"""Do a file's tensors fit a model? targets, table, tensors -> Parameter by path, or why not.

Strict both ways, as weights.compare_names: a name that one side alone has must be announced.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facejax.config import ModelConfig
from facejax.convert import tables
from facejax.convert.mapped import Stored
from facejax.convert.parameter import Parameter
from facejax.convert.tables import Plan, Table

_LISTED = 20  # differences; a wrong config gives hundreds


class Source(NamedTuple):
  """A checkpoint's tensors and how to read their names."""

  where: str
  tensors: Mapping[str, Stored]
  table: Table


class Matched(NamedTuple):
  """What fits, and what the caller announced."""

  parameters: dict[str, Parameter]  # ours
  missing: tuple[str, ...]  # ours
  unused: tuple[str, ...]  # theirs


def match(
  source: Source,
  config: ModelConfig,
  targets: Mapping[str, tuple[int, ...]],
  new: Sequence[str] = (),
  resample: bool = False,
) -> Matched:
  """Ties each of our parameters to its tensors; nothing is read.

  Args:
    source: what there is.
    config: the model, for its numbers of layers.
    targets: our parameters' shapes by path.
    new: regular expressions; a name of one side alone (ours or theirs) must match one in full.
    resample: tables of positions may have another number of rows.

  Raises ValueError listing every tensor that is missing, unexpected, of another shape or type.
  """
  for pattern in new:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(f"new: '{pattern}' is no pattern: {error}") from error
  plans = tables.expand(source.table, config)
  paths = {p.theirs: path for path, plan in plans.items() for p in plan.pieces if path in targets}
  other = {p.theirs: path for path, plan in plans.items() for p in plan.pieces}
  announced = lambda *names: any(re.fullmatch(p, n) for p in new for n in names if n)
  parameters, missing, problems = {}, [], []
  for path, shape in sorted(targets.items()):
    plan = plans.get(path, Plan((), False))
    absent = [piece.theirs for piece in plan.pieces if piece.theirs not in source.tensors]
    if not absent and plan.pieces:
      parameters[path], wrong = _tie(path, shape, plan, source.tensors, resample)
      problems += wrong
    elif len(absent) == len(plan.pieces) and announced(path, *absent[:1]):
      missing.append(path)
    else:
      names = absent or ["no tensor of this layout"]
      problems += [f"missing: {name}, for {path} {list(shape)}" for name in names]
  unused = sorted(set(source.tensors) - set(paths))
  for name in unused:
    if not source.table.dropped(name) and not announced(name, other.get(name)):
      problems.append(f"unexpected: {source.tensors[name]}")
  if problems:
    raise ValueError(_listed(source.where, problems))
  return Matched(parameters, tuple(missing), tuple(unused))


def _tie(
  path: str, shape: tuple[int, ...], plan: Plan, tensors: Mapping[str, Stored], resample: bool
) -> tuple[Parameter, list[str]]:
  """A parameter and what is wrong with its tensors."""
  found = tuple(tensors[piece.theirs] for piece in plan.pieces)
  own = shape[1:] if plan.stacked else shape
  problems = []
  resampled = False
  if plan.stacked and len(plan.pieces) != shape[0]:
    problems.append(f"shape: {path} has {shape[0]} layers, the config {len(plan.pieces)}")
  for piece, tensor in zip(plan.pieces, found, strict=True):
    expected = piece.shape(own)
    if resample and path.endswith("/positions") and tensor.shape != expected:
      resampled = len(tensor.shape) == len(expected) and tensor.shape[-1] == expected[-1]
    if tensor.shape != expected and not resampled:
      problems.append(f"shape: {tensor}, the model has {list(expected)} ({path})")
    if not np.issubdtype(tensor.array.dtype, np.floating) and tensor.array.dtype.name != "bfloat16":
      problems.append(f"type: {tensor} is {tensor.array.dtype}, expected floating point ({path})")
  return Parameter(path, shape, plan.pieces, found, plan.stacked, (), resampled), problems


def _listed(where: str, problems: Sequence[str]) -> str:
  text = f"{where} does not fit the model"
  if len(problems) == 1:
    return f"{text}: {problems[0]}"
  more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
  return f"{text} ({len(problems)} differences):\n  " + "\n  ".join([*problems[:_LISTED], *more])
