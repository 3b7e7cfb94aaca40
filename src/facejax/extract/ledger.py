"""What a step has done, in a file of lines that a kill can only cut at the end.

    {"file": "a.jpg", "size": 31, "mtime_ns": 17..., "sha256": "..."}    a file's content, once read
    {"key": "...", "result": {...}}                                      what came of that content

A key is a hash of the content and of everything the result depends on, so a file that is renamed,
touched or listed twice costs nothing, and another detector starts anew. Artefacts are renamed into
place before their line is written: a line without its files cannot be, except when someone deleted
them.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Files read at a time: on a network disk, waiting for them takes longer than hashing.
_THREADS = 16


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
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      self._file.close()
      raise ValueError(
        f"{path} is locked ({error}) - expected no other run on {path.parent} - wait for it, or "
        "give another folder"
      ) from error
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
    wanted, stats = list(dict.fromkeys(files)), {}
    found: dict[Path, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
      for path, stat in zip(wanted, pool.map(_stat, wanted), strict=True):
        if stat is None:
          continue
        size, mtime, digest = self._contents.get(str(path), (-1, -1, ""))
        if (size, mtime) == (stat.st_size, stat.st_mtime_ns):
          found[path] = digest
        else:
          stats[path] = stat
      digests = tqdm(
        pool.map(_digest, stats), desc="reading files", total=len(stats), disable=None, leave=False
      )
      for (path, stat), digest in zip(stats.items(), digests, strict=True):
        if digest is not None:
          found[path] = digest
          line = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
          self._append([{"file": str(path), **line}])
    return found


def key_of(fingerprint: Mapping[str, Any], digests: Iterable[str]) -> str:
  """The name of a result: a hash of what it is made from (files, settings, models)."""
  parts = [json.dumps(fingerprint, sort_keys=True), *digests]
  return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def sha256(path: str | os.PathLike) -> str:
  """Of a file's content."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _stat(path: Path) -> os.stat_result | None:
  try:
    return path.stat()
  except OSError:
    return None


def _digest(path: Path) -> str | None:
  try:
    return sha256(path)
  except OSError:
    return None
