"""What a killed run leaves, and what it counts for."""

import asyncio
import json
import math
import os
import random

import pytest

from facejax.annotate.journal import NAME, Journal
from facejax.annotate.ledger import Cap, Ledger, OverBudget
from facejax.annotate.unit import Answer


def answer(text: str, cost: float = 0.25, tokens=(30, 7)) -> Answer:
  return Answer(text, "stop", "", "id", "model", tokens, cost)


def reopened(folder) -> tuple[Journal, list[dict]]:
  journal = Journal(folder)
  return journal, list(journal.replay())


def test_answers_come_back(tmp_path):
  """Kills: an offset of the wrong line; a second answer that replaces the first; text changed on
  its way (line breaks, other scripts, more than one read of a long line)."""
  texts = {"k1": ["a\nb", "é" * 90_000], "k2": ["last"]}
  journal, _ = reopened(tmp_path)
  for key, said in texts.items():
    for n, text in enumerate(said):
      journal.start(f"{key}-{n}", 0.5)
      journal.answer(f"{key}-{n}", key, answer(text))
  live = {key: journal.answers(key) for key in texts}
  journal.close()
  journal, lines = reopened(tmp_path)
  assert [line["kind"] for line in lines] == ["start", "answer"] * 3
  for key, said in texts.items():
    assert journal.answers(key) == live[key] == [answer(text) for text in said]
  assert journal.answers("k3") == []
  journal.close()


@pytest.mark.parametrize("cut", [1, 2, 40, 5000])
def test_a_torn_last_line_is_cut_off(tmp_path, cut):
  """Kills: a kill within a write that makes the journal unreadable, or loses a whole line; a new
  line written onto the torn one."""
  journal, _ = reopened(tmp_path)
  journal.answer("k-0", "k", answer("whole"))
  size = (tmp_path / NAME).stat().st_size
  journal.answer("t-0", "t", answer("x" * 6000))
  journal.close()
  os.truncate(tmp_path / NAME, (tmp_path / NAME).stat().st_size - cut)
  torn = (tmp_path / NAME).stat().st_size - size
  journal, lines = reopened(tmp_path)
  assert journal.torn == torn > 0
  assert [line["key"] for line in lines] == ["k"] and journal.answers("t") == []
  journal.answer("n-0", "n", answer("new"))
  journal.close()
  _, lines = reopened(tmp_path)
  assert [line["key"] for line in lines] == ["k", "n"]


def test_a_first_line_may_be_torn(tmp_path):
  """Kills: an endless search for a line end in a file that has none."""
  (tmp_path / NAME).write_text('{"kind": "ru')
  journal, lines = reopened(tmp_path)
  assert lines == [] and journal.torn == 12 and (tmp_path / NAME).read_bytes() == b""


def test_damage_in_the_middle_is_named(tmp_path):
  """Kills: answers behind a damaged line taken as never given, and paid for again."""
  journal, _ = reopened(tmp_path)
  journal.start("a", 1.0)
  journal.close()
  with (tmp_path / NAME).open("a") as file:
    file.write("<<<<<<< HEAD\n[3]\n")
  with pytest.raises(ValueError, match=r"line 2: b'<<<<<<< HEAD\\n' is no record"):
    reopened(tmp_path)
  (tmp_path / NAME).write_text('[3]\n{"kind": "run"}\n')
  with pytest.raises(ValueError, match=r"line 1: b'\[3\]\\n' is no record"):
    reopened(tmp_path)


def test_a_second_run_is_refused(tmp_path):
  """Kills: two runs on one output, each paying for every answer."""
  journal, _ = reopened(tmp_path)
  with pytest.raises(ValueError, match=f"another process is writing to {tmp_path}"):
    Journal(tmp_path)
  journal.close()
  reopened(tmp_path)[0].close()


def test_an_answer_is_on_disk_before_it_counts(tmp_path, monkeypatch):
  """Kills: no sync, or a sync before the line is written."""
  journal, _ = reopened(tmp_path)
  synced = []
  monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / NAME).read_text()))
  journal.start("k-0", 1.0)
  assert synced == []
  journal.answer("k-0", "k", answer("said"))
  assert '"text": "said"' in synced[0]


def test_nothing_is_written_behind_a_failed_write(tmp_path, monkeypatch):
  """Kills: a whole line glued to the torn one of a full disk, which loses both."""
  journal, _ = reopened(tmp_path)

  class Full:
    def __getattr__(self, name):
      return getattr(file, name)

    def write(self, data):
      return file.write(data[:5])

  file = journal._file
  monkeypatch.setattr(journal, "_file", Full())
  with pytest.raises(OSError, match="5 of 47 bytes were written"):
    journal.start("k-0", 1.0)
  monkeypatch.setattr(journal, "_file", file)
  with pytest.raises(OSError, match="an earlier write failed"):
    journal.start("k-1", 1.0)
  journal.close()
  journal, lines = reopened(tmp_path)
  assert lines == [] and journal.torn == 5


def test_the_cap_holds_for_any_outcome():
  """Kills: a reservation forgotten, freed twice, or not waited for. The bill is kept apart: every
  request costs what it may, up to its worst case, whether an answer arrives or not."""
  for seed in range(20):
    draw = random.Random(seed)
    ledger, billed, stopped = Ledger(Cap(cost=10.0), idempotent=False), [], []

    async def one(n, ledger=ledger, billed=billed, stopped=stopped, draw=draw):
      worst = draw.uniform(0.1, 1.5)
      try:
        await ledger.room(str(n), worst)
      except OverBudget:
        stopped.append(n)
        return
      ledger.take(str(n), worst)
      cost, kind = draw.uniform(0, worst), draw.choice(["answer", "unpaid", "paid"])
      billed.append(cost if kind != "unpaid" else 0.0)
      await asyncio.sleep(draw.uniform(0, 0.002))
      if kind == "answer":
        ledger.answer(str(n), cost, (1, 1), True)
      else:
        ledger.fault(str(n), kind, paid=kind == "paid")

    async def all_of_them(one=one):
      await asyncio.gather(*(one(n) for n in range(60)))

    asyncio.run(all_of_them())
    assert 5.0 < ledger.spent + ledger.possible[1] <= 10.0
    assert sum(billed) <= 10.0 and stopped and len(billed) + len(stopped) == 60


def test_an_unknown_request_that_will_be_sent_again_is_waited_for():
  """Kills: a run that stops at its cap although a retry is about to free what is held; two that
  wait for each other; a wait for one that was given up."""

  async def session(gives_up: bool):
    ledger = Ledger(Cap(cost=1.0), idempotent=True)
    ledger.take("a", 0.8)
    ledger.fault("a", "timeout", paid=True)
    waiting = asyncio.create_task(ledger.room("b", 0.8))
    await asyncio.sleep(0)
    assert not waiting.done()
    if gives_up:
      ledger.give_up("a")
    else:
      await ledger.room("a", 0.8)
      ledger.take("a", 0.8)
      ledger.answer("a", 0.1, (1, 1), True)
    await asyncio.wait_for(waiting, 1)

  asyncio.run(session(gives_up=False))
  with pytest.raises(OverBudget):
    asyncio.run(session(gives_up=True))


def test_two_that_wait_do_not_hope_for_each_other():
  """Kills: two unknown requests, each of which is to be sent again once the other is answered."""

  async def session():
    ledger = Ledger(Cap(cost=1.0), idempotent=True)
    for name in "ab":
      ledger.take(name, 0.45)
      ledger.fault(name, "timeout", paid=True)
    waiting = asyncio.gather(*(ledger.room(n, 0.7) for n in "ab"), return_exceptions=True)
    return await asyncio.wait_for(waiting, 2)

  assert [type(error) for error in asyncio.run(session())] == [OverBudget] * 2


def test_requests_are_capped():
  """Kills: only money capped; a cap off by one; a wait that never ends."""

  async def session():
    ledger = Ledger(Cap(requests=2), idempotent=False)
    for name in "ab":
      await ledger.room(name, 1.0)
      ledger.take(name, 1.0)
    with pytest.raises(OverBudget, match="2 requests were sent, of 2 allowed"):
      await ledger.room("c", 1.0)

  asyncio.run(session())


def test_a_request_too_dear_for_the_cap_is_named():
  """Kills: a wait for requests that are not under way."""
  ledger = Ledger(Cap(cost=1.0), idempotent=False)
  with pytest.raises(OverBudget, match=r"the next request may cost 1\.5000, and 1 are allowed"):
    asyncio.run(ledger.room("a", 1.5))


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_request_sent_again(idempotent):
  """Kills: with idempotency, a request that broke off counted beside its repetition; without,
  one that may have been billed forgotten once the repetition is answered."""
  ledger = Ledger(Cap(cost=1.5), idempotent)
  ledger.take("a", 1.0)
  ledger.fault("a", "timeout", paid=True)
  assert ledger.possible == (1, 1.0)
  if not idempotent:
    with pytest.raises(OverBudget):
      asyncio.run(ledger.room("a", 1.0))
  else:
    asyncio.run(ledger.room("a", 1.0))
  ledger.take("a", 1.0)
  ledger.answer("a", 0.3, (4, 5), True)
  assert ledger.possible == ((0, 0.0) if idempotent else (1, 1.0))
  assert (ledger.spent, ledger.tokens, ledger.requests) == (0.3, [4, 5], 2)


def test_a_replayed_ledger_equals_the_live_one(tmp_path):
  """Kills: a line that is written and not read; a killed request forgotten, or counted twice."""
  journal, _ = reopened(tmp_path)
  live = Ledger(Cap(), idempotent=False)
  for run in range(2):
    journal.run(recipe="r")
    live.replay({"kind": "run"})
    for name, cause in (("a", "http_500"), ("b", "timeout"), ("c", None), ("killed", "")):
      journal.start(f"{name}{run}", 0.5)
      live.take(f"{name}{run}", 0.5)
      if cause:
        journal.fault(f"{name}{run}", cause, cause == "timeout")
        live.fault(f"{name}{run}", cause, cause == "timeout")
      elif cause is None:
        said = Answer("c", "stop", "", "id", "m", (11, 3), 0.125, counted=False)
        journal.answer(f"c{run}", "c", said)
        live.answer(f"c{run}", 0.125, (11, 3), False)
  journal.close()
  again = Ledger(Cap(), idempotent=False)
  for line in reopened(tmp_path)[1]:
    again.replay(line)
  for ledger in (live, again):
    ledger.replay({"kind": "run"})
    assert ledger.requests == 8 and ledger.answers == 2 and ledger.uncounted == 2
    assert ledger.orphans == 2 and ledger.faults == {"http_500": 2, "timeout": 2}
    assert ledger.possible == (4, 2.0) and ledger.tokens == [22, 6]
    assert math.isclose(ledger.spent, 0.25)


def test_journal_lines_are_what_the_docs_say(tmp_path):
  """Kills: a field renamed, which would make earlier journals unreadable."""
  journal, _ = reopened(tmp_path)
  journal.start("k-0", 0.5)
  journal.fault("k-0", "timeout", True)
  journal.answer("k-0", "k", answer("said"))
  journal.close()
  lines = [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()]
  assert lines[0] == {"kind": "start", "name": "k-0", "worst": 0.5}
  assert lines[1] == {"kind": "fault", "name": "k-0", "cause": "timeout", "paid": True}
  assert {"name", "key", "text", "finish", "id", "model", "tokens", "cost"} <= lines[2].keys()
