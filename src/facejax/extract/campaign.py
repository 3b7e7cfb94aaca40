"""Jobs -> results, over processes; a run that was killed continues, a finished one does nothing.

    Job --content, fingerprint--> key --ledger--> result          known: nothing is done
                                   |
                                   +--a process: work(job, key)--> result, artefacts in OUT

Work that raises ValueError refuses its job: the reason is the result. A process that dies (a
decoder that crashes, memory) takes one job with it, which is refused by name in this run and tried
again in the next. Anything else, a full disk say, ends the run; what is done stays done.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tqdm import tqdm

from facejax.extract.ledger import Ledger, key_of

if TYPE_CHECKING:  # importing it brings JAX, which the processes of light work can do without
  from facejax.types import Kind

Result = dict[str, Any]  # JSON; "refused" says why there is nothing else
_DEATHS = 3  # processes in a row, with none that did anything: then it is not the files' fault
_AHEAD = 4  # jobs handed out per process, so that none waits for this one


class Job(NamedTuple):
  """A medium to work on, and the other files that its result depends on."""

  kind: Kind
  files: tuple[Path, ...]


class Work(Protocol):
  """What is done to a medium; pickled once to each process.

  Attributes:
    fingerprint: everything but the files that results depend on, as JSON.
    out: folder of the artefacts.
  """

  fingerprint: dict[str, Any]
  out: Path

  def __call__(self, job: Job, key: str) -> Result:
    """Writes artefacts named by `key`; lists them, relative to `out`, under "files".

    Raises ValueError where nothing can be made of the job, saying why.
    """
    ...


class Done(NamedTuple):
  """Results of all jobs, the SHA-256 of their files, and how many were worked on just now."""

  results: dict[Job, Result]
  contents: dict[Path, str]
  fresh: int


def run(
  work: Work, jobs: Iterable[Job], carried: Iterable[Path], ledger: Ledger, workers: int
) -> Done:
  """Works on the jobs whose result is not known.

  Args:
    work: what to do.
    jobs: media; one that is listed twice, or equals another one, is worked on once.
    carried: more files whose SHA-256 is wanted.
    ledger: what earlier runs did.
    workers: processes; 0 works in this one.

  Raises:
    OSError: the disk is full, or the like.
    RuntimeError: processes die before they do anything.
  """
  jobs = list(dict.fromkeys(jobs))
  contents = ledger.contents([*(path for job in jobs for path in job.files), *carried])
  results: dict[Job, Result] = {}
  keys: dict[Job, str] = {}
  fingerprint = json.dumps(work.fingerprint, sort_keys=True)
  for job in jobs:
    missing = [path for path in job.files if path not in contents]
    if missing:
      results[job] = {"refused": f"{missing[0]}: no such file, or not readable - check the index"}
    else:
      keys[job] = key_of(fingerprint, [job.kind, *(contents[path] for path in job.files)])
  first = {key: job for job, key in reversed(keys.items())}  # one job for each content
  todo = {key: job for key, job in first.items() if not _known(ledger.results.get(key), work.out)}
  lost: dict[str, Result] = {}
  progress = tqdm(total=len(first), initial=len(first) - len(todo), unit="file", disable=None)
  with progress:
    for key, result, lasting in _work(work, list(todo.items()), workers):
      if lasting:
        ledger.record(key, result)
      else:
        lost[key] = result
      progress.update()
  for job, key in keys.items():
    results[job] = lost.get(key) or ledger.results[key]
  return Done(results, contents, len(todo))


def _known(result: Result | None, out: Path) -> bool:
  return result is not None and all((out / name).is_file() for name in result.get("files", ()))


def _work(
  work: Work, todo: list[tuple[str, Job]], workers: int
) -> Iterator[tuple[str, Result, bool]]:
  """(key, result, whether it would be the same another time) as they come."""
  if workers == 0:
    for key, job in todo:
      yield key, _try(work, key, job), True
    return
  deaths, lived = 0, False
  while todo:
    suspects: list[tuple[str, Job]] = []
    done = set()
    for key, result in _pooled(work, todo, workers, suspects):
      done.add(key)
      lived = True
      yield key, result, True
    for key, job in suspects:  # alone, so that the one to blame is known
      blamed: list[tuple[str, Job]] = []
      done.add(key)
      for _, result in _pooled(work, [(key, job)], 1, blamed):
        lived = True
        yield key, result, True
      if blamed:
        deaths += 1
        if deaths == _DEATHS and not lived:
          raise RuntimeError(
            f"{deaths} of {deaths} processes died before they did anything - expected them to "
            "start - try --workers 0; a script of yours must start under `if __name__ == "
            "'__main__'`"
          )
        reason = f"{job.files[0]}: the process that worked on it died (a crash, or no memory left)"
        yield key, {"refused": f"{reason} - try it alone, encode it again, or remove it"}, False
    todo = [(key, job) for key, job in todo if key not in done]


def _pooled(
  work: Work, todo: Sequence[tuple[str, Job]], workers: int, suspects: list[tuple[str, Job]]
) -> Iterator[tuple[str, Result]]:
  """Results as they come; ends early when a process dies, leaving in `suspects` what ran then."""
  queue = iter(todo)
  running: dict[Future, tuple[str, Job]] = {}
  # Spawned: a fork of a process with threads (JAX's, decoders') may deadlock.
  context = multiprocessing.get_context("spawn")
  pool = ProcessPoolExecutor(min(workers, len(todo)), context, _start, (work,))
  try:
    while True:
      for key, job in queue:
        running[pool.submit(_run, key, job)] = (key, job)
        if len(running) >= _AHEAD * workers:
          break
      if not running:
        return
      finished, _ = wait(running, return_when=FIRST_COMPLETED)
      for future in finished:
        result = future.result()
        yield running.pop(future)[0], result
  except BrokenProcessPool:
    suspects += running.values()
  finally:
    pool.shutdown(cancel_futures=True)


_WORK: list[Work] = []  # of this process


def _start(work: Work) -> None:
  """In a new process: Ctrl-C is the parent's business, and the parent's death is its own."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None
  threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
  _WORK.append(work)


def _end_with(sentinel: int) -> None:
  # A killed parent closes no queue: without this its processes would wait for work for ever.
  wait_for([sentinel])
  os._exit(1)


def _run(key: str, job: Job) -> Result:
  return _try(_WORK[0], key, job)


def _try(work: Work, key: str, job: Job) -> Result:
  try:
    return work(job, key)
  except ValueError as error:
    return {"refused": str(error)}


def place(out: Path, folder: str, key: str, suffix: str) -> Path:
  """Where an artefact goes, relative to `out`: 256 folders keep each listing short."""
  relative = Path(folder) / key[:2] / (key + suffix)
  (out / relative).parent.mkdir(parents=True, exist_ok=True)
  return relative


def save(path: Path, data: bytes) -> None:
  """Writes a file that is never seen half, and not at all where it already holds this."""
  if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
    return
  partial = path.with_name(f".{path.name}.partial")
  partial.write_bytes(data)
  partial.replace(path)
