"""Released layouts that are not as released: every message."""

import json

import pytest
from layout_folders import MAKERS, make_disfa, make_fairfacegpt, make_raf_db
from record_folders import turns

from facejax.data import media
from facejax.records.layouts.celeba import CelebA
from facejax.records.layouts.dfew import Dfew
from facejax.records.layouts.disfa import Disfa
from facejax.records.layouts.faceforensics import FaceForensics
from facejax.records.layouts.raf_db import RafDb
from facejax.records.layouts.utkface import UtkFace


@pytest.mark.parametrize(
  "record, message",
  [
    ("x", "is a str - expected a JSON object"),
    ({"image": "val/1.jpg"}, "'conversations' is null"),
    ({"image": "val/1.jpg", "images": "val/1.jpg"}, r"'image' holds \[\"val/1.jpg\", \"val/1.jpg"),
    ({"image": "../1.jpg", "conversations": turns("a", "b")}, r"path '../1.jpg' is not inside"),
  ],
)
def test_fairfacegpt_records_that_cannot_be_read(tmp_path, record, message):
  """Kills: an exception of Python's, without the record's name."""
  options = make_fairfacegpt(tmp_path)
  if isinstance(record, dict) and "images" in record:
    record |= {"images": ["val/1.jpg", "val/1.jpg"], "conversations": turns("a", "b")}
  (tmp_path / "dataset.json").write_text(json.dumps([record]))
  with pytest.raises(ValueError, match=f"sample 'dataset.json:0'.*{message}"):
    options.open()[0]


def _broken(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)


@pytest.mark.parametrize(
  "name, file, text, message",
  [
    (
      "celeba",
      "list_attr_celeba.txt",
      "4\nSmiling Nose\n",
      r"line 2: 'Smiling Nose' - expected Ce",
    ),
    (
      "celeba",
      "list_attr_celeba.txt",
      "x\nSmiling\n",
      r"txt, line 1: 'x' - expected CelebA's head",
    ),
    ("celeba", "list_attr_celeba.txt", "", r"line 1: '' - expected CelebA's header"),
    ("celeba", "list_attr_celeba.txt", "1\nBald\n000001.jpg 0\n", r"line 3: .* 1 times 1 or -1"),
    ("celeba", "list_attr_celeba.txt", "1\nBald\n9.jpg 1\n", r"line 3: .* expected a picture of"),
    ("celeba", "list_eval_partition.txt", "000001.jpg 3\n", r"line 1: .* and 0, 1 or 2"),
    ("raf_db", "EmoLabel/list_patition_label.txt", "train_1.jpg 8", r"line 1: .* and 1 to 7"),
    ("raf_db", "EmoLabel/list_patition_label.txt", "\nval_1.jpg 1", r"line 2: 'val_1.jpg 1'"),
    ("raf_db", "EmoLabel/list_patition_label.txt", b"\xff", r"txt: byte 0 is not UTF-8"),
    ("dfew", "EmoLabel_DataSplit/train(single-labeled)/set_2.csv", "name,label\n", "no column vid"),
    (
      "dfew",
      "EmoLabel_DataSplit/train(single-labeled)/set_2.csv",
      "video_name,label\n1,8\n",
      r"line 2: '1,8' - expected the number of a clip and a label 1 to 7",
    ),
    ("disfa", "ActionUnit_Labels/SN001/SN001_au4.txt", "1,6\n", r"au4.txt, line 1: '1,6' - expec"),
    ("faceforensics", "train.json", "{", r"train.json is no JSON"),
    (
      "faceforensics",
      "train.json",
      '[["071"]]',
      r'train.json - expected \[\["071", "054"\], ...\]',
    ),
    ("fairfacegpt_folder", "fairface_label_val.csv", "file,age\n", "no column gender, race among"),
    (
      "fairfacegpt_folder",
      "fairface_label_val.csv",
      "file,age,gender,race\nval/1.jpg,3-9\n",
      r"line 2: 'val/1.jpg,3-9' - expected file,age,gender,race",
    ),
  ],
)
def test_label_files_that_cannot_be_read(tmp_path, name, file, text, message):
  """Kills: labels read by guess; an error without file, line and what was expected."""
  options = MAKERS[name](tmp_path)
  _broken(tmp_path / file, text)
  with pytest.raises(ValueError, match=message):
    options.open()


@pytest.mark.parametrize(
  "name, gone, message",
  [
    ("celeba", "list_eval_partition.txt", "no label file .*partition.txt - check 'partition'"),
    ("raf_db", "EmoLabel", "no label file .*list_patition_label.txt - check 'folder'"),
    ("utkface", "", "no folder .*expected UTKFace's pictures"),
    ("dfew", "Clip", "no folder .*expected DFEW's clips - check 'clips'"),
    ("disfa", "ActionUnit_Labels", "no subject's folder in .*ActionUnit_Labels"),
    ("disfa", "Videos_LeftCamera", r"0 clips \*SN001\* in .*Videos_LeftCamera - expected one"),
    ("faceforensics", "train.json", "no split .*train.json"),
    ("faceforensics", "manipulated_sequences/FaceSwap", r"no folder .*FaceSwap/c23/videos"),
    ("fairfacegpt_folder", "ChatGPT", "no folder .*ChatGPT/gpt - expected ChatGPT/MODEL"),
    ("fairfacegpt", "dataset.json", "no index file .*dataset.json - check index"),
  ],
)
def test_missing_files_and_folders(tmp_path, name, gone, message):
  """Kills: a source of no samples where a folder is named wrongly."""
  folder = tmp_path / "data"
  folder.mkdir()
  options = MAKERS[name](folder)
  (folder / gone).rename(tmp_path / "gone")
  with pytest.raises(FileNotFoundError, match=message):
    options.open()


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: CelebA("a", "b", "c", split="val"), "CelebA.split is 'val'.*validation"),
    (lambda: UtkFace("a", split="tset"), "UtkFace.split is 'tset'.*did you mean 'test'"),
    (lambda: RafDb("a", split="validation"), "RafDb.split is 'validation', expected one of train"),
    (lambda: RafDb("a", images="align"), "RafDb.images is 'align'.*did you mean 'aligned'"),
    (lambda: Dfew("a", "b", fold=6), "Dfew.fold=6: expected 1 to 5"),
    (lambda: Dfew("a", "b", split="val"), "Dfew.split is 'val'"),
    (lambda: Disfa("a"), "videos='', frames='' - expected exactly one"),
    (lambda: Disfa("a", "b", every=0), "Disfa.every=0: expected at least 1"),
    (lambda: Disfa("a", "b", active_from=6), "Disfa.active_from=6: expected 1 to 5"),
    (lambda: FaceForensics("a", "b", "c24"), "FaceForensics.compression is 'c24'"),
    (lambda: FaceForensics("a", "b", methods=()), "FaceForensics.methods=.*expected at least one"),
  ],
)
def test_settings_that_cannot_work(make, message):
  """Kills: a split of another name that gives no samples."""
  with pytest.raises(ValueError, match=message):
    make()


def test_subjects_that_are_not_there(tmp_path):
  """Kills: a fold of fewer subjects than it names."""
  options = make_disfa(tmp_path)
  with pytest.raises(ValueError, match=r"Disfa.subjects: no 'SN003' in .*'SN001', 'SN002'"):
    Disfa(options.labels, options.videos, subjects=("SN003",)).open()


def test_clips_that_cannot_be_decoded(tmp_path):
  """Kills: PyAV's own error, without sample and file."""
  options = make_disfa(tmp_path)
  (tmp_path / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi").write_bytes(b"no clip")
  with pytest.raises(media.MediaError, match=r"'SN001/00001': .*avi cannot be decoded as a video"):
    options.open()[0]


def test_pictures_of_tables_that_are_gone(tmp_path):
  """Kills: an OSError without the sample."""
  layout = make_raf_db(tmp_path).open()
  (tmp_path / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
  with pytest.raises(media.MediaError, match=r"'train_00002.jpg': .*aligned.jpg: no such file"):
    layout[1]
