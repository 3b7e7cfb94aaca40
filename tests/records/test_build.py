"""Building: what is stored is what lay there, restarts, refusals, and every message."""

import contextlib
import gc
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from record_folders import png_bytes, written

from facejax.records import build, builder, manifest
from facejax.records.layouts.llava import Llava
from facejax.records.store import Store

QUIET = build.Settings()


def _content(folder: pathlib.Path) -> dict[str, bytes]:
  """All files of a built source."""
  return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _meaning(folder: pathlib.Path) -> tuple:
  """All of a built source but how protobuf orders a record's fields, by the process's hash seed."""
  files = {k: v for k, v in _content(folder).items() if "array_record" not in k}
  store = Store(folder)
  return files, sorted(p.name for p in folder.glob("*array_record*")), [store[i] for i in range(7)]


def test_records_are_what_lay_in_the_folder(folder, built, source):
  """Kills: media out of order, re-encoded files, extras of another medium, labels or ids lost."""
  layout, store = Llava((str(folder / "train.json"),)).open(), Store(built)
  assert len(store) == len(layout) == 7
  assert [store[i] for i in range(7)] == [layout[i] for i in range(7)]
  assert [store.id(i) for i in range(7)] == [layout.id(i) for i in range(7)]
  first, fourth = store[0], store[3]
  assert first.id == "train.json:0 (id 5)" and store.id(2) == "train.json:2"
  assert first.media[0].file.data == (folder / "0.png").read_bytes()
  assert first.media[0].landmarks.data == (folder / "0.npy").read_bytes()
  assert first.media[0].segmentation.name == "0_map.png"
  assert fourth.media[0].file.data == (folder / "c.mp4").read_bytes()
  assert [m.file.name for m in store[4].media] == ["2.png", "3.png"]
  assert [m.segmentation is None for m in store[4].media] == [True, False]
  assert store[1].labels == {"dataset": "made up", "score": 0.5}
  assert store[5].media == () and store[5].conversation[0].text == "Why?"


def test_tfds_reads_the_folder_as_one_dataset(built):
  """Kills: shards under names that TFDS does not find, or lengths that are not theirs."""
  dataset = tfds.builder_from_directory(built)
  assert dataset.info.splits["train"].shard_lengths == [3, 3, 1]
  records = dataset.as_data_source("train")
  assert [record["index"] for record in records] == list(range(7))
  assert records[4]["media"]["name"] == [b"2.png", b"3.png"]
  assert "tensorflow" not in sys.modules


def test_the_manifest_says_what_the_records_hold(built):
  """Kills: columns of other samples, height and width swapped, ends that do not add up."""
  found = manifest.Manifest(built / "manifest")
  store = Store(built)
  for i in range(7):
    raw, media = store[i], found.media(i)
    assert found.id(i) == raw.id and found.conversation(i) == raw.conversation
    assert found.column("video")[media].tolist() == [m.kind == "video" for m in raw.media]
    for extra in ("landmarks", "segmentation"):
      assert found.column(extra)[media].tolist() == [
        getattr(m, extra) is not None for m in raw.media
      ]
  assert found.ids() == [store.id(i) for i in range(7)]
  assert found.column("size")[found.media(2)].tolist() == [[30, 50]]
  assert found.column("size")[found.media(3)].tolist() == [[0, 0]]
  assert isinstance(found.column("content"), np.memmap)
  assert len({row.tobytes() for row in found.column("content")}) == 7
  shared = found.column("medium")
  np.testing.assert_array_equal(shared[found.media(6)][0], shared[found.media(4)][1])  # 3.png
  assert found.about["licences"] == ["CC0"] and found.column("licence").tolist() == [0] * 7


@pytest.mark.parametrize("change", ["answer", "picture", "landmarks", "order"])
def test_the_digest_is_of_all_content(folder, built, source, tmp_path, change):
  """Kills: a digest of names alone, or without the files beside a picture."""
  before = Store(built).digest()
  records = json.loads((folder / "train.json").read_text())
  if change == "answer":
    records[5]["conversations"][1]["value"] += " Yes."
  elif change == "picture":
    (folder / "1.png").write_bytes(png_bytes(77))
  elif change == "landmarks":
    np.save(folder / "0.npy", np.load(folder / "0.npy") + 1)
  else:
    records.reverse()
  (folder / "train.json").write_text(json.dumps(records))
  build.build(written(tmp_path / "spec.json"), tmp_path / "other")
  assert Store(tmp_path / "other" / "faces").digest() != before


def test_a_second_run_does_nothing(built, source, tmp_path):
  """Kills: building again, or touching a file."""
  stamps = {p: p.stat().st_mtime_ns for p in built.rglob("*")}
  said = build.build(source, tmp_path / "out")
  assert re.fullmatch(r".*faces: 7 samples in [\d,]+ bytes, 0 refused, already built", said)
  assert {p: p.stat().st_mtime_ns for p in built.rglob("*")} == stamps
  assert [p.name for p in (tmp_path / "out").iterdir()] == ["faces"]


def test_folders_may_move(folder, source, built, tmp_path):
  """Kills: an identity that holds absolute paths."""
  moved = tmp_path / "elsewhere"
  shutil.move(folder, moved)
  other = written(tmp_path / "spec.json", index=["elsewhere/train.json"])
  assert "already built" in build.build(other, tmp_path / "out")


def test_a_kill_at_any_step_changes_nothing(source, built, tmp_path, monkeypatch):
  """Kills: a half-built folder that is visible or taken for complete; work done twice by halves.

  Every rename is a step: the build dies at the first, then at the second, ...
  """
  clean, out, real = _content(built), tmp_path / "again", os.replace
  deaths = 0
  while True:
    left = [deaths]

    def dying(a, b, left=left):
      if not left[0]:
        raise KeyboardInterrupt
      left[0] -= 1
      real(a, b)

    with monkeypatch.context() as patch:
      patch.setattr(os, "replace", dying)
      with contextlib.suppress(KeyboardInterrupt):
        build.build(source, out)
    if left[0]:
      break
    deaths += 1
    if (out / "faces").exists():
      assert _content(out / "faces") == clean
    build.build(source, out)
    assert _content(out / "faces") == clean, deaths
    shutil.rmtree(out)
  assert deaths > 8  # identity, three parts, three shards, refused, manifest, the folder


def test_finished_parts_stay(source, tmp_path, monkeypatch):
  """Kills: starting from the first part again; a part that is half there taken as it is."""
  out, built, real = tmp_path / "out", [], builder.build

  def counting(source, span, *rest):
    if span == (3, 6) and not built.count((3, 6)):
      built.append(span)
      (out / ".building" / "faces" / "parts" / "00001" / "half").write_bytes(b"x")
      raise KeyboardInterrupt
    built.append(span)
    return real(source, span, *rest)

  monkeypatch.setattr(builder, "build", counting)
  with pytest.raises(KeyboardInterrupt):
    build.build(source, out)
  assert not (out / "faces").exists()
  build.build(source, out)
  assert built == [(0, 3), (3, 6), (3, 6), (6, 7)]
  assert len(Store(out / "faces")) == 7


@pytest.mark.slow
def test_workers_build_the_same(source, built, tmp_path):
  """Kills: parts in the order in which workers finish."""
  build.build(source, tmp_path / "two", build.Settings(workers=2))
  assert _meaning(tmp_path / "two" / "faces") == _meaning(built)


@pytest.mark.parametrize(
  "change, told",
  [
    ({"licence": "none"}, "licence 'CC0' -> 'none'"),
    ({"part": 4}, "part 3 -> 4"),
  ],
)
def test_another_specification_is_refused(built, tmp_path, change, told):
  """Kills: keeping old records under a new specification in silence, or deleting them."""
  other = written(tmp_path / "spec.json", **change)
  before = _content(built)
  with pytest.raises(ValueError, match=rf"another specification or index: {told} .*--rebuild=fac"):
    build.build(other, tmp_path / "out")
  assert _content(built) == before
  build.build(other, tmp_path / "out", build.Settings(rebuild=("faces",)))
  assert _content(built) != before
  assert not (tmp_path / "out" / ".building").exists()


def test_rows_do_not_pile_up(source, tmp_path):
  """Kills: memory that grows with the source, as TFDS keeps every builder."""
  part = builder.build(source, (0, 3), tmp_path / "part")
  gc.collect()
  kept = [b for b in gc.get_objects() if isinstance(b, builder.Records)]
  assert len(part.rows) == 3 and not any(b.rows for b in kept)


def test_a_rebuild_replaces_nothing_else(source, built, tmp_path):
  """Kills: a folder of the user's own deleted; a quarantine that ends in silence."""
  rebuild = build.Settings(rebuild=("faces",))
  (built / "quarantine.jsonl").write_text("")
  assert build.build(source, tmp_path / "out", rebuild).endswith("is gone, run facejax data check")
  own = tmp_path / "mine" / "faces"
  own.mkdir(parents=True)
  (own / "thesis.txt").write_text("x")
  with pytest.raises(FileNotFoundError, match=r"mine/faces is no built source"):
    build.build(source, tmp_path / "mine", rebuild)
  assert (own / "thesis.txt").exists()


def test_another_index_is_refused_while_building(folder, source, tmp_path, monkeypatch):
  """Kills: parts of two indexes in one dataset."""
  with monkeypatch.context() as patch:
    patch.setattr(build, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      build.build(source, tmp_path / "out")
  index = folder / "train.json"
  index.write_text(json.dumps(json.loads(index.read_text())[:-1]))
  with pytest.raises(ValueError, match=r"another specification or index: index '\w+' -> '\w+'"):
    build.build(source, tmp_path / "out")
  build.build(source, tmp_path / "out", build.Settings(rebuild=("faces",)))
  assert len(Store(tmp_path / "out" / "faces")) == 6


def test_two_builds_at_once_are_refused(source, tmp_path):
  """Kills: two processes that write the same parts."""
  work = tmp_path / "out" / ".building" / "faces"
  with (
    build._alone(work),
    pytest.raises(ValueError, match=r"faces is being built by another process"),
  ):
    build.build(source, tmp_path / "out")
  build.build(source, tmp_path / "out")
  assert not work.exists()


def test_files_that_change_while_beam_reads_them(source, monkeypatch):
  """Kills: a sample that is in neither the records nor the refusals."""
  with pytest.raises(ValueError, match=r"'train.json:2' could not be read at first and then could"):
    builder._refused(source, [2])


def test_beam_has_to_be_installed(source, tmp_path, monkeypatch):
  """Kills: a bare ModuleNotFoundError."""
  monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ModuleNotFoundError, match=r"--beam needs Apache Beam.*'.\[beam\]'"):
    build.build(source, tmp_path / "out", build.Settings(beam=""))


def test_beam_builds_the_same(source, built, tmp_path):
  """Kills: Beam's records in another order, refusals without a reason, rows of other records."""
  pytest.importorskip("apache_beam")
  (tmp_path / "official" / "1.png").write_bytes(b"no picture")
  settings = build.Settings(beam="", max_refused=0.5)
  build.build(source, tmp_path / "beam", settings)
  build.build(source, tmp_path / "plain", build.Settings(max_refused=0.5))
  beam, plain = Store(tmp_path / "beam" / "faces"), Store(tmp_path / "plain" / "faces")
  assert beam.digest() == plain.digest() and len(beam) == 6
  assert [beam[i] for i in range(6)] == [plain[i] for i in range(6)]
  reasons = [(s.folder / "refused.jsonl").read_text() for s in (beam, plain)]
  assert reasons[0] == reasons[1] and "no picture's header" in reasons[0]


@pytest.mark.slow
def test_sigkill(source, built, tmp_path):
  """Kills: anything that a killed process leaves behind and a later one trips over."""
  command = [sys.executable, "-m", "facejax.cli", "data", "build", str(tmp_path / "spec.json")]
  command.append(str(tmp_path / "killed"))
  parts = tmp_path / "killed" / ".building" / "faces" / "parts"
  process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  while process.poll() is None and not (parts / "00000" / "rows.npz").exists():
    time.sleep(0.001)
  process.send_signal(signal.SIGKILL)
  process.wait()
  subprocess.run(command, check=True, capture_output=True)
  assert _meaning(tmp_path / "killed" / "faces") == _meaning(built)
