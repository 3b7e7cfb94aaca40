"""Label sets and tables: released layouts, CSV, and what is refused."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from facejax.knowledge import rules, tables
from facejax.knowledge.labels import UNKNOWN, LabelSet, LabelTable
from facejax.records.layouts.celeba import NOUNS
from facejax.records.layouts.table import Row, Table

sys.path.append(str(Path(__file__).parents[1] / "records"))
from layout_folders import make_celeba, make_disfa, make_raf_db, make_utkface

FACES = rules.load("age_gender_race").labels
HAIR = LabelSet("hair", ("Bald", "Gray_Hair", "Hat"), (("Bald", "Gray_Hair"),), {"Hat": "a hat"})


def named(labels, row):
  """{name: value} of what is known."""
  return {n: int(v) for n, v in zip(labels.labels, row, strict=True) if v >= 0}


def test_words_and_places():
  # Kills: another label's place, words in capitals.
  assert HAIR.index("Hat", "test") == 2 and HAIR.group_indices == ((0, 1),)
  assert [HAIR.say(x) for x in HAIR.labels] == ["bald", "gray hair", "a hat"]
  assert HAIR.row(["Hat"], "test").tolist() == [0, 0, 1] and len(HAIR) == 3


def test_label_sets_that_are_none():
  """Kills: a name that would forge a placeholder or split a CSV line; groups that share a label."""
  with pytest.raises(ValueError, match="label set 'x' has 0 labels"):
    LabelSet("x", ())
  with pytest.raises(ValueError, match="label '<image>' - expected a name without any of"):
    LabelSet("x", ("<image>",))
  with pytest.raises(ValueError, match="label 'a' is named twice"):
    LabelSet("x", ("a", "b", "a"))
  with pytest.raises(ValueError, match="'b' is in two groups or twice in one"):
    LabelSet("x", ("a", "b", "c"), (("a", "b"), ("b", "c")))
  with pytest.raises(ValueError, match=r"group \['a'\] - expected two labels or more"):
    LabelSet("x", ("a", "b"), (("a",),))
  with pytest.raises(ValueError, match=r"unknown label 'Gray' in here .* 3 labels of 'hair'"):
    HAIR.index("Gray", "here")


def test_tables_in_memory():
  """Kills: a 2 or a True taken for present, a sample counted twice, another number of columns."""
  values = np.array([[1, 0, -1], [0, 1, 1]], np.int8)
  table = LabelTable(HAIR, ("x", "y"), values, "made")
  assert len(table) == 2 and table.known.tolist() == [[True, True, False], [True] * 3]
  with pytest.raises(ValueError, match=r"made: values are int64 \[2, 3\] - expected int8 \[2, 3\]"):
    LabelTable(HAIR, ("x", "y"), values.astype(int), "made")
  with pytest.raises(ValueError, match=r"int8 \[2, 3\] - expected int8 \[3, 3\]"):
    LabelTable(HAIR, ("x", "y", "z"), values, "made")
  with pytest.raises(ValueError, match="made: id 'x' stands twice, in rows 1 and 3"):
    LabelTable(HAIR, ("x", "y", "x"), np.zeros((3, 3), np.int8), "made")
  values[1, 2] = -2
  with pytest.raises(
    ValueError, match=r"made, row 2 \(id 'y'\): Hat is -2 .*; 1 such values in all"
  ):
    LabelTable(HAIR, ("x", "y"), values, "made")


def test_celeba(tmp_path):
  """Kills: columns in another order, absent taken for unknown, pictures of another split."""
  table = make_celeba(tmp_path).open()
  labels = rules.load("celeba40").labels
  got = tables.from_layout(table, labels, "celeba")
  assert got.ids == ("000001.jpg", "000003.jpg", "000004.jpg") and got.known.all()
  lines = (tmp_path / "list_attr_celeba.txt").read_text().splitlines()
  for key, row in zip(got.ids, got.values, strict=True):
    told = next(line.split()[1:] for line in lines if line.startswith(key))
    assert [1 if v == "1" else 0 for v in told] == row.tolist()
  assert list(NOUNS) == list(labels.labels)


def test_raf_db_and_disfa(tmp_path):
  """Kills: an expression beside the true one unknown, units that a table says nothing about absent,
  a trace (grade A, 1) taken for present."""
  labels = rules.load("expressions").labels
  (tmp_path / "raf").mkdir()
  raf = tables.from_layout(make_raf_db(tmp_path / "raf").open(), labels, "raf")
  assert [np.flatnonzero(row == 1).tolist() for row in raf.values] == [
    [labels.index(name, "test")]
    for name in ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
  ]
  assert (raf.values[:, :7] >= 0).all() and (raf.values[:, 7:] == -1).all()
  (tmp_path / "disfa").mkdir()
  opened = make_disfa(tmp_path / "disfa").open()
  disfa = tables.from_layout(opened, labels, "disfa")
  grades = opened.labels(0)["intensities"]
  for name, grade in grades.items():
    assert disfa.values[0, labels.index(name, "test")] == (grade >= 2)
  assert set(named(labels, disfa.values[0])) == set(grades)
  assert {1, 2} & set(grades.values())


def test_utkface(tmp_path):
  """Kills: one of two possible races said to be the true one, an unreadable name as a row."""
  got = tables.from_layout(make_utkface(tmp_path).open(), FACES, "utk")
  assert len(got) == 2  # the third name lacks a field
  by_name = {
    Path(key).name: named(FACES, row) for key, row in zip(got.ids, got.values, strict=True)
  }
  asian = by_name["26_0_2_20170104183621.jpg.chip.jpg"]
  assert {n for n, v in asian.items() if v} == {"Age_20-29", "Male"}
  assert {"East_Asian", "Southeast_Asian"}.isdisjoint(asian) and asian["White"] == 0
  others = by_name["1_1_4_20161219.jpg"]
  assert {n for n, v in others.items() if v} == {"Age_0-2", "Female"}
  assert others["East_Asian"] == 0 and "Latino_Hispanic" not in others


def test_fairface(tmp_path):
  # Kills: a bin, gender or race that has no label, names with spaces lost.
  path = tmp_path / "fairface_label_val.csv"
  rows = "val/1.jpg,3-9,Male,East Asian,False\nval/2.jpg,more than 70,Female,Black,True\n"
  path.write_text(f"file,age,gender,race,service_test\n{rows}")
  got = tables.from_fairface(path, FACES)
  assert got.known.all() and got.ids == ("val/1.jpg", "val/2.jpg")
  present = [{n for n, v in named(FACES, row).items() if v} for row in got.values]
  assert present == [{"Age_3-9", "Male", "East_Asian"}, {"Age_70+", "Female", "Black"}]


@pytest.mark.parametrize(("years", "label"), [(0, "0-2"), (2, "0-2"), (3, "3-9"), (69, "60-69")])
def test_age_bins(years, label):
  # Kills: a bin that begins a year late.
  assert tables.age_bin(years) == f"Age_{label}"
  assert tables.age_bin(70) == tables.age_bin(116) == "Age_70+"


def test_a_table_about_something_else():
  # Kills: rows of nothing but unknown values, counted as if they said something.
  table = Table(
    "", [Row("x.jpg", "x.jpg", "", "", {"expression": "fear"})], "expression", "image", 0
  )
  with pytest.raises(ValueError, match=r"utk, 'x\.jpg' says .*'fear'.*nothing about the labels of"):
    tables.from_layout(table, FACES, "utk")


def test_csv(tmp_path):
  """Kills: columns taken in the set's order, an empty cell taken for absent."""
  path = tmp_path / "labels.csv"
  path.write_text("id,Hat,Bald\nx,1,0\n\ny, ,1\n")
  got = tables.read_csv(path, HAIR)
  assert got.ids == ("x", "y") and got.values.tolist() == [[0, -1, 1], [1, -1, -1]]
  path.write_text("id,Hat\n")
  assert len(tables.read_csv(path, HAIR)) == 0


BAD = {
  "line 1: ['file', 'Hat'] - expected id and labels": "file,Hat\n",
  "unknown label 'Hut' in PATH, line 1": "id,Hut\n",
  "line 3, id 'y': Bald is '-1' - expected 1, 0 or nothing": "id,Hat,Bald\nx,1,0\ny,1,-1\n",
  "line 2, id 'x': 2 cells - expected 3": "id,Hat,Bald\nx,1\n",
  "line 4, id 'x' stands twice, first in line 2": "id,Hat\nx,1\ny,0\nx,1\n",
}


@pytest.mark.parametrize("expected", BAD)
def test_bad_csv(expected, tmp_path):
  """Kills: a message without the line, the id or the value; CelebA's -1 read as unknown."""
  path = tmp_path / "labels.csv"
  path.write_text(BAD[expected])
  with pytest.raises(ValueError, match=re.escape(expected.replace("PATH", str(path)))) as error:
    tables.read_csv(path, HAIR)
  assert str(path) in str(error.value)
  with pytest.raises(FileNotFoundError, match=r"no label table .*none.csv - expected CSV: id,Bald"):
    tables.read_csv(tmp_path / "none.csv", HAIR)


@pytest.mark.parametrize(
  "said, message",
  [
    ({"attributes": {"Smiling": -1}}, "attribute Smiling is -1 - expected true, false or null"),
    ({"attributes": ["Smiling"]}, r"attributes are \['Smiling'\] - expected an object"),
    ({"intensities": {"AU1": "B"}}, "intensity AU1 is 'B'"),
    ({"intensities": {"AU1": float("nan")}}, "AU1 is nan - expected a grade of 0 to 5, or null"),
    ({"intensities": {"AU1": 9}}, "AU1 is 9 - expected a grade"),
    ({"intensities": {"AU1": True}}, "AU1 is True - expected a grade"),
    ({"age": [31]}, r"age is \[31\] - expected years"),
    ({"age": -1}, "age is -1"),
    ({"age": True}, "age is True"),
    ({"age": float("inf")}, "age is inf"),
    ({"attributes": 0}, "attributes are 0 - expected an object"),
    (["Smiling"], r"labels are \['Smiling'\] - expected an object"),
    ({"expression": 3}, "expression is 3 - expected a word"),
  ],
)
def test_values_of_another_kind(said, message):
  """Kills: a 7 taken for a label's value; a traceback from inside a worker."""
  with pytest.raises(ValueError, match=message):
    tables.known(said, rules.load("celeba40").labels)


def test_null_says_nothing():
  """Kills: null taken for absent."""
  said = {"attributes": {"Smiling": None}, "intensities": None, "age": None, "race": None}
  assert (tables.known(said, rules.load("celeba40").labels) == UNKNOWN).all()
