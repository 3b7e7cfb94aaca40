"""Judging at an endpoint that fails: every item once, within the cap, killed and gone on with."""

import collections
import json
import math

import numpy as np
import pytest
from fake_endpoint import ANSWERS, PAID, UNPAID
from judged_folder import PRICE, JudgedFolder
from simulated_judge import SimulatedJudge, answers

from facejax.annotate.asking import Patience
from facejax.annotate.ledger import Cap

FILES = ("results.json", "results.md", "ratings.jsonl", "failed.jsonl", "prompts.json")


def qualities(n: int, **means: float) -> dict[str, list[float]]:
  rng = np.random.default_rng(5)
  return {name: [*rng.uniform(mean - 1, mean + 1, n).round(3)] for name, mean in means.items()}


def billed(endpoint) -> float:
  paid = endpoint.summary()
  return (paid["prompt_tokens"] * PRICE[0] + paid["completion_tokens"] * PRICE[1]) / 1e6


def test_every_item_once_whatever_fails(tmp_path):
  """Kills: an item lost, repeated or paid for twice by 500s, 429s, resets, cut or slow answers,
  refusals and junk; a second run that asks again; a bill that the report does not know."""
  folder = JudgedFolder(tmp_path, qualities(10, a=4, b=6))
  folder.endpoint.drip = 0.001
  folder.endpoint.script = [*UNPAID, *PAID, *ANSWERS, *UNPAID, *ANSWERS]
  folder.run(concurrency=1, patience=Patience(retries=50, refusals=6, first_wait=0.01))
  records, report = folder.lines("ratings.jsonl"), folder.done.report
  found = collections.Counter((r["id"], r["repeat"]) for r in records)
  assert found == {(f"i{i}", repeat): 1 for i in range(10) for repeat in range(2)}
  assert all(r["state"] == "kept" and set(r["ratings"]) == {"a", "b"} for r in records)
  paid = folder.endpoint.summary()
  assert paid["billed_twice"] == 0 and paid["requests"] >= 35
  assert report["requests"]["answered"] == paid["billed"] == 20 + 6
  assert report["cost"]["paid"] == pytest.approx(billed(folder.endpoint), rel=1e-12)
  faults = report["requests"]["faults"]
  assert set(faults) >= {"rate_limit", "http_500", "http_502", "bad_body", "connection"}
  assert report["unusable_answers"] == {"refused": 2, "cut_off": 2, "no_json": 2}
  for name, each in folder.qualities.items():
    assert folder.scores()[name] == pytest.approx(np.mean(each), abs=1e-6)
  before = [(folder.out / name).read_bytes() for name in FILES]
  folder.run()
  assert folder.done.report["sent"] == 0
  assert [(folder.out / name).read_bytes() for name in FILES] == before


def test_what_the_judge_is_sent(tmp_path):
  """Kills: a system's, item's or file's name in any part of a request; a picture left out;
  answers in the order of the command line."""
  names = {"facellava_x": 4, "insightful_y": 6}
  folder = JudgedFolder(tmp_path, qualities(12, **names))
  folder.run()
  assert len(folder.endpoint.received) == 24
  for request in folder.endpoint.received:
    sent = json.dumps(request)
    assert not any(word in sent for word in (*names, "face.png", str(tmp_path), '"i7"'))
    content = request["messages"][1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url"]
    assert len(answers(content[0]["text"])) == 2
  first = collections.Counter(r["order"][0] for r in folder.lines("ratings.jsonl"))
  assert first == {"facellava_x": 12, "insightful_y": 12}
  by_item = {r["id"]: r["order"][0] for r in folder.lines("ratings.jsonl") if not r["repeat"]}
  assert set(by_item.values()) == set(names)


@pytest.mark.parametrize("each", [False, True])
def test_a_favoured_place_cancels(tmp_path, each):
  """Kills: repeats that do not move; a favour that is not told, or told for single answers."""
  folder = JudgedFolder(tmp_path, qualities(9, a=4, b=5, c=6))
  folder.endpoint.reply = SimulatedJudge(favour=(1.2, 0.0, -0.6))
  results = folder.run(repeats=3, each=each)
  true = {name: np.mean(each) for name, each in folder.qualities.items()}
  for pair in results["differences"]:
    gap = true[pair["second"]] - true[pair["first"]]
    assert pair["scores"]["mean"]["value"] == pytest.approx(gap, abs=1e-6)
    assert pair["scores"]["mean"]["n"] == 9
  assert results["balanced"]
  if each:
    assert results["places"] is None and folder.endpoint.requests == 81
  else:
    told = [place["completeness"]["value"] for place in results["places"]]
    assert told == pytest.approx([1.0, -0.2, -0.8], abs=1e-6)
    assert "| 1 | 1.00 [" in (folder.out / "results.md").read_text()


def judge_that(goes_wrong):
  """A simulated judge that says something else where `goes_wrong(question, said)` does."""
  judge = SimulatedJudge()

  def reply(request, name):
    said = judge(request, name)
    text = request["messages"][1]["content"][0]["text"]
    return goes_wrong(text, said) or said

  return reply


def test_failures_are_listed_and_counted(tmp_path):
  """Kills: a refusal, junk or number off the scale averaged, dropped without a word, or taken for
  a low rating; an item without any rating in the mean; a missing answer that helps."""
  nan = float("nan")
  folder = JudgedFolder(tmp_path, {"a": [5.0, 6.0, 7.0, 8.0, nan], "b": [4.0, 4.0, 9.0, 9.0, 3.0]})
  wrong = {
    "face 0 ": lambda said: "I'm sorry, I can't rate this.",
    "face 1 ": lambda said: said.replace('"answer": 1', '"answer": 1, "completeness": 11', 1)
    .replace('"completeness": 6', '"x": 6').replace('"completeness": 4', '"x": 4'),
    "face 2 ": lambda said: "Nine of ten!",
  }  # fmt: skip
  folder.endpoint.reply = judge_that(
    lambda text, said: next((f(said) for key, f in wrong.items() if key in text), "")
  )
  results = folder.run()
  assert results["failed"]["reasons"] == {"refused": 2, "off_scale": 2, "no_json": 2}
  assert results["failed"]["count"] == 6 and results["failed"]["items"] == 3
  failed = folder.lines("failed.jsonl")
  assert failed[0] == {
    "id": "i4", "system": "a", "state": "no_answer", "reason": "the system gave no answer",
  }  # fmt: skip
  assert {(r["id"], r["reason"]) for r in failed[1:]} == {
    ("i0", "refused"), ("i1", "off_scale"), ("i2", "no_json")}  # fmt: skip
  assert failed[-1]["asked"]["text"] == "Nine of ten!" and len(failed[-1]["asked"]["attempts"]) == 3
  assert results["n"] == 5 and results["requests"] == {"all": 10, "kept": 4, "rejected": 6}
  a, b = results["systems"]["a"], results["systems"]["b"]
  assert (a["rated"], a["missing"], a["no_answer"]) == (2, 3, 1)
  assert a["scores"]["completeness"]["value"] == pytest.approx((8 + 1) / 2)
  assert b["scores"]["completeness"]["value"] == pytest.approx((9 + 3) / 2)
  assert a["scores"]["mean"]["if_missing_lowest"] == pytest.approx((8 + 1 + 3) / 5)
  assert a["scores"]["mean"]["if_missing_highest"] == pytest.approx((8 + 1 + 30) / 5)
  told = (folder.out / "results.md").read_text()
  assert "| a | 2 of 5 | 1 |" in told and "{2.40, 7.80}" in told
  assert "6 of them, to 3 items, failed: refused 2, off_scale 2, no_json 2" in told
  assert "| i1 | 0 | rejected | off_scale |" in told


def test_one_repeat_of_two_counts(tmp_path):
  """Kills: an item dropped because one of its repeats failed; agreement of single ratings."""
  folder = JudgedFolder(tmp_path, {"a": [5.0, 7.0], "b": [4.0, 9.0]})
  folder.endpoint.script = [(400, {"error": {"message": "no"}})]
  results = folder.run(concurrency=1)
  assert results["failed"]["first"] == [
    {"id": "i0", "repeat": 0, "state": "rejected", "reason": "http_400"}
  ]
  assert results["systems"]["a"]["rated"] == 2 and results["agreement"]["units"] == 2
  assert folder.scores() == pytest.approx({"a": 6.0, "b": 6.5})


def test_the_cap_is_kept_and_more_money_goes_on(tmp_path):
  """Kills: a cap exceeded by what is under way; results that hide what is not rated yet."""
  folder = JudgedFolder(tmp_path, qualities(12, a=4, b=6))
  (tmp_path / "whole").mkdir()
  whole = JudgedFolder(tmp_path / "whole", folder.qualities)
  whole.run()
  worst = json.loads((whole.out / "journal.jsonl").read_text().splitlines()[1])["worst"]
  cap = 1.5 * worst
  results = folder.run(cap=Cap(cost=cap))
  assert 0 < billed(folder.endpoint) <= cap and "budget: " in folder.done.report["stopped"]
  pending = results["requests"]["pending"]
  assert 0 < pending < 24 and results["systems"]["a"]["rated"] < 12 == results["n"]
  assert f"24 requests; {pending} are not done yet" in (folder.out / "results.md").read_text()
  folder.run()
  assert (folder.out / "results.json").read_bytes() == (whole.out / "results.json").read_bytes()
  assert folder.endpoint.summary()["billed_twice"] == 0 and folder.endpoint.requests == 24


def test_a_killed_run_goes_on(tmp_path):
  """Kills: a request asked again whose answer is on disk; results that depend on where the journal
  ends. A kill leaves any beginning of it (experiments/judge kills processes)."""
  folder = JudgedFolder(tmp_path, qualities(6, a=4, b=6))
  folder.endpoint.reply = SimulatedJudge(noise=0.7)
  folder.run(concurrency=4)
  whole = [(folder.out / name).read_bytes() for name in FILES]
  journal = (folder.out / "journal.jsonl").read_bytes()
  for share in (0.0, 0.21, 0.5, 0.93):
    begun = journal[: int(share * len(journal))]
    folder.out = tmp_path / f"killed {share}"
    folder.out.mkdir()
    (folder.out / "journal.jsonl").write_bytes(begun)
    before = folder.endpoint.requests
    folder.run()
    answered = sum(line.startswith(b'{"kind": "answer"') for line in begun.split(b"\n")[:-1])
    assert folder.endpoint.requests - before == 12 - answered
    assert [(folder.out / name).read_bytes() for name in FILES] == whole
  assert folder.endpoint.summary()["billed_twice"] == 0


def test_what_a_rating_depends_on(tmp_path):
  """Kills: ratings of other words, orders, frames or repeats taken for this one's; a change of
  intervals, or of a system's name alone, that is paid for."""
  folder = JudgedFolder(tmp_path, {"a": [5.0, 6.0]})
  folder.run()
  for changes, more in (
    ({}, 0),
    ({"resamples": 50}, 0),
    ({"seed": 1}, 0),  # one system has one order
    ({"each": True}, 0),
    ({"repeats": 3}, 2),
    ({"hidden": ("Happy",)}, 4),
    ({"media": False}, 4),
    ({"frames": 5}, 4),
  ):
    before = folder.endpoint.requests
    folder.run(**changes)
    assert folder.endpoint.requests - before == more, changes


def test_agreement_is_the_repeats(tmp_path):
  """Kills: agreement over systems or criteria in place of repeats; of answers that are missing."""
  nan = float("nan")
  folder = JudgedFolder(tmp_path, {"a": [*np.linspace(3, 8, 60), nan], "b": [*[5.0] * 61]})
  folder.endpoint.reply = SimulatedJudge(noise=0.5)
  results = folder.run()
  found = results["agreement"]
  assert found["units"] == 121 and found["repeats"] == 2
  signal = np.var([*np.linspace(3, 8, 60), *[5.0] * 61])
  expected = signal / (signal + 0.25)
  for criterion in results["settings"]["criteria"]:
    one = found["alpha"][criterion]
    assert one["low"] < one["value"] < one["high"] and abs(one["value"] - expected) < 0.06
  # The mean of three criteria has a third of the noise.
  assert abs(found["alpha"]["mean"]["value"] - signal / (signal + 0.25 / 3)) < 0.04
  folder.endpoint.reply = SimulatedJudge()
  assert folder.run(repeats=1)["agreement"]["alpha"]["mean"] is None
  assert "| mean | – |" in (folder.out / "results.md").read_text()


def test_a_damaged_picture_is_one_items_affair(tmp_path):
  """Kills: a run that ends at a picture that cannot be read; an item that is rated without it."""
  folder = JudgedFolder(tmp_path, {"a": [5.0, 6.0], "b": [3.0, 4.0]})
  for name in folder.qualities:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(path.read_text().replace("face.png", "gone.png", 1))
  results = folder.run()
  assert results["failed"]["reasons"] == {"media": 2} and folder.endpoint.requests == 2
  assert "gone.png: no such file" in folder.lines("failed.jsonl")[0]["detail"]
  assert results["systems"]["b"]["rated"] == 1 and math.isclose(folder.scores()["b"], 4.0)
