"""Resamples, groups, gaps, scores and paired tests, beside slow references."""

import math

import numpy as np
import pytest

from facejax.evaluate import compare, fairness, metrics, scores
from facejax.evaluate.intervals import intervals, resampled


def test_intervals_are_those_of_the_single_bootstrap():
  """Kills: other draws a metric, blocks that draw other resamples."""
  rng = np.random.default_rng(0)
  truth, said = rng.integers(0, 3, 41), rng.integers(0, 3, 41)
  one = metrics.accuracy(truth, said)
  found = intervals({"a": one, "b": one}, 41, 200, 3)
  assert found["a"] == found["b"] == metrics.bootstrap(one, 41, 200, 3)


def test_blocks_do_not_change_the_draws(monkeypatch):
  """Kills: a stream of numbers that depends on how much memory there is."""
  whole = np.concatenate(list(resampled(17, 30, 5)))
  monkeypatch.setattr("facejax.evaluate.intervals._BLOCK", 17 * 4)
  parts = list(resampled(17, 30, 5))
  assert len(parts) == 8 and np.array_equal(np.concatenate(parts), whole)
  assert (whole.sum(1) == 17).all()


def test_clusters_come_and_go_together():
  """Kills: frames of one person resampled as if they were other people."""
  names = ["a", "b", "a", "c", "c", "c"]
  weights = np.concatenate(list(resampled(6, 200, 1, names)))
  assert (weights[:, 0] == weights[:, 2]).all()
  assert (weights[:, 3] == weights[:, 4]).all() and (weights[:, 4] == weights[:, 5]).all()
  assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()
  right = np.repeat([1.0, 0.0] * 10, 50)
  alone = intervals({"m": metrics.mean(right)}, 1000, 400, 0)["m"]
  people = intervals({"m": metrics.mean(right)}, 1000, 400, 0, [i // 50 for i in range(1000)])["m"]
  ratio = (people.high - people.low) / (alone.high - alone.low)
  assert 5.5 < ratio < 8.8  # the root of 50 is 7.1


def test_undefined_metrics_are_left_out():
  """Kills: NaN in results.json."""
  nothing = lambda w: np.full(len(w), np.nan)
  assert intervals({"m": nothing, "n": metrics.mean(np.ones(4))}, 4, 5, 0).keys() == {"n"}
  with pytest.raises(ValueError, match="n=0 items with 5 resamples"):
    intervals({}, 0, 5, 0)


def records(groups, truths, parsed):
  return [
    {"id": str(i), "groups": {"gender": g} if g else {}, "truth": t, "parsed": p}
    for i, (g, t, p) in enumerate(zip(groups, truths, parsed, strict=True))
  ]


def choice(truths, parsed):
  return scores.score("choice", truths, parsed, ()).main


def test_groups_have_their_own_scores():
  """Kills: a group's metric over all items, items without a group put into one."""
  told = records(["f", "m", "f", "", "m", "m"], "AAAAAA", ["A", "B", None, "A", "A", "A"])
  found = fairness.by_group(choice, told, "gender", 50, 0)
  assert list(found) == ["f", "m"] and found["f"]["n"] == 2 and found["m"]["n"] == 3
  assert found["f"]["accuracy"]["value"] == 50
  assert found["m"]["accuracy"]["value"] == pytest.approx(200 / 3)
  assert (found["f"]["parse_failures"], found["m"]["parse_failures"]) == (1, 0)
  assert fairness.by_group(choice, told, "race", 50, 0) == {}


def test_gaps_are_those_of_worst_and_best():
  """Kills: a gap of the wrong sign, small groups that win, one resample for each group alone."""
  rng = np.random.default_rng(2)
  share = {"a": 0.9, "b": 0.6, "c": 0.75, "tiny": 0.0}
  sizes = {"a": 300, "b": 200, "c": 250, "tiny": 12}
  groups = [g for g, n in sizes.items() for _ in range(n)]
  parsed = ["A" if rng.random() < share[g] else "B" for g in groups]
  told = records(groups, "A" * len(groups), parsed)
  gap = fairness.gaps(choice, told, "gender", 400, 0)["accuracy"]
  assert (gap["worst"], gap["best"]) == ("b", "a")
  rates = {
    g: np.mean([p == "A" for p, o in zip(parsed, groups, strict=True) if o == g]) for g in share
  }
  assert gap["gap"]["value"] == pytest.approx(100 * (rates["a"] - rates["b"]))
  error = 100 * math.sqrt(sum(rates[g] * (1 - rates[g]) / sizes[g] for g in "ab"))
  width = gap["gap"]["high"] - gap["gap"]["low"]
  assert width == pytest.approx(2 * 1.96 * error, rel=0.15)
  assert not fairness.gaps(choice, told[:300], "gender", 20, 0)


def test_gap_of_an_error_is_positive():
  """Kills: the group with the largest error called the best."""
  score = lambda truths, parsed: scores.score("age", truths, parsed, ()).main
  groups = ["x"] * 40 + ["y"] * 40
  told = records(groups, [30.0] * 80, [31.0, 33.0] * 20 + [40.0] * 40)
  gap = fairness.gaps(score, told, "gender", 50, 0)
  assert (gap["age_mae"]["worst"], gap["age_mae"]["best"]) == ("y", "x")
  assert gap["age_mae"]["gap"]["value"] == pytest.approx(8)
  assert gap["within_5_years"]["gap"]["value"] == 100


@pytest.mark.parametrize(
  ("years", "band"),
  [
    (0, "0-2"),
    (2.9, "0-2"),
    (3, "3-9"),
    (19, "10-19"),
    (20, "20-29"),
    (69.5, "60-69"),
    (104, "70 or more"),
  ],
)
def test_age_bands(years, band):
  """Kills: a border on the wrong side."""
  assert fairness.age_band(years) == band


def test_bands_are_told_by_age():
  """Kills: bands in the order of their letters."""
  told = [
    {"id": b, "groups": {"age": b}, "truth": "A", "parsed": "A"}
    for b in reversed(fairness.AGE_BANDS)
  ]
  assert list(fairness.by_group(choice, told, "age", 5, 0)) == list(fairness.AGE_BANDS)


@pytest.mark.parametrize("only", [(0, 0), (1, 0), (2, 9), (12, 7), (40, 41)])
def test_mcnemar_by_enumeration(only):
  """Kills: a one-sided test, the middle counted twice without a bound."""
  n = sum(only)
  heads = [math.comb(n, k) for k in range(n + 1)]
  far = [h for k, h in enumerate(heads) if abs(k - n / 2) >= abs(only[0] - n / 2)]
  assert compare.mcnemar(*only) == pytest.approx(min(1, sum(far) / 2**n))


def test_pairs_are_paired():
  """Kills: runs resampled apart, which would hide that they are right on the same items."""
  rng = np.random.default_rng(3)
  hard = rng.random(400) < 0.5
  first = records([""] * 400, "A" * 400, np.where(hard, "B", "A").tolist())
  second = [{**r, "parsed": "A" if i % 20 == 0 else r["parsed"]} for i, r in enumerate(first)]
  found = compare.pairs("choice", (), first, second, resamples=300)
  more = 100 * np.mean([hard[i] for i in range(0, 400, 20)]) / 20
  assert found["difference"]["value"] == pytest.approx(more)
  assert found["difference"]["low"] > 0 and found["difference"]["high"] < 5.5
  assert found["right_only"][0] == 0 and found["share_better"] > 0.99
  assert found["mcnemar_p"] == pytest.approx(2 / 2 ** found["right_only"][1])
  back = compare.pairs("choice", (), second, first, resamples=300)
  assert back["difference"]["value"] == pytest.approx(-more) and back["share_better"] < 0.01


def test_a_smaller_error_is_better():
  """Kills: the run with the larger MAE called the better one."""
  first = records([""] * 50, [30.0] * 50, [36.0] * 50)
  second = records([""] * 50, [30.0] * 50, [32.0] * 50)
  found = compare.pairs("age", (), first, second, resamples=20)
  assert found["difference"]["value"] == -4 and found["share_better"] == 1
  assert "less is better" in compare.text(found | {"benchmark": "b", "first": "x", "second": "y"})


def test_other_items_are_named():
  """Kills: runs of different items or truths compared over what they share."""
  one, two = records([""] * 3, "ABC", "AAA"), records([""] * 3, "ABD", "AAA")
  with pytest.raises(ValueError, match=r"1 of 3 items are in one run only, or .*: 2 - expected"):
    compare.pairs("choice", (), one, two)
  with pytest.raises(ValueError, match="1 of 3 items"):
    compare.pairs("choice", (), one, one[:2])


def test_right_and_wrong_by_task():
  """Kills: a set that is right in part, an age five years off that is wrong."""
  assert scores.right("units", [1, 2], [2, 1]) and not scores.right("units", [1, 2], [1])
  assert scores.right("age", 30.0, 35.0) and not scores.right("age", 30.0, 35.1)
  assert not scores.right("choice", None, None)
  assert scores.age_errors([10.0, 90.0, 40.0], [None, None, 60.0]).tolist() == [90, 90, 20]
