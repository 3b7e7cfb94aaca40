"""Class tables of face parsers: orders and colours against the published lists, refusals."""

import json

import numpy as np
import pytest

from facejax.faces import parsers
from facejax.faces.segmentation import CLASS_ID, CLASSES

# The lists as their repositories print them, typed anew: id -> name.
_BISENET = """0 background 1 skin 2 l_brow 3 r_brow 4 l_eye 5 r_eye 6 eye_g 7 l_ear 8 r_ear 9 ear_r
10 nose 11 mouth 12 u_lip 13 l_lip 14 neck 15 neck_l 16 cloth 17 hair 18 hat"""
_SEGFORMER = """0 background 1 skin 2 nose 3 eye_g 4 l_eye 5 r_eye 6 l_brow 7 r_brow 8 l_ear 9 r_ear
10 mouth 11 u_lip 12 l_lip 13 hair 14 hat 15 ear_r 16 neck_l 17 neck 18 cloth"""
_XENOVA = """0 background 1 skin 2 nose 3 r_eye 4 l_eye 5 r_brow 6 l_brow 7 r_ear 8 l_ear 9 mouth
10 u_lip 11 l_lip 12 neck 13 hair 14 neck_l 15 cloth 16 eye_g 17 hat 18 ear_r"""
ORDERS = {
  "bisenet": _BISENET,
  "segformer": _SEGFORMER,
  "celebamask": _SEGFORMER,
  "segformer_xenova": _XENOVA,
}


@pytest.mark.parametrize("name", ORDERS)
def test_ids_mean_what_the_parser_says(name):
  """Kills: two classes swapped in a table, a table that inverts the mapping, one without a test."""
  assert set(ORDERS) == set(parsers.TABLES)
  words = ORDERS[name].split()
  expected = {int(i): CLASSES.index(c) for i, c in zip(words[::2], words[1::2], strict=True)}
  ids = np.array([sorted(expected)] * 2, np.int64).reshape(2, 1, 19)
  got = parsers.TABLES[name].to_canonical(ids)
  assert got.shape == ids.shape and got.dtype == np.uint8
  for place, value in np.ndenumerate(ids):
    assert got[place] == expected[int(value)]


def test_bisenet_and_segformer_disagree():
  """Kills: one table used for both, which every map survives unnoticed."""
  nose = np.full((3, 2), 10)
  assert parsers.TABLES["bisenet"].to_canonical(nose)[0, 0] == CLASS_ID["nose"]
  assert parsers.TABLES["segformer"].to_canonical(nose)[0, 0] == CLASS_ID["mouth"]


@pytest.mark.parametrize("name", ["celebamask", "bisenet"])
def test_painted_maps_come_back(name):
  """Kills: a palette in another order than the ids, a search that returns a neighbour."""
  table = parsers.TABLES[name]
  ids = np.random.default_rng(0).integers(0, 19, size=(7, 11))
  painted = np.zeros((7, 11, 3), np.uint8)
  for (y, x), value in np.ndenumerate(ids):
    painted[y, x] = table.palette[value]
  np.testing.assert_array_equal(table.from_colours(painted), table.to_canonical(ids))


def test_published_colours():
  """Kills: red and blue swapped, in either palette."""
  red = np.full((1, 1, 3), (255, 0, 0), np.uint8)
  assert parsers.TABLES["celebamask"].from_colours(red)[0, 0] == CLASS_ID["r_ear"]
  assert parsers.TABLES["bisenet"].from_colours(red)[0, 0] == CLASS_ID["nose"]
  skin = np.full((1, 1, 3), (204, 0, 0), np.uint8)
  assert parsers.TABLES["celebamask"].from_colours(skin)[0, 0] == CLASS_ID["skin"]


def test_other_colours_are_refused_where_they_are():
  """Kills: the nearest colour taken in silence; x and y swapped in the message."""
  table = parsers.TABLES["celebamask"]
  painted = np.zeros((4, 5, 3), np.uint8)
  painted[1, 3] = painted[2, 0] = (203, 0, 0)
  with pytest.raises(ValueError, match=r"2 pixels .* first \(203, 0, 0\) at x=3, y=1"):
    table.from_colours(painted)
  with pytest.raises(ValueError, match="segformer has no fixed palette"):
    parsers.TABLES["segformer"].from_colours(painted)


@pytest.mark.parametrize(
  ("ids", "match"),
  [
    (np.array([[0, 19]]), r"ids 0\.\.19 - expected 0\.\.18, the classes of bisenet"),
    (np.array([[-1, 3]]), r"ids -1\.\.3"),
    (np.array([[0.5]]), "type float64"),
  ],
)
def test_foreign_ids_are_refused(ids, match):
  """Kills: ids that wrap round (-1) or index past the table."""
  with pytest.raises(ValueError, match=match):
    parsers.TABLES["bisenet"].to_canonical(ids)


def test_own_table(tmp_path):
  """Kills: a JSON field that is read and dropped."""
  path = tmp_path / "lapa.json"
  raw = {
    "classes": ["background", "skin", "r_brow", "skin"],
    "size": 96,
    "mean": [0, 0.25, 0.5],
    "std": [1, 2, 4],
    "sampling": "nearest",
    "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]],
  }
  path.write_text(json.dumps(raw))
  table = parsers.load(path)
  assert (table.name, table.size, table.sampling) == ("lapa", 96, "nearest")
  assert table.mean == (0, 0.25, 0.5) and table.std == (1, 2, 4)
  np.testing.assert_array_equal(table.to_canonical(np.array([0, 1, 2, 3])), [0, 1, 7, 1])
  painted = np.array([[[7, 8, 9], [4, 5, 6]]], np.uint8)
  np.testing.assert_array_equal(table.from_colours(painted), [[1, 7]])
  assert parsers.load("bisenet") is parsers.TABLES["bisenet"]


_TWO = '"classes": ["background", "skin"]'


@pytest.mark.parametrize(
  ("text", "match"),
  [
    ("{", "t.json is no JSON"),
    ("[]", "t.json: list - expected a JSON object with 'classes'"),
    ('{"klasses": []}', r"\['klasses'\] - expected"),
    ('{"classes": ["background", "harr"]}', "class 1 is 'harr' .* did you mean 'hair'"),
    ('{"classes": ["background"]}', "has 1 classes - expected 2 to 256"),
    ('{"classes": 3}', "t.json: 'int' object is not iterable"),
    (f'{{{_TWO}, "mean": [1, 2]}}', r"\[1, 2\] has 2 numbers"),
    (f'{{{_TWO}, "std": [1, 0, 1]}}', r"std=\(1\.0, 0\.0, 1\.0\)"),
    (f'{{{_TWO}, "size": 0}}', "size=0"),
    (f'{{{_TWO}, "size": "big"}}', "t.json: '<' not supported"),
    (f'{{{_TWO}, "sampling": "cubic"}}', "sampling='cubic'"),
    (f'{{{_TWO}, "palette": [[1, 1, 1], [1, 1, 1]]}}', "1 different colours for 2 classes"),
  ],
)
def test_damaged_tables_are_refused(tmp_path, text, match):
  """Kills: each check of a table, one by one."""
  path = tmp_path / "t.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=match):
    parsers.load(path)


def test_unknown_parsers_are_refused(tmp_path):
  """Kills: a misspelt name taken for a path that is not there."""
  with pytest.raises(ValueError, match=r"no parser 'bisnet' .* did you mean 'bisenet'"):
    parsers.load("bisnet")
  with pytest.raises(FileNotFoundError, match=r"no parser table .*none\.json"):
    parsers.load(tmp_path / "none.json")
