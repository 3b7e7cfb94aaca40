"""A built source as a source of rows: sizes, what does not fit, quarantine, and every message."""

import concurrent.futures
import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
from record_folders import turns, written

from facejax.data import chat, rows
from facejax.data.rows import RowFormat
from facejax.records import build, count, manifest, shards
from facejax.records.raw import decode
from facejax.records.store import RecordsSource, Store
from facejax.visual_table import VisualTable


class Bytes:
  """A byte a token, then InternVL's special tokens."""

  pad_id, fingerprint = 256, "bytes"

  def special_id(self, name):
    return 256 + ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>").index(name)

  def encode(self, text, *, dummy_prefix=True):
    return list(text.encode())


@pytest.fixture
def tiled(model):
  """Pictures of 2 to 6 tiles and a thumbnail; frames of a clip are numbered."""
  table = VisualTable(model, 14, 1)
  return RowFormat(
    table, 500, Bytes(), resize="stretch", template=chat.INTERNVL_SYSTEM, tiles=(2, 6)
  )


@pytest.fixture
def counted(built, form):
  count.count(built, form)
  return built


def _quarantine(folder, *ids):
  lines = [json.dumps({"id": name, "kind": "no face", "reason": "none found"}) for name in ids]
  (folder / "quarantine.jsonl").write_text("".join(line + "\n" for line in lines))


def test_samples_are_the_stored_ones_decoded(counted, form):
  """Kills: another order; landmarks or maps of another medium or left out."""
  source, store = RecordsSource(counted, form), Store(counted)
  assert len(source) == 7 and source.refusals == ()
  for i in range(7):
    sample, raw = source[i], store[i]
    assert sample.id == source.name(i) == f"faces/{raw.id}"
    assert sample.conversation == raw.conversation
    whole = decode(raw, form.table.model.frames)
    for medium, other in zip(sample.media, whole.media, strict=True):
      assert medium.kind == other.kind
      for field in ("pixels", "landmarks", "segmentation"):
        np.testing.assert_array_equal(getattr(medium, field), getattr(other, field))
  assert [m.landmarks is not None for i in (0, 3) for m in source[i].media] == [True, True]


def test_files_that_are_not_read_are_not_decoded(counted, form):
  """Kills: time spent on a map that the row drops."""
  sample = RecordsSource(counted, dataclasses.replace(form, modalities=("landmarks",)))[0]
  assert sample.media[0].segmentation is None and sample.media[0].landmarks is not None


@pytest.mark.parametrize("modalities", [(), ("landmarks",), ("landmarks", "segmentation")])
@pytest.mark.parametrize("name", ["form", "tiled"])
def test_sizes_are_those_of_the_rows(built, name, modalities, request):
  """Kills: a manifest that counts otherwise than rows.py; maps that are not read counted; height
  and width swapped where a picture's tiles are counted; frames' words not counted."""
  form = dataclasses.replace(request.getfixturevalue(name), modalities=modalities)
  count.count(built, form)
  source = RecordsSource(built, form)
  sizes = source.sizes()
  assert sizes.shape == (7, 3)
  for i in range(7):
    row = rows.encode([source[i]], [i], form)
    slots = rows.slots([form.outline(medium) for medium in source[i].media])
    assert sizes[i].tolist() == [(row.segment_ids > 0).sum(), *slots]
  assert (sizes[4, 1] > 2) == (name == "tiled")


def test_what_does_not_fit_is_refused_with_its_numbers(counted, form):
  """Kills: a sample that stops the run when its row is laid out; a wrong one refused."""
  small = dataclasses.replace(form, table=VisualTable(form.table.model, 1, 0))
  source = RecordsSource(counted, small, max_refused=0.5)
  assert [source.name(i)[16:18] for i in range(5)] == [":0", ":1", ":2", ":5", ":6"]
  clips, pictures = source.refusals
  assert clips.id == "faces/train.json:3" and pictures.id == "faces/train.json:4"
  assert "takes 1 clip slots of 0 in a row - raise data.row_length" in clips.reason
  assert "takes 2 picture slots of 1 in a row" in pictures.reason
  longest = RecordsSource(counted, form).sizes()[:, 0].max()
  tight = dataclasses.replace(form, length=int(longest) - 1)
  (refusal,) = RecordsSource(counted, tight, max_refused=0.5).refusals
  assert f"takes {longest} tokens of {longest - 1} in a row" in refusal.reason
  with pytest.raises(ValueError, match=r"2 of 7 samples cannot be used - data.max_refused=0.01"):
    RecordsSource(counted, small)


def test_what_cannot_be_laid_out_is_refused(folder, form, tmp_path):
  """Kills: -1 tokens taken for a size; a reason that names another sample."""
  records = json.loads((folder / "train.json").read_text())
  records[1]["conversations"] = turns("<image>\nAge?", "  ")
  records[4]["conversations"] = records[4]["conversations"][:1]
  (folder / "train.json").write_text(json.dumps(records))
  build.build(written(tmp_path / "spec.json"), tmp_path / "out")
  said = count.count(tmp_path / "out" / "faces", form)
  assert "2 samples refused" in said
  source = RecordsSource(tmp_path / "out" / "faces", form, max_refused=0.5)
  assert len(source) == len(source.sizes()) == 5
  empty, unanswered = (refusal.reason for refusal in source.refusals)
  assert "sample 'faces/train.json:1 (id 5)', turn 1: the answer is empty" in empty
  assert "sample 'faces/train.json:4', turn 0: the question has no answer" in unanswered


def test_a_quarantine_is_left_out_before_the_order_is_made(counted, form):
  """Kills: quarantined samples counted as unusable, or left in; a fingerprint that ignores them."""
  before = RecordsSource(counted, form)
  _quarantine(counted, "train.json:2", "train.json:0 (id 5)")
  source = RecordsSource(counted, form, max_refused=0)
  assert [source.name(i)[16:18] for i in range(5)] == [":1", ":3", ":4", ":5", ":6"]
  np.testing.assert_array_equal(source.sizes(), before.sizes()[[1, 3, 4, 5, 6]])
  assert {r.id: r.reason for r in source.refusals}["faces/train.json:2"] == (
    "sample 'faces/train.json:2' is in quarantine (no face: none found)"
  )
  assert before.fingerprint() != source.fingerprint() and json.dumps(source.fingerprint())
  _quarantine(counted, "train.json:0 (id 5)", "train.json:2")
  assert RecordsSource(counted, form).fingerprint() == source.fingerprint()
  _quarantine(counted, "train.json:3")  # would not fit either
  pictures = dataclasses.replace(form, table=VisualTable(form.table.model, 2, 0))
  (refusal,) = RecordsSource(counted, pictures, max_refused=0).refusals
  assert "in quarantine" in refusal.reason


def test_a_quarantine_of_nothing_known_is_refused(counted, form):
  """Kills: a list of another source, or a cut one, that leaves nothing out in silence."""
  _quarantine(counted, "train.json:9", "train.json:2")
  with pytest.raises(ValueError, match=r"quarantine.jsonl names 'train.json:9' and 0 more that"):
    RecordsSource(counted, form)
  (counted / "quarantine.jsonl").write_text('{"id": "train.json:2", "kind"')
  with pytest.raises(ValueError, match=r"quarantine.jsonl, line 1: '\{\"id\": \"train.json:2\""):
    RecordsSource(counted, form)


def test_a_source_travels_to_workers_by_its_folder(counted, form):
  """Kills: columns or open shards that are pickled; a copy with other samples."""
  _quarantine(counted, "train.json:2")
  source = RecordsSource(counted, form)
  np.testing.assert_array_equal(source[5].media[0].pixels, source[5].media[0].pixels)
  _quarantine(counted)  # what happens behind a run's start changes nothing
  sent = pickle.dumps(source)
  copy = pickle.loads(sent)
  assert len(copy) == 6 and copy.fingerprint() == source.fingerprint()
  np.testing.assert_array_equal(copy.sizes(), source.sizes())
  np.testing.assert_array_equal(copy[5].media[0].pixels, source[5].media[0].pixels)
  assert len(sent) < len(pickle.dumps(form)) + 4000


def test_a_source_without_counts_says_what_to_run(built, counted, form, tiled, tmp_path):
  """Kills: counts of another tokenizer, template or number of frames taken for these."""
  with pytest.raises(FileNotFoundError, match=r"\(internvl_system\).*tokens-\w{8}.npy - run"):
    RecordsSource(built, tiled)
  vicuna = count.fingerprint(form)
  model = dataclasses.replace(form.table.model, frames=5)
  more = dataclasses.replace(form, table=VisualTable(model, 2, 1))
  assert count.fingerprint(more) == vicuna  # Vicuna writes nothing between frames
  other = dataclasses.replace(tiled, table=VisualTable(model, 14, 1))
  names = {vicuna, count.fingerprint(tiled), count.fingerprint(other)}
  names.add(count.fingerprint(dataclasses.replace(form, template=chat.RELEASED)))
  assert len(names) == 4
  shutil.rmtree(built / "manifest")
  with pytest.raises(FileNotFoundError, match=r"faces is no built source: no .*manifest.json"):
    RecordsSource(built, form)


def test_counting_twice_counts_once(built, form):
  """Kills: an existing column written again under a run's eyes."""
  assert "text tokens, 0 samples refused" in count.count(built, form)
  column = manifest.Manifest(built / "manifest").column(f"tokens-{count.fingerprint(form)}")
  assert column.tolist() == [
    int(n) for n in RecordsSource(built, form).sizes()[:, 0] - _visual(built, form)
  ]
  assert "is there, nothing to count" in count.count(built, form)


def _visual(built, form):
  """Visual tokens, from the samples."""
  source = RecordsSource(built, form)
  outlines = [[form.outline(m) for m in source[i].media] for i in range(len(source))]
  return np.array([sum(map(form.count, outline)) for outline in outlines])


@pytest.mark.slow
def test_workers_count_the_same(built, form, tiled, monkeypatch):
  """Kills: chunks in the order in which workers finish."""
  count.count(built, form, workers=2)
  np.testing.assert_array_equal(
    RecordsSource(built, form).sizes()[:, 1:], [[1, 0]] * 3 + [[0, 1], [2, 0], [0, 0], [1, 0]]
  )


def test_records_outside_and_damaged_shards(built):
  """Kills: a negative index taken from the end; an error of the reader without the sample."""
  store = Store(built)
  with pytest.raises(IndexError, match=r"sample 7 of 7 in .*faces"):
    store[7]
  with pytest.raises(IndexError, match=r"sample -1 of 7"):
    store[-1]
  assert [raw.id for raw in store] == [store.id(i) for i in range(7)]
  (shard,) = built.glob("*00002-of-00003")
  shard.write_bytes(b"x" * 100)
  with pytest.raises(ValueError, match=r"sample 'train.json:6', record 6 of .* cannot be read"):
    Store(built)[6]


def test_many_threads_and_few_open_shards(built, monkeypatch):
  """Kills: more open files than a process may have; a reader closed under another thread."""
  monkeypatch.setattr(shards, "OPEN", 2)
  store = Store(built)
  expected = [store[i] for i in range(7)]
  order = np.random.default_rng(0).integers(0, 7, 400).tolist()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    read = list(pool.map(store.__getitem__, order))
  assert read == [expected[i] for i in order]
  assert len(store._shards._readers) == 2


@pytest.mark.parametrize(
  "text, message",
  [("{", "manifest.json is damaged"), ('{"format": 2}', "has format 2, this version reads 1")],
)
def test_a_manifest_that_cannot_be_read(built, text, message):
  """Kills: a KeyError, or a newer format read as this one."""
  (built / "manifest" / "manifest.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    Store(built)


def test_a_missing_column_is_named(built):
  """Kills: NumPy's own message without what to do."""
  (built / "manifest" / "content.npy").unlink()
  with pytest.raises(FileNotFoundError, match=r"no column .*content.npy - build the source again"):
    manifest.Manifest(built / "manifest").column("content")
