"""Runs of several real processes on one machine: preempted, killed, resumed on other hardware."""

import signal
import time
from pathlib import Path

import hosts
import hosts_run
import hosts_trainer
import numpy as np
import pytest

from facejax import checkpoint, hub

STEPS = 14
ROWS = 16


def alone(workdir: Path) -> int:
  """One process, this one, on eight devices."""
  workdir.mkdir(exist_ok=True)
  args = hosts_run.parse([str(workdir), "--steps", str(STEPS), "--every", "4", "--mesh=-1,2,1,1"])
  return hosts_trainer.train(args)


def check_rows(workdir: Path, reference: Path, processes: set[int]) -> None:
  """Every row of every step has the reference's content; within a launch one process reads it."""
  wanted = {(step, row): content for step, row, _, content in hosts.rows_read(reference)}
  found = hosts.rows_read(workdir)
  assert {(step, row) for step, row, _, _ in found} == set(wanted)
  for step, row, process, content in found:
    assert content == wanted[step, row]
    assert any(process * ROWS // n <= row < (process + 1) * ROWS // n for n in processes)


def check_losses(workdir: Path, reference: Path) -> None:
  found, wanted = hosts.losses(workdir), hosts.losses(reference)
  assert list(found) == list(wanted)
  np.testing.assert_allclose(list(found.values()), list(wanted.values()), atol=1e-5, rtol=0)


def check_preempted(run: hosts.Launch, workdir: Path, victim: int) -> None:
  """One process gets the signal; all save once, at one step, and leave with 75."""
  before = checkpoint.steps_in(workdir / "base") if (workdir / "base").is_dir() else []
  run.children[victim].send_signal(signal.SIGTERM)
  assert run.statuses() == [hub.INTERRUPTED] * run.processes, run.text(0)
  (step,) = set(checkpoint.steps_in(workdir / "base")) - set(before)
  assert step == max(hosts.losses(workdir)) < STEPS
  assert "base: stopped and saved; continue with --resume" in run.text(0)
  assert all("stopped and saved" not in run.text(i) for i in range(1, run.processes))
  for index in range(run.processes):  # none ran a step more, none a step less
    own = [s for s, _, process, _ in hosts.rows_read(workdir) if process == index]
    assert max(own) + 1 == step


def check_killed(run: hosts.Launch, victim: int, whole: bool) -> None:
  """The others stop within the timeout, and say who is missing."""
  run.kill(victim, whole)
  began = time.monotonic()
  statuses = run.statuses()
  assert time.monotonic() - began < 30
  own = -signal.SIGKILL if whole else 128 + signal.SIGKILL
  assert statuses == [own if i == victim else hub.MISSING for i in range(run.processes)]
  for index in set(range(run.processes)) - {victim}:
    assert run.said(index)[-1].startswith(f"facejax: process {victim} of {run.processes} (")
    assert f" - process {index} stops, at base " in run.said(index)[-1]


@pytest.mark.slow
def test_two_processes_preempted_killed_and_resumed_by_one(tmp_path):
  """Kills: rows read twice or by the wrong process; a preemption that one process misses, or saves
  at another step; a peer's death that hangs a collective; a resume that is not the same run."""
  flags = ["--steps", str(STEPS), "--every", "1000"]
  run = hosts.Launch(tmp_path / "war", 2, *flags, "--mesh", "2,2,1,1")
  run.wait_for(2)
  check_preempted(run, tmp_path / "war", victim=1)
  run = hosts.Launch(tmp_path / "war", 2, *flags[:2], "--every", "2", "--mesh", "4,1,1,1")
  run.wait_for(max(hosts.losses(tmp_path / "war")) + 3)
  check_killed(run, victim=0, whole=False)
  assert alone(tmp_path / "war") == 0
  assert alone(tmp_path / "peace") == 0
  check_rows(tmp_path / "war", tmp_path / "peace", {1, 2})
  check_losses(tmp_path / "war", tmp_path / "peace")


@pytest.mark.slow
def test_four_processes_killed_and_resumed_by_two(tmp_path):
  """Kills: what holds for two processes alone; a checkpoint that only its own mesh can read."""
  flags = ["--steps", str(STEPS)]
  run = hosts.Launch(tmp_path / "war", 4, *flags, "--every", "3", "--mesh", "4,2,1,1")
  run.wait_for(5)
  check_killed(run, 0, True)
  run = hosts.Launch(tmp_path / "war", 2, *flags, "--every", "50", "--mesh", "2,2,1,1")
  assert run.statuses() == [0, 0], run.text(0)
  assert alone(tmp_path / "peace") == 0
  check_rows(tmp_path / "war", tmp_path / "peace", {2, 4})
  check_losses(tmp_path / "war", tmp_path / "peace")


@pytest.mark.slow
def test_four_processes_are_preempted_at_one_step(tmp_path):
  """Kills: a notice that does not reach all; in a second stage, whose steps start anew."""
  stages = ["--stages", "base,stage1", "--steps", "6", "--every", "50"]
  run = hosts.Launch(tmp_path / "war", 4, *stages)
  run.wait_for(2, "stage1")
  run.children[2].send_signal(signal.SIGTERM)
  assert run.statuses() == [hub.INTERRUPTED] * 4, run.text(0)
  (step,) = checkpoint.steps_in(tmp_path / "war" / "stage1")
  assert step == max(hosts.losses(tmp_path / "war", "stage1")) < 6


@pytest.mark.slow
def test_the_error_of_one_process_ends_all_and_is_told(tmp_path):
  """Kills: a broken sample of one machine, for which the others wait in a collective."""
  flags = ["--steps", str(STEPS), "--every", "50", "--fail", "1:3"]
  run = hosts.Launch(tmp_path / "war", 2, *flags)
  assert run.statuses() == [hub.MISSING, 2]
  assert "failed: sample-3 has no face - expected one; it was at base batch 4" in run.said(0)[-1]


@pytest.mark.slow
def test_a_workdir_that_is_not_shared_is_refused(tmp_path):
  """Kills: every machine with a folder of its own, and a part of each checkpoint in each."""
  run = hosts.Launch(tmp_path / "w", 2, "--own-folder")
  assert run.statuses() == [1, 1]
  for index in (0, 1):
    assert "is another folder for 1 of 2 processes: process 1 (" in run.text(index)
  assert not list(tmp_path.glob("w*/.shared-*"))
