"""Their names <-> ours: what a line of a table says, read in both directions. See families.py.

A rule pairs a tensor of theirs with a parameter of ours:

  model.layers.{i}.mlp.up_proj.weight    decoder/*/up/kernel    linear

"{i}" is a layer's number. "*" is a stack of layers: the leading axis of our array, whose name and
length the encoder's config says ("blocks", and "rest" behind the selected layer). `form` says how
the numbers lie (FORMS), `part` which third of a fused tensor ours is.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from facejax.config import ModelConfig


class Form(NamedTuple):
  """How a tensor lies in their file and in our tree. Views, apart from conv's."""

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray], np.ndarray]
  shape: Callable[[tuple[int, ...]], tuple[int, ...]]  # theirs, from ours


def _side(cells: int) -> int:
  return round((cells / 3) ** 0.5)


FORMS = {
  "same": Form(lambda a: a, lambda a: a, lambda s: s),
  # torch keeps [out in], we multiply from the left: [in out].
  "linear": Form(lambda a: a.T, lambda a: a.T, lambda s: s[::-1]),
  # A convolution over patches [E 3 p p] is a product with [p * p * 3, E], pixels row by row.
  "conv": Form(
    lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(_side(len(a)), _side(len(a)), 3, -1).transpose(3, 2, 0, 1),
    lambda s: (s[1], 3, _side(s[0]), _side(s[0])),
  ),
  "row": Form(lambda a: a[0], lambda a: a[None], lambda s: (1, *s)),
  "cell": Form(lambda a: a[0, 0], lambda a: a[None, None], lambda s: (1, 1, *s)),
}


class Rule(NamedTuple):
  """A line of a table."""

  theirs: str
  ours: str
  form: str = "same"
  part: int | None = None  # of three that lie one after another on their first axis: q, k, v


class Piece(NamedTuple):
  """Where one parameter of ours, or one layer of it, lies in a file of theirs."""

  theirs: str
  form: str
  part: int | None

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Their tensor's shape for a parameter (or a layer of it) of shape `ours`."""
    first, *rest = FORMS[self.form].shape(ours)
    return (first if self.part is None else 3 * first, *rest)

  def view(self, theirs: np.ndarray) -> np.ndarray:
    """Our part of their tensor, in our order of axes."""
    if self.part is not None:
      third = len(theirs) // 3
      theirs = theirs[self.part * third : (self.part + 1) * third]
    return FORMS[self.form].ours(theirs)


class Table(NamedTuple):
  """A layout of names: rules, and patterns of what is read by nobody."""

  rules: tuple[Rule, ...]
  drop: tuple[str, ...] = ()  # buffers and towers of text; patterns match in full

  def dropped(self, name: str) -> bool:
    """Whether a tensor of theirs is nobody's parameter."""
    return any(re.fullmatch(pattern, name) for pattern in self.drop)


class Plan(NamedTuple):
  """The pieces of a parameter: one, or one a layer if our array has a leading axis of them."""

  pieces: tuple[Piece, ...]
  stacked: bool


def stacks(config: ModelConfig) -> dict[str, tuple[tuple[str, int, int], ...]]:
  """(name, first layer, layers) of each stack of a module."""
  found: dict[str, tuple[tuple[str, int, int], ...]] = {}
  found["decoder"] = (("blocks", 0, config.decoder.layers),)
  for module, vit in (("image_encoder", config.image), ("video_encoder", config.video)):
    if vit:
      used = vit.layers + 1 + vit.select_layer
      found[module] = (("blocks", 0, used), ("rest", used, vit.layers - used))
  return found


def expand(table: Table, config: ModelConfig) -> dict[str, Plan]:
  """The plan of each parameter of ours that a table knows, by path."""
  plans: dict[str, Plan] = {}
  layers = stacks(config)
  for rule in table.rules:
    if "*" not in rule.ours:
      plans[rule.ours] = Plan((Piece(rule.theirs, rule.form, rule.part),), False)
      continue
    for name, first, count in layers.get(rule.ours.partition("/")[0], ()):
      pieces = tuple(
        Piece(rule.theirs.replace("{i}", str(i)), rule.form, rule.part)
        for i in range(first, first + count)
      )
      if pieces:
        plans[rule.ours.replace("*", name)] = Plan(pieces, True)
  return plans
