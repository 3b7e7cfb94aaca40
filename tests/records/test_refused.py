"""What cannot be built: samples refused by name, and sources of which nothing is left."""

import dataclasses
import json
import re

import pytest
from record_folders import png_bytes, turns, written

from facejax.data import files
from facejax.data.refused import TooManyRefused
from facejax.records import build, builder
from facejax.records.example import to_example
from facejax.records.store import Store


def _damaged(folder):
  """The seven samples, three of them damaged."""
  (folder / "1.png").write_bytes(b"no picture")
  (folder / "c.mp4").unlink()
  records = json.loads((folder / "train.json").read_text())
  records[5]["conversations"] = turns("<image>", "There is none.")
  (folder / "train.json").write_text(json.dumps(records))


def test_unreadable_samples_are_named_and_counted(folder, tmp_path):
  """Kills: samples left out in silence, or others moved into their place."""
  _damaged(folder)
  source = written(tmp_path / "spec.json")
  said = build.build(source, tmp_path / "out", build.Settings(max_refused=0.5))
  assert "4 samples" in said and "3 refused" in said
  lines = (tmp_path / "out/faces/refused.jsonl").read_text().splitlines()
  refused = {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}
  assert list(refused) == ["train.json:1 (id 5)", "train.json:3", "train.json:5"]
  assert "1.png has no picture's header" in refused["train.json:1 (id 5)"]
  assert "c.mp4: no such file" in refused["train.json:3"]
  assert "placeholders [image] but the media are []" in refused["train.json:5"]
  assert all(f"sample '{name}'" in reason for name, reason in refused.items())
  store = Store(tmp_path / "out" / "faces")
  assert [store.manifest.column("places")[i] for i in range(4)] == [0, 2, 4, 6]
  assert [store.id(i) for i in range(4)] == [store[i].id for i in range(4)]


def test_texts_and_files_of_every_kind_are_refused_by_name(folder, tmp_path, monkeypatch):
  """Kills: a build that dies of one sample's text, label or file permission."""
  text = (folder / "train.json").read_text()
  text = text.replace("Answer to image>Age", "Half \\ud83d").replace("Answer to Why", "\\ud800")
  (folder / "train.json").write_text(text.replace('"score": 0.5', '"score": NaN'))
  source, real = written(tmp_path / "spec.json"), files.read

  def read(path, *rest):
    if str(path).endswith("wide.jpg"):
      raise PermissionError(13, "Permission denied", str(path))
    return real(path, *rest)

  monkeypatch.setattr(files, "read", read)
  build.build(source, tmp_path / "out", build.Settings(max_refused=0.5))
  lines = (tmp_path / "out/faces/refused.jsonl").read_text().splitlines()
  reasons = [json.loads(line)["reason"] for line in lines]
  assert len(reasons) == 3
  assert "sample 'train.json:1 (id 5)': Out of range float values" in reasons[0]
  assert re.search(r"sample 'train.json:2': .*Permission denied.*wide.jpg' - check", reasons[1])
  assert r"'train.json:5' has text that is no Unicode: '\ud800' at 0 of" in reasons[2]


def test_labels_are_json_values(source):
  """Kills: a label that comes back as another type, or an error without the sample."""
  raw = dataclasses.replace(builder.opened(source)[5], labels={"age": {31}})
  with pytest.raises(
    ValueError, match=r"'train.json:5': Object of type set is not .*JSON can hold"
  ):
    to_example(0, raw)


def test_too_many_refusals_stop_the_build(folder, tmp_path):
  """Kills: a store of what is left; a build that ends before it has named anything."""
  _damaged(folder)
  source = written(tmp_path / "spec.json")
  with pytest.raises(ValueError, match=r"of 7 samples cannot be used - --max-refused=0.2 allows 1"):
    build.build(source, tmp_path / "out", build.Settings(max_refused=0.2))
  assert not (tmp_path / "out" / "faces").exists()
  build.build(source, tmp_path / "out", build.Settings(max_refused=0.5))
  assert len(Store(tmp_path / "out" / "faces")) == 4


def test_repaired_samples_are_read_again(folder, tmp_path):
  """Kills: reasons of yesterday's build; parts without a refusal built a second time."""
  _damaged(folder)
  source = written(tmp_path / "spec.json")
  with pytest.raises(TooManyRefused):
    build.build(source, tmp_path / "out", build.Settings(max_refused=0.2))
  (folder / "1.png").write_bytes(png_bytes(5))
  build.build(source, tmp_path / "out", build.Settings(max_refused=0.3))
  refused = (tmp_path / "out/faces/refused.jsonl").read_text()
  assert [json.loads(line)["id"] for line in refused.splitlines()] == [
    "train.json:3",
    "train.json:5",
  ]


def test_a_part_without_a_usable_sample(folder, tmp_path):
  """Kills: TFDS's error about a dataset without examples."""
  for name in ("0.png", "1.png", "wide.jpg"):
    (folder / name).unlink()
  source = written(tmp_path / "spec.json")
  build.build(source, tmp_path / "out", build.Settings(max_refused=0.5))
  assert len(Store(tmp_path / "out" / "faces")) == 4
  for name in ("2.png", "3.png", "c.mp4"):
    (folder / name).unlink()
  records = json.loads((folder / "train.json").read_text())
  (folder / "train.json").write_text(json.dumps(records[:5]))
  source = written(tmp_path / "spec.json", name="none")
  with pytest.raises(ValueError, match=r"source 'none' has no usable sample \(0\)"):
    build.build(source, tmp_path / "out", build.Settings(max_refused=1))


def test_an_index_without_samples_or_with_twins(folder, source, tmp_path, monkeypatch):
  """Kills: an empty dataset; two samples of one id, of which a quarantine would hit both."""
  layout = builder.opened(source)
  with monkeypatch.context() as patch:
    patch.setattr(type(layout), "id", lambda self, index: f"s{index % 5}")
    with pytest.raises(
      ValueError, match=r"'faces': sample id 's0' comes twice, at last in place 5"
    ):
      build.build(source, tmp_path / "out")
  (folder / "train.json").write_text("[]")
  with pytest.raises(ValueError, match=r"source 'faces' has no sample \(0\)"):
    build.build(source, tmp_path / "out")
