"""LFWA and AffectNet as released, made up in miniature: labels, words, and what is refused."""

import re
import sys

import numpy as np
import pytest
import scipy.io
from layout_folders import (
  LFWA_FILES,
  lfwa_values,
  make_affectnet,
  make_affectnet_lists,
  make_lfwa,
  write_mat70,
  write_mat73,
)

from facejax.faces import questions
from facejax.knowledge import rules, tables
from facejax.records.layouts import celeba
from facejax.records.layouts.affectnet import AffectNet
from facejax.records.layouts.lfwa import Lfwa


@pytest.mark.parametrize("write", [write_mat73, write_mat70], ids=["7.3", "7.0"])
@pytest.mark.parametrize("absent", [0, -1])
def test_lfwa(tmp_path, write, absent):
  """Kills: HDF5's axes left turned around, rows counted from 0, the test's rows, a backslash kept,
  names with spaces lost to the label table, -1 taken for present."""
  table = make_lfwa(tmp_path, write, absent).open()
  names = [name.replace("\\", "/") for name in LFWA_FILES]
  assert [table.id(i) for i in range(len(table))] == [names[2], names[0]]
  labels = rules.load("celeba40").labels
  got = tables.from_layout(table, labels, "lfwa")
  np.testing.assert_array_equal(got.values, lfwa_values()[[2, 0]])
  raw = table[1]
  assert raw.media[0].file.data == (tmp_path / "lfw" / names[0]).read_bytes()
  has = raw.labels["attributes"]
  told = questions.parse("attributes", raw.conversation[1].text)
  assert {"Eyeglasses", "Bald"} & told == {n for n in ("Eyeglasses", "Bald") if has[n]}
  other = Lfwa(*(str(tmp_path / n) for n in _FILES), split="test").open()
  assert [row.id for row in other.rows] == [names[1]]


_FILES = ("lfw_att_40.mat", "indices_train_test.mat", "lfw")


def test_lfwa_keeps_attributes_that_celeba_lacks(tmp_path):
  """Kills: the 73 refused for their other names, or told in words that nobody gave them."""
  options = make_lfwa(tmp_path)
  label = np.ones((3, 2))
  told = {"AttrName": ["Smiling", "Color Photo"], "label": label, "name": LFWA_FILES}
  write_mat73(tmp_path / "lfw_att_40.mat", told)
  row = options.open().rows[0]
  assert row.labels == {"attributes": {"Smiling": True, "Color_Photo": True}}
  assert row.answer == "Smiling"


_ROWS = {"indices_img_train": np.array([[1.0]]), "indices_img_test": np.array([[2.0]])}
_NAMES = list(celeba.NOUNS)[:2]


@pytest.mark.parametrize(
  "label, name, message",
  [
    (np.array([[0, 2.0]] * 3), LFWA_FILES, r"label has values \[0.0, 2.0\] - expected 1 and 0"),
    (np.ones((2, 2)), LFWA_FILES, r"label is \[2, 2\] - expected \[3, 2\], a row for each of name"),
    (np.ones((3, 2)), None, "no variable name - expected AttrName, label, name - is it LFWA's"),
  ],
)
@pytest.mark.parametrize("write", [write_mat73, write_mat70], ids=["7.3", "7.0"])
def test_lfwa_attributes_that_are_none(tmp_path, write, label, name, message):
  """Kills: a 2 taken for absent, labels of other pictures, an exception of a library's."""
  options = make_lfwa(tmp_path)
  told = {"AttrName": _NAMES, "label": label, **({"name": name} if name else {})}
  write(tmp_path / "lfw_att_40.mat", told)
  with pytest.raises(ValueError, match=message):
    options.open()


def test_lfwa_files_that_are_none(tmp_path, monkeypatch):
  """Kills: rows beyond the table cut off, a row twice, a library's exception, a missing library."""
  options = make_lfwa(tmp_path)
  indices = tmp_path / "indices_train_test.mat"
  for bad, shown in ((4.0, "4.0"), (0.0, "0.0"), (1.5, "1.5")):
    write_mat73(indices, {"indices_img_train": np.array([[1.0], [bad]])})
    with pytest.raises(ValueError, match=rf"train has {re.escape(shown)} - expected rows 1 to 3"):
      options.open()
  write_mat73(indices, {"indices_img_train": np.array([[1.0], [1.0]])})
  with pytest.raises(ValueError, match="indices_img_train has a row twice - expected rows 1 to 3"):
    options.open()
  indices.write_bytes(b"no matrix")
  with pytest.raises(ValueError, match=r"indices_train_test.mat is no .mat file .* is it LFWA's"):
    options.open()
  scipy.io.savemat(indices, {"indices_img_train": np.array([[1.0]])})
  indices.write_bytes(indices.read_bytes()[:45])  # SciPy raises an IndexError
  with pytest.raises(ValueError, match=r"indices_train_test.mat is no .mat file \(index out of"):
    options.open()
  indices.unlink()
  with pytest.raises(FileNotFoundError, match=r"no label file .*test.mat - check 'indices' of the"):
    options.open()
  attributes = tmp_path / "lfw_att_40.mat"
  monkeypatch.setitem(sys.modules, "h5py", None)
  with pytest.raises(ModuleNotFoundError, match=r"att_40.mat is MATLAB 7.3 \(HDF5\), which h5py"):
    options.open()
  monkeypatch.undo()
  attributes.write_bytes(attributes.read_bytes()[:900])
  with pytest.raises(ValueError, match=r"lfw_att_40.mat cannot be read"):
    options.open()
  write_mat70(attributes, {"AttrName": ["A", "B"], "label": np.ones((3, 2)), "name": LFWA_FILES})
  with pytest.raises(ValueError, match=r"AttrName is \['A', 'B'\], ... - expected CelebA's"):
    options.open()


def test_affectnet_arrays(tmp_path):
  """Kills: 10 in front of 2, -2 kept as a valence, an unannotated picture left out in silence,
  contempt taken for one of the seven, a number for another expression."""
  table = make_affectnet(tmp_path).open()
  assert [row.id for row in table.rows] == ["0", "2", "7", "10"]
  assert [table.labels(i) for i in range(4)] == [
    {"expression": "happiness", "valence": 0.5, "arousal": 0.125},
    {"expression": "anger", "valence": -0.25, "arousal": 0.125},
    None,
    {"expression": "contempt", "arousal": 0.125},
  ]
  with pytest.raises(ValueError, match=r"sample '7': .*7_exp.npy: no such annotation"):
    table[2]
  seven = AffectNet(str(tmp_path), classes=7).open()
  assert [row.id for row in seven.rows] == ["0", "2", "7"]
  labels = rules.load("expressions").labels
  got = tables.from_layout(seven, labels, "affectnet")
  present = [[n for n, v in zip(labels.labels, row, strict=True) if v == 1] for row in got.values]
  assert present == [["happiness"], ["anger"]]
  raw = table[1]
  assert questions.parse("expression", raw.conversation[1].text) == "anger"
  assert raw.media[0].file.data == (tmp_path / "train_set/images/2.jpg").read_bytes()


@pytest.mark.parametrize("header", [True, False], ids=["training", "validation"])
def test_affectnet_lists(tmp_path, header):
  """Kills: the first picture taken for a header, an uncertain face trained on, NULL as a number."""
  again = (line := "a1/x.jpg,1,2,30,40,5.5;6.5,2,-0.5,0.25",)
  table = make_affectnet_lists(tmp_path, header, again).open()
  assert [(row.id, row.labels) for row in table.rows] == [
    ("a1/x.jpg", {"expression": "sadness", "valence": -0.5, "arousal": 0.25}),
    ("b2/z.png", {"expression": "neutral"}),
  ]
  assert table[0].media[0].file.name == f"Manually_Annotated_Images/{line.split(',')[0]}"


@pytest.mark.parametrize(
  "line, message",
  [
    ("a1/x.jpg,1,2,30,40,5.5;6.5,3,-0.5,0.25", "line 5: 'a1/x.jpg' - expected a picture once"),
    ("c/x.jpg,1,2,30,40,5.5,11,0,0", "line 5: 'c/x.jpg: 11' - expected an expression 0 to 10"),
    ("c/x.jpg,1,2", "line 5: 'c/x.jpg,1,2' - expected 9 cells"),
    ("c/x.jpg,1,2,30,40,5.5,1,1.5,0", "training.csv, line 5: holds '1.5' - expected -1 to 1"),
    ("c/x.jpg,1,2,30,40,5.5,1,?,0", "training.csv, line 5: holds '?' - expected -1 to 1"),
  ],
)
def test_affectnet_lists_that_are_none(tmp_path, line, message):
  """Kills: a line guessed at; of two expressions of a picture the last one taken."""
  with pytest.raises(ValueError, match=re.escape(message)):
    make_affectnet_lists(tmp_path, more=(line,)).open()


def test_affectnet_folders_that_are_none(tmp_path):
  """Kills: an annotation of another kind that ends the run, a folder without pictures as empty."""
  options = make_affectnet(tmp_path)
  marks = tmp_path / "train_set" / "annotations"
  np.save(marks / "0_exp.npy", np.array("8"))
  np.save(marks / "2_val.npy", np.array(3.0))
  (marks / "10_exp.npy").write_bytes(b"x")
  errors = [row.error for row in options.open().rows]
  for error, expected in zip(
    errors,
    ("0_exp.npy holds '8' - expected 0 to 7", "2_val.npy holds '3.0' - expected -1", "", "10_exp"),
    strict=True,
  ):
    assert expected in error
  with pytest.raises(FileNotFoundError, match=r"no pictures in .*val_set.images - expected Affect"):
    AffectNet(str(tmp_path), split="validation").open()
  with pytest.raises(ValueError, match=r"AffectNet.form.*csv"):
    AffectNet(str(tmp_path), "csv")
  with pytest.raises(ValueError, match=r"AffectNet.*classes=6: expected 7 to 8"):
    AffectNet(str(tmp_path), classes=6)
