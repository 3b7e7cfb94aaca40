"""Rule files: what they say, and what is refused."""

import re

import numpy as np
import pytest
from rule_sets import FILES, KINDS, assignments, holds, made

from facejax.faces.action_units import ACTION_UNITS, EXPRESSIONS, PROTOTYPES, present
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.scene import sample
from facejax.knowledge import logic, rules
from facejax.knowledge.labels import LabelSet
from facejax.knowledge.rules import Rule
from facejax.records.layouts.celeba import NOUNS

TEXT = """
name = "hair"
source = "ours"
labels = ["Bald", "Black", "Gray", "Goatee", "No_Beard"]
[words]
Black = "black hair"
[[rule]]
kind = "excludes"
from = ["No_Beard"]
to = ["Goatee"]
because = "a goatee
"""


def test_files_come_with_the_library():
  """Kills: a file that package_data leaves out, or that cannot be read."""
  assert FILES == ["age_gender_race", "celeba40", "drawn_faces", "expressions"]
  for name in FILES:
    rule_set = rules.load(name)
    assert rule_set.source and len(rule_set) and rule_set.labels.name == name
    assert all(rule.because and rule.kind in KINDS for rule in rule_set.rules)


def test_celeba_has_celebas_labels_and_no_stereotype():
  """Kills: a renamed or misplaced attribute; a rule that joins make-up or clothes to a sex."""
  rule_set = rules.load("celeba40")
  assert rule_set.labels.labels == tuple(NOUNS)
  said = {rule.say(rule_set.labels) for rule in rule_set.rules}
  assert "No_Beard excludes Mustache" in said and "Goatee implies Male" in said
  assert "at most one of Bald, Black_Hair, Blond_Hair, Brown_Hair, Gray_Hair" in said
  soft = {"Heavy_Makeup", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Attractive"}
  named = {rule_set.labels.labels[i] for rule in rule_set.rules for i in rule.labels}
  assert not named & (soft | {"Young", "Wearing_Earrings", "Rosy_Cheeks"})
  defined = rule_set.only("definition")
  assert len(defined) == len(rule_set) - 4
  assert not any("Male" in rule.say(rule_set.labels) for rule in defined.rules)


def test_expressions_follow_the_dictionary():
  """Kills: a rule that a prototype of the same dictionary breaks, a renamed unit."""
  rule_set = rules.load("expressions")
  labels = rule_set.labels
  assert labels.labels == (*EXPRESSIONS, *(f"AU{n}" for n in ACTION_UNITS))
  assert all(labels.say(f"AU{n}") == words for n, words in ACTION_UNITS.items())
  for name, prototype in PROTOTYPES.items():
    for units in (prototype.required, prototype.required + prototype.optional):
      row = labels.row([name, *(f"AU{n}" for n in units)], "test")
      assert not rule_set.broken(row[None]).any()
  assert rule_set.broken(labels.row(["neutral", "AU1"], "test")[None]).sum() == 1
  assert rule_set.broken(labels.row(["happiness"], "test")[None]).sum() == 1


def test_drawn_faces_keep_their_rules():
  """Kills: a rule that the renderer does not keep, an attribute that it has and the file lacks."""
  rule_set = rules.load("drawn_faces")
  assert set(ATTRIBUTES) | set(EXPRESSIONS) <= set(rule_set.labels.labels)
  rows = []
  for seed in range(1500):
    told = sample(seed, "train").labels
    has = [name for name, yes in told.attributes.items() if yes]
    units = [f"AU{n}" for n in present(told.action_units)]
    rows.append(rule_set.labels.row([*has, told.expression, *units], f"face {seed}"))
  assert not rule_set.broken(np.array(rows)).any()
  assert np.array(rows).any(0).all()


def test_contradictions_are_found_as_by_listing():
  """Kills: a label that rules make impossible and that is not named, one named that is possible."""
  found = 0
  for seed in range(150):
    rng = np.random.default_rng(seed)
    names = tuple("abcde")
    told = [Rule("exactly_one", (0, 1, 2))]
    for _ in range(7):
      kind = ("implies", "excludes", "implies", "at_most_one")[int(rng.integers(4))]
      told.append(Rule(kind, tuple(int(i) for i in rng.permutation(5)[:2])))
    got = logic.contradictions(LabelSet("made", names), told)
    rows = assignments(5)
    rows = rows[[all(holds(rule, row) for rule in told) for row in rows]]
    if not len(rows):
      assert got[0].startswith("no face can keep the rules: ")
      continue
    dead = {names[i] for i in np.flatnonzero(~rows.any(0))}
    assert {text[0] for text in got if "can never be present" in text} == dead
    found += bool(dead)
  assert found > 20


def test_contradictions_name_the_chain():
  """Kills: a message without the rules to change, or with rules that have no part in it."""
  with pytest.raises(ValueError, match="contradict") as error:
    made(5, ("implies", "ab"), ("implies", "bc"), ("excludes", "ca"), ("implies", "de"))
  assert "in 1 ways" in str(error.value)
  chain = "a can never be present: a implies b; b implies c; c excludes a"
  assert str(error.value).endswith(chain)
  told = [Rule("exactly_one", (0, 1)), Rule("implies", (0, 2)), Rule("implies", (1, 2))]
  told += [Rule("excludes", (2, 0)), Rule("excludes", (2, 1))]
  found = logic.contradictions(LabelSet("made", tuple("abc")), told)
  assert found[0].startswith("no face can keep the rules: ")
  assert "exactly one of a, b can never be kept: none of them can be present" in found


def test_propagation_goes_both_ways():
  """Kills: implications that only run forwards, a group whose last label is not settled, a value
  that does not follow."""
  told = made(5, ("implies", "ab"), ("exactly_one", "bcd"), ("excludes", "ce")).rules
  assert logic.propagate(told, {1: False}) == {1: False, 0: False}
  assert logic.propagate(told, {1: False, 3: False}) == {
    1: False,
    0: False,
    3: False,
    2: True,
    4: False,
  }
  assert logic.propagate(told, {4: True}) == {4: True, 2: False}
  assert logic.propagate(told, {0: True}) == {0: True, 1: True, 2: False, 3: False}
  with pytest.raises(logic.Conflict) as conflict:
    logic.propagate(told, {0: True, 2: True})
  assert [rule.kind for rule in conflict.value.chain] == ["implies", "exactly_one"]


def test_components():
  # Kills: components that are not joined through a third, labels without rules among them.
  parts = made(7, ("implies", "ab"), ("excludes", "de"), ("at_most_one", "bef")).components
  assert parts == ((0, 1, 3, 4, 5),)
  assert made(4, ("implies", "ab"), ("excludes", "dc")).components == ((0, 1), (2, 3))


BAD = {
  "is no TOML": TEXT,
  r"unknown label 'Goate' in rule 1 \(excludes\).*did you mean 'Goatee'": TEXT.replace(
    '"Goatee"]\nbecause = "a goatee', '"Goate"]'
  ),
  "rule 1: kind is 'exclude', expected one of implies.*did you mean 'excludes'": TEXT.replace(
    '"excludes"', '"exclude"'
  ).replace('because = "a goatee', ""),
  "a key of the file is 'lables'": 'lables = ["a"]\nname = "x"',
  "the file: 'labels' is None": 'name = "x"',
  r"rule 1 \(excludes\): 'to' is 'Bald'": TEXT.replace('["Goatee"]', '"Bald"').replace(
    'because = "a goatee', ""
  ),
  "a key of rule 1 .* is 'frm'": TEXT.replace('because = "a goatee', "frm = []"),
  "rule 1: No_Beard excludes No_Beard - expected two labels or more": TEXT.replace(
    'to = ["Goatee"]', 'to = ["No_Beard"]'
  ).replace('because = "a goatee', ""),
  "given twice": TEXT.replace(
    'because = "a goatee', '[[rule]]\nkind="excludes"\nfrom=["Goatee"]\nto=["No_Beard"]'
  ),
  r"unknown label 'Blck' in \[words\]": TEXT.replace("Black =", "Blck =").replace(
    'because = "a goatee', ""
  ),
  "rule 1: basis is 'guess', expected one of definition": TEXT.replace(
    'because = "a goatee', 'basis = "guess"'
  ),
  "contradict themselves in 1 ways.*\n.*Goatee can never be present": TEXT.replace(
    'because = "a goatee', '[[rule]]\nkind="implies"\nfrom=["Goatee"]\nto=["No_Beard"]'
  ),
}


@pytest.mark.parametrize("expected", BAD)
def test_bad_files(expected, tmp_path):
  """Kills: a message without the file, the rule or the value."""
  path = tmp_path / "hair.toml"
  path.write_text(BAD[expected])
  with pytest.raises(ValueError, match=expected) as error:
    rules.load(path)
  assert str(path) in str(error.value)


def test_files_that_are_not_there(tmp_path):
  # Kills: a traceback of open(), a name that is taken for a path.
  with pytest.raises(FileNotFoundError, match=re.escape(f"no rule file {tmp_path}/x.toml")):
    rules.load(tmp_path / "x.toml")
  with pytest.raises(
    ValueError, match=r"rule file is 'celeba', expected .*did you mean 'celeba40'"
  ):
    rules.load("celeba")
  with pytest.raises(ValueError, match="basis is 'definitions', expected one of definition"):
    rules.load("celeba40").only("definitions")
