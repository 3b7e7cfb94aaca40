"""Whole runs against an endpoint that fails: once each, paid once, within the cap."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import time

import pytest
from workplace import PRICE

from facejax.annotate import asking, campaign, prompts
from facejax.annotate.asking import Patience
from facejax.annotate.filters import Limits
from facejax.annotate.ledger import Cap
from facejax.annotate.runner import Rules, Runner


def billed(place) -> float:
  """What the endpoint would ask for."""
  paid = place.endpoint.summary()
  return (paid["prompt_tokens"] * PRICE[0] + paid["completion_tokens"] * PRICE[1]) / 1e6


def rejects(place) -> dict[str, str]:
  return {line["id"]: line["reason"] for line in place.lines("rejected.jsonl")}


def test_every_question_once_and_paid_once(place):
  """Kills: a fault that loses or repeats an item; a retry under a new idempotency key; a second
  run that asks again; a report that counts what it likes."""
  place.items(5)
  place.endpoint = type(place.endpoint)(0.4, bad_answers=0.3, seed=3)
  place.endpoint.drip = 0.02
  place.service["timeout"] = 1.0
  place.run(patience=Patience(retries=50, first_wait=0.01, longest_wait=0.1))
  paid, report = place.endpoint.summary(), place.done.report
  ids = [unit.id for unit in place.recipe().units]
  kept = [line["id"] for line in place.lines("records.jsonl")]
  assert sorted([*kept, *rejects(place)]) == sorted(ids) and len(ids) == 40
  assert [sample["id"] for sample in json.loads((place.out / "dataset.json").read_text())] == kept
  assert paid["billed_twice"] == 0 and report["requests"]["sent"] > 50
  # On a busy machine a connection may time out before the request arrives.
  assert (
    0 <= report["requests"]["sent"] - paid["requests"] <= report["requests"]["faults"]["timeout"]
  )
  assert report["requests"]["answered"] == paid["billed"] > 40
  assert report["tokens"] == {
    "prompt": paid["prompt_tokens"],
    "completion": paid["completion_tokens"],
  }
  assert report["cost"]["paid"] == pytest.approx(billed(place), rel=1e-12)
  assert report["cost"]["possibly_paid_requests"] == 0
  assert sum(report["unusable_answers"].values()) + len(kept) == paid["billed"]
  faults = report["requests"]["faults"]
  assert {"rate_limit", "http_500", "http_502", "connection", "bad_body", "timeout"} == set(faults)
  assert sum(faults.values()) + paid["billed"] == report["requests"]["sent"]
  before = (place.out / "dataset.json").read_bytes()
  place.run()
  assert place.endpoint.requests == paid["requests"] and place.done.report["sent"] == 0
  assert (place.out / "dataset.json").read_bytes() == before


def test_no_more_at_a_time_than_allowed(place):
  """Kills: concurrency of one, or without bound."""
  place.items(3)
  place.endpoint.delay = 0.1
  place.run(concurrency=5)
  assert place.endpoint.under_way[1] == 5


def test_one_request_at_a_time_for_equal_content(place):
  """Kills: two questions with one content hash asked side by side, and paid for twice."""
  place.items(1)
  table = (place.path / "labels.csv").read_text()
  (place.path / "labels.csv").write_text(table + table.splitlines()[1].replace("0.jpg", "1.jpg"))
  (place.path / "val" / "1.jpg").write_bytes((place.path / "val" / "0.jpg").read_bytes())
  place.endpoint.delay = 0.02
  place.run(concurrency=16)
  assert place.states() == ["kept"] * 16
  assert place.endpoint.requests == 8 and place.done.report["shared"] == 8


def test_what_an_answer_depends_on_is_in_its_key(place):
  """Kills: answers to another prompt, model or picture taken from the journal; prices or
  addresses that make one pay again."""
  place.items(1)
  place.run()
  assert place.endpoint.requests == 8
  for changes, more in (
    ({"price": (1.0, 2.0), "timeout": 9.0, "image_tokens": 7}, 0),
    ({"model": "other"}, 8),
    ({"temperature": 0.0}, 8),
    ({"max_tokens": 77}, 8),
    ({"detail": "low"}, 8),
  ):
    before, service = place.endpoint.requests, dict(place.service)
    place.service |= changes
    place.run()
    assert place.endpoint.requests - before == more, changes
    place.service = service
  place.items(1, row="3-9,Female,Black")
  place.run()
  assert place.endpoint.requests == 48


def test_unusable_answers_are_asked_for_again_and_then_listed(place):
  """Kills: a refusal kept; asked without end; asked again under the key of the refused answer,
  which an endpoint would answer with the same refusal."""
  place.items(1)
  place.endpoint.script = ["refusal", "leak", "cut_off", "refusal", "", *[""] * 6]
  place.run(concurrency=1)
  assert rejects(place) == {"val/0.jpg#0": "cut_off"}
  (rejected,) = place.lines("rejected.jsonl")
  assert rejected["written"]["attempts"] == ["refused", "label_leak", "cut_off"]
  second = next(line for line in place.lines("records.jsonl") if line["id"] == "val/0.jpg#1")
  assert second["written"]["attempts"] == ["refused", ""]
  assert place.endpoint.summary()["billed_twice"] == 0 and place.endpoint.requests == 11
  place.run()
  assert place.endpoint.requests == 11 and rejects(place) == {"val/0.jpg#0": "cut_off"}
  # More patience asks once more; other limits judge again what is there.
  place.run(patience=dataclasses.replace(place.terms.patience, refusals=3))
  assert place.endpoint.requests == 12 and place.states() == ["kept"] * 8
  place.run(rules=Rules(limits=Limits(words=(1, 2))), patience=Patience(refusals=0))
  assert place.endpoint.requests == 12 and place.states() == ["rejected"] * 8


def test_a_content_filter_is_final(place):
  """Kills: a filtered prompt sent again and again, be it an error or a finish_reason."""
  place.items(1)
  message = {"message": {"content": ""}, "finish_reason": "content_filter"}
  refused = (400, {"error": {"message": "no", "code": "content_filter"}})
  place.endpoint.script = [refused, (200, {"choices": [message]})]
  place.run(concurrency=1)
  assert rejects(place) == {"val/0.jpg#0": "content_filter", "val/0.jpg#1": "content_filter"}
  assert place.endpoint.requests == 8


def test_a_wrong_request_is_one_items_affair(place):
  """Kills: a 400 sent again, or one that ends the run."""
  place.items(1)
  place.endpoint.script = [(400, {"error": {"message": "picture too small"}})]
  place.run(concurrency=1)
  assert rejects(place) == {"val/0.jpg#0": "http_400"} and place.endpoint.requests == 8
  assert "picture too small" in place.lines("rejected.jsonl")[0]["detail"]


@pytest.mark.parametrize(
  ("response", "reason"),
  [
    ((401, {"error": {"message": "who?"}}), "http_401"),
    ((429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "no_quota"),
    ((429, {"error": {}}, {"Retry-After": "900"}), "asks to wait 900 s"),
  ],
)
def test_what_all_requests_would_meet_stops_the_run(place, response, reason):
  """Kills: every item sent against a wrong key; a wait of hours; items lost by the stop."""
  place.items(4)
  place.endpoint.script = ["", response]
  place.run(concurrency=1)
  assert place.states() == ["kept"] + ["pending"] * 31 and place.endpoint.requests == 2
  assert reason in place.done.report["stopped"]
  place.run()
  assert place.states() == ["kept"] * 32


def test_settings_that_no_request_passes_stop_the_run(place):
  """Kills: 87,632 requests with a parameter that the model does not know."""
  place.items(3)
  place.endpoint.script = [(400, {"error": {"message": "unknown parameter"}})] * 30
  place.run(concurrency=1)
  assert place.endpoint.requests == 10 and place.states().count("pending") == 14
  assert "none was answered: http_400" in place.done.report["stopped"]


def test_an_endpoint_that_is_gone_stops_the_run(place):
  """Kills: hours of backoff for each of many items; a fault that passes taken for final."""
  place.items(3)
  place.endpoint = type(place.endpoint)(1.0, kinds=("server_error",))
  place.run(concurrency=1, patience=Patience(retries=1, first_wait=0.001))
  assert place.endpoint.requests == 20 and place.states().count("unanswered") == 10
  assert "10 questions in a row got no answer" in place.done.report["stopped"]
  assert set(rejects(place).values()) == {"http_500"}
  place.endpoint = type(place.endpoint)()
  place.run()
  assert place.states() == ["kept"] * 24


def test_failures_between_answers_do_not_stop_the_run(place):
  """Kills: ten failures counted over the whole run, which every long one has."""
  place.items(3)
  place.endpoint.script = [*[(500, {})] * 9, "", *[(500, {})] * 9]
  place.run(concurrency=1, patience=Patience(retries=0))
  assert place.states().count("unanswered") == 18 and place.done.report["stopped"] == ""
  place.items(5)
  place.endpoint.script = [(400, {})] * 12
  place.run(concurrency=1)
  assert place.states().count("rejected") == 12 and place.done.report["stopped"] == ""


def test_a_prompt_that_changes_is_asked_anew(place, monkeypatch):
  """Kills: a key of the filled text alone, without system turn and version."""
  place.items(1)
  place.run()
  for changes in ({"system": "Look."}, {"id": "fairface/image/2"}):
    before = place.endpoint.requests
    changed = dataclasses.replace(prompts.FAIRFACE_IMAGE, **changes)
    monkeypatch.setattr(prompts, "FAIRFACE_IMAGE", changed)
    place.run()
    assert place.endpoint.requests == before + 1


def test_a_question_has_a_total_time(place):
  """Kills: rate limits, which are retried without count, retried for ever."""
  place.items(1)
  place.endpoint = type(place.endpoint)(1.0, kinds=("rate_limit",))
  place.run(concurrency=8, patience=Patience(retries=0, first_wait=0.01, total=1.0))
  assert place.states() == ["unanswered"] * 8 and place.endpoint.requests > 8


def test_a_rate_limit_holds_all_back(place):
  """Kills: Retry-After ignored, or obeyed by the one that got it while the others go on."""
  place.items(2)
  place.endpoint.script = [(429, {"error": {}}, {"Retry-After": "0.6"})]
  arrived = []
  serve = place.endpoint._answer

  async def timed(*args):
    arrived.append(time.monotonic())
    return await serve(*args)

  place.endpoint._answer = timed
  place.run(concurrency=2)
  assert place.states() == ["kept"] * 16 and len(arrived) == 17
  # The other one of two may have been under way already.
  assert arrived[2] - arrived[0] >= 0.6


def test_backoff_doubles_up_to_its_limit(monkeypatch):
  """Kills: a constant wait, one without bound or without chance, a Retry-After undercut."""
  asker = asking.Asker(None, None, Patience(first_wait=2.0, longest_wait=10.0))
  fault = asking.Fault("http_500", "", retry=True)
  for low in (True, False):
    monkeypatch.setattr(asking.random, "uniform", lambda a, b, low=low: a if low else b)
    waits = [asker._wait(n, fault) for n in (1, 2, 3, 4)]
    assert waits == ([1.0, 2.0, 4.0, 5.0] if low else [2.0, 4.0, 8.0, 10.0])
  fault.wait = 30.0
  assert asker._wait(1, fault) == pytest.approx(33.0)


def test_the_cap_is_not_exceeded(place):
  """Kills: requests under way not counted; a stop that loses answers that were paid for."""
  place.items(6)
  place.endpoint = type(place.endpoint)(0.3, kinds=("reset_after", "server_error"))
  (unit, *_), service = place.recipe().units, place.service
  worst = campaign.Service(**service).bound((unit.prompt.system, unit.prompt.text), 1)
  cap = 1.3 * worst  # an answer costs a thirtieth of what it may
  place.run(cap=Cap(cost=cap), concurrency=16)
  assert 0 < billed(place) <= cap
  assert "budget: " in place.done.report["stopped"]
  kept = place.states().count("kept")
  assert 0 < kept < 48 and kept + place.states().count("pending") == 48
  # What is not yet spent of the cap is less than one more request may cost.
  held = place.done.report["cost"]["paid"] + place.done.report["cost"]["possibly_paid_at_most"]
  assert cap - 1.1 * worst < held <= cap
  place.run()
  assert place.states() == ["kept"] * 48


def test_requests_are_capped_over_all_runs(place):
  """Kills: a cap that each run begins anew; a cap of 0, which writes what is there, ignored."""
  place.items(2)
  for cap, kept in ((5, 5), (5, 5), (9, 9), (0, 9)):
    place.run(cap=Cap(requests=cap))
    assert place.endpoint.requests == kept == place.states().count("kept")
    assert f"of {cap} allowed" in place.done.report["stopped"]


def test_a_stopped_run_keeps_what_earlier_runs_paid_for(place):
  """Kills: a dataset that shrinks because a later run stopped early; a cap of 0 that writes less
  than there is."""
  place.items(2)
  place.endpoint.script = [(500, {})]
  patience = Patience(retries=0)
  place.run(concurrency=1, patience=patience)
  assert place.states() == ["unanswered"] + ["kept"] * 15
  whole = (place.out / "dataset.json").read_bytes()
  place.run(concurrency=1, cap=Cap(requests=0))
  assert place.states() == ["pending"] + ["kept"] * 15 and place.endpoint.requests == 16
  assert (place.out / "dataset.json").read_bytes() == whole


def test_a_picture_that_cannot_be_read_is_listed_and_not_paid_for(place):
  """Kills: a run that ends at a damaged file; a request with half a picture."""
  place.items(3)
  (place.path / "val" / "0.jpg").unlink()
  whole = (place.path / "val" / "1.jpg").read_bytes()
  (place.path / "val" / "1.jpg").write_bytes(whole[: len(whole) // 2])
  place.run()
  assert place.states() == ["rejected"] * 16 + ["kept"] * 8 and place.endpoint.requests == 8
  assert set(rejects(place).values()) == {"media"}
  details = {line["id"]: line["detail"] for line in place.lines("rejected.jsonl")}
  assert "0.jpg: no such file" in details["val/0.jpg#0"]
  assert "cannot be decoded" in details["val/1.jpg#7"]


def test_a_failure_of_ours_stops_and_keeps_what_was_paid(place, monkeypatch):
  """Kills: a full disk that cancels paid requests under way; a failure reported as success."""
  place.items(2)
  make, serve, calls = Runner._call, place.endpoint._answer, []

  def failing(self, unit, *args):
    calls.append(unit.id)
    if len(calls) == 5:
      raise OSError("no space left")
    return make(self, unit, *args)

  async def slow_but_for_one(*args):
    place.endpoint.delay = 0.0 if place.endpoint.requests == 4 else 0.4
    return await serve(*args)

  monkeypatch.setattr(Runner, "_call", failing)
  place.endpoint._answer = slow_but_for_one
  place.run(concurrency=4)
  assert str(place.done.error) == "no space left"
  assert place.done.report["stopped"] == "OSError: no space left"
  assert place.states() == ["kept"] * 4 + ["pending"] * 12 and place.endpoint.requests == 4


def test_a_signal_finishes_what_is_under_way(place):
  """Kills: Ctrl-C that throws paid answers away, or is ignored."""
  place.items(3)
  place.endpoint.delay = 0.5
  serve = place.endpoint._answer

  async def interrupted(*args):
    if place.endpoint.requests == 4:
      os.kill(os.getpid(), signal.SIGTERM)
    return await serve(*args)

  place.endpoint._answer = interrupted
  place.run(concurrency=4)
  assert place.states().count("kept") == 4 == place.endpoint.requests
  assert "SIGTERM" in place.done.report["stopped"]
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_leaves_at_once(place):
  """Kills: a run that cannot be left while the endpoint hangs."""
  place.items(1)
  place.endpoint.delay = 30.0

  async def twice(*_):
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGINT)
      await asyncio.sleep(0.05)

  place.endpoint._answer = twice
  with pytest.raises(KeyboardInterrupt, match="a second signal"):
    place.run(concurrency=2)
  place.endpoint = type(place.endpoint)()
  place.run()
  assert place.states() == ["kept"] * 8 and place.done.report["requests"]["under_way_when_killed"]


def test_a_second_run_on_one_output_is_refused(place):
  """Kills: a lock that is taken after the first request."""
  place.items(1)

  async def both():
    url = await place.endpoint.start()
    service = campaign.Service(base_url=url, **place.service)
    run = lambda: campaign.annotate(place.recipe(), [service], place.out, place.terms)
    place.endpoint.delay = 0.2
    return await asyncio.gather(run(), run(), return_exceptions=True)

  first, second = asyncio.run(both())
  assert isinstance(second, ValueError) and "another process is writing" in str(second)
  assert [result.state for result in first.results] == ["kept"] * 8


def test_the_plan_is_an_upper_bound(place):
  """Kills: a plan that forgets pictures, the answer or the eight questions."""
  place.items(2)
  service = campaign.Service(base_url="http://localhost:1/v1", **place.service)
  text = campaign.plan(place.recipe(), [service], place.terms)
  once, times = map(float, re.findall(r"\d+\.\d+", text))
  place.run()
  assert text.startswith("16 units, 16 answers: at most ")
  assert billed(place) < once and times == pytest.approx(3 * once, abs=0.02)
  assert once < 16 * 0.03
