"""A built source as an official folder, and built again from that."""

import dataclasses
import json

import pytest
from layout_folders import MAKERS
from record_folders import written

from facejax import cli
from facejax.records import build, layouts
from facejax.records.export import export
from facejax.records.layouts.llava import Llava
from facejax.records.raw import Encoded, RawMedium, RawSample
from facejax.records.store import Store
from facejax.types import Turn

TURNS = (Turn("human", "<image>\nWho?"), Turn("gpt", "Nobody."))


class _Few(list):
  """Samples as a layout."""

  def id(self, index):
    return self[index].id


def _sample(name="s", file="a/b.png", data=b"x", **labels):
  return RawSample(name, TURNS, (RawMedium("image", Encoded(file, data)),), labels)


def test_an_exported_source_builds_to_the_same(built, tmp_path, capsys):
  """Kills: media under another name or kind, extras of another medium, labels lost."""
  assert cli.main(["data", "export", str(built), str(tmp_path / "folder")]) == 0
  said = capsys.readouterr().out
  assert "train.json: 7 samples, 9 files" in said
  index = str(tmp_path / "folder" / "train.json")
  build.build(written(tmp_path / "again.json", index=[index]), tmp_path / "again")
  one, two = Store(built), Store(tmp_path / "again" / "faces")
  content = [store.manifest.column("content").tolist() for store in (one, two)]
  assert content[0] == content[1]
  for i in range(7):
    assert dataclasses.replace(two[i], id=one[i].id) == one[i]
  assert two[4].id == "train.json:4 (id train.json:4)"


@pytest.mark.parametrize("name", [n for n in layouts.CLASSES if n not in ("llava", "fairfacegpt")])
def test_label_tables_become_official_folders(name, tmp_path):
  """Kills: labels that the official format cannot hold."""
  (tmp_path / "data").mkdir()
  opened = MAKERS[name](tmp_path / "data").open()
  usable = []
  for i in range(len(opened)):
    try:
      usable.append(opened[i])
    except ValueError:
      continue
  export(_Few(usable), tmp_path / "folder")
  layout = Llava((str(tmp_path / "folder" / "train.json"),)).open()
  assert len(layout) == len(usable) > 0
  for i, raw in enumerate(usable):
    assert dataclasses.replace(layout[i], id=raw.id) == dataclasses.replace(
      raw, labels=json.loads(json.dumps(dict(raw.labels)))
    )


def test_a_folder_appears_complete_or_not(tmp_path):
  """Kills: a folder overwritten, or half of one that looks whole."""
  (tmp_path / "there").mkdir()
  with pytest.raises(FileExistsError, match=r"there exists - expected a folder to be made"):
    export(_Few([_sample()]), tmp_path / "there")
  two = _Few([_sample(), _sample("t", data=b"y")])
  with pytest.raises(ValueError, match=r"sample 't': a/b.png is another file than the one of that"):
    export(two, tmp_path / "half")
  assert not (tmp_path / "half").exists()
  export(_Few([_sample(), _sample("t")]), tmp_path / "half")
  assert (tmp_path / "half" / "a" / "b.png").read_bytes() == b"x"
  export(_Few([]), tmp_path / "none")
  assert json.loads((tmp_path / "none" / "train.json").read_text()) == []


def test_names_that_cannot_be_written(tmp_path):
  """Kills: a stored name that leaves the folder; a label that replaces the pictures."""
  with pytest.raises(ValueError, match=r"path '../b.png' is not inside"):
    export(_Few([_sample(file="../b.png")]), tmp_path / "out")
  with pytest.raises(ValueError, match=r"train.json is another file"):
    export(_Few([_sample(file="train.json")]), tmp_path / "out")
  with pytest.raises(ValueError, match=r"sample 's' has a label 'image', which is a field"):
    export(_Few([_sample(image="c.png")]), tmp_path / "out")
