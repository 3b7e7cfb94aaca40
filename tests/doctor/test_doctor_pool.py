"""Processes that hang, die or raise cost a file or a job, never the run."""

import os
import time

import pytest

from facejax.doctor.examine import Job
from facejax.doctor.pool import Failed, Pool


class Answers:
  """Does what a job's payload says; picklable, as it is sent to processes."""

  def __call__(self):
    def work(job, at):
      for word in job.payload.decode().split():
        what, _, name = word.partition(":")
        if name in job.skip:
          continue
        at(name)
        if what == "hang":
          time.sleep(60)
        elif what == "spin":
          sum(range(10**11))  # never comes back to Python
        elif what == "nap":
          time.sleep(0.5)
        elif what == "die":
          os.abort()
        elif what == "raise":
          raise KeyError(name)
        elif what == "lost":
          at("")
          os._exit(9)
        at("")
      return job.place, sorted(job.skip), [note.kind for note in job.skip.values()]

    return work


class Broken:
  """Cannot start."""

  def __call__(self):
    raise OSError("no such model")


class Uninstalled:
  """Lacks a library, which shows only when a job needs it."""

  def __call__(self):
    def work(job, at):
      raise ModuleNotFoundError("needs PyAV")

    return work


def run(payloads, workers=2, timeout=30.0, make=None):
  jobs = [Job(0, i, payload.encode()) for i, payload in enumerate(payloads)]
  with Pool(make or Answers(), workers, timeout) as pool:
    return {job.place: answer for job, answer in pool.run(jobs)}


def test_every_job_is_answered_once():
  """Kills: jobs lost or done twice at the edges of chunks; a second run that finds no process."""
  with Pool(Answers(), 2, 30.0) as pool:
    for count in (19, 0, 3):
      jobs = [Job(0, i, b"ok:a") for i in range(count)]
      assert sorted(answer[0] for _, answer in pool.run(jobs)) == list(range(count))


def test_a_crash_costs_one_file():
  """Kills: a crash that ends the run, or takes the neighbours of its chunk or its other files."""
  found = run(["ok:a", "ok:a die:b ok:c die:d", *["ok:a"] * 9])
  assert found[1] == (1, ["b", "d"], ["decoder_crash"] * 2)
  assert [answer[1] for place, answer in sorted(found.items()) if place != 1] == [[]] * 10


def test_a_hang_costs_one_file():
  """Kills: a decoder that hangs for ever; a slow job killed although each file is quick."""
  for word in ("hang", "spin"):  # without a core, and with one
    found = run(["ok:a", f"{word}:x ok:y", "ok:b"], workers=1, timeout=0.2)
    assert found == {0: (0, [], []), 1: (1, ["x"], ["decoder_timeout"]), 2: (2, [], [])}
  assert run(["nap:a nap:b nap:c"], workers=1, timeout=0.12) == {0: (0, [], [])}


def test_what_raises_is_an_answer():
  """Kills: an unforeseen error that ends its process, or that is swallowed."""
  found = run(["raise:q", "ok:a"])
  assert isinstance(found[0], Failed) and "raised KeyError: 'q'" in found[0].reason
  assert found[1] == (1, [], [])


def test_a_death_without_a_file_is_given_up():
  """Kills: a job that kills one process after the other."""
  found = run(["lost:f", "ok:a"], workers=1)
  assert found[0] == Failed("its process died (exit 9) 3 times outside of any file")
  assert found[1] == (1, [], [])


def test_processes_that_cannot_start():
  """Kills: a run that waits for them, or starts them again for ever."""
  with pytest.raises(RuntimeError, match="a worker process cannot start: OSError: no such model"):
    run(["ok:a"], make=Broken())
  with pytest.raises(ModuleNotFoundError, match="needs PyAV"):
    run(["ok:a"], make=Uninstalled())
