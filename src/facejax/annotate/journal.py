"""Every request and every answer, on disk before it counts: what a killed run leaves to the next.

    {"kind": "run", ...}                        one process; the lines of the next begin behind it
    {"kind": "start", "name", "worst"}          a request is about to be sent
    {"kind": "fault", "name", "cause", "paid"}  it came back without an answer
    {"kind": "answer", "name", "key", ...}      it came back with one

`name` is KEY-ATTEMPT, which goes out as the idempotency key. An answer is synced to disk before
it is used, and every line before it with it; the other lines survive a killed process, but not
always a power cut. A start without an end is a request that was under way.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from facejax.annotate.unit import Answer
from facejax.locks import hold

NAME = "journal.jsonl"


class Journal:
  """The journal of an output folder, locked: a second process is refused.

  Attributes:
    torn: bytes of a half-written last line that were cut off.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens or begins the journal. Raises ValueError: another run holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    self.path = folder / NAME
    self._file = self.path.open("a+b", buffering=0)
    hold(
      self._file,
      f"another process is writing to {folder} - expected one run at a time on an output folder - "
      "wait for it, or give another folder",
    )
    _sync_folder(folder)
    self._answers: dict[str, list[int]] = {}
    self._broken = False
    self.torn = 0

  def close(self) -> None:
    """Releases the lock."""
    self._file.close()

  def replay(self) -> Iterator[dict[str, Any]]:
    """The lines of earlier runs, once, after mending the last one.

    Raises ValueError for a line that is damaged in any other place.
    """
    self._mend()
    self._file.seek(0)
    offset = 0
    with os.fdopen(os.dup(self._file.fileno()), "rb") as lines:
      for number, line in enumerate(lines, 1):
        try:
          record = json.loads(line)
          if record["kind"] == "answer":
            self._answers.setdefault(record["key"], []).append(offset)
        except (ValueError, TypeError, KeyError) as error:
          raise ValueError(
            f"{self.path}, line {number}: {line[:60]!r} is no record of a campaign - "
            "expected JSON with 'kind' - the file was changed; restore it from a copy"
          ) from error
        yield record
        offset += len(line)

  def answers(self, key: str) -> list[Answer]:
    """What was paid for under a key, in order."""
    return [_answer(json.loads(self._line(offset))) for offset in self._answers.get(key, [])]

  def run(self, **what: Any) -> None:
    """A process begins."""
    self._append({"kind": "run", **what})

  def start(self, name: str, worst: float) -> None:
    """A request is about to be sent that costs `worst` at most."""
    self._append({"kind": "start", "name": name, "worst": worst})

  def fault(self, name: str, cause: str, paid: bool) -> None:
    """The request failed; `paid`: it may have been billed."""
    self._append({"kind": "fault", "name": name, "cause": cause, "paid": paid})

  def answer(self, name: str, key: str, answer: Answer) -> None:
    """The request was answered. On disk when this returns."""
    fields = {f: getattr(answer, f) for f in Answer.__dataclass_fields__}
    offset = self._append({"kind": "answer", "name": name, "key": key, **fields})
    os.fsync(self._file.fileno())
    self._answers.setdefault(key, []).append(offset)

  def _append(self, record: dict[str, Any]) -> int:
    """Writes a line; gives where it begins. After a failed write nothing more is written."""
    if self._broken:
      raise OSError(f"{self.path}: an earlier write failed; nothing is added to a torn line")
    offset = self._file.seek(0, os.SEEK_END)
    data = json.dumps(record).encode() + b"\n"
    self._broken = True
    written = self._file.write(data)
    if written != len(data):
      raise OSError(f"{self.path}: {written} of {len(data)} bytes were written - disk full?")
    self._broken = False
    return offset

  def _line(self, offset: int) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
      data += os.pread(self._file.fileno(), 1 << 16, offset + len(data))
      head, newline, _ = data.partition(b"\n")
      data = head + newline
    return data

  def _mend(self) -> None:
    """Cuts off a last line without its end: the process was killed while it wrote."""
    size = self._file.seek(0, os.SEEK_END)
    keep, block = size, b""
    while keep and not block.endswith(b"\n"):
      begin = max(0, keep - 4096)
      block = os.pread(self._file.fileno(), keep - begin, begin)
      keep = begin + block.rfind(b"\n") + 1
      block = block[: keep - begin]
    self.torn = size - keep
    self._file.truncate(keep)


def _answer(record: dict[str, Any]) -> Answer:
  fields = {name: record[name] for name in Answer.__dataclass_fields__}
  return Answer(**{**fields, "tokens": tuple(record["tokens"])})


def _sync_folder(folder: pathlib.Path) -> None:
  """A new file's name is on disk once its folder is."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
