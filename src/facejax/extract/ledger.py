"""What a step has done, in a file of lines that a kill can only cut at the end.

    {"file": "a.jpg", "size": 31, "mtime_ns": 17..., "sha256": "..."}    a file's content, once read
    {"key": "...", "result": {...}}                                      what came of that content

A key is a hash of the content and of everything the result depends on, so a file that is renamed,
touched or listed twice costs nothing, and another detector starts anew. Artefacts are renamed into
place before their line is written: a line without its files cannot be, except when someone deleted
them.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from facejax.locks import hold

# Files read at a time: on a network disk, waiting for them takes longer than hashing.
_THREADS = 16
_CHUNK = 4096


class Ledger:
  """The lines of one step, in memory, and the file they are appended to.

  Attributes:
    results: key -> result.
  """

  def __init__(self, path: Path):
    """Opens or creates it. Raises ValueError where another run writes to it, or it is damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    self.results: dict[str, Any] = {}
    self._contents: dict[str, tuple[int, int, str]] = {}
    self._file = open(path, "a+b")  # noqa: SIM115 - closed by close()
    hold(
      self._file,
      f"{path} is locked by another process - expected no other run on {path.parent} - wait for "
      "it, or give another folder",
    )
    self._read(path)

  def __enter__(self) -> "Ledger":
    return self

  def __exit__(self, *_) -> None:
    self._file.close()

  def _read(self, path: Path) -> None:
    self._file.seek(0)
    end = 0
    for number, line in enumerate(self._file, 1):
      if not line.endswith(b"\n"):
        break  # cut by a kill; what follows it is written over it
      end += len(line)
      try:
        self._take(json.loads(line))
      except (ValueError, KeyError, TypeError) as error:
        self._file.close()
        raise ValueError(
          f"{path}, line {number}: {line[:80]!r} ({error!r}) - expected a line of this program - "
          "delete the file; all is then worked out anew"
        ) from error
    if end < self._file.seek(0, os.SEEK_END):  # truncating to the same size changes its time
      self._file.truncate(end)

  def _take(self, line: Mapping[str, Any]) -> None:
    if "file" in line:
      self._contents[line["file"]] = (line["size"], line["mtime_ns"], line["sha256"])
    else:
      self.results[line["key"]] = line["result"]

  def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
      self._take(line)
      self._file.write(json.dumps(line).encode() + b"\n")
    self._file.flush()

  def record(self, key: str, result: Any) -> None:
    """Adds a result; it is on its way to the disk when this returns."""
    self._append([{"key": key, "result": result}])

  def contents(self, files: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of each file; one of unchanged size and time is not read again.

    A file that cannot be read is left out.
    """
    wanted = list(dict.fromkeys(files))
    found: dict[Path, str] = {}
    with (
      ThreadPoolExecutor(_THREADS) as pool,
      tqdm(desc="reading files", total=len(wanted), disable=None, leave=False) as progress,
    ):
      for start in range(0, len(wanted), _CHUNK):  # a million at once would be a GB of futures
        chunk = wanted[start : start + _CHUNK]
        shares = [chunk[n::_THREADS] for n in range(_THREADS)]  # a future a file costs 60 us
        for known in pool.map(self._known, shares):
          found.update(known)
        unknown = [path for path in chunk if path not in found]
        for path, line in zip(unknown, pool.map(_describe, unknown), strict=True):
          if line is not None:
            self._append([line])
            found[path] = line["sha256"]
        progress.update(len(chunk))
    return found

  def _known(self, paths: Iterable[Path]) -> dict[Path, str]:
    """Hashes of those whose size and time are as they were."""
    found = {}
    for path in paths:
      size, mtime, digest = self._contents.get(str(path), (-1, -1, ""))
      if size >= 0:
        with contextlib.suppress(OSError):
          stat = path.stat()
          if (stat.st_size, stat.st_mtime_ns) == (size, mtime):
            found[path] = digest
    return found


def key_of(fingerprint: str, digests: Iterable[str]) -> str:
  """The name of a result: a hash of what it is made from (settings and models, files)."""
  return hashlib.sha256("\n".join([fingerprint, *digests]).encode()).hexdigest()


def sha256(path: str | os.PathLike) -> str:
  """Of a file's content."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, Any] | None:
  """The ledger's line for a file; None where it cannot be read."""
  try:
    stat = path.stat()  # before reading: a file that changes meanwhile is read again
    line = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(path)}
    return {"file": str(path), **line}
  except OSError:
    return None
