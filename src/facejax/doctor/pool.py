"""Jobs -> results, by processes that may hang or die without taking the run with them.

A job says which file it opens (`at`), in memory that both sides see: a message each would cost as
much as a small picture. A file on which a process hangs for too long, or dies, is noted in the
job's `skip`, and the job is done again without it by a fresh process: so the sample's other
findings are not lost, and each repetition has one file less.

How long is too long is counted in seconds of a core, by a timer that ends the process: on a busy
machine, or where a disk stalls, no good file is accused. What waits for ever uses no core; it has
ten times as long by the clock.

Results come in any order. One chunk of jobs is with a process at a time: it reads the next only
when it has answered all, so neither side can block the other on a full pipe.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from facejax.doctor.examine import Examined, Job
from facejax.doctor.findings import Note

_CHUNK = 8  # jobs sent at a time: 0.1 ms of waiting for the pipe is then nothing beside decoding
_START = 300.0  # seconds that a process may take to start: importing and opening models
_NAME = 8192  # bytes of a file's name that are shared; paths are shorter
_PATIENCE = 10  # times the limit by the clock
_KILLS = 3  # in a row without a file to blame, after which the job is given up
_TIMER = int(getattr(signal, "SIGPROF", 0))  # 0: the system has none, and the clock has to do

Work = Callable[[Job, Callable[[str], None]], Any]


@dataclasses.dataclass(frozen=True)
class Failed:
  """What is known of a job whose process died between files, or whose reading raised."""

  reason: str


class Pool:
  """Worker processes; a context manager."""

  def __init__(self, make: Callable[[], Work], workers: int, timeout: float):
    """Starts nothing yet.

    Args:
      make: called once in each process; gives the function that does a job. Picklable.
      workers: processes.
      timeout: seconds of a core that a single file may take.
    """
    methods = multiprocessing.get_all_start_methods()
    self._context = multiprocessing.get_context(
      "forkserver" if "forkserver" in methods else "spawn"
    )
    if "forkserver" in methods:  # imports once: a process after a crash starts at once
      self._context.set_forkserver_preload(["facejax.doctor.examine"])
    self._make, self._count, self._timeout = make, workers, timeout
    self._workers: list[_Worker] = []

  def __enter__(self) -> "Pool":
    return self

  def __exit__(self, *_: object) -> None:
    for worker in self._workers:
      worker.stop()

  def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Examined | str | Failed]]:
    """Does all jobs; they are taken from the iterator as processes become free.

    Raises:
      RuntimeError: a process cannot start, and what it said.
      ModuleNotFoundError: a decoder is not installed.
    """
    source = iter(jobs)
    again: deque[Job] = deque()
    while len(self._workers) < self._count:
      self._workers.append(_Worker(self._context, self._make, self._timeout))
    while True:
      for worker in self._workers:
        if not worker.jobs:
          worker.send([again.popleft() for _ in range(min(len(again), _CHUNK))])
        if not worker.jobs:
          worker.send(list(itertools.islice(source, _CHUNK)))
      busy = [worker for worker in self._workers if worker.jobs]
      if not busy:
        return
      ready = wait([w.pipe for w in busy], timeout=max(min(map(self._left, busy)), 0.0))
      for i, worker in enumerate(self._workers):
        if worker.jobs and worker.pipe in ready:
          yield from self._received(i, worker, again)
        elif worker.jobs and self._left(worker) <= 0:
          yield from self._lost(i, worker, again, hung=True)

  def _left(self, worker: "_Worker") -> float:
    """Seconds that it may still take."""
    if not worker.started:
      return worker.since + _START - time.monotonic()
    since = max(worker.since, worker.now.since)
    return since + _PATIENCE * self._timeout - time.monotonic()

  def _received(
    self, i: int, worker: "_Worker", again: deque[Job]
  ) -> Iterator[tuple[Job, Examined | str | Failed]]:
    try:
      while worker.jobs and worker.pipe.poll():
        what, value = worker.pipe.recv()
        worker.since = time.monotonic()
        if what == "started":
          worker.started = True
        elif what == "missing":
          raise ModuleNotFoundError(value)
        elif what == "broken":
          raise RuntimeError(f"a worker process cannot start: {value}")
        else:
          yield worker.jobs.popleft(), value
    except (EOFError, ConnectionError):
      yield from self._lost(i, worker, again, hung=False)

  def _lost(
    self, i: int, worker: "_Worker", again: deque[Job], hung: bool
  ) -> Iterator[tuple[Job, Failed]]:
    """Replaces a process that hangs or is dead; its jobs are done again, all but one alike."""
    code = worker.stop()
    if not worker.started:
      raise RuntimeError(
        f"a worker process did not start (exit {code}) - expected it to import facejax - check the "
        "memory that is left, or use fewer --workers"
      )
    job = worker.jobs.popleft()
    again.extendleft(reversed(worker.jobs))
    self._workers[i] = _Worker(self._context, self._make, self._timeout)
    if not (file := worker.now.file()):
      kills = job.kills + 1
      if kills == _KILLS:
        yield (
          job,
          Failed(
            f"its process {'hung' if hung else f'died (exit {code})'} {_KILLS} times outside of "
            "any file"
          ),
        )
        return
      again.appendleft(dataclasses.replace(job, kills=kills))
      return
    if hung or code == -_TIMER:
      note = Note(
        "decoder_timeout",
        f"{file}: still decoding after {self._timeout:g} s of a core, or {_PATIENCE} times that by "
        "the clock - expected a file that decodes - "
        "encode it again, or raise --timeout",
        file,
      )
    else:
      note = Note(
        "decoder_crash",
        f"{file}: its decoder ended the process (exit {code}) - expected a file that "
        "decodes - encode it again",
        file,
      )
    again.appendleft(dataclasses.replace(job, skip={**job.skip, file: note}))


class _Now:
  """What a process is doing, in memory that it shares with the run."""

  def __init__(self, context, timeout: float):
    self._name, self._since = context.RawArray("c", _NAME), context.RawValue("d", 0.0)
    self._timeout = timeout

  def at(self, name: str) -> None:
    """Says which file is opened now; "" for none."""
    data = name.encode(errors="surrogatepass")
    self._name.value = data if len(data) < _NAME else b""
    self._since.value = time.monotonic()
    if _TIMER:  # nobody handles its signal, so it ends the process, inside a decoder, too
      signal.setitimer(signal.ITIMER_PROF, self._timeout if name else 0.0)

  @property
  def since(self) -> float:
    """When it said so; all processes have the same clock."""
    return self._since.value

  def file(self) -> str:
    """The file it has open."""
    return self._name.value.decode(errors="surrogatepass")


class _Worker:
  """A process, its pipe, and the jobs it has not answered."""

  def __init__(self, context, make: Callable[[], Work], timeout: float):
    self.pipe, far = context.Pipe()
    self.now = _Now(context, timeout)
    self._process = context.Process(target=_serve, args=(far, self.now, make), daemon=True)
    self._process.start()
    far.close()
    self.jobs: deque[Job] = deque()
    self.started, self.since = False, time.monotonic()

  def send(self, jobs: list[Job]) -> None:
    """Gives it work; none to do is no message."""
    if jobs:
      self.jobs.extend(jobs)
      self.since = time.monotonic() if self.started else self.since
      with contextlib.suppress(ConnectionError):  # it died: reading from it will say so
        self.pipe.send(jobs)

  def stop(self) -> int | None:
    """Ends the process, whatever it does; gives its exit code."""
    self.pipe.close()  # an idle one ends by itself then
    self._process.join(timeout=0.05 if self.jobs else 1.0)
    if self._process.is_alive():
      self._process.kill()
    self._process.join()
    return self._process.exitcode


def _serve(pipe: Connection, now: _Now, make: Callable[[], Work]) -> None:
  """The life of a worker process; it ends when the other side is closed."""
  with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
    try:
      work = make()
    except Exception as error:
      pipe.send(("broken", f"{type(error).__name__}: {error}"))
      return
    pipe.send(("started", None))
    while True:
      for job in pipe.recv():
        answer = _answer(work, job, now)
        now.at("")
        pipe.send(answer)


def _answer(work: Work, job: Job, now: _Now) -> tuple[str, Any]:
  """What a job gave; a sample must not end the run, whatever it raises."""
  try:
    return "done", work(job, now.at)
  except ModuleNotFoundError as error:
    return "missing", str(error)
  except Exception as error:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
    return "done", Failed(f"reading it raised {type(error).__name__}: {error} ({where})")
