"""Released layouts, made up in miniature: every sample, its labels and its words."""

import json
import re

import pytest
from layout_folders import (
  MAKERS,
  intensity,
  make_celeba,
  make_dfew,
  make_disfa,
  make_faceforensics,
  make_fairfacegpt,
  make_fairfacegpt_folder,
  make_raf_db,
  make_utkface,
)
from record_folders import clip, picture

from facejax.data import media
from facejax.faces import questions
from facejax.faces.attributes import ATTRIBUTES
from facejax.records import layouts
from facejax.records.layouts import disfa
from facejax.records.layouts.celeba import CelebA
from facejax.records.layouts.dfew import Dfew
from facejax.records.layouts.disfa import Disfa
from facejax.records.layouts.raf_db import RafDb
from facejax.records.layouts.utkface import UtkFace
from facejax.records.raw import Layout


def _usable(layout):
  """The samples that can be read."""
  found = []
  for index in range(len(layout)):
    try:
      found.append(layout[index])
    except ValueError as error:
      assert layout.id(index) in str(error)
  return found


@pytest.mark.parametrize("name", layouts.CLASSES)
def test_layouts_are_layouts(name, tmp_path):
  """Kills: a sample that depends on when it is read; ids that repeat; a digest that does not
  follow from the index."""
  options = MAKERS[name](tmp_path)
  assert type(options) is layouts.load(name)
  layout: Layout = options.open()
  ids = [layout.id(i) for i in range(len(layout))]
  assert len(set(ids)) == len(ids) > 1
  first = _usable(layout)
  assert [raw.id for raw in first] == [i for i in ids if i in {raw.id for raw in first}]
  again = options.open()
  assert again.digest() == layout.digest() and re.fullmatch("[0-9a-f]{64}", layout.digest())
  last = max(i for i in range(len(ids)) if ids[i] == first[-1].id)
  assert again[last] == first[-1]  # read alone, and as the last of all
  for raw in first:
    assert [turn.role for turn in raw.conversation[:2]] == ["human", "gpt"]
    assert json.loads(json.dumps(dict(raw.labels))) == dict(raw.labels)


def _answers(layout):
  return [(raw.labels, raw.conversation[1].text) for raw in _usable(layout)]


def test_celeba(tmp_path):
  """Kills: another split's pictures, attributes under other names, -1 read as present."""
  layout = make_celeba(tmp_path).open()
  assert [layout.id(i) for i in range(3)] == ["000001.jpg", "000003.jpg", "000004.jpg"]
  for labels, answer in _answers(layout):
    has = labels["attributes"]
    assert len(has) == 40
    known = {name for name in ATTRIBUTES if has.get(name)}
    known |= {"Beard"} if has["Goatee"] or not has["No_Beard"] else set()
    assert questions.parse("attributes", answer) == known
    assert ("young" in answer.lower()) == has["Young"]
  assert layout[1].conversation[1].text == "None of the attributes."
  raw = layout[2]
  assert raw.media[0].file.data == (tmp_path / "img_align_celeba" / "000004.jpg").read_bytes()
  question = raw.conversation[0].text.removeprefix("<image>\n")
  assert question in questions.QUESTIONS["attributes"]
  other = CelebA(*_options(make_celeba, tmp_path), split="validation").open()
  assert [other.id(i) for i in range(len(other))] == ["000002.jpg"]


def _options(maker, folder):
  """The paths of a layout that is there already."""
  options = CelebA(
    str(folder / "list_attr_celeba.txt"),
    str(folder / "list_eval_partition.txt"),
    str(folder / "img_align_celeba"),
  )
  return options.attributes, options.partition, options.images


def test_utkface(tmp_path):
  """Kills: gender taken for age, a name without a field guessed at, splits that overlap."""
  layout = make_utkface(tmp_path).open()
  first, second, third = (layout.id(i) for i in range(3))
  assert first.startswith("part1/1_1_4") and third.startswith("part1/61")
  assert layout[0].labels == {"age": 1, "gender": "female", "race": "others"}
  assert layout[1].labels == {"age": 26, "gender": "male", "race": "Asian"}
  assert questions.parse("age", layout[1].conversation[1].text) == 26 and second
  with pytest.raises(
    ValueError, match=r"'part1/61_1_2017010914.jpg': file name .*expected \[age\]"
  ):
    layout[2]
  parts = [UtkFace(str(tmp_path), s).open() for s in ("train", "validation", "test")]
  ids = [part.id(i) for part in parts for i in range(len(part))]
  assert sorted(ids) == sorted([first, second, third])


def test_raf_db(tmp_path):
  """Kills: numbers of the expressions shifted by one, test pictures in training."""
  layout = make_raf_db(tmp_path).open()
  assert len(layout) == 7
  names = ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
  for (labels, answer), name in zip(_answers(layout), names, strict=True):
    assert labels == {"expression": name} and questions.parse("expression", answer) == name
  test = RafDb(str(tmp_path), "test").open()
  assert [test[0].id, test[0].labels["expression"]] == ["test_0001.jpg", "happiness"]
  original = RafDb(str(tmp_path), "test", "original").open()[0].media[0].file
  assert original.data == (tmp_path / "Image" / "original" / "test_0001.jpg").read_bytes()


def test_dfew(tmp_path):
  """Kills: RAF-DB's numbers; a clip found by its place in the list; a missing one left out."""
  layout = make_dfew(tmp_path).open()
  assert [layout.id(i) for i in range(3)] == ["00001", "00012", "00003"]
  assert [layout[i].labels["expression"] for i in (0, 1)] == ["fear", "happiness"]
  raw = layout[1]
  assert raw.media[0].kind == "video" and raw.media[0].file.name == "part_2/00012.mp4"
  assert raw.conversation[0].text.startswith("<video>\n")
  with pytest.raises(ValueError, match=r"sample '00003': no clip 3.mp4 or 00003.mp4 below"):
    layout[2]
  assert Dfew(str(tmp_path), str(tmp_path / "Clip"), "test", 2).open()[0].id == "00002"


def test_disfa(tmp_path):
  """Kills: frames counted from 0, units of another file or subject, intensity 1 called active."""
  options = make_disfa(tmp_path)
  layout = options.open()
  assert len(layout) == 12 and layout.id(7) == "SN002/00002"
  for index in (8, 3, 0, 11):  # jumping between clips and back
    raw = layout[index]
    subject, frame = int(raw.id[2:5]), int(raw.id[-5:])
    graded = {f"AU{unit}": intensity(subject, unit, frame) for unit in disfa.ACTION_UNITS}
    assert raw.labels == {"subject": f"SN{subject:03d}", "frame": frame, "intensities": graded}
    active = {int(unit[2:]) for unit, value in graded.items() if value >= 2}
    assert questions.parse("action_units", raw.conversation[1].text) == active
    grey = media.read_image(raw.media[0].file).mean()
    assert abs(grey - (20 * (frame - 1) + 7 * subject)) < 4
  some = Disfa(options.labels, options.videos, subjects=("SN002",), every=3, active_from=5).open()
  assert [some.id(i) for i in range(len(some))] == ["SN002/00001", "SN002/00004"]
  active = [unit for unit in disfa.ACTION_UNITS if intensity(2, unit, 4) == 5]
  assert questions.parse("action_units", some[1].conversation[1].text) == set(active)


def test_disfa_of_pictures(tmp_path):
  """Kills: pictures by their place in the list instead of their number."""
  options = make_disfa(tmp_path)
  for frame in (1, 2, 4, 5, 6):
    picture(tmp_path / "frames" / "SN001" / f"SN001_{frame:04d}.png", frame)
  layout = Disfa(options.labels, frames=str(tmp_path / "frames"), subjects=("SN001",)).open()
  picked = (tmp_path / "frames" / "SN001" / "SN001_0004.png").read_bytes()
  assert layout[3].media[0].file.data == picked
  with pytest.raises(ValueError, match=r"'SN001/00003': no picture for frame 3"):
    layout[2]


def test_disfa_with_gaps(tmp_path):
  """Kills: a unit without a label taken for inactive; a clip shorter than its labels."""
  options = make_disfa(tmp_path)
  labels = tmp_path / "ActionUnit_Labels" / "SN001"
  (labels / "SN001_au9.txt").write_text("1,0\n2,3\n")
  clip(tmp_path / "Videos_LeftCamera" / "LeftVideoSN002_comp.avi", 4)
  layout = options.open()
  with pytest.raises(ValueError, match=r"'SN001/00003': no label of AU9 for frame 3"):
    layout[2]
  with pytest.raises(media.MediaError, match=r"'SN002/00006': .*comp.avi: no frame 6"):
    layout[11]
  assert layout[9].id == "SN002/00004"  # the reader is none the worse for it


def test_faceforensics(tmp_path):
  """Kills: one order of a pair alone, real clips called manipulated."""
  layout = make_faceforensics(tmp_path).open()
  ids = [layout.id(i) for i in range(len(layout))]
  assert ids[:5] == [f"youtube/{n}" for n in ("071", "054", "012", "345")] + ["Deepfakes/071_054"]
  assert len(ids) == 12
  for raw in _usable(layout):
    real = raw.id.startswith("youtube")
    method = None if real else raw.id.split("/")[0]
    assert raw.labels == {"manipulated": not real, "method": method}
    assert questions.parse("deepfake", raw.conversation[1].text) is (not real)


def test_fairfacegpt(tmp_path):
  """Kills: a sample trained without its picture, a second placeholder, roles left as they are."""
  layout = make_fairfacegpt(tmp_path).open()
  raws = [layout[i] for i in range(4)]
  questions_ = [raw.conversation[0].text for raw in raws]
  assert questions_ == [
    "<image>\nDescribe this image.",
    "<image>\nDescribe.",
    "<image>\nSkin?",
    "<image>\n<image>\nBoth?",
  ]
  assert [turn.role for turn in raws[2].conversation] == ["human", "gpt"] * 2
  assert raws[2].conversation[2].text == "Skin?" and raws[2].labels == {"age": "3-9"}
  assert [len(raw.media) for raw in raws] == [1, 1, 1, 2]
  assert raws[0].media[0].file.name == "val/1.jpg"


def test_fairfacegpt_folder(tmp_path):
  """Kills: an answer to another question, questions that were not asked taken for empty ones."""
  options = make_fairfacegpt_folder(tmp_path)
  layout = options.open()
  assert [layout.id(i) for i in (0, 7, 8, 10)] == [
    *("val/1.jpg:0", "val/1.jpg:7"),
    *("val/2.jpg:0", "val/2.jpg:2"),
  ]
  assert len(layout) == 11
  raw = layout[9]
  texts = ["<image>\nDescribe 1.", "Picture 2, thing 1: é."]
  assert [turn.text for turn in raw.conversation] == texts
  assert raw.labels == {"age": "50-59", "gender": "Female", "race": "Black"}
  assert raw.media[0].file.data == (tmp_path / "faces" / "val" / "2.jpg").read_bytes()
  answers = tmp_path / "ChatGPT" / "gpt" / "val" / "1"
  (answers / "answer_5.txt").unlink()
  assert options.open().digest() != layout.digest()
  with pytest.raises(media.MediaError, match=r"'val/1.jpg:5': .*answer_5.txt: no such file"):
    options.open()[5]
  (answers / "answer_4.txt").write_bytes(b"\xff")
  with pytest.raises(media.MediaError, match=r"'val/1.jpg:4': .*answer_4.txt: byte 0 is not UTF-8"):
    layout[4]


def test_wording_is_drawn_from_seed_and_id(tmp_path):
  """Kills: one wording for all; wording that ignores the seed; a template nobody uses."""
  make_raf_db(tmp_path)
  texts = lambda seed: [raw.conversation for raw in _usable(RafDb(str(tmp_path), seed=seed).open())]
  assert texts(0) == texts(0) != texts(1)
  asked = {c[0].text for seed in range(20) for c in texts(seed)}
  assert len(asked) == len(questions.QUESTIONS["expression"])
  assert len({c[1].text.partition(".")[2] for seed in range(9) for c in texts(seed)}) > 4
