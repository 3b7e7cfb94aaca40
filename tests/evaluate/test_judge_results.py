"""Ratings -> results, against sums made by hand and a slow bootstrap. No endpoint."""

import numpy as np
import pytest

from facejax.evaluate.intervals import LEVEL, resampled
from facejax.evaluate.judge import results, tables
from facejax.evaluate.judge.agreement import alpha
from facejax.evaluate.judge.items import Item
from facejax.evaluate.judge.requests import order

CRITERIA = ("media_consistency", "completeness")


def items(n: int, clusters=None, tasks=None, silent=()) -> list[Item]:
  return [
    Item(
      f"i{i}",
      tasks[i] if tasks else "",
      "?",
      "happy",
      (),
      {s: "" if (s, i) in silent else "Happy." for s in ("a", "b")},
      clusters[i] if clusters else f"i{i}",
    )
    for i in range(n)
  ]


def records(questions, rated) -> list[dict]:
  """One a question and repeat; `rated[system][item, repeat, criterion]`, NaN for a failure."""
  made = []
  for i, item in enumerate(questions):
    for repeat in range(rated["a"].shape[1]):
      turn = order(item, repeat, 0)
      told = {s: dict(zip(CRITERIA, rated[s][i, repeat], strict=True)) for s in turn}
      failed = any(np.isnan(value) for each in told.values() for value in each.values())
      state = ("rejected", "off_scale") if failed else ("kept", "")
      made.append(
        {"id": item.id, "repeat": repeat, "order": list(turn), "state": state[0],
         "reason": state[1], "ratings": None if failed else told}
      )  # fmt: skip
  return made


def settings(**changes) -> dict:
  return {
    "criteria": list(CRITERIA),
    "repeats": 3,
    "resamples": 40,
    "seed": 6,
    "hidden": [],
    "each": False,
    "model": "m",
    "prompt": {"id": "judge/media/1"},
    **changes,
  }


def drawn(n: int, seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  return {s: rng.integers(1, 11, (n, 3, 2)).astype(float) for s in ("a", "b")}


def test_against_loops():
  """Kills: repeats weighted by how many there are; a failed repeat as 0; criteria mixed up; the
  mean of criteria over other items; differences turned around or of unlike items."""
  questions, rated = items(7), drawn(7)
  rated["a"][2] = np.nan  # never rated
  rated["b"][4, 1] = np.nan  # once not
  found = results.summarise(questions, records(questions, rated), settings())
  means = {s: [] for s in "ab"}
  for i in range(7):
    good = [r for r in range(3) if not np.isnan([rated["a"][i, r], rated["b"][i, r]]).any()]
    for s in "ab":
      means[s].append(np.mean([rated[s][i, r] for r in good], axis=0) if good else None)
  known = [i for i in range(7) if means["a"][i] is not None]
  assert known == [0, 1, 3, 4, 5, 6]
  for s in "ab":
    for c, criterion in enumerate(CRITERIA):
      value = sum(means[s][i][c] for i in known) / 6
      score = found["systems"][s]["scores"][criterion]
      assert score["value"] == pytest.approx(value) and score["n"] == 6
      assert score["if_missing_lowest"] == pytest.approx((6 * value + 1) / 7)
      assert score["if_missing_highest"] == pytest.approx((6 * value + 10) / 7)
  (pair,) = found["differences"]
  gaps = [float((means["b"][i] - means["a"][i]).mean()) for i in known]
  score = pair["scores"]["mean"]
  assert (pair["first"], pair["second"], score["n"]) == ("a", "b", 6)
  assert score["value"] == pytest.approx(np.mean(gaps))
  assert score["second_higher"] == sum(gap > 1e-9 for gap in gaps)
  assert score["first_higher"] == sum(gap < -1e-9 for gap in gaps)
  assert score["equal"] == 6 - score["first_higher"] - score["second_higher"]
  assert found["systems"]["a"]["missing"] == 1
  assert found["failed"]["count"] == 4 and found["failed"]["items"] == 2
  assert found["agreement"]["units"] == 12 and not found["balanced"]


def test_differences_are_paired():
  """Kills: systems resampled apart, whose difference would vary although it never does."""
  questions, rated = items(9), drawn(9)
  rated["b"] = rated["a"] + 0.5
  found = results.summarise(questions, records(questions, rated), settings())
  score = found["differences"][0]["scores"]["mean"]
  assert score["low"] == pytest.approx(0.5) and score["high"] == pytest.approx(0.5)
  mean = found["systems"]["a"]["scores"]["mean"]
  assert mean["high"] - mean["low"] > 0.3


def test_agreement_is_drawn_by_items():
  """Kills: answers to one item drawn apart, or those of another item in its place."""
  questions, rated = items(7), drawn(7)
  rated["a"][3:] = rated["a"][3:, :1]  # a judge that agrees with itself on some
  found = results.summarise(questions, records(questions, rated), settings())["agreement"]
  values = [
    alpha(np.concatenate([np.repeat(rated[s][..., 1], w.astype(int), axis=0) for s in "ab"]))
    for weights in resampled(7, 40, 6)
    for w in weights
  ]
  score = found["alpha"]["completeness"]
  assert (score["low"], score["high"]) == pytest.approx(tuple(np.quantile(values, LEVEL)))
  assert score["value"] == pytest.approx(alpha(np.concatenate([rated[s][..., 1] for s in "ab"])))


def test_clusters_come_and_go_together():
  """Kills: pictures of one person counted as independent; people of two tasks with one name."""
  rated = drawn(8)
  rated["a"][:4], rated["a"][4:] = 2.0, 8.0
  told = {}
  for name, clusters, tasks in (
    ("items", None, None),
    ("people", list("ppppqqqq"), None),
    ("one", list("pppppppp"), None),
    ("tasks", list("pppppppp"), list("xxxxyyyy")),
  ):
    questions = items(8, clusters, tasks)
    found = results.summarise(questions, records(questions, rated), settings(resamples=400))
    score = found["systems"]["a"]["scores"]["mean"]
    told[name] = (score["low"], score["high"])
  assert told["one"] == (5.0, 5.0) and told["people"] == told["tasks"] == (2.0, 8.0)
  assert 2 < told["items"][0] < 5 < told["items"][1] < 8


def test_tasks_and_silence():
  """Kills: a task's mean over other items; silence in another way than the lowest rating, or in
  the agreement and the places."""
  questions = items(6, tasks=list("xxyyyy"), silent={("a", 0), ("a", 5)})
  rated = drawn(6, seed=3)
  found = results.summarise(questions, records(questions, rated), settings())
  system = found["systems"]["a"]
  assert system["no_answer"] == 2 and system["rated"] == 6 and system["missing"] == 0
  x = (1 + rated["a"][1, :, 0].mean()) / 2
  y = (sum(rated["a"][i, :, 0].mean() for i in (2, 3, 4)) + 1) / 4
  assert system["tasks"]["x"]["media_consistency"]["value"] == pytest.approx(x)
  assert system["tasks"]["y"]["media_consistency"]["value"] == pytest.approx(y)
  assert (system["tasks"]["y"]["items"], system["tasks"]["y"]["rated"]) == (4, 4)
  assert system["scores"]["media_consistency"]["value"] == pytest.approx((2 * x + 4 * y) / 6)
  assert found["agreement"]["units"] == 10
  places = np.zeros(2)
  for i in range(1, 5):
    for repeat in range(3):
      turn = order(questions[i], repeat, 0)
      values = np.array([rated[s][i, repeat, 1] for s in turn])
      places += values - values.mean()
  told = [place["completeness"]["value"] for place in found["places"]]
  assert told == pytest.approx([*(places / 12)])
  text = tables.markdown(found)
  assert "## x" in text and "| a | 6 of 6 | 2 |" in text
  assert "with as many repeats as systems it is the same exactly" in text


def test_nothing_rated():
  """Kills: NaN in JSON, or an error, where the judge gave nothing."""
  questions, rated = items(3), drawn(3)
  rated["a"][:] = np.nan
  found = results.summarise(questions, records(questions, rated), settings())
  assert found["systems"]["b"]["scores"] == dict.fromkeys((*CRITERIA, "mean"))
  assert found["differences"][0]["scores"]["mean"] is None and found["places"] is None
  assert "| a | 0 of 3 | 0 | – | – | – |" in tables.markdown(found)
  assert "a: 0 of 3 items rated" in tables.text(found)
