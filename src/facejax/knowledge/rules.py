"""Rules as data: a TOML file -> RuleSet, refused if it contradicts itself.

    name = "hair"
    source = "our choice"
    labels = ["Bald", "Black_Hair", "Gray_Hair", "Goatee", "No_Beard"]

    [words]                                  # optional: how prose says a label
    Black_Hair = "black hair"

    [[rule]]
    kind = "excludes"                        # or "implies": each of `from` with each of `to`
    from = ["No_Beard"]
    to = ["Goatee"]
    because = "a goatee is a beard"

    [[rule]]
    kind = "at_most_one"                     # or "exactly_one": these are also a group of labels,
    of = ["Bald", "Black_Hair", "Gray_Hair"] # whose scores are a softmax
    basis = "regularity"                     # exceptions are known; without it: "definition"
    because = "..."

What may be a rule is our choice, as the paper does not list its rules: only what follows from what
the labels mean. That something is usual (Heavy_Makeup on women, say) is statistics, which
cooccurrence.py counts, and never a rule here. Rules to which exceptions are known but which the
literature uses are marked as regularities; `RuleSet.only("definition")` leaves them out.
"""

import dataclasses
import functools
import itertools
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int8

from facejax.config_checks import one_of
from facejax.knowledge import logic
from facejax.knowledge.labels import UNKNOWN, LabelSet
from facejax.knowledge.logic import Rule

FOLDER = pathlib.Path(__file__).parents[1] / "assets" / "rules"
BASES = ("definition", "regularity")
_KEYS = {"name", "source", "labels", "words", "rule"}
_PAIRS = ("implies", "excludes")


def names() -> list[str]:
  """The rule files that come with the library."""
  return sorted(path.stem for path in FOLDER.glob("*.toml"))


@dataclasses.dataclass(frozen=True)
class RuleSet:
  """Rules about the labels of a set; they do not contradict each other.

  Attributes:
    labels: the set; its groups are the exactly_one rules.
    rules: one by one; each column of what is said about rules is one of them.
    source: where they are from, as the file says.
  """

  labels: LabelSet
  rules: tuple[Rule, ...]
  source: str = ""

  def __post_init__(self):
    if found := logic.contradictions(self.labels, self.rules):
      raise ValueError(
        f"rules {self.labels.name!r} contradict themselves in {len(found)} ways - expected rules "
        "that a face can keep, with each label present or absent - change or remove one of each "
        "chain:\n  " + "\n  ".join(found)
      )

  def __len__(self) -> int:
    return len(self.rules)

  def of(self, kind: str) -> list[tuple[int, ...]]:
    """Labels of the rules of a kind."""
    return [rule.labels for rule in self.rules if rule.kind == kind]

  def only(self, basis: str) -> "RuleSet":
    """The rules of one basis; exactly_one rules stay, as groups are made of them."""
    one_of("basis", basis, BASES)
    kept = tuple(r for r in self.rules if r.basis == basis or r.kind == "exactly_one")
    return dataclasses.replace(self, rules=kept)

  @functools.cached_property
  def components(self) -> tuple[tuple[int, ...], ...]:
    """Labels that rules join, directly or through others; a label without rules is none."""
    groups: list[set[int]] = []
    for rule in self.rules:
      joined = [group for group in groups if not group.isdisjoint(rule.labels)]
      groups = [group for group in groups if group not in joined]
      groups.append(set(rule.labels).union(*joined))
    return tuple(tuple(sorted(group)) for group in sorted(groups, key=min))

  def broken(self, values: Int8[np.ndarray, "n N"]) -> Bool[np.ndarray, "n R"]:
    """Which rules each row of 1, 0 and -1 breaks, whatever its unknown values may be.

    has    a  b  c   exactly one of a, b, c
           1  1  -1  broken: two are present
           0  0  -1  not broken: c may be present
           0  0  0   broken
    """
    present, absent = values == 1, values == 0
    columns = np.zeros((len(values), len(self)), bool)
    for column, rule in enumerate(self.rules):
      group = list(rule.labels)
      if rule.kind == "implies":
        columns[:, column] = present[:, group[0]] & absent[:, group[1]]
        continue
      columns[:, column] = present[:, group].sum(1) > 1
      if rule.kind == "exactly_one":
        columns[:, column] |= absent[:, group].all(1)
    return columns

  def judged(self, values: Int8[np.ndarray, "n N"]) -> Bool[np.ndarray, "n R"]:
    """Where all labels of a rule are known."""
    known = values != UNKNOWN
    return np.stack([known[:, list(rule.labels)].all(1) for rule in self.rules], 1)


def load(name: str | pathlib.Path) -> RuleSet:
  """Reads a rule file: one of `names()`, or the path of another.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no TOML, an unknown key, kind or label, a rule given twice, or rules that contradict
      each other; naming the file and the rule.
  """
  path = pathlib.Path(name)
  if path.suffix != ".toml":
    one_of("rule file", str(name), names())
    path = FOLDER / f"{name}.toml"
  if not path.is_file():
    raise FileNotFoundError(f"no rule file {path} - expected TOML, or one of {', '.join(names())}")
  try:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise ValueError(f"{path} is no TOML ({error}) - expected a rule file") from error
  try:
    return parse(data)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def parse(data: Mapping[str, Any]) -> RuleSet:
  """A rule file's contents -> RuleSet; see load()."""
  _check_keys(data, _KEYS, ("name", "labels"), "the file")
  labels = LabelSet(str(data["name"]), tuple(data["labels"]))
  entries = enumerate(data.get("rule", ()), 1)
  rules = [rule for n, entry in entries for rule in _entry(entry, labels, f"rule {n}")]
  told = {}
  for rule in rules:
    key = rule.kind, frozenset(rule.labels) if rule.kind != "implies" else rule.labels
    if key in told:
      raise ValueError(f"{rule.say(labels)}: given twice - expected each rule once - remove one")
    told[key] = rule
  groups = tuple(
    tuple(labels.labels[i] for i in rule.labels) for rule in rules if rule.kind == "exactly_one"
  )
  words = dict(data.get("words", {}))
  for label in words:
    labels.index(label, "[words]")
  labels = dataclasses.replace(labels, groups=groups, words=words)
  return RuleSet(labels, tuple(rules), str(data.get("source", "")))


def _entry(entry: Mapping[str, Any], labels: LabelSet, where: str) -> list[Rule]:
  one_of(f"{where}: kind", str(entry.get("kind")), logic.KINDS)
  kind = entry["kind"]
  lists = ("from", "to") if kind in _PAIRS else ("of",)
  _check_keys(entry, {"kind", "basis", "because", *lists}, lists, f"{where} ({kind})")
  basis = entry.get("basis", "definition")
  one_of(f"{where}: basis", basis, BASES)
  places = [[labels.index(x, f"{where} ({kind})") for x in entry[key]] for key in lists]
  because = " ".join(str(entry.get("because", "")).split())
  found = itertools.product(*places) if kind in _PAIRS else [tuple(places[0])]
  rules = [Rule(kind, tuple(group), basis, because) for group in found]
  for rule in rules:
    if len(set(rule.labels)) < max(2, len(rule.labels)):
      raise ValueError(
        f"{where}: {rule.say(labels)} - expected two labels or more, each once - correct the rule"
      )
  return rules


def _check_keys(data: Mapping, known: set[str], needed: tuple[str, ...], where: str) -> None:
  for key in data:
    one_of(f"a key of {where}", key, sorted(known))
  for key in needed:
    if key not in data or (isinstance(data[key], str) and key != "name"):
      raise ValueError(f"{where}: {key!r} is {data.get(key)!r} - expected a list of labels")
