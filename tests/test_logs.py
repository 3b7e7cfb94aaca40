"""What a run says while it runs, and what a killed one leaves."""

import io
import re

from facejax import logs


def test_progress_is_lines_in_a_file_and_a_bar_on_a_terminal():
  """Kills: carriage returns in log files; an ETA of the compilation."""
  plain = io.StringIO()
  with logs.Progress("base", 0, 9, plain) as progress:
    progress.advance(1)
    progress.show(1, "loss 2")
    progress.advance(5)
    progress.show(5, "loss 1")
  assert re.fullmatch(r"base 1/9  loss 2\nbase 5/9  loss 1  ETA 0:00:0\d\n", plain.getvalue())
  terminal = io.StringIO()
  terminal.isatty = lambda: True
  with logs.Progress("base", 2, 9, terminal) as progress:
    progress.advance(4)
    progress.show(4, "loss 1")
  assert "4/9" in terminal.getvalue() and "loss 1" in terminal.getvalue()


def test_records_survive_a_kill_in_the_middle_of_a_line(tmp_path):
  """Kills: a broken last line that makes a run unreadable or unresumable."""
  path = tmp_path / "metrics.jsonl"
  for step in (1, 2, 3):
    logs.append(path, {"step": step})
  with path.open("a") as file:
    file.write('{"step": 4, "lo')
  assert logs.rewind(path, 2) == [{"step": 1}, {"step": 2}]
  assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
  assert logs.rewind(tmp_path / "none.jsonl", 2) == []


def test_a_window_weighs_steps_by_their_targets():
  """Kills: a mean of means; a share of rows that keeps what an earlier window read."""
  window = logs.Window()
  window.add(2.0, 1.0, tokens=10, places=20)
  window.add(4.0, 3.0, tokens=20, places=20)
  first = window.close()
  assert (first["loss"], first["weight"], first["filled"]) == (3.5, 4.0, 0.75)
  window.add(1.0, 2.0, tokens=5, places=20)
  second = window.close()
  assert (second["loss"], second["filled"]) == (1.0, 0.25)
  window.add(0.0, 0.0, tokens=0, places=20)
  assert window.close()["loss"] == 0.0


def test_pauses_count_for_no_speed(monkeypatch):
  """Kills: evaluations that make training look slow."""
  clock = [100.0]
  monkeypatch.setattr(logs.time, "perf_counter", lambda: clock[0])
  window = logs.Window()
  clock[0] = 108.0
  window.paused(6.0)
  window.waited(0.5)
  window.add(1.0, 2.0, 30, 60)
  record = window.close()
  assert (record["step_seconds"], record["tokens_per_second"]) == (2.0, 15.0)
  assert record["data_wait"] == 0.25
  clock[0] = 109.0
  window.add(1.0, 2.0, 30, 60)
  assert window.close()["step_seconds"] == 1.0
