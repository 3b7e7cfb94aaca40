"""Copies over all samples, against a slow comparison of all pairs."""

import hashlib
import itertools
import random

from facejax.doctor.duplicates import Ledger
from facejax.doctor.examine import Examined, Fact


def key(value: object) -> bytes:
  """The first half is always the same, so both halves have to be compared."""
  return bytes(8) + hashlib.blake2b(repr(value).encode(), digest_size=8).digest()


def sample(pixels=(), name="", own="", text="t", answers="", content=None) -> Examined:
  facts = [Fact("image", key(f"{name}{p}")[8:], key(content or p), key(p), 0.0) for p in pixels]
  whole = key((text, *pixels))
  return Examined("", own, "", [], facts, 0, 1, 1, whole, key(answers) if answers else b"")


def notes(samples, splits=None):
  ledger = Ledger()
  order = list(range(len(samples)))
  random.Random(3).shuffle(order)  # workers answer in any order
  for at in order:
    ledger.add(at, 0, samples[at])
  ids = [f"s{i}" for i in range(len(samples))]
  found = ledger.notes(ids, splits or ["train"] * len(samples))
  return sorted((at, note.kind, note.message) for at, note in found)


def kinds(*arguments):
  return [(at, kind) for at, kind, _ in notes(*arguments)]


def test_the_first_stays():
  """Kills: the last one kept; a copy that depends on the order of the workers' answers."""
  same = sample("a", text="q")
  assert kinds([same, sample("b"), same, same]) == [
    (2, "duplicate_sample"),
    (3, "duplicate_sample"),
  ]
  found = notes([same, same])
  assert "of sample 's0'" in found[0][2]


def test_many_questions_about_one_picture_are_no_copies():
  """Kills: a picture under its own name that is counted as a duplicate each time."""
  assert not kinds([sample("a", text=str(i)) for i in range(8)])
  assert not kinds([sample("aa", text="one picture twice in a sample")])
  twice = sample("a", text="one picture under two names in a sample")
  twice.facts.extend(sample("a", name="copy/").facts)
  assert not kinds([twice])
  other = [sample("a", text="1"), sample("a", text="2", name="copy/")]
  assert kinds(other) == [(1, "duplicate_media")]
  assert "the bytes of medium 1 of 's0'" in notes(other)[0][2]
  other[1] = sample("a", text="2", name="copy/", content="z")
  assert "the pixels, in other bytes, of" in notes(other)[0][2]


def test_training_gives_way_to_held_out_splits():
  """Kills: the test copy quarantined; only the first of several training copies found."""
  copies = [sample("a", text=str(i)) for i in range(4)]
  splits = ["train", "test", "train", "test"]
  assert kinds(copies, splits) == [(0, "split_leak"), (2, "split_leak")]
  assert "'s1' (split test)" in notes(copies, splits)[0][2]
  assert kinds(copies[:2], ["val", "test"]) == [(1, "split_overlap")]
  same = [sample("a")] * 2
  assert kinds(same, ["test", "train"]) == [(1, "split_leak")]
  text = [sample(text="x")] * 2
  assert kinds(text, ["train", "val"]) == [(0, "split_leak")]
  assert kinds(text) == [(1, "duplicate_sample")]


def test_ids_and_answers():
  """Kills: ids compared over datasets; one answer to one picture called a copy."""
  assert kinds([sample(own="1"), sample(own="2", text="u"), sample(own="1", text="v")]) == [
    (2, "duplicate_id")
  ]
  ledger = Ledger()
  ledger.add(0, 0, sample(own="1"))
  ledger.add(1, 1, sample(own="1", text="u"))
  assert not list(ledger.notes(["a", "b"], ["train"] * 2))
  long = [sample("a", text="1", answers="x"), sample("b", text="2", answers="x")]
  assert kinds(long) == [(1, "same_conversation")]
  long[1] = sample("a", text="2", answers="x")
  assert not kinds(long)


def test_against_all_pairs():
  """Kills: a group cut at its edge, keys compared by half, numbers sorted as bytes."""
  rng = random.Random(5)
  samples = [
    sample(rng.choice("abcdef"), text=str(rng.randrange(3)), own=str(rng.randrange(60)))
    for _ in range(300)
  ]
  expected = set()
  for (_, one), (j, two) in itertools.combinations(enumerate(samples), 2):
    if one.sample == two.sample:
      expected.add((j, "duplicate_sample"))
    if one.own_id == two.own_id:
      expected.add((j, "duplicate_id"))
  assert kinds(samples) == sorted(expected)
