"""Records of an index are told apart and read as far as they can be."""

import json

import pytest

from facejax.config import LlavaConfig
from facejax.doctor.index import IndexSubject
from facejax.types import Turn

GOOD = (
  b'{"id": "a", "conversations": [{"from": "human", "value": "Who, [you]?"}, '
  b'{"from": "gpt", "value": "No\\" }"}], "age": 4}'
)


def opened(tmp_path, text: bytes, name: str = "train.json") -> IndexSubject:
  path = tmp_path / name
  path.write_bytes(text)
  return IndexSubject(path, LlavaConfig())


def cases(subject) -> list:
  return [subject.reader.read(i, subject.payload(i)) for i in range(len(subject))]


def kinds(case) -> list[str]:
  return [note.kind for note in case.notes]


def test_records_are_those_of_json(tmp_path):
  """Kills: brackets or quotes inside of texts that count; nested lists that end a record."""
  records = [json.loads(GOOD), {"id": 2, "deep": [[{}], {"x": []}], "conversations": []}]
  subject = opened(tmp_path, json.dumps(records, indent=2).encode())
  assert [json.loads(subject.payload(i)) for i in range(len(subject))] == records
  first = cases(subject)[0]
  assert first.id == "train.json:0 (id a)" and first.own_id == "a" and first.split == "train"
  assert first.turns == (Turn("human", "Who, [you]?"), Turn("gpt", 'No" }'))
  assert dict(first.labels) == {"age": 4} and not first.notes


@pytest.mark.parametrize(
  "name, own, split",
  [
    ("my-val.json", None, "val"),
    ("contest.json", None, "train"),
    ("a.json", "test", "test"),
    ("test.json", "train", "train"),
  ],
)
def test_splits(tmp_path, name, own, split):
  """Kills: "test" found inside of a word; a file's name that outweighs the record's own word."""
  record = json.loads(GOOD) | ({"split": own} if own else {})
  (case,) = cases(opened(tmp_path, json.dumps([record]).encode(), name))
  assert case.split == split


def test_one_broken_record_hides_no_other(tmp_path):
  """Kills: a scan that ends at the first damage; one that takes its neighbours along."""
  text = b'[%s, {"id": 1 "x": 2}, %s, {"id": "open", "y": [1,\n%s, 7, %s]' % ((GOOD,) * 4)
  found = cases(opened(tmp_path, text))
  assert [kinds(case) for case in found] == [
    [],
    ["invalid_json"],
    [],
    ["invalid_json"],
    [],
    ["not_an_object"],
    [],
  ]
  assert [case.readable for case in found] == [True, False, True, False, True, False, True]
  assert '"id": 1 ' in found[1].notes[0].message and "is 7 -" in found[5].notes[0].message


def test_an_open_quote_ends_where_the_next_record_starts(tmp_path):
  """Kills: quotes that stay swapped to the end of the file."""
  text = b'[{"id": "x, "conversations": "}, %s]' % GOOD
  found = cases(opened(tmp_path, text))
  assert kinds(found[0]) == ["invalid_json"] and not found[-1].notes and found[-1].own_id == "a"


@pytest.mark.parametrize(
  "text, message",
  [
    (b"[%s" % GOOD, "the list does not end"),
    (b"[%s] 5" % GOOD, "there is text behind the list"),
    (b"[%s,]" % GOOD, "a comma stands before the list's end"),
    (b"[%s %s]" % (GOOD, GOOD), "a comma is missing before this record"),
  ],
)
def test_the_list_itself(tmp_path, text, message):
  """Kills: an index that training refuses as a whole, called clean."""
  (note,) = opened(tmp_path, text).notes
  assert note.kind == "invalid_json" and message in note.message and "byte" in note.message


def test_a_good_list_has_no_notes(tmp_path):
  """Kills: a byte order mark, an empty list, a last line break or a long text taken for damage."""
  long = GOOD.replace(b"Who", b"Who " * 300_000)
  assert [case.notes for case in cases(opened(tmp_path, b"[%s,%s]" % (long, GOOD)))] == [(), ()]
  assert not opened(tmp_path, b"\xef\xbb\xbf [] \n").notes
  assert len(opened(tmp_path, b"[%s]\n" % GOOD)) == 1


def test_what_is_no_index(tmp_path):
  """Kills: an object taken for a list of samples; an empty file that passes."""
  with pytest.raises(ValueError, match=r"train.json starts with '\{\"a\": 1\}' - expected a JSON"):
    opened(tmp_path, b'{"a": 1}')
  with pytest.raises(ValueError, match=r"train.json is empty \(0 bytes\)"):
    opened(tmp_path, b"")
  with pytest.raises(FileNotFoundError, match=r"no index file .*gone.json"):
    IndexSubject(tmp_path / "gone.json", LlavaConfig())


def one(tmp_path, **fields):
  (case,) = cases(opened(tmp_path, json.dumps([json.loads(GOOD) | fields]).encode()))
  return case


def test_types_of_fields(tmp_path):
  """Kills: a field of another type that passes; a good turn lost beside a bad one."""
  turns = [{"from": "human", "value": "Who?"}, {"from": "gpt"}, 3]
  case = one(tmp_path, conversations=turns)
  assert kinds(case) == ["field_type"] * 2 and case.turns == (Turn("human", "Who?"),)
  assert "turn 2 is 3 -" in case.notes[1].message
  assert one(tmp_path, conversations={}).turns is None and one(tmp_path).turns
  assert "'image' holds 7" in one(tmp_path, image=7).notes[0].message
  case = one(tmp_path, image=["a.png", None])
  assert kinds(case) == ["field_type"] and [piece.file.name for piece in case.media] == ["a.png"]


def test_what_lies_beside_belongs_to_its_medium(tmp_path):
  """Kills: extras in the order of the fields, not the placeholders; a null that shifts them."""
  turns = [{"from": "human", "value": "<video><image>"}, {"from": "gpt", "value": "x"}]
  fields = {"video": "v.mp4", "image": "i.png", "landmarks_2d": ["v.npy", "i.npy"]}
  case = one(tmp_path, conversations=turns, **fields, segmentation=[None, "i_map.png"])
  first = case.media[0]
  assert first.landmarks is not None and first.segmentation is None
  assert (first.kind, first.file.name, first.landmarks.name) == ("video", "v.mp4", "v.npy")
  assert case.media[1].segmentation.path == tmp_path / "i_map.png"
  case = one(tmp_path, image="i.png", landmarks_2d=["a.npy", "b.npy"])
  assert kinds(case) == ["field_type"] and case.media[0].landmarks.name == "a.npy"


@pytest.mark.parametrize("path", ["../x.png", "/etc/passwd", "a/../../x.png", "", "x\0.png"])
def test_paths_stay_inside(tmp_path, path):
  """Kills: a path that leaves the folder and is opened; one that raises."""
  case = one(tmp_path, image=path)
  assert kinds(case) == ["path_outside"] and repr(path) in case.notes[0].message
  assert case.media[0].file.path is None


def test_bytes_that_are_no_utf_8(tmp_path):
  """Kills: one Latin-1 byte that makes the whole record unreadable; a message without the byte."""
  (case,) = cases(opened(tmp_path, b"[" + GOOD.replace(b"Who", b"Wh\xf6") + b"]"))
  assert kinds(case) == ["not_utf8"] and "byte 0xf6" in case.notes[0].message
  assert case.turns[0].text.startswith("Wh\ufffd")


def test_a_field_twice(tmp_path):
  """Kills: the silent choice of the last one, also in a nested object."""
  text = b'[{"id": 1, "id": 2, "conversations": [{"from": "gpt", "from": "human", "value": "x"}]}]'
  (case,) = cases(opened(tmp_path, text))
  assert sorted(note.message.split("'")[1] for note in case.notes) == ["from", "id"]
  assert set(kinds(case)) == {"duplicate_key"} and case.own_id == "2"
