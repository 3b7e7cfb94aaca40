"""predictions.jsonl: what was asked, how, and what was answered; a line is on disk once it is used.

    {"kind": "run", "benchmark": ..., "checkpoint": ..., ...}     what the answers depend on
    {"kind": "item", "id", "question", "media", "prompt", "answer", "parsed", "truth", ...}

A killed process leaves at most one torn last line, which the next run cuts off; items that are
there are not asked again. A run of other settings is refused by name. The parser may change:
answers are then read again, and the file says by which.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from facejax.locks import hold

NAME = "predictions.jsonl"
_PARSER = "parser"


class Predictions:
  """The predictions of one benchmark by one model, open for more. Use it in a `with` statement.

  Attributes:
    path: of the file.
    header: of the run.
    records: by id, in the order in which they were written.
  """

  def __init__(self, folder: Path, header: Mapping[str, Any], *, overwrite: bool = False):
    """Opens or begins the file, locked.

    Args:
      folder: made if needed.
      header: JSON values; all but "parser" must be what they were in an earlier run.
      overwrite: an earlier run's answers go.

    Raises:
      ValueError: another process writes to the folder, another run's settings, or a damaged file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    self.path = folder / NAME
    self.header = json.loads(json.dumps(dict(header)))
    self._file = self.path.open("a+b", buffering=0)
    hold(
      self._file,
      f"another process is writing to {folder} - expected one run at a time on an output folder - "
      "wait for it, or give another --out",
    )
    if overwrite:
      self._file.truncate(0)
    _mend(self._file)
    found = _lines(self.path)
    if not found:
      self._file.truncate(0)
      self._write({"kind": "run", **self.header})
      self.saved: dict[str, Any] = self.header
      self.records: dict[str, dict] = {}
      return
    self.saved = {k: v for k, v in found[0].items() if k != "kind"}
    self._check()
    self.records = {record["id"]: record for record in found[1:]}

  def __enter__(self) -> "Predictions":
    return self

  def __exit__(self, *_) -> None:
    self._file.close()

  def _check(self) -> None:
    """Raises ValueError naming each setting that differs from the saved run's."""
    names = sorted(({*self.saved} | {*self.header}) - {_PARSER})
    wrong = [n for n in names if self.saved.get(n) != self.header.get(n)]
    if wrong:
      lines = [f"{n}: {self.saved.get(n)!r} -> {self.header.get(n)!r}" for n in wrong]
      raise ValueError(
        f"{self.path} holds answers of another run (saved -> now):\n  " + "\n  ".join(lines) + "\n"
        "Give another --out, or --overwrite to drop them."
      )

  def add(self, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends items that are not there yet; they are on disk when this returns."""
    for record in records:
      if record["id"] not in self.records:
        self.records[record["id"]] = {"kind": "item", **record}
        self._write(self.records[record["id"]])
    os.fsync(self._file.fileno())

  def forget(self, stale: Callable[[Mapping], bool]) -> None:
    """Leaves out records that are to be asked again; of two lines of an item the later counts."""
    self.records = {i: record for i, record in self.records.items() if not stale(record)}

  def reread(self, parse: Callable[[Mapping], Any]) -> int:
    """Parses all answers again if the parser is another than the saved one; how many changed."""
    if self.saved.get(_PARSER) == self.header.get(_PARSER):
      return 0
    changed = 0
    for record in self.records.values():
      parsed = parse(record)
      changed += parsed != record["parsed"]
      record["parsed"] = parsed
    partial = self.path.with_name(f"{NAME}.tmp")
    lines = [{"kind": "run", **self.header}, *self.records.values()]
    with partial.open("w") as file:
      file.write("".join(json.dumps(line) + "\n" for line in lines))
      file.flush()
      os.fsync(file.fileno())
    self._file.close()
    partial.replace(self.path)
    self._file = self.path.open("a+b", buffering=0)
    hold(self._file, f"another process took {self.path}")
    self.saved = self.header
    return changed

  def _write(self, record: Mapping[str, Any]) -> None:
    data = json.dumps(record).encode() + b"\n"
    written = self._file.write(data)
    if written != len(data):
      raise OSError(f"{self.path}: {written} of {len(data)} bytes were written - disk full?")


def _mend(file) -> None:
  """Cuts off a last line without its end."""
  file.seek(0)
  data = file.read()
  file.truncate(data.rfind(b"\n") + 1)
  file.seek(0, os.SEEK_END)


def _lines(path: Path) -> list[dict[str, Any]]:
  found: list[dict[str, Any]] = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    try:
      record = json.loads(line)
      kind, expected = record["kind"], "item" if found else "run"
    except (ValueError, TypeError, KeyError) as error:
      raise ValueError(
        f"{path}, line {number}: {line[:60]!r} is no prediction - expected JSON with 'kind' - the "
        "file was changed; restore it, or give --overwrite"
      ) from error
    if kind != expected:
      raise ValueError(
        f"{path}, line {number}: kind {kind!r} - expected {expected!r} - the file was changed; "
        "restore it, or give --overwrite"
      )
    found.append(record)
  return found


def read(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """(header, items) of a folder's predictions, ids sorted.

  Raises FileNotFoundError without them, ValueError for a damaged file.
  """
  path = Path(folder) / NAME
  if not path.is_file():
    raise FileNotFoundError(f"no {path} - expected the folder of one benchmark of a run")
  lines = _lines(path)
  if not lines:
    raise ValueError(f"{path} is empty - expected what an evaluation wrote - run it again")
  items = {record["id"]: record for record in lines[1:]}
  return lines[0], [items[name] for name in sorted(items)]
