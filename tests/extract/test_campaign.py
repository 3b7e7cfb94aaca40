"""Work over processes: once for each content, continued after any kill, blame where it belongs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facejax.extract.campaign import Job, place, run, save
from facejax.extract.ledger import Ledger, key_of


class Count:
  """Writes a file's length; counts its calls in a folder. Some contents are special."""

  def __init__(self, out: Path, version: int = 1):
    self.out = out
    self.fingerprint = {"version": version}

  def __call__(self, job, key):
    data = b"".join(path.read_bytes() for path in job.files)
    for folder in ("calls", "processes"):
      (self.out / folder).mkdir(exist_ok=True)
    (self.out / "processes" / str(os.getpid())).touch()
    with open(self.out / "calls" / key, "a") as file:
      file.write("x")
    if data == b"bad":
      raise ValueError(f"{job.files[0]}: is bad")
    if data == b"crash":
      os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"full":
      raise OSError("disk is full")
    if data.startswith(b"slow"):
      time.sleep(0.15)
    name = place(self.out, "lengths", key, ".txt")
    save(self.out / name, str(len(data)).encode())
    return {"files": [name.as_posix()], "length": len(data)}


def _calls(out: Path) -> int:
  return sum(path.stat().st_size for path in (out / "calls").glob("*"))


def _job(folder: Path, name: str, data: bytes) -> Job:
  (folder / name).write_bytes(data)
  return Job("image", (folder / name,))


def _run(out, jobs, workers=0, version=1):
  with Ledger(out / "ledger.jsonl") as ledger:
    return run(Count(out, version), jobs, (), ledger, workers)


def _all(folder):
  return [_job(folder, f"{n}.bin", bytes(n + 1)) for n in range(7)]


@pytest.mark.parametrize("workers", [0, 2])
def test_work_is_done_once_for_each_content(tmp_path, workers):
  """Kills: a second run that works, a copy or a renamed file worked on again, results swapped."""
  jobs = _all(tmp_path)
  jobs += [_job(tmp_path, "copy.bin", bytes(3)), _job(tmp_path, "bad.bin", b"bad"), jobs[0]]
  done = _run(tmp_path / "out", jobs, workers)
  for n, job in enumerate(jobs[:7]):
    assert done.results[job]["length"] == n + 1
  assert done.results[jobs[7]]["length"] == 3
  assert done.results[jobs[8]] == {"refused": f"{tmp_path / 'bad.bin'}: is bad"}
  assert done.fresh == _calls(tmp_path / "out") == 8
  (tmp_path / "0.bin").rename(tmp_path / "renamed.bin")
  os.utime(tmp_path / "1.bin", (1, 1))  # touched: read again, not worked on
  again = [Job("image", (tmp_path / "renamed.bin",)), *jobs[1:9]]
  done = _run(tmp_path / "out", again, workers)
  assert done.fresh == 0 and _calls(tmp_path / "out") == 8
  assert done.results[again[0]]["length"] == 1


def test_what_a_result_depends_on_is_in_its_key(tmp_path):
  """Kills: another setting, content, kind or second file that is answered from the ledger."""
  first, second = _job(tmp_path, "a", b"12"), _job(tmp_path, "b", b"345")
  out = tmp_path / "out"
  assert _run(out, [first]).fresh == 1
  assert _run(out, [first], version=2).fresh == 1
  assert _run(out, [Job("video", first.files)]).fresh == 1
  both = Job("image", (*first.files, *second.files))
  assert _run(out, [both]).results[both]["length"] == 5
  swapped = Job("image", both.files[::-1])
  assert _run(out, [swapped]).fresh == 1
  (tmp_path / "a").write_bytes(b"1234")
  assert _run(out, [first]).results[first]["length"] == 4
  assert key_of("a", ["b"]) != key_of("a", ["c"]) != key_of("d", ["c"])


def test_deleted_artefacts_are_made_again(tmp_path):
  """Kills: a ledger that is believed over the disk."""
  out, jobs = tmp_path / "out", _all(tmp_path)
  done = _run(out, jobs)
  (out / done.results[jobs[4]]["files"][0]).unlink()
  again = _run(out, jobs)
  assert again.fresh == 1 and (out / again.results[jobs[4]]["files"][0]).read_text() == "5"


def test_missing_files_are_refused_and_not_remembered(tmp_path):
  """Kills: a run that ends at a missing file, or still misses it when it is there."""
  job = Job("image", (tmp_path / "late.bin",))
  reason = _run(tmp_path / "out", [job]).results[job]["refused"]
  assert reason.startswith(f"{tmp_path / 'late.bin'}: no such file")
  assert _run(tmp_path / "out", [_job(tmp_path, "late.bin", b"abc")]).results[job]["length"] == 3


def test_a_process_that_dies_takes_one_file_with_it(tmp_path):
  """Kills: a run that ends with it, neighbours blamed or lost, the crash remembered for ever."""
  jobs = [*_all(tmp_path), _job(tmp_path, "crash.bin", b"crash")]
  jobs = [jobs[7], *jobs[:7]]
  done = _run(tmp_path / "out", jobs, workers=2)
  assert "crash.bin: the process that worked on it died" in done.results[jobs[0]]["refused"]
  assert [done.results[job]["length"] for job in jobs[1:]] == list(range(1, 8))
  assert _run(tmp_path / "out", jobs[1:]).fresh == 0
  with Ledger(tmp_path / "out" / "ledger.jsonl") as ledger:
    assert len(ledger.results) == 7


class Stillborn(Count):
  """Ends the process that it is sent to."""

  def __setstate__(self, state):
    os._exit(3)


def test_processes_that_never_start_are_not_blamed_on_files(tmp_path):
  """Kills: a million files refused, one process each, where no process can start."""
  with (
    Ledger(tmp_path / "ledger.jsonl") as ledger,
    pytest.raises(RuntimeError, match="3 of 3 processes died before they did anything"),
  ):
    run(Stillborn(tmp_path), _all(tmp_path), (), ledger, 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_the_run_and_blames_no_file(tmp_path, workers):
  """Kills: an error of the machine written down as the file's fault."""
  job = _job(tmp_path, "full.bin", b"full")
  with pytest.raises(OSError, match="disk is full"):
    _run(tmp_path / "out", [job], workers)
  with Ledger(tmp_path / "out" / "ledger.jsonl") as ledger:
    assert not ledger.results


def _lives(process: int) -> bool:
  try:
    os.kill(process, 0)
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
  except FileNotFoundError:  # gone meanwhile, or a system without /proc
    return Path("/proc").is_dir() is False
  except ProcessLookupError:
    return False
  return state != "Z"  # dead, and nobody has asked for its status yet


_SCRIPT = """
import sys
from pathlib import Path
from test_campaign import Count, Job, Ledger, run
if __name__ == "__main__":
  folder = Path(sys.argv[1])
  jobs = [Job("image", (path,)) for path in sorted(folder.glob("*.bin"))]
  with Ledger(folder / "out" / "ledger.jsonl") as ledger:
    run(Count(folder / "out"), jobs, (), ledger, 2)
"""


@pytest.mark.slow
def test_a_killed_run_continues_and_leaves_no_process(tmp_path):
  """Kills: results lost by a kill, work repeated, processes that outlive their parent."""
  jobs = [_job(tmp_path, f"{n:02}.bin", b"slow" + bytes(n)) for n in range(24)]
  (tmp_path / "go.py").write_text(_SCRIPT)
  environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
  ledger = tmp_path / "out" / "ledger.jsonl"
  process = subprocess.Popen([sys.executable, tmp_path / "go.py", tmp_path], env=environment)
  try:
    until = time.monotonic() + 60
    while not (ledger.is_file() and ledger.read_bytes().count(b'"key"') >= 5):
      assert time.monotonic() < until and process.poll() is None
      time.sleep(0.02)
  finally:
    process.kill()
    process.wait()
  kept = ledger.read_bytes().count(b'"key"')
  processes = [int(path.name) for path in (tmp_path / "out/processes").iterdir()]
  until = time.monotonic() + 10
  while any(map(_lives, processes)):
    assert time.monotonic() < until, "processes outlived their parent"
    time.sleep(0.02)
  assert processes and _calls(tmp_path / "out") < 24
  done = _run(tmp_path / "out", jobs)
  assert done.fresh == 24 - kept
  assert [done.results[job]["length"] for job in jobs] == [4 + n for n in range(24)]


def test_a_cut_line_is_dropped_and_damage_is_named(tmp_path):
  """Kills: a torn last line that swallows the next one; damage that is passed over."""
  path = tmp_path / "ledger.jsonl"
  with Ledger(path) as ledger:
    ledger.record("k", {"n": 1})
  with open(path, "ab") as file:
    file.write(b'{"key": "half", "res')
  with Ledger(path) as ledger:
    assert ledger.results == {"k": {"n": 1}}
    ledger.record("m", {"n": 2})
  with Ledger(path) as ledger:
    assert ledger.results == {"k": {"n": 1}, "m": {"n": 2}}
  path.write_bytes(b'{"kez": 1}\n' + path.read_bytes())
  with pytest.raises(ValueError, match=r"ledger\.jsonl, line 1: .*kez.*KeyError\('result'\)"):
    Ledger(path)


def test_two_runs_do_not_share_a_ledger(tmp_path):
  """Kills: lines of two runs mixed into each other."""
  with (
    Ledger(tmp_path / "l.jsonl"),
    pytest.raises(ValueError, match=r"l.jsonl is locked .* expected no other run"),
  ):
    Ledger(tmp_path / "l.jsonl")
  Ledger(tmp_path / "l.jsonl").__exit__()


def test_unchanged_files_are_not_read_again(tmp_path):
  """Kills: a second run over a million files that reads them all."""
  path = tmp_path / "a"
  path.write_bytes(b"123")
  with Ledger(tmp_path / "l.jsonl") as ledger:
    first = ledger.contents([path])[path]
  stat = path.stat()
  path.write_bytes(b"456")
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  with Ledger(tmp_path / "l.jsonl") as ledger:
    assert ledger.contents([path]) == {path: first}
    os.utime(path, ns=(0, stat.st_mtime_ns + 1))
    assert ledger.contents([path])[path] != first
  assert json.loads((tmp_path / "l.jsonl").read_text().splitlines()[0])["sha256"] == first


def test_saving_the_same_twice_touches_nothing(tmp_path):
  """Kills: a second run that rewrites its index."""
  save(tmp_path / "f", b"one")
  os.utime(tmp_path / "f", (1, 1))
  save(tmp_path / "f", b"one")
  assert (tmp_path / "f").stat().st_mtime == 1
  save(tmp_path / "f", b"two")
  assert (tmp_path / "f").read_bytes() == b"two" and len(list(tmp_path.iterdir())) == 1
