"""Who belongs to a run of several processes, and who is missing. Lines over TCP -> a verdict.

Process 0 has the hub; the keeper of each process (keeper.py) holds one connection to it. A line is
a JSON object with one key:

  keeper says   hello: who, of how many, where, with which settings
                beat: where the process is, such as "base step 7"; also says that it is there
                meet: [a place, a value, patience]: all wait for each other there
                halt: it was asked to save and stop     count: of the steps that it has made
                end: how the process ended
  hub says      go: all are there     beat: the hub is there     met: the values of all, by process
                ask: for the count    last: the step after which all save and stop
                say: a line to print  stop: why all must stop    bye: all have ended well

A keeper imports no JAX and waits for nothing else, so that its silence means what it seems to.
"""

import dataclasses
import json
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

# sysexits.h: a service is unavailable. Another process of the run is missing or failed.
MISSING = 69
# A temporary failure, try again. A run that was asked to stop has saved its state and waits for
# --resume; a scheduler must not take it for finished (0) or broken (1, 2).
INTERRUPTED = 75
BAD_INPUT = 2
_LONGEST = 2**20  # bytes of a line; a thousand processes meet in 100 KB
_LINGER = 5.0  # seconds that the last words of a run may take
_NAMED = 8  # processes in one message


@dataclasses.dataclass(frozen=True)
class Limits:
  """Seconds."""

  wait: float = 300.0  # for each other, at the start and at checkpoints
  silence: float = 60.0  # until a process that says nothing is taken for dead

  def __post_init__(self):
    for flag, value in (("--barrier-timeout", self.wait), ("--heartbeat-timeout", self.silence)):
      if not 1 <= value <= 86_400:
        raise ValueError(f"{flag}={value:g}: expected 1 to 86400 seconds")

  @property
  def interval(self) -> float:
    """Between two signs of life."""
    return min(self.silence / 5, 5.0)


class Lines:
  """JSON objects over a socket, one a line."""

  def __init__(self, connection: socket.socket):
    self.socket = connection
    self.socket.settimeout(_LINGER)  # of a send to a machine that is gone
    self._rest = b""

  def send(self, **message: Any) -> bool:
    """Sends one; False if nobody is there to take it."""
    try:
      self.socket.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
      return False
    return True

  def receive(self) -> list[dict] | None:
    """What has arrived, perhaps nothing yet; None once the other side is gone or talks nonsense.

    Call it when the socket is readable.
    """
    try:
      read = self.socket.recv(2**16)
    except OSError:
      return None
    *lines, self._rest = (self._rest + read).split(b"\n")
    try:
      messages = [json.loads(line) for line in lines]
    except ValueError:
      return None
    sound = all(isinstance(message, dict) for message in messages)
    return messages if read and sound and len(self._rest) < _LONGEST else None


@dataclasses.dataclass
class _Peer:
  """A process that said hello."""

  lines: Lines
  index: int
  host: str
  pid: int
  settings: dict
  heard: float  # when
  place: str = "the start"
  ended: bool = False


class Hub:
  """Calls the roll, then listens until all have ended or one is missing."""

  def __init__(self, port: int, processes: int, limits: Limits, jax_port: int):
    """Listens on `port` of all addresses. Raises ValueError if the port is taken."""
    self._processes, self._limits, self._jax_port = processes, limits, jax_port
    self._thread = threading.Thread(target=self._run, daemon=True, name="hub")
    dual = socket.has_dualstack_ipv6()
    try:
      self._listener = socket.create_server(
        ("", port),
        family=socket.AF_INET6 if dual else socket.AF_INET,
        dualstack_ipv6=dual,
        backlog=4096,
      )
    except OSError as error:
      raise ValueError(
        f"port {port} of this machine cannot be listened on ({error.strerror}) - expected a free "
        "one - another run, or another process 0 of this one? Take another port in --coordinator"
      ) from error
    self.port = self._listener.getsockname()[1]
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._listener, selectors.EVENT_READ)
    self._peers: dict[int, _Peer] = {}
    self._strangers: set[Lines] = set()  # connected, and not a word yet
    self._meetings: dict[str, tuple[float, dict[int, Any]]] = {}
    self._counts: dict[int, int] | None = None  # steps made, once somebody was asked to stop
    self._doubtful: tuple[float, str, int] | None = None
    self._began = self._moved = time.monotonic()
    self._going = False
    self._over: float | None = None  # until when the last words may take

  def start(self) -> None:
    """Begins to listen, in a thread of its own."""
    self._thread.start()

  def join(self, seconds: float) -> None:
    """Waits until all has been said."""
    self._thread.join(seconds)

  def _run(self) -> None:
    beaten = 0.0
    while self._over is None or (self._peers and time.monotonic() < self._over):
      for key, _ in self._selector.select(self._limits.interval / 2):
        if key.fileobj is self._listener:
          self._accept()
        else:
          self._hear(key.data)
      now = time.monotonic()
      if now - beaten >= self._limits.interval:
        beaten = now
        self._tell(beat="")
      if self._over is None:
        self._judge(now)
    self._selector.close()
    for lines in (*(peer.lines for peer in self._peers.values()), *self._strangers):
      lines.socket.close()
    self._listener.close()

  def _accept(self) -> None:
    lines = Lines(self._listener.accept()[0])
    self._strangers.add(lines)
    self._selector.register(lines.socket, selectors.EVENT_READ, lines)

  def _hear(self, source: Lines | _Peer) -> None:
    lines = source.lines if isinstance(source, _Peer) else source
    messages = lines.receive()
    if messages is None:
      self._drop(source, lines)
      return
    for message in messages:
      if isinstance(source, _Peer):
        self._take(source, message)
      elif "hello" in message:
        source = self._greet(lines, message["hello"]) or source

  def _drop(self, source: Lines | _Peer, lines: Lines) -> None:
    self._selector.unregister(lines.socket)
    lines.socket.close()
    self._strangers.discard(lines)
    if not isinstance(source, _Peer):
      return
    self._peers.pop(source.index)
    if self._going and not source.ended:
      self._halt(
        f"{self._name(source)} is gone, without a word: killed, or its machine went down; it was "
        f"at {source.place}",
        source.index,
      )

  def _greet(self, lines: Lines, hello: Mapping[str, Any]) -> _Peer | None:
    """Takes a process in, or says what is wrong with it."""
    peer = _Peer(lines=lines, heard=time.monotonic(), **{k: hello[k] for k in _HELLO})
    other = self._peers.get(peer.index)
    if hello["processes"] != self._processes or not 0 <= peer.index < self._processes:
      lines.send(
        stop=f"this is process {peer.index} of {hello['processes']}, process 0 was started with "
        f"--processes {self._processes} - start all with the same number",
        status=BAD_INPUT,
        index=None,
        failed=False,
      )
      return None
    self._strangers.discard(lines)
    self._selector.modify(lines.socket, selectors.EVENT_READ, peer)
    if other:
      text = (
        f"process {peer.index} came twice: {other.host}, pid {other.pid}, and {peer.host}, pid "
        f"{peer.pid} - expected each --process once"
      )
      lines.send(stop=text, status=BAD_INPUT, index=None, failed=False)
      self._halt(text, None, BAD_INPUT)
      return peer
    self._peers[peer.index] = peer
    if len(self._peers) == self._processes:
      self._begin()
    return peer

  def _begin(self) -> None:
    first = self._peers[0]
    for index, peer in sorted(self._peers.items()):
      for name in sorted(set(first.settings) | set(peer.settings)):
        ours, theirs = first.settings.get(name), peer.settings.get(name)
        if ours != theirs:
          self._halt(
            f"{self._name(peer)} has {name} {theirs!r}, process 0 on {first.host} has {ours!r} - "
            "expected the same everywhere - start all processes with one environment and one "
            "command",
            index,
            BAD_INPUT,
          )
          return
    self._going, self._moved = True, time.monotonic()
    hosts = [self._peers[i].host for i in range(self._processes)]
    self._tell(go={"port": self._jax_port, "hosts": hosts})

  def _take(self, peer: _Peer, message: Mapping[str, Any]) -> None:
    peer.heard = time.monotonic()
    if "beat" in message:
      if message["beat"] != peer.place:
        peer.place, self._moved = message["beat"], peer.heard
    elif "meet" in message:
      name, value, patience = message["meet"]
      peer.place, self._moved = name, peer.heard
      deadline = peer.heard + patience * self._limits.wait
      _, values = self._meetings.setdefault(name, (deadline, {}))
      values[peer.index] = value
      if len(values) == self._processes:
        del self._meetings[name]
        self._tell(met=[values[i] for i in range(self._processes)])
    elif "halt" in message and self._counts is None:
      self._counts = {}
      self._tell(ask="")
    elif "count" in message and self._counts is not None:
      self._counts[peer.index] = message["count"]
      if len(self._counts) == self._processes:
        self._tell(last=max(self._counts.values()) + 1)
    elif "end" in message:
      self._end(peer, **message["end"])

  def _end(
    self, peer: _Peer, *, well: bool, why: str, doubtful: bool, failed: bool, place: str
  ) -> None:
    """A process has ended; doubtful, if that may only follow from the loss of another one."""
    peer.ended, peer.place = well, place
    if well:
      if len(self._peers) == self._processes and all(p.ended for p in self._peers.values()):
        self._tell(bye="")
        self._over = time.monotonic() + _LINGER
    elif not self._going:
      self._halt(f"{self._name(peer)} {why}", peer.index, INTERRUPTED)
    elif not doubtful:
      self._halt(f"{self._name(peer)} {why}; it was at {place}", peer.index, failed=failed)
    elif self._doubtful is None:
      text = f"{self._name(peer)} {why}; it was at {place}"
      self._doubtful = (peer.heard, text, peer.index)

  def _judge(self, now: float) -> None:
    """What only time can tell."""
    wait, silence = self._limits.wait, self._limits.silence
    if not self._going:
      if now - self._began > wait:
        self._halt(self._absent(), None)
      return
    for peer in list(self._peers.values()):
      if now - peer.heard > silence and not peer.ended:
        text = f"{self._name(peer)} has said nothing for {silence:g} s; it was at {peer.place}"
        self._halt(text, peer.index)
        return
    for name, (deadline, values) in self._meetings.items():
      if now > deadline:
        late = [peer for i, peer in sorted(self._peers.items()) if i not in values]
        places = "; ".join(f"{self._name(p)} was at {p.place}" for p in late[:_NAMED])
        text = f"waited in vain at '{name}' for {len(late)} of {self._processes}: {places}"
        self._halt(text, late[0].index if len(late) == 1 else None)
        return
    # A broken connection between devices is seen at once; whose fault it was, after a silence.
    if self._doubtful and now - self._doubtful[0] > silence + 2 * self._limits.interval:
      self._halt(*self._doubtful[1:])
    elif now - self._moved > wait:
      self._moved = now
      self._peers[0].lines.send(say=self._standstill())

  def _absent(self) -> str:
    missing = [i for i in range(self._processes) if i not in self._peers]
    came = [f"{i} ({peer.host})" for i, peer in sorted(self._peers.items())]
    more = lambda names: ", ".join(map(str, names[:_NAMED])) + (", ..." if names[_NAMED:] else "")
    s = "" if len(missing) == 1 else "es"
    return (
      f"process{s} {more(missing)} of {self._processes} did not come within "
      f"{self._limits.wait:g} s - expected all to connect to process 0, port {self.port} - came: "
      f"{more(came)} - look at the log of the missing, and whether they reach that port"
    )

  def _standstill(self) -> str:
    at: dict[str, list[_Peer]] = {}
    for _, peer in sorted(self._peers.items()):
      at.setdefault(peer.place, []).append(peer)
    groups = sorted(at.items(), key=lambda item: len(item[1]))
    told = "; ".join(f"{len(peers)} at {place}, {self._name(peers[0])}" for place, peers in groups)
    return f"no process has moved for {self._limits.wait:g} s: {told}"

  def _tell(self, **message: Any) -> None:
    for peer in self._peers.values():
      peer.lines.send(**message)

  def _name(self, peer: _Peer) -> str:
    return f"process {peer.index} of {self._processes} ({peer.host}, pid {peer.pid})"

  def _halt(
    self, text: str, index: int | None, status: int = MISSING, failed: bool = False
  ) -> None:
    """Tells all; `index` is the process whose fault it is, which `failed` if it said so."""
    self._tell(stop=text, status=status, index=index, failed=failed)
    self._over = time.monotonic() + _LINGER


_HELLO = ("index", "host", "pid", "settings")
