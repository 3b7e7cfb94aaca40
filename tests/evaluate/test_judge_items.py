"""Stored predictions and JSONL -> items; what does not fit is refused by name."""

import json

import pytest

from facejax.data.files import MediaError
from facejax.evaluate.judge.items import Source, limited, load, told
from facejax.evaluate.predictions import Predictions


def write_run(folder, answers, **changes):
  """Predictions of a benchmark, as an evaluation stores them."""
  header = {"benchmark": "rafdb", "task": "class", "cluster": "", **changes.pop("header", {})}
  with Predictions(folder, header) as predictions:
    predictions.add(
      {
        "id": name,
        "question": "<image>\nWhat is shown?",
        "media": [["image", f"{name}.png"]],
        "prompt": "USER: <image>\nWhat is shown? ASSISTANT:",
        "answer": answer,
        "stopped": True,
        "parsed": None,
        "truth": "happy",
        "groups": {"subject": f"p{name}"},
        **changes,
      }
      for name, answer in answers.items()
    )
  return folder


def write_jsonl(path, *records):
  path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
  return path


def line(**changes) -> dict:
  return {"id": "a", "question": "Who?", "truth": "happy", "answer": "Happy.", **changes}


def test_runs_are_put_together(tmp_path):
  """Kills: answers of another item or system; a template or placeholder shown to the judge; people
  that are resampled one by one; benchmarks whose ids clash."""
  one = write_run(tmp_path / "one", {"x": " Happy. ", "y": ""}, header={"cluster": "subject"})
  two = write_run(tmp_path / "two", {"x": "Sad.", "y": "Calm."}, header={"cluster": "subject"})
  ages = [
    write_run(
      tmp_path / f"age{i}",
      {"x": f"{i}"},
      truth=31.0,
      media=[["video", "v/x.mp4"]],
      header={"benchmark": "morph", "task": "age"},
    )
    for i in range(2)
  ]
  sources = [Source("A", one), Source("B", two), Source("B", ages[1]), Source("A", ages[0])]
  items = load(sources, {"": tmp_path / "m", "morph": tmp_path / "n"})
  assert [item.id for item in items] == ["rafdb/x", "rafdb/y", "morph/x"]
  first, second, third = items
  assert first.question == "What is shown?" and first.truth == "happy" and first.task == "rafdb"
  assert first.answers == {"A": "Happy.", "B": "Sad."} and second.answers["A"] == ""
  assert first.media == (("image", tmp_path / "m" / "x.png"),) and first.cluster == "px"
  assert third.media == (("video", tmp_path / "n" / "v/x.mp4"),) and third.cluster == "x"
  assert third.truth == "31 years old" and third.answers == {"A": "0", "B": "1"}
  assert load(sources, None)[0].media == ()


def test_a_jsonl_file(tmp_path):
  """Kills: a field that is not read."""
  more = {"image": "f/a.png", "task": "age", "cluster": "p7", "truth": [4, "x"]}
  path = write_jsonl(tmp_path / "a.jsonl", line(**more), line(id="b", image="b.png"))
  first, second = load([Source("A", path)], {"": tmp_path})
  assert (first.task, first.cluster, first.truth) == ("age", "p7", "4, x")
  assert first.media == (("image", tmp_path / "f/a.png"),)
  assert (second.task, second.cluster, second.answers) == ("", "b", {"A": "Happy."})
  assert limited([1, 2, 3, 4, 5, 6], 3) == [1, 3, 5] and limited([1, 2], None) == [1, 2]


def test_truths_in_words():
  """Kills: bare numbers for action units; an empty list shown as nothing."""
  assert told("units", [1, 12]) == "AU1, AU12" and told("age", 31.5) == "31.5 years old"
  assert told("attributes", ["Bald", "Male"]) == "Bald, Male"
  assert told("units", []) == "none of those that were looked for"
  assert told("class", "fake") == "fake" and told("", 31) == "31"


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ([], r"a\.jsonl, line 1: \[\] - expected a JSON object"),
    (line(labl=1), "line 1: unknown field 'labl' - expected id, question, truth, answer"),
    (line(id=7), "line 1: id 7 - expected a text"),
    (line(question=" "), "line 1: question ' ' - expected a text"),
    (line(answer=None), "line 1: answer None - expected a text"),
    (line(task=3), "line 1: task 3 - expected a text"),
    (line(truth=True), "line 1: truth True - expected a text, a number or a list of them"),
    ({"id": "a", "question": "?", "answer": ""}, "line 1: truth None - expected a text"),
  ],
)
def test_a_wrong_line_is_named(tmp_path, record, message):
  """Kills: a line that is skipped, or fails deep within a run."""
  path = write_jsonl(tmp_path / "a.jsonl", record)
  with pytest.raises(ValueError, match=message):
    load([Source("A", path)], None)


def test_wrong_sources_are_named(tmp_path):
  """Kills: a denominator of the items that happen to be in all; answers to other questions."""
  both = write_jsonl(tmp_path / "ab.jsonl", line(), line(id="b"))
  only = write_jsonl(tmp_path / "a.jsonl", line())
  other = write_jsonl(tmp_path / "o.jsonl", line(truth="sad"))
  twice = write_jsonl(tmp_path / "t.jsonl", line(), line())
  empty = write_jsonl(tmp_path / "e.jsonl")
  torn = tmp_path / "torn.jsonl"
  torn.write_text('{"id": "a", "que\n')
  latin = tmp_path / "latin.jsonl"
  latin.write_bytes(b'{"id": "a", "question": "\xe9"}\n')
  # A text may hold what Python, but not JSON, takes for the end of a line.
  ends = tmp_path / "ends.jsonl"
  ends.write_text(json.dumps(line(answer="One.\u2028Two."), ensure_ascii=False), encoding="utf-8")
  assert load([Source("A", ends)], None)[0].answers == {"A": "One.\u2028Two."}
  cases = [
    ({"A": latin}, r"latin\.jsonl, line 1: .* is no JSON \('utf-8' codec can't decode"),
    ({"A": both, "B": only}, "A and B: 1 of 2 items are in one of them only: b - expected the"),
    ({"A": only, "B": other}, "A and B, item a: truth 'happy' and 'sad' - expected the same"),
    ({"A": twice}, r"t\.jsonl, line 2: id 'a' comes twice - expected each item once"),
    ({"A": empty}, "A has no items - expected some answers - check its source"),
    ({"A": torn}, r"torn\.jsonl, line 1: '\{\"id\": \"a\", \"que' is no JSON"),
  ]
  for paths, message in cases:
    with pytest.raises(ValueError, match=message):
      load([Source(*pair) for pair in paths.items()], None)
  with pytest.raises(ValueError, match=r"1 items of A are in another of its sources, too: a - "):
    load([Source("A", only), Source("A", both)], None)
  with pytest.raises(FileNotFoundError, match=r"no .*gone - expected the folder of one benchmark"):
    load([Source("A", tmp_path / "gone")], None)
  with pytest.raises(FileNotFoundError, match=r"no .*predictions\.jsonl - expected the folder"):
    load([Source("A", tmp_path)], None)


def test_predictions_without_questions_are_named(tmp_path):
  """Kills: a template shown to the judge in place of the question, or a KeyError."""
  with Predictions(tmp_path / "old", {"benchmark": "rafdb", "task": "class"}) as predictions:
    predictions.add([{"id": "x", "prompt": "USER: Who?", "answer": "Happy."}])
  with pytest.raises(ValueError, match=r"item x: no 'question' - expected predictions that hold"):
    load([Source("A", tmp_path / "old")], None)


def test_media_that_cannot_be_shown(tmp_path):
  """Kills: an item rated blind beside others that are seen; a path that leaves its folder."""
  bare = write_jsonl(tmp_path / "a.jsonl", line())
  with pytest.raises(ValueError, match="item a: no picture or clip - expected one to show"):
    load([Source("A", bare)], {"": tmp_path})
  leads = write_jsonl(tmp_path / "b.jsonl", line(image="../x.png"))
  with pytest.raises(MediaError, match=r"'\.\./x\.png' is not inside"):
    load([Source("A", leads)], {"": tmp_path})
  run = write_run(tmp_path / "run", {"x": "Happy."})
  with pytest.raises(ValueError, match="no folder for the files of 'rafdb' - give --media rafdb="):
    load([Source("A", run)], {"morph": tmp_path})
