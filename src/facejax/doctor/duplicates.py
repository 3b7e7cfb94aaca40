"""What can be seen only over all samples: copies within a split, and across splits.

Hashes are kept in flat tables, 50 bytes a medium and 72 a sample, and sorted once at the end:
O(n log n) time, a constant number of bytes a sample.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from facejax.doctor.cases import held_out
from facejax.doctor.examine import Examined
from facejax.doctor.findings import Note

_KEY = ("<u8", (2,))
_MEDIA = np.dtype(
  [("at", "<u8"), ("nth", "<u2"), ("name", "<u8"), ("content", *_KEY), ("key", *_KEY)]
)
_SAMPLES = np.dtype([("at", "<u8"), ("media", *_KEY), ("key", *_KEY)])
_IDS = np.dtype([("at", "<u8"), ("key", *_KEY)])
_NONE = bytes(16)


class Ledger:
  """Collects the hashes of samples, in any order; then names the copies, in theirs."""

  def __init__(self) -> None:
    self._media, self._samples, self._answers, self._ids = (bytearray() for _ in range(4))

  def add(self, at: int, subject: int, found: Examined) -> None:
    """Takes what is needed of a sample.

    Args:
      at: its number over all datasets.
      subject: number of its dataset.
      found: what its worker answered.
    """
    place = at.to_bytes(8, "little")
    for nth, fact in enumerate(found.facts):
      if fact.pixels:
        self._media += place + min(nth, 65_535).to_bytes(2, "little") + fact.name
        self._media += fact.content + fact.pixels
    media = _digest(*(fact.pixels for fact in found.facts)) if found.facts else _NONE
    if found.sample:
      self._samples += place + media + found.sample
      if found.answers and found.facts:
        self._answers += place + media + found.answers
    if found.own_id:
      own = found.own_id.encode(errors="replace")
      self._ids += place + _digest(subject.to_bytes(4, "little"), own)

  def notes(self, ids: Sequence[str], splits: Sequence[str]) -> Iterator[tuple[int, Note]]:
    """(number of the sample, note) of every copy.

    Args:
      ids: of all samples, by number.
      splits: likewise.
    """
    for rows in _groups(self._ids, _IDS):
      first = int(rows["at"][0])
      for at in rows["at"][1:].tolist():
        yield (
          at,
          Note(
            "duplicate_id",
            f"sample {ids[first]!r} has the same id - expected one each - rename one",
          ),
        )
    for rows in _groups(self._media, _MEDIA):
      yield from _media(rows, ids, splits)
    for rows in _groups(self._samples, _SAMPLES):
      yield from _samples(rows, ids, splits)
    for rows in _groups(self._answers, _SAMPLES):
      first = int(rows["at"][0])
      for row in rows[1:]:
        if (row["media"] != rows["media"][0]).any():
          yield (
            int(row["at"]),
            Note(
              "same_conversation",
              f"its answers are those of sample {ids[first]!r}, under other media - expected "
              "answers about this sample's - check which media they belong to",
            ),
          )


def _digest(*parts: bytes) -> bytes:
  return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _groups(table: bytearray, dtype: np.dtype) -> Iterator[np.ndarray]:
  """Rows with the same key, two at least, by their numbers."""
  rows = np.frombuffer(table, dtype)
  key = rows["key"]
  order = np.lexsort((rows["at"], key[:, 1], key[:, 0]))
  new = np.ones(len(rows) + 1, bool)
  new[1:-1] = (key[order[1:]] != key[order[:-1]]).any(axis=1)
  starts = np.flatnonzero(new)
  for i in np.flatnonzero(np.diff(starts) > 1).tolist():
    yield rows[order[starts[i] : starts[i + 1]]]


def _media(
  rows: np.ndarray, ids: Sequence[str], splits: Sequence[str]
) -> Iterator[tuple[int, Note]]:
  """Copies of one medium. Under its own name in one split it may be asked about many times."""
  first: dict[str, np.void] = {}
  for row in rows:
    first.setdefault(splits[int(row["at"])], row)
  apart = {split: row for split, row in first.items() if held_out(split)}
  for row in rows:
    at = int(row["at"])
    split = splits[at]
    if not held_out(split) and apart:
      other, kind = next(iter(apart.values())), "split_leak"
      remedy = "expected media of training that no held-out split has - remove it from training"
    elif held_out(split) and next(iter(apart)) != split:
      other, kind = next(iter(apart.values())), "split_overlap"
      remedy = "expected splits without common media - remove it from one"
    elif row["name"] != first[split]["name"] and at != int(first[split]["at"]):
      other, kind = first[split], "duplicate_media"
      remedy = "expected each once - keep one file"
    else:
      continue
    there = int(other["at"])
    same = "bytes" if (row["content"] == other["content"]).all() else "pixels, in other bytes,"
    yield (
      at,
      Note(
        kind,
        f"medium {int(row['nth']) + 1} has the {same} of medium {int(other['nth']) + 1} of "
        f"{ids[there]!r} (split {splits[there]}) - {remedy}",
      ),
    )


def _samples(
  rows: np.ndarray, ids: Sequence[str], splits: Sequence[str]
) -> Iterator[tuple[int, Note]]:
  """Copies of one sample; the first of each split stays.

  Across splits, a text without media that a held-out split has too leaves training.
  """
  first: dict[str, int] = {}
  for at in rows["at"].tolist():
    first.setdefault(splits[at], at)
  apart = [at for split, at in first.items() if held_out(split)]
  textual = rows["media"][0].tobytes() == _NONE
  for at in rows["at"].tolist():
    if at != first[splits[at]]:
      yield (
        at,
        Note(
          "duplicate_sample",
          f"conversation and pixels are those of sample {ids[first[splits[at]]]!r} - expected each "
          "sample once - remove it",
        ),
      )
    if textual and apart and not held_out(splits[at]):
      yield (
        at,
        Note(
          "split_leak",
          f"the conversation is that of {ids[apart[0]]!r} (split {splits[apart[0]]}) - expected "
          "samples of training that no held-out split has - remove it from training",
        ),
      )
