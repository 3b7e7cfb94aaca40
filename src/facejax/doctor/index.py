"""An index in the LLaVA JSON format -> its records as bytes, one by one -> cases.

data/llava.py refuses an index that is no JSON as a whole, and the first thing that is wrong with a
record. Here one broken record hides no other: records are told apart by brackets, never held in
memory together, and each is read as far as it can be.

    [ {"id": 0, ...},   {"id": 1, ...   {"id": 2, ...} ]
      [offset, length]  [offset, length: up to where the next record starts]
"""

import json
import mmap
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facejax.config import LlavaConfig
from facejax.data.files import MediaError, inside
from facejax.data.rows import placeholders
from facejax.doctor.cases import Case, Piece, Reader, Stored, split_of
from facejax.doctor.findings import Note
from facejax.types import Kind, Turn

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+|"', re.DOTALL)
_NEXT = re.compile(rb'\{\s*"(?:id|image|images|video|conversations)"\s*:')
# No record is longer: where brackets do not close, no more than this is searched for the next one.
_LONGEST = 16 * 2**20
_KINDS: tuple[Kind, ...] = ("image", "video")
_EXTRAS = ("landmarks_2d", "segmentation")
_READ = ("id", "conversations", "split", *_KINDS, *_EXTRAS)  # all else is a label


class IndexSubject:
  """The records of one index file, in file order."""

  def __init__(self, path: Path, config: LlavaConfig, split: str = ""):
    """Finds where each record starts and ends.

    Args:
      path: of the index.
      config: folders of the media.
      split: of records that do not say theirs; "": the one that the file's name speaks of.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is empty or holds no list.
    """
    if not path.is_file():
      raise FileNotFoundError(f"no index file {path} - expected a JSON list of samples")
    self.name, self.path = path.name, path
    folders = {"image": config.image_folder, "video": config.video_folder}
    self.reader: Reader = IndexReader(
      self.name,
      {kind: str(folder or path.parent) for kind, folder in folders.items()},
      split or split_of(path.stem),
    )
    self._starts, self._stops = array("q"), array("q")
    notes: list[Note] = []
    if path.stat().st_size:
      with path.open("rb") as file:
        self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
      for start, stop in _elements(self._text, path, notes):
        self._starts.append(start)
        self._stops.append(stop)
    else:
      raise ValueError(f"{path} is empty (0 bytes) - expected a JSON list of samples")
    self.notes = tuple(notes)

  def __len__(self) -> int:
    return len(self._starts)

  def payload(self, place: int) -> bytes:
    """The bytes of a record."""
    return self._text[self._starts[place] : self._stops[place]]


def _elements(text: Any, path: Path, notes: list[Note]) -> Iterator[tuple[int, int]]:
  """(start, stop) of the elements of a list. Raises ValueError where there is no list."""
  first = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*\[").match(text)
  if first is None:
    shown = text[:40].decode(errors="replace")
    raise ValueError(f"{path} starts with {shown!r} - expected a JSON list of samples, [...]")
  position, comma = first.end(), True
  while True:
    start, stop = _element(text, position)
    if start == stop:  # the list's end, or the file's
      if text[start : start + 1] != b"]":
        notes.append(_index_note(path, start, "the list does not end"))
      elif text[start + 1 :].strip():
        notes.append(_index_note(path, start + 1, "there is text behind the list"))
      elif comma and position != first.end():
        notes.append(_index_note(path, start, "a comma stands before the list's end"))
      return
    if not comma:
      notes.append(_index_note(path, start, "a comma is missing before this record"))
    yield start, stop
    separator = re.compile(rb"\s*,").match(text, stop)
    comma = separator is not None
    position = separator.end() if separator else stop


def _index_note(path: Path, byte: int, what: str) -> Note:
  return Note(
    "invalid_json",
    f"{path}, byte {byte}: {what} - expected a JSON list, which training reads as a whole or not "
    "at all - repair the file",
    path.name,
  )


def _element(text: Any, position: int) -> tuple[int, int]:
  """(start, stop) of the next element; both the same where there is none."""
  depth, start = 0, -1
  for token in _TOKEN.finditer(text, position):
    mark = token[0]
    if start < 0:
      start = token.start()
      if mark == b"]":
        return start, start
    if mark == b'"' or token.end() - start > _LONGEST:
      break
    depth += (mark in (b"{", b"[")) - (mark in (b"}", b"]"))
    if depth == 0:
      return start, token.end()
  if start < 0:
    return len(text), len(text)
  # Brackets or quotes do not close: the record ends where the next one starts.
  following = _NEXT.search(text, start + 1, min(start + _LONGEST, len(text)))
  if following is None:
    return start, len(text)
  return start, len(text[start : following.start()].rstrip(b" \t\r\n,")) + start


class IndexReader:
  """Bytes of a record -> case, in any process."""

  def __init__(self, name: str, folders: dict[str, str], split: str):
    self._name, self._folders, self._split = name, folders, split

  def read(self, place: int, payload: bytes) -> Case:
    """Reads a record; what is not as it should be is noted and left out."""
    notes: list[Note] = []
    name = f"{self._name}:{place}"
    raw = _loaded(payload, notes)
    if not isinstance(raw, dict):
      if not notes:
        notes.append(
          Note("not_an_object", f"the record is {_shown(raw)} - expected a JSON object - remove it")
        )
      return Case(name, split=self._split, notes=tuple(notes), readable=False)
    own = str(raw["id"]) if "id" in raw else ""
    turns = _turns(raw, notes)
    media = self._media(raw, turns or (), notes)
    split = raw.get("split")
    return Case(
      id=f"{name} (id {own})" if own else name,
      turns=turns,
      media=media,
      labels={key: value for key, value in raw.items() if key not in _READ},
      split=split if isinstance(split, str) and split else self._split,
      own_id=own,
      notes=tuple(notes),
    )

  def _media(self, raw: dict, turns: tuple[Turn, ...], notes: list[Note]) -> tuple[Piece, ...]:
    paths = {kind: iter(_listed(raw, kind, notes)) for kind in _KINDS}
    given = [(kind, next(paths[kind], None)) for kind in placeholders(turns)]
    named: list[tuple[Kind, str]] = [(kind, path) for kind, path in given if path is not None]
    named += [(kind, path) for kind in _KINDS for path in paths[kind]]
    columns = []
    for field in _EXTRAS:
      values = _listed(raw, field, notes, optional=True)
      if values and len(values) != len(named):
        notes.append(
          Note(
            "field_type",
            f"{field} has {len(values)} entries for {len(named)} media - expected one each, null "
            "where there is none - complete the list",
          )
        )
        values = values[: len(named)] + [None] * (len(named) - len(values))
      columns.append(values or [None] * len(named))
    return tuple(
      Piece(kind, self._stored(kind, path, notes), *(self._extra(kind, p, notes) for p in extras))
      for (kind, path), *extras in zip(named, *columns, strict=True)
    )

  def _extra(self, kind: Kind, path: str | None, notes: list[Note]) -> Stored | None:
    return None if path is None else self._stored(kind, path, notes)

  def _stored(self, kind: Kind, path: str, notes: list[Note]) -> Stored:
    try:
      return Stored(path, inside(self._folders[kind], path))
    except (MediaError, ValueError, OSError) as error:  # a NUL in a name, a loop of links
      notes.append(
        Note(
          "path_outside",
          f"path {path!r} is not inside {self._folders[kind]} ({type(error).__name__}) - an index "
          "may only name files of its own folder - use a relative path without '..' or links that "
          "lead out",
          path,
        )
      )
      return Stored(path)


def _loaded(payload: bytes, notes: list[Note]) -> Any:
  """The JSON value; None and a note if there is none."""
  text = payload.decode("utf-8", errors="surrogateescape")
  if bad := next((i for i, c in enumerate(text) if "\udc80" <= c <= "\udcff"), None):
    notes.append(
      Note(
        "not_utf8",
        f"byte 0x{ord(text[bad]) - 0xDC00:02x} behind {text[max(bad - 20, 0) : bad]!r} is not "
        "UTF-8 - expected UTF-8 throughout, or training refuses the whole index - save it as UTF-8",
      )
    )
    text = payload.decode("utf-8", errors="replace")
  twice: list[str] = []

  def pairs(items: list[tuple[str, Any]]) -> dict:
    fields = dict(items)
    if len(fields) != len(items):
      names = [key for key, _ in items]
      twice.extend(key for key in fields if names.count(key) > 1)
    return fields

  try:
    raw = json.loads(text, object_pairs_hook=pairs)
  except (ValueError, RecursionError) as error:
    at = getattr(error, "pos", 0)
    notes.append(
      Note(
        "invalid_json",
        f"{getattr(error, 'msg', error)} at {text[max(at - 20, 0) : at + 20]!r} - expected a JSON "
        "object - repair the record, or training refuses the whole index",
      )
    )
    return None
  notes.extend(
    Note("duplicate_key", f"field {key!r} is there twice - the last one counts - remove one")
    for key in twice
  )
  return raw


def _turns(raw: dict, notes: list[Note]) -> tuple[Turn, ...] | None:
  """The conversation's turns, as far as they are such; None if there is no list of them."""
  turns = raw.get("conversations")
  if not isinstance(turns, list):
    notes.append(
      Note(
        "field_type",
        f"'conversations' is {_shown(turns)} - expected a list of "
        '{"from": ..., "value": ...} - add it',
      )
    )
    return None
  good = []
  for i, turn in enumerate(turns):
    if isinstance(turn, dict) and all(isinstance(turn.get(k), str) for k in ("from", "value")):
      good.append(Turn(turn["from"], turn["value"]))
    else:
      notes.append(
        Note(
          "field_type",
          f"turn {i} is {_shown(turn)} - expected an object with the texts 'from' and 'value' - "
          "repair it",
        )
      )
  return tuple(good)


def _listed(raw: dict, field: str, notes: list[Note], optional: bool = False) -> list:
  """The paths of a field: absent -> none, one -> a list of it."""
  value = raw.get(field)
  values = value if isinstance(value, list) else [] if value is None else [value]
  wrong = [p for p in values if not isinstance(p, str) and not (optional and p is None)]
  notes.extend(
    Note(
      "field_type",
      f"'{field}' holds {_shown(path)} - expected a path or a list of paths - repair it",
    )
    for path in wrong
  )
  return [p for p in values if isinstance(p, str) or (optional and p is None)]


def _shown(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."
