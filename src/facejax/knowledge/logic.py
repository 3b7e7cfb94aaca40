"""What follows from rules about labels: propagation, solutions, contradictions. No arrays.

A rule speaks of labels by their places in a LabelSet:

    implies (a, b)          a face with a has b
    excludes (a, b)         no face has both
    exactly_one (a, b, ..)  each face has one of them
    at_most_one (a, b, ..)  no face has two of them
"""

import dataclasses
from collections.abc import Mapping, Sequence

from facejax.knowledge.labels import LabelSet

KINDS = ("implies", "excludes", "exactly_one", "at_most_one")


@dataclasses.dataclass(frozen=True)
class Rule:
  """One rule.

  Attributes:
    kind: of KINDS.
    labels: places; two of them, but for exactly_one and at_most_one.
    basis: "definition" (follows from what the words mean) or "regularity" (exceptions are known).
    because: why it holds, in words.
  """

  kind: str
  labels: tuple[int, ...]
  basis: str = "definition"
  because: str = ""

  def say(self, labels: LabelSet) -> str:
    """The rule as a sentence."""
    names = [labels.labels[i] for i in self.labels]
    if self.kind in ("implies", "excludes"):
      return f"{names[0]} {self.kind} {names[1]}"
    return f"{self.kind.replace('_', ' ')} of {', '.join(names)}"

  def holds(self, has: Sequence[bool]) -> bool:
    """Whether an assignment of all labels keeps it."""
    values = [has[i] for i in self.labels]
    if self.kind == "implies":
      return not values[0] or values[1]
    return sum(values) == 1 if self.kind == "exactly_one" else sum(values) <= 1


class Conflict(Exception):
  """What propagation ran into: the rules that led there, in the order in which they were used."""

  def __init__(self, chain: tuple[Rule, ...]):
    super().__init__(chain)
    self.chain = chain


class _Known:
  """Values that are settled, and the rule and the labels from which each followed."""

  def __init__(self, given: Mapping[int, bool]):
    self.values = dict(given)
    self._from: dict[int, tuple[Rule, tuple[int, ...]]] = {}

  def settle(self, label: int, value: bool, rule: Rule, sources: Sequence[int]) -> bool:
    """Whether the value is new. Raises Conflict if the label has the other one."""
    if label not in self.values:
      self.values[label] = value
      self._from[label] = rule, tuple(sources)
      return True
    if self.values[label] != value:
      raise Conflict(self.chain((label, *sources), rule))
    return False

  def chain(self, labels: Sequence[int], last: Rule) -> tuple[Rule, ...]:
    """The rules by which these labels got their values, first causes first, and then `last`."""
    found: list[Rule] = []

    def visit(label: int) -> None:
      if label in self._from:
        rule, sources = self._from[label]
        for source in sources:
          visit(source)
        if rule not in found:
          found.append(rule)

    for label in labels:
      visit(label)
    return (*(rule for rule in found if rule != last), last)


def propagate(rules: Sequence[Rule], given: Mapping[int, bool]) -> dict[int, bool]:
  """All values that follow from some by one rule at a time. Raises Conflict."""
  known = _Known(given)
  while any([_apply(rule, known) for rule in rules]):
    pass
  return known.values


def _apply(rule: Rule, known: _Known) -> bool:
  """Whether the rule settled anything new."""
  values, labels = known.values, rule.labels
  if rule.kind == "implies":
    a, b = labels
    new = values.get(a) is True and known.settle(b, True, rule, (a,))
    return (values.get(b) is False and known.settle(a, False, rule, (b,))) or new
  true = [label for label in labels if values.get(label) is True]
  if true:
    others = [label for label in labels if label != true[0]]
    return any([known.settle(label, False, rule, true[:1]) for label in others])
  if rule.kind == "exactly_one":
    false = [label for label in labels if values.get(label) is False]
    if len(false) == len(labels):
      raise Conflict(known.chain(false, rule))
    if len(false) == len(labels) - 1:
      left = next(label for label in labels if label not in false)
      return known.settle(left, True, rule, false)
  return False


def solution(rules: Sequence[Rule], given: Mapping[int, bool]) -> dict[int, bool]:
  """An assignment that keeps all rules and the given values; labels it leaves out are absent.

  Raises Conflict if there is none, with the rules of all cases. Only exactly_one asks for a
  present label, so cases are distinguished there alone.
  """
  values = propagate(rules, given)
  open_group = next(
    (
      rule.labels
      for rule in rules
      if rule.kind == "exactly_one" and not any(values.get(i) for i in rule.labels)
    ),
    None,
  )
  if open_group is None:
    return values
  chains: list[Rule] = []
  for label in open_group:
    if label not in values:
      try:
        return solution(rules, {**values, label: True})
      except Conflict as conflict:
        chains += [rule for rule in conflict.chain if rule not in chains]
  raise Conflict(tuple(chains))


def contradictions(labels: LabelSet, rules: Sequence[Rule]) -> list[str]:
  """What is wrong with a set of rules, each with the chain of rules that shows it.

  A label that can never be present is a contradiction, though the rules can be kept without it.
  """
  found = []
  told = lambda chain: "; ".join(rule.say(labels) for rule in chain)
  try:
    solution(rules, {})
    search = solution
  except Conflict as conflict:
    found.append(f"no face can keep the rules: {told(conflict.chain)}")
    search = propagate  # each label is then impossible in the end; name those that are at once
  dead = set()
  for label, name in enumerate(labels.labels):
    try:
      search(rules, {label: True})
    except Conflict as conflict:
      dead.add(label)
      found.append(f"{name} can never be present: {told(conflict.chain)}")
  for rule in rules:
    if rule.kind == "exactly_one" and dead.issuperset(rule.labels):
      found.append(f"{rule.say(labels)} can never be kept: none of them can be present")
  return found
