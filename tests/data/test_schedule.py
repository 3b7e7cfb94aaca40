"""Schedule: which samples stand in which row, through sources, mixtures and their changes."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from test_pipeline import Numbered, assert_equal

from facejax.config import DataConfig, Mixture
from facejax.data.media import MediaError
from facejax.data.pipeline import Pipeline
from facejax.data.schedule import Schedule
from facejax.types import Medium, Sample, Turn


class Texts(Numbered):
  """Sample i is i % 5 + 1 words long, without media; `short` says how it is called."""

  def __init__(self, samples: int, short: str, broken: int | None = None):
    super().__init__(samples)
    self.short, self.broken = short, broken

  def sizes(self):
    return np.array([[44 + i % 5, 0, 0] for i in range(self.samples)], np.int32)

  def __getitem__(self, index):
    if index == self.broken:
      raise MediaError(f"sample {self.name(index)!r}: torn")
    words = " ".join(["one"] * (index % 5 + 1))
    return Sample(self.name(index), (Turn("human", f"{index}?"), Turn("gpt", words)))

  def name(self, index):
    return f"{self.short}{index}"


def schedule(*mixtures, sizes=(("a", 300), ("b", 40), ("c", 7)), capacity=(150, 0, 0), rows=4):
  made = {name: Texts(n, name) for name, n in sizes}
  return Schedule(mixtures, made.__getitem__, capacity, 3, rows)


def drawn(plan, steps, rows=4) -> list[list[str]]:
  return [[plan.name(n) for row in range(rows) for n in plan.row(s, row)] for s in steps]


def test_rows_are_equal_whatever_was_asked_before():
  """Kills: a cursor, a plan that depends on the history, a step counted from the first asked."""
  fresh, used = schedule(Mixture(("a", "b"))), schedule(Mixture(("a", "b")))
  for step in (90, 3, 10**6):
    drawn(used, [step])
  for step in (0, 4, 10**6, 10**9):
    assert drawn(fresh, [step]) == drawn(used, [step])


def test_weights_are_shares_of_the_samples():
  """Kills: weights of rows or tokens, of sources in another order; a default of equal ones."""
  count = lambda mixture: collections.Counter(
    name[0] for step in drawn(schedule(mixture), range(400)) for name in step
  )
  third = count(Mixture(("b", "a"), (1.0, 2.0)))
  assert third["a"] / third["b"] == pytest.approx(2, rel=0.02)
  whole = count(Mixture(("a", "b", "c")))
  assert whole["a"] / whole["b"] == pytest.approx(300 / 40, rel=0.02)
  assert whole["a"] / whole["c"] == pytest.approx(300 / 7, rel=0.05)


def test_a_change_leaves_what_was_before_it_and_starts_its_own_order():
  """Kills: a new mixture that reorders the past, one that never starts, one a step late."""
  before = schedule(Mixture(("a", "b")))
  changed = schedule(Mixture(("a", "b")), Mixture(("c", "a"), (1.0, 1.0), start=5))
  assert drawn(changed, range(5)) == drawn(before, range(5))
  after = collections.Counter(name[0] for step in drawn(changed, range(5, 105)) for name in step)
  assert set(after) == {"a", "c"} and after["a"] / after["c"] == pytest.approx(1, rel=0.05)
  assert drawn(changed, [5]) != drawn(changed, [6])
  # another seed for each mixture: the same sources do not start over with the same samples
  again = schedule(Mixture(("a", "b")), Mixture(("a", "b"), start=5))
  assert drawn(again, [5]) != drawn(again, [0])


def test_a_mixture_begins_with_its_first_row():
  """Kills: rows counted from step 0, which begins somewhere in an epoch."""
  plan = schedule(Mixture(("a",)), Mixture(("b",), start=5))
  rows = [plan.row(5 + r // 4, r % 4) for r in range(14)]  # 40 samples, three a row
  assert sorted(n for row in rows for n in row) == list(range(300, 340))


def test_numbers_count_through_all_sources():
  """Kills: a number of one source taken for another's; the second mixture's order of sources."""
  plan = schedule(Mixture(("a", "b")), Mixture(("c", "b"), start=9))
  assert list(plan.sources) == ["a", "b", "c"] and len(plan) == 347
  assert [plan.name(n) for n in (0, 299, 300, 339, 340, 346)] == [
    "a0", "a299", "b0", "b39", "c0", "c6"
  ]  # fmt: skip
  assert {plan.name(n)[0] for s in range(9, 30) for n in plan.row(s, 0)} == {"b", "c"}
  assert plan.sample(341).id == "c1"
  with pytest.raises(IndexError, match="sample 347 of 347"):
    plan.name(347)


def test_drawn_counts_the_samples_of_the_rows_before_a_step():
  """Kills: rows for samples; the first mixture's mean for all steps."""
  plan = schedule(Mixture(("a",)), Mixture(("c",), start=100), capacity=(92, 0, 0))
  for step in (100, 1000):
    exact = sum(len(plan.row(s, row)) for s in range(step) for row in range(4))
    assert plan.drawn(step) == pytest.approx(exact, rel=0.02)
  assert plan.drawn(0) == 0


PACKED = DataConfig(row_length=150, sources=("a", "b", "c"), weights=(4.0, 2.0, 1.0), seed=1)


def packed(model, broken=None, **changes) -> Pipeline:
  opened = {"a": Texts(300, "a", broken), "b": Texts(40, "b"), "c": Texts(7, "c")}
  process = changes.pop("process", None)
  mixtures = changes.pop("mixtures", ())
  data = dataclasses.replace(PACKED, **changes)
  return Pipeline(model, data, 8, mixtures=mixtures, sources=opened, process=process)


def test_a_row_holds_several_samples_that_it_names(model):
  """Kills: one sample a row; a segment with the next one's id; a position that goes on."""
  pipe = packed(model)
  batch, refused = pipe.batch(11)
  assert refused == () and batch.segment_ids.max() >= 2
  for row in range(8):
    segments = batch.segment_ids[row]
    ids = [int(batch.sample_id[row][segments == s][0]) for s in range(1, segments.max() + 1)]
    assert ids == pipe.schedule.row(11, row)
    for s in range(1, segments.max() + 1):
      assert batch.positions[row][segments == s].tolist() == list(range((segments == s).sum()))


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_change_nothing(model, processes):
  """Kills: a row that is packed from what one process sees."""
  whole = packed(model).batch(5)[0]
  parts = [packed(model, process=(p, processes)).batch(5)[0] for p in range(processes)]
  assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *parts), whole)


def test_a_torn_sample_leaves_its_row_to_the_others(model):
  """Kills: a whole row lost with one sample, a replaced one, a repeated neighbour."""
  whole, torn = packed(model), packed(model, broken=17)
  step, row = next(
    (s, r) for s in range(999) for r in range(8)
    if 17 in whole.schedule.row(s, r) and len(whole.schedule.row(s, r)) > 1
  )  # fmt: skip
  batch, refused = torn.batch(step)
  assert [r.id for r in refused] == ["a17"]
  left = [n for n in whole.schedule.row(step, row) if n != 17]
  assert sorted(set(batch.sample_id[row]) - {-1}) == sorted(left)


def test_a_change_of_the_mixture_is_in_the_fingerprint(model):
  """Kills: a change that a resumed run cannot see; a path in the fingerprint."""
  prints = packed(model, mixtures=(Mixture(("c",), start=7),)).fingerprint()["mixtures"]
  assert [(m["start"], m["weights"]) for m in prints] == [(0, [4.0, 2.0, 1.0]), (7, [7.0])]
  assert prints[1]["samples"] == [{"numbered": 7}]
  own = packed(model, mixtures=(Mixture(("b", "a")),)).fingerprint()["mixtures"]
  assert [m["weights"] for m in own] == [[40.0, 300.0]]  # from step 0: instead of the data's


class Mapped(Texts):
  """Samples with a picture and a map; those of `wrong` have a class that no model knows."""

  def __init__(self, samples: int, wrong: tuple[int, ...]):
    super().__init__(samples, "m")
    self.wrong = wrong

  def sizes(self):
    return np.tile(np.int32([60, 1, 0]), (self.samples, 1))

  def __getitem__(self, index):
    pixels = np.full((1, 12, 12, 3), index, np.uint8)
    ids = np.full((1, 12, 12), 99 if index in self.wrong else 1, np.uint8)
    turns = (Turn("human", "<image>\nWho?"), Turn("gpt", "one"))
    return Sample(self.name(index), turns, (Medium("image", pixels, None, ids),))


def test_each_sample_that_the_model_cannot_take_is_named_and_the_others_stay(model):
  """Kills: a row lost with one of its samples, a second refusal that replaces the first."""
  data = DataConfig(row_length=240, sources=("m",), images_per_row=4)
  pipe = Pipeline(model, data, 3, sources={"m": Mapped(12, wrong=(2, 3, 4, 5, 7))})
  batch, refused = pipe.batch(0)
  assert sorted(r.id for r in refused) == ["m2", "m3", "m4", "m5", "m7"]
  assert all(f"sample {r.id!r}" in r.reason and "class 99" in r.reason for r in refused)
  assert sorted(set(batch.sample_id.ravel().tolist()) - {-1}) == [0, 1, 6, 8, 9, 10, 11]


def test_a_sample_that_grew_since_the_start_is_named(model):
  """Kills: a neighbour that is blamed, advice that nobody can follow."""

  class Grown(Texts):
    def __getitem__(self, index):
      sample = super().__getitem__(index)
      if index != 3:
        return sample
      return dataclasses.replace(
        sample, conversation=(Turn("human", "?"), Turn("gpt", "one " * 70))
      )

  data = DataConfig(row_length=150, sources=("g",))
  pipe = Pipeline(model, data, 9, sources={"g": Grown(20, "g")})
  with pytest.raises(ValueError, match=r"'g3' takes \(\d+, 0, 0\) .* it took \(47, 0, 0\) when"):
    pipe.batch(0)
  long = dataclasses.replace(data, row_length=60)
  with pytest.raises(ValueError, match=r"sample 'g3' takes \d+ tokens .* a row has 60"):
    Pipeline(model, long, 20, sources={"g": Grown(20, "g")}).batch(0)
