"""Pipeline: a batch is a function of the step alone; undecodable samples are empty and reported."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from facejax.config import DataConfig, LlavaConfig, SyntheticConfig
from facejax.data.pipeline import Pipeline
from facejax.data.tokenizer import Tokenizer
from facejax.types import Medium, Sample, Turn


class Numbered:
  """Sample i is a picture of grey i; no media and no disk."""

  refusals = ()

  def __init__(self, samples=23):
    self.samples = samples

  def __len__(self):
    return self.samples

  def sizes(self):
    return np.tile(np.int32([5, 1, 0]), (self.samples, 1))

  def __getitem__(self, index):
    turns = (Turn("human", f"<image> number {index}?"), Turn("gpt", str(index)))
    return Sample(self.name(index), turns, (Medium("image", np.full((1, 12, 12, 3), index, "u1")),))

  def name(self, index):
    return f"n{index}"

  def fingerprint(self):
    return {"numbered": self.samples}


class Broken(Numbered):
  """Fails on sample 3 in a way that no sample is to blame for."""

  def __getitem__(self, index):
    if index == 3:
      raise OSError("the disk is gone")
    return super().__getitem__(index)


DATA = DataConfig(row_length=160, sources=("numbered",), seed=5)


def pipeline(model, rows=4, data=DATA, source=None, **hosts) -> Pipeline:
  return Pipeline(
    model, data, rows, sources={"numbered": Numbered() if source is None else source}, **hosts
  )


def ids(batch) -> list[int]:
  return batch.sample_id.max(1).tolist()


def assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_a_batch_depends_on_its_step_alone(model):
  # kills: a cursor; an order that depends on what was read before
  fresh, used = pipeline(model), pipeline(model)
  for step in (40, 2, 7):
    used.batch(step)
  stream = list(used.batches(0, 9))
  assert_equal(fresh.batch(7)[0], stream[7][0])
  assert_equal(fresh.batch(7)[0], used.batch(7)[0])
  assert len(stream) == 9 and ids(stream[7][0]) != ids(stream[6][0])


def test_a_resumed_stream_goes_on_where_it_stopped(model):
  # kills: a start that is counted in rows; a repeated or a skipped batch
  whole = list(pipeline(model).batches(0, 12))
  resumed = list(pipeline(model).batches(7, 12))
  assert len(resumed) == 5
  for (one, _), (other, _) in zip(whole[7:], resumed, strict=True):
    assert_equal(one, other)


def test_hosts_share_the_rows_of_one_host(model):
  # kills: each host reading all rows, the same rows, or rows of another step
  alone = pipeline(model, 6)
  hosts = [pipeline(model, 6, process=(p, 2)) for p in range(2)]
  for step in (0, 3, 11):
    parts = [host.batch(step)[0] for host in hosts]
    assert parts[0].tokens.shape[0] == 3
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    assert_equal(joined, alone.batch(step)[0])
  assert_equal(list(hosts[1].batches(2, 4))[1][0], hosts[1].batch(3)[0])
  assert hosts[0].fingerprint() == hosts[1].fingerprint() == alone.fingerprint()
  with pytest.raises(ValueError, match=r"rows=6 a step do not divide over 4 processes"):
    pipeline(model, 6, process=(0, 4))


def test_every_epoch_has_every_sample_in_another_order(model):
  # kills: one order for all epochs; a sample that is drawn twice; a seed that is ignored
  order = lambda data: [i for b, _ in pipeline(model, 4, data).batches(0, 23) for i in ids(b)]
  drawn = order(DATA)
  epochs = [drawn[i * 23 : (i + 1) * 23] for i in range(4)]
  assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 4
  other = order(dataclasses.replace(DATA, seed=6))
  assert other[:23] != drawn[:23] and other[23:46] != drawn[:23]


def test_rows_hold_the_sample_that_they_name(model):
  # kills: ids of another row; a normalised or float picture
  batch, refusals = pipeline(model).batch(3)
  assert refusals == () and batch.images.pixels.dtype == np.uint8
  assert batch.images.pixels[:, 0, 0, 5, 5, 0].tolist() == ids(batch)
  assert pipeline(model).name(ids(batch)[0]) == f"n{ids(batch)[0]}"


def folder_of(folder, count=5, broken=()) -> LlavaConfig:
  for i in range(count):
    folder.add(image=folder.image(f"{i}.png", y=200, x=200, seed=i))
    if i in broken:
      file = folder.path / f"{i}.png"
      file.write_bytes(file.read_bytes()[:2000])
  return LlavaConfig((folder.index(),))


def test_an_undecodable_sample_is_an_empty_row(model, folder):
  # kills: another sample in its place; a loss on zeros; a report without the name
  data = DataConfig(160, sources=("llava",), seed=1, llava=folder_of(folder, 5, broken=[2]))
  pipe = Pipeline(model, data, 5)
  assert len(pipe.schedule) == 5 and pipe.refusals == ()
  seen = []
  for batch, refusals in pipe.batches(0, 3):
    rows = ids(batch)
    assert sorted(rows) == [-1, 0, 1, 3, 4]
    empty = rows.index(-1)
    assert batch.loss_weights[empty].sum() == 0 and not batch.segment_ids[empty].any()
    assert not batch.images.pixels[empty].any()
    (refusal,) = refusals
    assert refusal.id == "train.json:2 (id 2)" == pipe.name(2)
    assert "2.png" in refusal.reason and "cannot be decoded" in refusal.reason
    seen.append(empty)
  assert len(set(seen)) > 1


def test_other_errors_stop_the_run(model):
  # kills: a lost disk that turns all rows into empty ones
  with pytest.raises(OSError, match="the disk is gone"):
    list(pipeline(model, source=Broken()).batches(0, 6))
  long = dataclasses.replace(DATA, row_length=20)
  with pytest.raises(ValueError, match=r"sample 'n\d+' takes .* a row has 20 - raise data.row_len"):
    pipeline(model, data=long).batch(0)


def test_refused_samples_are_in_no_batch(model, folder):
  # kills: an index of the file taken for one of the usable samples
  config = folder_of(folder, 6)
  (folder.path / "1.png").unlink()
  data = DataConfig(160, sources=("llava",), max_refused=0.2, llava=config)
  pipe = Pipeline(model, data, 5)
  assert [r.id for r in pipe.refusals] == ["train.json:1 (id 1)"] and len(pipe.schedule) == 5
  assert sorted(pipe.name(i)[11] for i in ids(pipe.batch(0)[0])) == list("02345")
  (folder.path / "0.png").unlink()
  with pytest.raises(ValueError, match="2 of 6 samples cannot be used"):
    Pipeline(model, data, 5)


def test_an_empty_source_is_refused(model):
  # kills: a division by zero in the shuffle
  with pytest.raises(ValueError, match=r"no usable sample \(0\)"):
    pipeline(model, source=Numbered(0))


def test_the_tokenizer_must_be_the_models(model, tmp_path):
  # kills: ids beyond the embedding table; a path that is ignored
  decoder = dataclasses.replace(model.decoder, vocab=77)
  with pytest.raises(ValueError, match=r"vocab \d+, the model expects 77 \(demo_tokenizer.model\)"):
    pipeline(dataclasses.replace(model, decoder=decoder))
  with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*gone"):
    pipeline(model, data=dataclasses.replace(DATA, tokenizer=str(tmp_path / "gone")))
  (tmp_path / "tokenizer.model").write_bytes(Tokenizer.demo().model)
  moved = pipeline(model, data=dataclasses.replace(DATA, tokenizer=str(tmp_path)))
  assert moved.fingerprint() == pipeline(model).fingerprint()


def test_a_stage_reads_a_part_of_what_the_run_reads(model):
  # kills: a stage that widens data.modalities, or is ignored
  opened = {"numbered": Numbered()}
  reads = lambda data, stage: Pipeline(model, data, 2, stage, sources=opened).form.reads
  only_maps = dataclasses.replace(DATA, modalities=("segmentation",))
  assert reads(DATA, ("landmarks", "segmentation")) == ("landmarks", "segmentation")
  assert reads(DATA, ("landmarks",)) == ("landmarks",)
  assert reads(only_maps, ("landmarks", "segmentation")) == ("segmentation",)
  assert reads(only_maps, ("landmarks",)) == ()


def test_the_fingerprint_tells_data_apart(model, monkeypatch):
  # kills: a setting that changes batches and not the fingerprint; one that does the reverse
  prints = lambda rows=4, **change: json.dumps(
    pipeline(model, rows, dataclasses.replace(DATA, **change)).fingerprint(), sort_keys=True
  )
  base = prints()
  assert prints(workers=2) == base == prints(max_refused=0.5)
  changed = [
    prints(8),
    prints(seed=6),
    prints(row_length=161),
    prints(images_per_row=2),
    prints(videos_per_row=1),
    prints(modalities=()),
    prints(resize="crop"),
  ]
  monkeypatch.setattr("facejax.data.order.VERSION", 99)
  assert len({base, *changed, prints()}) == 9


def test_drawn_faces_end_to_end(model):
  # kills: a synthetic source that does not follow the config
  data = DataConfig(260, videos_per_row=1, synthetic=SyntheticConfig(faces=6, turns=2))
  pipe = Pipeline(model, data, 3)
  batch, refusals = pipe.batch(0)
  assert refusals == () and (batch.loss_weights.sum(1) > 1).all()
  kinds = [i % 2 for i in ids(batch)]
  assert batch.videos.landmarks_valid.any((1, 2)).tolist() == [kind == 1 for kind in kinds]
  assert batch.images.landmarks_valid.any((1, 2)).tolist() == [kind == 0 for kind in kinds]
  none = dataclasses.replace(data, images_per_row=0, videos_per_row=0)
  with pytest.raises(ValueError, match=r"images_per_row=0 and data\.videos_per_row=0"):
    Pipeline(model, none, 3)


@pytest.mark.slow
def test_batches_of_no_steps_are_none(model):
  # kills: a loop that is used before it ran
  assert list(pipeline(model).batches(4, 4)) == []


def test_workers_change_nothing(model, folder):
  # kills: an order that depends on which process was faster; a refusal lost between processes
  data = DataConfig(160, sources=("llava",), llava=folder_of(folder, 7, broken=[4]))
  threads = Pipeline(model, data, 3)
  workers = Pipeline(model, dataclasses.replace(data, workers=2), 3)
  pairs = list(zip(threads.batches(2, 6), workers.batches(2, 6), strict=True))
  for (one, refused), (other, also) in pairs:
    assert_equal(one, other)
    assert refused == also
    # not a view of memory that goes with the worker
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(other))
  assert sum(len(refused) for (_, refused), _ in pairs) > 0
