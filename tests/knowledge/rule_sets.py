"""Small rule sets, random ones, and references that only count."""

import itertools

import numpy as np

from facejax.knowledge import logic, rules
from facejax.knowledge.labels import LabelSet
from facejax.knowledge.rules import Rule, RuleSet


def made(count, *told):
  """A rule set over labels a, b, c, ...; each rule as (kind, "ab")."""
  names = tuple("abcdefghijkl"[:count])
  found = tuple(Rule(kind, tuple(names.index(x) for x in labels)) for kind, labels in told)
  groups = tuple(tuple(labels) for kind, labels in told if kind == "exactly_one")
  return RuleSet(LabelSet("made", names, groups), found)


def holds(rule, row):
  """Written from the definitions, without the library's."""
  values = [int(row[i]) for i in rule.labels]
  if rule.kind == "implies":
    return not (values[0] == 1 and values[1] == 0)
  if rule.kind == "excludes":
    return values != [1, 1]
  return sum(values) == 1 if rule.kind == "exactly_one" else sum(values) < 2


def assignments(count):
  """All of them, [2^count count] int8."""
  return np.array(list(itertools.product((0, 1), repeat=count)), np.int8)


def drawn(seed, labels=7, pairs=6):
  """A random set that a face can keep, with rings, or None."""
  rng = np.random.default_rng(seed)
  names = "abcdefghijkl"[:labels]
  told = []
  if rng.random() < 0.7:
    told.append(("exactly_one", "".join(rng.permutation(list(names))[:3])))
  if rng.random() < 0.5:
    told.append(("at_most_one", "".join(rng.permutation(list(names))[:3])))
  for _ in range(pairs):
    kind = ("implies", "excludes")[int(rng.integers(2))]
    told.append((kind, "".join(rng.permutation(list(names))[:2])))
  try:
    return made(labels, *told)
  except ValueError as error:
    assert "contradict" in str(error)
    return None


FILES = rules.names()
KINDS = logic.KINDS
