"""Starts a training process and watches over it and, through the hub, over all others of a run.

  keep()  ->  hub.py, in process 0   TCP: the roll call, signs of life, the end of each
     |
     +---->  the trainer: the same command again, with a socket to its keeper in FACEJAX_KEEPER

A trainer that waits in a collective for a process that died cannot be interrupted from Python, and
JAX aborts it when process 0 dies. Its keeper stops it instead, says why, and exits with a status
that tells a scheduler what to do.
"""

import contextlib
import dataclasses
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from facejax.hub import BAD_INPUT, INTERRUPTED, MISSING, Hub, Limits, Lines

ENVIRONMENT = "FACEJAX_KEEPER"  # the trainer's end of the socket, as a file descriptor

_GRACE = 3.0  # seconds in which a trainer that has failed, or soon will, may end by itself

_OFTEN = 0.1  # seconds between two reports of where the trainer is


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Where a process stands in a run of several."""

  coordinator: str  # HOST:PORT of process 0, where its hub listens
  processes: int
  process: int
  local_device_ids: tuple[int, ...] | None = None  # that it may use; None: all of its machine

  @property
  def address(self) -> tuple[str, int]:
    """Host and port of the hub."""
    host, _, port = self.coordinator.rpartition(":")
    return host.strip("[]"), int(port)


class _Stopped(Exception):
  """The hub says that all must stop, or is gone."""

  def __init__(self, text: str, status: int = MISSING, own: bool = False, grace: float = 0):
    super().__init__(text)
    self.status, self.own = status, own
    self.grace = grace  # seconds in which the trainer may yet end by itself


def keep(
  command: Sequence[str], cluster: Cluster, limits: Limits, settings: Mapping[str, Any]
) -> int:
  """Runs `command` as this process of the run; returns the exit status of the process.

  The trainer's own status if it ended by itself (128 + the signal if one killed it), MISSING (69)
  if another process is missing or failed. The reason is on stderr.

  Args:
    command: a program that calls distributed.join() before it uses JAX.
    cluster: which process this is.
    limits: how long to wait for others.
    settings: name -> JSON value, which must be equal in all processes.

  Raises ValueError if this is process 0 and its port is taken.
  """
  hub = None
  if cluster.process == 0:
    hub = Hub(cluster.address[1], cluster.processes, limits, _free_port())
    hub.start()
  with _Signals() as signals:
    keeper = _Keeper(cluster, limits, signals)
    try:
      status = keeper.run(command, settings)
    except _Stopped as stopped:
      print(f"facejax: {stopped}", file=sys.stderr, flush=True)
      status = stopped.status
    finally:
      keeper.close()
    if hub:
      hub.join(10)  # its last words to the others
  return status


def _free_port() -> int:
  """For JAX's own coordinator, which the same machine runs a moment later."""
  with socket.create_server(("", 0)) as server:
    return server.getsockname()[1]


class _Signals:
  """Within its `with` statement SIGTERM and SIGINT are noted, and wake a select().

  A scheduler may send several SIGTERMs at once, and means one. A second Ctrl-C means: now.
  """

  def __init__(self):
    self.asked, self.insisted = False, False
    self.wake, self._write = os.pipe()
    os.set_blocking(self._write, False)

  def __enter__(self) -> "_Signals":
    self._previous = {n: signal.signal(n, self._handle) for n in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    os.close(self.wake)
    os.close(self._write)

  def _handle(self, number: int, _: FrameType | None) -> None:
    self.insisted = self.asked and number == signal.SIGINT
    self.asked = True
    with contextlib.suppress(BlockingIOError):
      os.write(self._write, b"x")


class _Keeper:
  """One process: a connection to the hub, and a trainer once all are there."""

  def __init__(self, cluster: Cluster, limits: Limits, signals: _Signals):
    self._cluster, self._limits, self._signals = cluster, limits, signals
    self._selector = selectors.DefaultSelector()
    self._selector.register(signals.wake, selectors.EVENT_READ)
    self._hub: Lines | None = None
    self._link: Lines | None = None
    self._child: subprocess.Popen | None = None
    self._place = self._told = "the start"
    self._error = ""
    self._doubtful = False
    self._forwarded = False
    self._heard = self._beaten = time.monotonic()
    self._kill_at: float | None = None
    self._stop: _Stopped | None = None
    self._go: dict = {}
    self._bye = False

  def close(self) -> None:
    """Leaves nothing behind."""
    if self._child and self._child.poll() is None:
      self._child.kill()
      self._child.wait()
    for lines in (self._hub, self._link):
      if lines:
        lines.socket.close()
    self._selector.close()

  def run(self, command: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Roll call, training, end. Raises _Stopped."""
    self._hub = self._connect()
    if self._hub is None:
      return INTERRUPTED
    self._selector.register(self._hub.socket, selectors.EVENT_READ, self._from_hub)
    self._hub.send(
      hello={
        "index": self._cluster.process,
        "processes": self._cluster.processes,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "settings": dict(settings),
      }
    )
    while not self._go:
      self._turn()
      if self._stop:
        raise self._stop
      if self._signals.asked:
        why = "was asked to stop before all had come"
        end = {"well": False, "why": why, "doubtful": False, "place": self._place}
        self._hub.send(end={**end, "failed": False})
        return INTERRUPTED
    self._spawn(command, self._go)
    return self._watch()

  def _connect(self) -> Lines | None:
    """To the hub, which may come later than this process; None after a signal."""
    deadline = time.monotonic() + self._limits.wait
    while not self._signals.asked:
      try:
        return Lines(socket.create_connection(self._cluster.address, self._limits.interval))
      except OSError as error:
        if time.monotonic() > deadline:
          raise _Stopped(
            f"process 0 of {self._cluster.processes} did not come within {self._limits.wait:g} s: "
            f"{self._cluster.coordinator} cannot be reached ({error}) - expected it to listen "
            "there - look at its log, at --coordinator, and whether this machine reaches that port"
          ) from error
      time.sleep(min(0.2, self._limits.interval))
    return None

  def _spawn(self, command: Sequence[str], go: Mapping[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
      self._child = subprocess.Popen(
        list(command),
        pass_fds=[theirs.fileno()],
        env={**os.environ, ENVIRONMENT: str(theirs.fileno())},
        start_new_session=True,  # a Ctrl-C reaches the keeper, which passes it on, once
      )
    self._link = Lines(ours)
    self._selector.register(ours, selectors.EVENT_READ, self._from_trainer)
    host = self._cluster.coordinator.rpartition(":")[0]
    self._link.send(
      start={
        "coordinator": f"{host}:{go['port']}",
        "processes": self._cluster.processes,
        "process": self._cluster.process,
        "local_device_ids": self._cluster.local_device_ids,
        "hosts": go["hosts"],
        "wait": self._limits.wait,
        "silence": self._limits.silence,
      }
    )

  def _turn(self) -> None:
    """Waits for something to happen, at most one interval, and takes it in."""
    news = self._place != self._told
    for key, _ in self._selector.select(_OFTEN if news else self._limits.interval):
      if key.data:
        key.data()
      else:
        os.read(self._signals.wake, 100)
    now = time.monotonic()
    moved = self._place != self._told and now - self._beaten >= _OFTEN
    if self._hub and (moved or now - self._beaten >= self._limits.interval):
      self._beaten, self._told = now, self._place
      self._hub.send(beat=self._place)
    if now - self._heard > self._limits.silence and not self._stop:
      self._lost(f"has said nothing for {self._limits.silence:g} s")

  def _watch(self) -> int:
    """Until the trainer has ended, and it is known why."""
    assert self._child and self._hub
    told = False
    while True:
      self._turn()
      self._forward()
      if self._stop and self._kill_at is None:
        self._kill_at = time.monotonic() + self._stop.grace
      if self._kill_at and time.monotonic() > self._kill_at and self._child.poll() is None:
        self._child.kill()
      status = self._child.poll()
      if status is None:
        continue
      status = self._status(status)
      if not told:
        told = True
        self._tell(status)
      if self._bye:
        return status
      if self._stop:
        return self._verdict(status)

  def _forward(self) -> None:
    """A signal asks all trainers to save and stop; a second Ctrl-C ends this one."""
    assert self._child and self._hub
    if self._signals.asked and not self._forwarded:
      self._forwarded = True
      self._hub.send(halt="")
    if self._signals.insisted and self._child.poll() is None:
      self._child.kill()

  def _status(self, status: int) -> int:
    status = status if status >= 0 else 128 - status
    # It had said why, and then hung, or was aborted, in JAX's last barrier.
    return BAD_INPUT if self._error and status >= 128 else status

  def _tell(self, status: int) -> None:
    assert self._hub
    number = status - 128
    if self._error:
      why = f"failed: {self._error}"
    elif number in set(signal.Signals):
      why = f"was killed by {signal.Signals(number).name}"
      why += " (by the system, if memory ran out)" if number == signal.SIGKILL else ""
    else:
      why = f"ended with exit status {status}"
    # JAX aborts where it cannot reach process 0.
    doubtful = self._doubtful or number == signal.SIGABRT
    well = status in (0, INTERRUPTED)
    end = {"well": well, "why": why, "doubtful": doubtful, "place": self._place}
    self._hub.send(end={**end, "failed": number not in set(signal.Signals)})

  def _verdict(self, status: int) -> int:
    """What to exit with, once all must stop."""
    assert self._stop
    by_itself = self._error and not self._doubtful
    if self._stop.own or by_itself:
      print(f"facejax: {self._stop}", file=sys.stderr, flush=True)
      return status if status not in (0, INTERRUPTED) else self._stop.status
    raise self._stop

  def _from_hub(self) -> None:
    assert self._hub
    messages = self._hub.receive()
    if messages is None:
      self._selector.unregister(self._hub.socket)
      if not (self._stop or self._bye):
        self._lost("is gone, without a word: killed, or its machine went down")
      return
    self._heard = time.monotonic()
    for message in messages:
      if "go" in message:
        self._go.update(message["go"])
      elif self._link and message.keys() & {"met", "ask", "last"}:
        self._link.send(**message)
      elif "say" in message:
        print(f"facejax: {message['say']}", file=sys.stderr, flush=True)
      elif "stop" in message:
        own = message["index"] == self._cluster.process
        text = message["stop"] if own else f"{message['stop']}{self._advice()}"
        grace = _GRACE if message["failed"] else 0  # this one may fail alike, and say so itself
        self._stop = self._stop or _Stopped(text, message["status"], own, grace)
      elif "bye" in message:
        self._bye = True

  def _lost(self, how: str) -> None:
    """The hub is missing, and process 0 with it."""
    self._stop = _Stopped(
      f"process 0 of {self._cluster.processes} ({self._cluster.coordinator}), which keeps the "
      f"roll, {how}{self._advice()}"
    )

  def _advice(self) -> str:
    if not self._child:
      return ""
    return (
      f" - process {self._cluster.process} stops, at {self._place} - start all again with --resume"
    )

  def _from_trainer(self) -> None:
    assert self._link and self._hub and self._child
    messages = self._link.receive()
    if messages is None:
      self._selector.unregister(self._link.socket)
      # Its end is near, but for a last barrier of JAX, where it waits for the others.
      with contextlib.suppress(subprocess.TimeoutExpired):
        self._child.wait(1)
      return
    for message in messages:
      if "at" in message:
        self._place = message["at"]
      elif "meet" in message:
        self._place = message["meet"][0]
        self._hub.send(**message)
      elif "halt" in message or "count" in message:
        self._hub.send(**message)
      elif "error" in message:
        self._error, self._doubtful = message["error"], message["doubtful"]
        self._kill_at = time.monotonic() + _GRACE
