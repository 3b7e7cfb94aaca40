"""A hub, keepers and trainers that do not train: who is missing, and what is said and done then.

The trainers here speak to their keepers as facejax.distributed does, without JAX: half a second a
run. tests/system/test_hosts.py has the real ones.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facejax import hub

KEEPER = """
import sys
from facejax import hub, keeper
coordinator, processes, process, wait, silence, settings, *command = sys.argv[1:]
cluster = keeper.Cluster(coordinator, int(processes), int(process))
limits = hub.Limits(float(wait), float(silence))
sys.exit(keeper.keep(command, cluster, limits, {"jax": settings}))
"""

TRAINER = """
import json, os, signal, socket, sys, time
link = socket.socket(fileno=int(os.environ["FACEJAX_KEEPER"]))
lines = link.makefile("r")
start = json.loads(lines.readline())["start"]
me = start["process"]
def tell(**message):
  link.sendall(json.dumps(message).encode() + b"\\n")
def note(name):
  with open(name, "w") as file:
    file.write(str(os.getpid()))
def at(place):
  tell(at=place)
def meet(name, value=None, patience=1):
  tell(meet=[name, value, patience])
  return json.loads(lines.readline())["met"]
def fail(error, doubtful=False):
  tell(error=error, doubtful=doubtful)
  sys.exit(2)
def forever():
  lines.read()  # to the end of its keeper: a test leaves nobody behind
"""

FOREVER = "at('base step 3'); forever()"


def free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]


class Run:
  """Processes of one run, each with a program for its trainer."""

  def __init__(self, folder, programs, *, wait=20, silence=20, settings=None, processes=None):
    port = free_port()
    self.address = f"127.0.0.1:{port}"
    self.folder, self.children = folder, {}
    settings = settings or {}
    for index, program in programs.items():
      out = (folder / f"out.{index}").open("w")
      command = [sys.executable, "-S", "-c", f"{TRAINER}\nnote('pid.{index}')\n{program}"]
      count = (processes or {}).get(index, max(programs) + 1)
      arguments = [self.address, count, index, wait, silence, settings.get(index, "0.10.2")]
      self.children[index] = subprocess.Popen(
        [sys.executable, "-c", KEEPER, *map(str, arguments), *command],
        stdout=out, stderr=subprocess.STDOUT, cwd=folder
      )  # fmt: skip

  def text(self, index: int) -> str:
    return (self.folder / f"out.{index}").read_text()

  def trainer(self, index: int) -> int:
    """The process id of a trainer, once it runs and has told where it is."""
    path = self.folder / f"pid.{index}"
    deadline = time.monotonic() + 20
    while not (path.is_file() and path.read_text()):
      assert time.monotonic() < deadline, self.text(index)
      time.sleep(0.05)
    time.sleep(0.8)
    return int(path.read_text())

  def statuses(self) -> list[int]:
    try:
      return [child.wait(30) for child in self.children.values()]
    finally:
      for child in self.children.values():
        child.kill()


def handles(pid: int) -> None:
  """Waits until a process has a handler for SIGTERM, which is signal 15, bit 14."""
  deadline = time.monotonic() + 20
  while time.monotonic() < deadline:
    status = Path(f"/proc/{pid}/status").read_text()
    if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> 14 & 1:
      return
    time.sleep(0.05)
  raise TimeoutError(f"{pid} installs no handler")


def gone(pid: int) -> bool:
  """Whether a process has ended; it may be a zombie of this container's first process."""
  deadline = time.monotonic() + 5
  while time.monotonic() < deadline:
    try:
      if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
        return True
    except (FileNotFoundError, ProcessLookupError):
      return True
    time.sleep(0.05)
  return False


def test_processes_meet_and_all_values_go_to_all(tmp_path):
  """Kills: values out of order; a meeting that lets the first through; a status that is lost."""
  program = "time.sleep(0.2 * me); print(meet('there', {'me': me}), start['hosts'], start['wait'])"
  run = Run(tmp_path, {0: program, 1: program, 2: program}, wait=21)
  assert run.statuses() == [0, 0, 0]
  values = [{"me": 0}, {"me": 1}, {"me": 2}]
  assert run.text(2) == run.text(0) == f"{values} {[socket.gethostname()] * 3} 21.0\n"


def test_a_process_that_does_not_come_is_named(tmp_path):
  """Kills: a wait without an end; a message without the missing, or naming one that came."""
  run = Run(tmp_path, {0: FOREVER, 2: FOREVER, 4: FOREVER}, wait=1.5)
  assert run.statuses() == [hub.MISSING] * 3
  host, port = socket.gethostname(), run.address.split(":")[1]
  expected = (
    f"facejax: processes 1, 3 of 5 did not come within 1.5 s - expected all to connect to process "
    f"0, port {port} - came: 0 ({host}), 2 ({host}), 4 ({host}) - look at the log of the missing, "
    "and whether they reach that port\n"
  )
  assert run.text(0) == run.text(2) == run.text(4) == expected


def test_a_process_0_that_does_not_come_is_named(tmp_path):
  """Kills: an address that is tried for ever, or once."""
  run = Run(tmp_path, {1: FOREVER}, wait=1)
  assert run.statuses() == [hub.MISSING]
  start = f"facejax: process 0 of 2 did not come within 1 s: {run.address} cannot be reached ("
  assert run.text(1).startswith(start)


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("whole", [True, False], ids=["machine", "trainer"])
def test_a_killed_process_stops_the_others(tmp_path, victim, whole):
  """Kills: a loss that nobody notices; a wrong name; trainers that outlive their keepers."""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER, 2: FOREVER})
  pids = [run.trainer(index) for index in range(3)]
  began = time.monotonic()
  if whole:
    run.children[victim].kill()
  else:
    os.kill(pids[victim], signal.SIGKILL)
  statuses = run.statuses()
  assert time.monotonic() - began < 10
  own = -signal.SIGKILL if whole else 128 + signal.SIGKILL
  assert statuses == [own if i == victim else hub.MISSING for i in range(3)]
  if whole and victim == 0:
    what = f"process 0 of 3 ({run.address}), which keeps the roll, is gone, without a word"
  elif whole:
    what = f"process 2 of 3 ({socket.gethostname()}, pid {run.children[2].pid}) is gone, without"
  else:
    pid = run.children[victim].pid
    what = f"process {victim} of 3 ({socket.gethostname()}, pid {pid}) was killed by SIGKILL"
  assert what in run.text(1)
  assert run.text(1).endswith(
    " - process 1 stops, at base step 3 - start all again with --resume\n"
  )
  if not (whole and victim == 0):
    assert "it was at base step 3" in run.text(1)
  assert all(gone(pid) for i, pid in enumerate(pids) if not whole or i != victim)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_machine_that_falls_silent_is_named(tmp_path, victim):
  """Kills: a hang where a machine loses its network, which closes no connection."""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER, 2: FOREVER}, silence=1)
  for index in range(3):
    run.trainer(index)
  run.children[victim].send_signal(signal.SIGSTOP)
  began = time.monotonic()
  assert run.children[2].wait(20) == hub.MISSING
  assert 0.5 < time.monotonic() - began < 12
  name = rf"process {victim} of 3 \({re.escape(run.address)}\), which keeps the roll,"
  if victim:
    name = rf"process 1 of 3 \({socket.gethostname()}, pid \d+\)"
  assert re.match(rf"facejax: {name} has said nothing for 1 s", run.text(2))
  run.children[victim].send_signal(signal.SIGCONT)
  run.statuses()


def test_a_process_that_stays_away_from_a_meeting_is_named(tmp_path):
  """Kills: a save that waits for ever for a process that lives and does something else."""
  program = "at('base batch 9'); time.sleep(30) if me == 1 else meet('base save 8')"
  run = Run(tmp_path, {0: program, 1: program, 2: program}, wait=2)
  assert run.statuses() == [hub.MISSING, 128 + signal.SIGKILL, hub.MISSING]
  name = f"process 1 of 3 ({socket.gethostname()}, pid {run.children[1].pid})"
  text = f"facejax: waited in vain at 'base save 8' for 1 of 3: {name} was at base batch 9"
  assert run.text(0).startswith(text) and run.text(2).startswith(text)


def test_the_error_of_one_is_told_to_all(tmp_path):
  """Kills: others that only learn that somebody failed; a status that blames the wrong one."""
  program = "at('base batch 2'); fail('sample 7 has no face') if me == 1 else forever()"
  run = Run(tmp_path, {0: program, 1: program})
  assert run.statuses() == [hub.MISSING, 2]
  assert "failed: sample 7 has no face; it was at base batch 2 - process 0 stops" in run.text(0)


def test_an_error_of_all_is_the_error_of_each(tmp_path):
  """Kills: a bad config that looks like a lost machine, which a scheduler would start again."""
  run = Run(tmp_path, dict.fromkeys(range(3), "time.sleep(me / 2); fail('rows=7 do not divide')"))
  assert run.statuses() == [2, 2, 2]


def test_a_broken_connection_is_not_the_fault_of_who_sees_it(tmp_path):
  """Kills: the first that notices a dead peer is blamed, where the peer's machine fell silent."""
  broken = """
while not os.path.exists('frozen'):
  time.sleep(0.05)
fail('Connection closed by peer', doubtful=True)
"""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER, 2: broken}, silence=1.5)
  run.trainer(1)
  run.children[1].send_signal(signal.SIGSTOP)
  (tmp_path / "frozen").touch()
  assert run.children[0].wait(20) == run.children[2].wait(20) == hub.MISSING
  assert f"process 1 of 3 ({socket.gethostname()}" in run.text(2)
  assert "has said nothing for 1.5 s" in run.text(0)
  run.children[1].send_signal(signal.SIGCONT)
  run.statuses()


def test_a_broken_connection_with_nobody_missing_is_told_in_the_end(tmp_path):
  """Kills: a trainer that ended with an error of JAX's, and keepers that wait for ever."""
  broken = "at('base step 3'); fail('RESOURCE_EXHAUSTED', doubtful=True)"
  run = Run(tmp_path, {0: FOREVER, 1: broken}, silence=1)
  assert run.statuses() == [hub.MISSING, 2]
  assert "failed: RESOURCE_EXHAUSTED; it was at base step 3" in run.text(0)


def test_other_settings_are_refused_by_name(tmp_path):
  """Kills: machines with two versions of a library, whose programs differ."""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER}, settings={1: "0.10.1"})
  assert run.statuses() == [2, 2]
  name = f"process 1 of 2 ({socket.gethostname()}, pid {run.children[1].pid})"
  text = f"facejax: {name} has jax '0.10.1', process 0 on {socket.gethostname()} has '0.10.2' - "
  assert run.text(0).startswith(text + "expected the same everywhere")
  assert not (tmp_path / "pid.0").exists()  # nothing was started


def test_another_number_of_processes_is_refused(tmp_path):
  """Kills: two runs that are half of each other."""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER}, processes={1: 3}, wait=1.5)
  assert run.statuses() == [hub.MISSING, 2]
  text = "facejax: this is process 1 of 3, process 0 was started with --processes 2"
  assert run.text(1).startswith(text)


def test_one_number_twice_is_refused(tmp_path):
  """Kills: a copied command line; the second one takes the first one's place."""
  run = Run(tmp_path, {0: FOREVER, 2: FOREVER}, processes={0: 3, 2: 3})
  again = subprocess.run(
    [sys.executable, "-c", KEEPER, run.address, "3", "2", "9", "9", "0.10.2", "true"],
    capture_output=True, text=True
  )  # fmt: skip
  assert run.statuses() == [2, 2] and again.returncode == 2
  assert re.match(r"facejax: process 2 came twice: .*, pid \d+, and .*, pid \d+", again.stderr)


def test_a_port_that_is_taken_is_named():
  """Kills: a traceback where two runs share a machine."""
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
    with pytest.raises(ValueError, match=rf"port {port} of this machine cannot be listened on"):
      hub.Hub(port, 2, hub.Limits(), 1)


def test_a_sigterm_to_one_stops_all_at_one_step(tmp_path):
  """Kills: a last step that some have passed already; two signals that make two stops."""
  # Each is at another step when it is asked, and has made one more when it hears the answer.
  program = """
at('base step 1'); link.settimeout(None)
assert json.loads(lines.readline()) == {'ask': ''}
tell(count=[4, 7, 5][me])
print(lines.readline(), end='', flush=True)
sys.exit(75)
"""
  run = Run(tmp_path, {0: program, 1: program, 2: program})
  run.trainer(0), run.trainer(1), run.trainer(2)
  run.children[1].send_signal(signal.SIGTERM)
  run.children[1].send_signal(signal.SIGTERM)
  run.children[0].send_signal(signal.SIGINT)
  assert run.statuses() == [hub.INTERRUPTED] * 3
  assert {run.text(index) for index in range(3)} == {'{"last": 8}\n'}


def test_a_sigterm_before_all_have_come_is_for_all(tmp_path):
  """Kills: processes that wait for one that has left."""
  run = Run(tmp_path, {0: FOREVER, 2: FOREVER})
  for child in run.children.values():
    handles(child.pid)
  time.sleep(1)
  run.children[2].send_signal(signal.SIGTERM)
  assert run.statuses() == [hub.INTERRUPTED, hub.INTERRUPTED]
  assert re.search(r"process 2 of 3 \(.*, pid \d+\) was asked to stop before all", run.text(0))


def test_a_second_ctrl_c_ends_a_trainer_that_does_not_stop(tmp_path):
  """Kills: a terminal that cannot be had back."""
  run = Run(tmp_path, {0: FOREVER, 1: FOREVER})
  run.trainer(0), run.trainer(1)
  for _ in range(2):
    run.children[1].send_signal(signal.SIGINT)
    time.sleep(0.3)
  assert run.statuses() == [hub.MISSING, 128 + signal.SIGKILL]


def test_a_standstill_is_told_and_nothing_is_stopped(tmp_path):
  """Kills: an input that hangs on one machine, which nobody can find."""
  place = "at('base batch 5' if me == 1 else 'base step 5')"
  program = f"meet('here'); {place}; time.sleep(3.5); meet('there')"
  run = Run(tmp_path, {0: program, 1: program, 2: program}, wait=2)
  assert run.statuses() == [0, 0, 0]
  name = f"process 1 of 3 ({socket.gethostname()}, pid {run.children[1].pid})"
  expected = f"facejax: no process has moved for 2 s: 1 at base batch 5, {name}; 2 at base step 5"
  assert run.text(0).startswith(expected)


def test_a_stranger_does_not_disturb(tmp_path):
  """Kills: a port scanner, or a lone line without an end, that stops a run."""
  listener = hub.Hub(0, 2, hub.Limits(silence=5), 1)
  listener.start()
  for noise in (
    b"GET / HTTP/1.1\r\n\r\n",
    b'"beat"\n',
    b'{"beat": 1}\n',
    b"x" * (hub._LONGEST + 9),
  ):
    with socket.create_connection(("127.0.0.1", listener.port)) as stranger:
      stranger.settimeout(5)
      try:
        stranger.sendall(noise)
      except OSError:
        continue
      if noise != b'{"beat": 1}\n':
        assert stranger.recv(1) == b""  # it hung up
  with socket.create_connection(("127.0.0.1", listener.port)) as known:
    hello = {"index": 0, "processes": 2, "host": "a", "pid": 1, "settings": {}}
    known.sendall(json.dumps({"hello": hello}).encode() + b"\n")
    known.settimeout(10)
    assert json.loads(known.makefile().readline()) == {"beat": ""}


@pytest.mark.parametrize("name, value", [("wait", 0.5), ("silence", 1e6)])
def test_a_timeout_out_of_bounds_is_refused(name, value):
  """Kills: 0 for "never", which would be "at once"; milliseconds."""
  flag = {"wait": "--barrier-timeout", "silence": "--heartbeat-timeout"}[name]
  with pytest.raises(ValueError) as caught:
    hub.Limits(**{name: value})
  assert str(caught.value) == f"{flag}={value:g}: expected 1 to 86400 seconds"
