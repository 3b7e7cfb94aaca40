"""Scores -> the nearest that keep the rules. scores [B N], RuleSet -> assignments, probabilities.

Scores are read as probabilities of independent labels. Given that the rules hold, what is the most
probable assignment, and how probable is each label? Both are our choice: the paper does not say
what becomes of its constraint where nothing is trained.

Labels of a group (exactly or at most one) are one variable with a state for each; other labels are
variables with two. Rules between variables are edges. Where these make a forest, dynamic
programming is exact. Where they make a ring, some variables are held at each of their states in
turn ("cut") until what is left is a forest: exact too, at the product of their states times the
cost. Above `limit` such cases the component is approximate, and its labels are listed.

    hair colour          No_Beard --- Goatee ---. Male     cut No_Beard: two forests, and the
     |       |              |                   |          better of both is exact
    Bangs  Wavy or ...      '------- Mustache --'
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from facejax.knowledge import logic
from facejax.knowledge.rules import RuleSet

CLIP = 1e-6  # scores of 0 and 1 are as sure as this, so that the rules can overrule each
NEVER = -np.inf


class _Component:
  """Variables that rules join, and how they are worked through.

  states[v] are the assignments of variable v: sets of labels that are present. fits[u, v] says
  which states of u and v may come together. `cut` are the variables to hold; `order` lists the
  others with their parent (-1 for a root), parents first; edges outside it are dropped.
  """

  def __init__(self, rules: RuleSet, labels: Sequence[int], limit: int):
    self.labels = tuple(labels)
    own = [rule for rule in rules.rules if set(rule.labels) <= set(labels)]
    self.rules = _in_pairs(own)
    self.variables, self.states = _variables(own, labels)
    self.fits = self._edges()
    self.cut = self._cutset()
    self.exact = int(np.prod([len(self.states[v]) for v in self.cut])) <= limit
    if not self.exact:
      self.cut = []
    self.order = self._forest()

  def _edges(self) -> dict[tuple[int, int], np.ndarray]:
    fits = {}
    for u, v in itertools.combinations(range(len(self.variables)), 2):
      both = set(self.variables[u]) | set(self.variables[v])
      rules = [r for r in self.rules if set(r.labels) <= both]
      ok = [[_kept(rules, a | b, both) for b in self.states[v]] for a in self.states[u]]
      if not np.all(ok):
        fits[u, v] = np.array(ok)
        fits[v, u] = fits[u, v].T
    return fits

  def _cutset(self) -> list[int]:
    """Variables without which the rest is a forest: the busiest of what is left, each time."""
    cut: list[int] = []
    left = set(range(len(self.variables)))
    while True:
      core = set(left)
      degree = lambda v: sum((v, u) in self.fits for u in core)  # noqa: B023 - used at once
      while loose := {v for v in core if degree(v) <= 1}:
        core -= loose
      if not core:
        return cut
      worst = max(core, key=lambda v: (degree(v), -len(self.states[v])))
      cut.append(worst)
      left.remove(worst)

  def _forest(self) -> list[tuple[int, int]]:
    order: list[tuple[int, int]] = []
    seen = set(self.cut)
    for root in range(len(self.variables)):
      todo = [(root, -1)]
      while todo:
        v, parent = todo.pop()
        if v not in seen:
          seen.add(v)
          order.append((v, parent))
          todo += [(u, v) for u in range(len(self.variables)) if (v, u) in self.fits]
    return order

  def cases(self) -> list[dict[int, int]]:
    """A state for each cut variable, in all ways that fit."""
    found = []
    for states in itertools.product(*(range(len(self.states[v])) for v in self.cut)):
      held = dict(zip(self.cut, states, strict=True))
      pairs = itertools.combinations(self.cut, 2)
      if all(self.fits[u, v][held[u], held[v]] for u, v in pairs if (u, v) in self.fits):
        found.append(held)
    return found


def _in_pairs(rules: Sequence[logic.Rule]) -> list[logic.Rule]:
  """The same rules, with at_most_one as exclusions: a group may lie across three variables."""
  found = []
  for rule in rules:
    pairs = itertools.combinations(rule.labels, 2)
    most = rule.kind == "at_most_one"
    found += [logic.Rule("excludes", pair) for pair in pairs] if most else [rule]
  return found


def _variables(rules: Sequence[logic.Rule], labels: Sequence[int]):
  """Groups that share no label are variables, as are the labels that are in none."""
  groups: list[tuple[int, ...]] = []
  used: set[int] = set()
  one, most = (
    [r.labels for r in rules if r.kind == kind] for kind in ("exactly_one", "at_most_one")
  )
  for group in one + most:
    if used.isdisjoint(group):
      groups.append(group)
      used |= set(group)
  groups += [(label,) for label in labels if label not in used]
  states = []
  for group in groups:
    options = [frozenset(), *(frozenset({label}) for label in group)]
    own = [rule for rule in rules if set(rule.labels) <= set(group)]
    states.append([option for option in options if _kept(own, option, set(group))])
  return groups, states


def _kept(rules: Sequence[logic.Rule], present: frozenset[int], among: set[int]) -> bool:
  has = {label: label in present for label in among}
  return all(rule.holds(has) for rule in rules)  # type: ignore[arg-type]


class Projection:
  """Projects scores onto the rules of a set.

  `approximate` names the labels whose result may not be the nearest one: it still keeps the rules.
  """

  def __init__(self, rules: RuleSet, limit: int = 1024):
    """Plans the work.

    Args:
      rules: what is to be kept.
      limit: the most cases of held variables that a component of labels may take.
    """
    self._components = [_Component(rules, labels, limit) for labels in rules.components]
    names = rules.labels.labels
    rough = [c for c in self._components if not c.exact]
    self.approximate = tuple(names[i] for c in rough for i in c.labels)

  def most_probable(self, scores: Float[np.ndarray, "B N"]) -> Bool[np.ndarray, "B N"]:
    """The most probable assignment that keeps the rules; one of them, always the same, in a tie."""
    log_odds = _log_odds(scores)
    result = log_odds > 0  # of labels without rules
    for part in self._components:
      solve = _best if part.exact else _one_by_one
      result[:, part.labels] = solve(part, log_odds)[:, part.labels]
    return result

  def probabilities(self, scores: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B N"]:
    """How probable each label is, given that the rules hold; float64.

    In an approximate component only rules along a spanning forest are taken into account. Labels
    without rules keep their scores.
    """
    log_odds = _log_odds(scores)
    result = np.array(scores, np.float64)
    for part in self._components:
      result[:, part.labels] = _marginals(part, log_odds)[:, part.labels]
    return result


def _log_odds(scores: np.ndarray) -> np.ndarray:
  """Raises ValueError naming the first score that is no probability."""
  p = np.asarray(scores, np.float64)
  if wrong := np.argwhere(~((p >= 0) & (p <= 1))).tolist():
    row, column = wrong[0]
    raise ValueError(
      f"score {p[row, column]} of label {column} in row {row} - expected probabilities from 0 to 1 "
      "- apply constraint.scores to logits first"
    )
  p = np.clip(p, CLIP, 1 - CLIP)
  return np.log(p) - np.log1p(-p)


def _potentials(part: _Component, log_odds: np.ndarray) -> list[np.ndarray]:
  """Per variable [B states]: log-odds of the labels that are present."""
  total = lambda state: log_odds[:, sorted(state)].sum(1)
  return [np.stack([total(state) for state in states], 1) for states in part.states]


def _held(part: _Component, potentials: list[np.ndarray], case: dict[int, int]) -> list[np.ndarray]:
  """Potentials of a case: states that do not fit those held are ruled out."""
  result = list(potentials)
  for v, _ in part.order:
    for u, state in case.items():
      if (u, v) in part.fits:
        result[v] = np.where(part.fits[u, v][state], result[v], NEVER)
  return result


def _upward(part: _Component, potentials: list[np.ndarray], reduce) -> tuple[list, dict]:
  """Children send to their parents what the best, or all, of their states are worth."""
  values, messages = list(potentials), {}
  for v, parent in reversed(part.order):
    if parent >= 0:
      each = np.where(part.fits[parent, v][None], values[v][:, None], NEVER)
      messages[v] = reduce(each)
      values[parent] = values[parent] + messages[v]
  return values, messages


def _log_sum(x: np.ndarray) -> np.ndarray:
  """Over the last axis; of nothing but NEVER it is NEVER."""
  top = x.max(-1, keepdims=True)
  top = np.where(np.isfinite(top), top, 0)
  with np.errstate(divide="ignore"):
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


def _best(part: _Component, log_odds: np.ndarray) -> np.ndarray:
  """The most probable assignment [B N] of a component's labels."""
  potentials = _potentials(part, log_odds)
  best = np.full(len(log_odds), NEVER)
  result = np.zeros(log_odds.shape, bool)
  rows = np.arange(len(log_odds))
  for case in part.cases():
    values, _ = _upward(part, _held(part, potentials, case), lambda x: x.max(-1))
    score = sum((values[v].max(1) for v, parent in part.order if parent < 0), np.zeros(len(rows)))
    score = score + sum(potentials[u][:, state] for u, state in case.items())
    chosen: dict[int, np.ndarray] = {u: np.full(len(rows), s) for u, s in case.items()}
    for v, parent in part.order:
      fits = part.fits[parent, v][chosen[parent]] if parent >= 0 else True
      chosen[v] = np.where(fits, values[v], NEVER).argmax(1)
    better = score > best
    best = np.where(better, score, best)
    for v, states in enumerate(part.states):
      present = np.array([np.isin(np.arange(log_odds.shape[1]), list(s)) for s in states])
      group = list(part.variables[v])
      result[np.ix_(better, group)] = present[chosen[v]][np.ix_(better, group)]
  return result


def _marginals(part: _Component, log_odds: np.ndarray) -> np.ndarray:
  """P(label | rules) [B N] of a component's labels."""
  potentials = _potentials(part, log_odds)
  cases, weights = [], []
  for case in part.cases():
    held = _held(part, potentials, case)
    values, messages = _upward(part, held, _log_sum)
    roots = [v for v, parent in part.order if parent < 0]
    whole = sum((_log_sum(values[v]) for v in roots), np.zeros(len(log_odds)))
    weights.append(whole + sum(potentials[u][:, state] for u, state in case.items()))
    beliefs: dict[int, np.ndarray] = {}
    for v, parent in part.order:  # downward: a parent's belief without what this child told it
      beliefs[v] = values[v]
      if parent >= 0:
        with np.errstate(invalid="ignore"):
          rest = beliefs[parent] - messages[v]
        rest = np.where(np.isfinite(beliefs[parent]), rest, NEVER)
        each = np.where(part.fits[v, parent][None], rest[:, None], NEVER)
        beliefs[v] = values[v] + _log_sum(each)
    for u, state in case.items():
      beliefs[u] = np.where(np.arange(len(part.states[u])) == state, 0.0, NEVER)[None]
    cases.append(beliefs)
  share = np.stack(weights)
  share = np.exp(share - _log_sum(share.T)[None])
  result = np.zeros(log_odds.shape)
  for beliefs, weight in zip(cases, share, strict=True):
    for v, belief in beliefs.items():
      top = _log_sum(belief)[:, None]
      p = np.exp(belief - np.where(np.isfinite(top), top, 0)) * weight[:, None]
      for state, labels in enumerate(part.states[v]):
        for label in labels:
          result[:, label] += p[:, state]
  return result


def _one_by_one(part: _Component, log_odds: np.ndarray) -> np.ndarray:
  """Settles the surest label first, each as it would be, unless the rules then cannot hold."""
  result = np.zeros(log_odds.shape, bool)
  for row, odds in enumerate(log_odds):
    given: dict[int, bool] = {}
    for label in sorted(part.labels, key=lambda i: -abs(odds[i])):
      wanted = bool(odds[label] > 0)
      try:
        logic.solution(part.rules, {**given, label: wanted})
        given[label] = wanted
      except logic.Conflict:
        given[label] = not wanted
    for label, value in given.items():
      result[row, label] = value
  return result
