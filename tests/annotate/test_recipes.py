"""What is sent, what is stored, and who can read it."""

import base64
import json
import pathlib
import re

import numpy as np
import pytest
import small_data
from workplace import write_picture

from facejax.annotate import fairface, output, pictures, prompts
from facejax.annotate.faceinstruct import FaceInstruct
from facejax.annotate.fairface import FairFace
from facejax.annotate.runner import Rules
from facejax.config import LlavaConfig
from facejax.data.llava import LlavaSource
from facejax.data.media import MediaError
from facejax.data.pipeline import load_tokenizer
from facejax.data.rows import RowFormat
from facejax.records.layouts.fairfacegpt import FairFaceGpt, FairFaceGptFolder
from facejax.visual_table import VisualTable


def source(folder) -> LlavaSource:
  """dataset.json as training reads it: a picture is 4 tokens."""
  form = RowFormat(VisualTable(small_data.model(), 1, 1), 400, load_tokenizer("demo"))
  files = LlavaConfig((str(folder / "out" / "dataset.json"),), str(folder), str(folder))
  return LlavaSource(files, form, 0)


def sent(request) -> tuple[str, str, list[bytes]]:
  """System turn, text and pictures of a request."""
  system, user = request["messages"]
  text, *urls = user["content"]
  data = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in urls]
  return system["content"], text["text"], data


def test_fairface_end_to_end(place):
  """Kills: questions out of the released order; labels that are not sent, or are stored; a
  picture encoded anew; an answer of another question; a dataset that training cannot read."""
  place.items(2, row="3-9,Male,Middle Eastern")
  place.run(concurrency=1)
  requests = [sent(request) for request in place.endpoint.received]
  released = [
    *("demographic attributes", "facial structure", "skin texture", "expression and emotion"),
    *("lighting and image quality", "face pose", "forensic considerations", "this picture"),
  ]
  for i, (system, text, (picture,)) in enumerate(requests):
    assert picture == (place.path / "val" / f"{i // 8}.jpg").read_bytes()
    assert "boy" in text and "Middle Eastern" in text and "3-9 years" in text
    assert f"Describe only the {released[i % 8]}" in text or i % 8 == 7
    assert "Describe this picture" in text or i % 8 != 7
    assert "forensic" in system
  dataset = json.loads((place.out / "dataset.json").read_text())
  assert len(dataset) == len(requests) == 16
  bills = list(place.endpoint.bills.values())
  for i, sample in enumerate(dataset):
    human, gpt = sample["conversations"]
    name = released[i % 8]
    asked = f"Describe the {name} of the image based on the visual information."
    assert human == {
      "from": "human",
      "value": "<image>\n" + (asked if i % 8 < 7 else "Describe this image."),
    }
    assert gpt == {"from": "gpt", "value": bills[i]["choices"][0]["message"]["content"]}
    assert sample["image"] == f"val/{i // 8}.jpg"
  assert not re.search("boy|Eastern|3-9|Male", json.dumps(dataset))
  read = source(place.path)
  assert len(read) == 16 and read.refusals == ()
  assert read[9].conversation[1].text == dataset[9]["conversations"][1]["value"]


def test_records_say_where_answers_come_from(place):
  """Kills: a prompt's version missing or of another prompt; usage or labels lost."""
  place.items(1)
  place.run()
  records, texts = (
    place.lines("records.jsonl"),
    json.loads((place.out / "prompts.json").read_text()),
  )
  assert [record["prompt"]["id"] for record in records] == [
    *["fairface/attribute/1"] * 7,
    "fairface/image/1",
  ]
  for record in records:
    prompt = texts[record["prompt"]["sha256"]]
    assert prompt["id"] == record["prompt"]["id"] and "{person}" in prompt["text"]
    written = record["written"]
    bill = place.endpoint.bills[f"{written['key'][:40]}-0"]
    assert written["response_id"] == bill["id"] and written["model"] == "fake"
    assert written["usage"]["prompt_tokens"] == bill["usage"]["prompt_tokens"]
    assert record["labels"] == {"age": "20-29", "gender": "Female", "race": "Black"}
    assert record["sha256"] == pictures.sha256(place.path / "val" / "0.jpg")
  assert set(texts) == {p.sha256 for p in (prompts.FAIRFACE_ATTRIBUTE, prompts.FAIRFACE_IMAGE)}


def test_prompts_keep_their_version():
  """Kills: a prompt whose text changes under the same number. A changed text takes a new one."""
  assert {p.id: p.sha256[:8] for p in prompts.PROMPTS} == {
    "fairface/attribute/1": "d8a43080",
    "fairface/image/1": "127d0a81",
    "faceinstruct/expression/1": "4634f9a3",
    "faceinstruct/action_units/1": "93117fae",
    "faceinstruct/attributes/1": "0d00b9bf",
    "faceinstruct/age/1": "46c719f0",
    "faceinstruct/deepfake/1": "bda3e23b",
    "faceinstruct/rater/1": "6b396be1",
  }


def test_released_words_for_persons():
  """Kills: "0-2" taken for a child's word (the released code says man and woman there); gender
  swapped."""
  word = lambda age, gender: fairface.person(fairface.Row("f", age, gender, "White"))
  assert [word(age, "Male") for age in ("0-2", "3-9", "10-19")] == ["man", "boy", "man"]
  assert [word(age, "Female") for age in ("0-2", "3-9", "60-69")] == ["woman", "girl", "woman"]


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("a.jpg,3-9,Male", "line 3: 3 columns - expected file, age, gender, race"),
    ("a.jpg,30,Male,White", "line 3: age '30' - expected one of 0-2, 3-9,"),
    ("a.jpg,3-9,male,White", "line 3: gender 'male' - expected one of Male, Female"),
    ("a.jpg,3-9,Male,Asian", "line 3: race 'Asian' - expected one of White, Black,"),
    ("val/0.jpg,3-9,Male,White", "line 3: 'val/0.jpg' stands in line 2, too"),
  ],
)
def test_wrong_rows_are_named(place, row, message):
  """Kills: a row that is skipped, or sent with nonsense for a label."""
  place.items(1)
  with (place.path / "labels.csv").open("a") as file:
    file.write(row + "\n")
  with pytest.raises(ValueError, match=re.escape(message)):
    place.recipe()


def test_missing_files_are_named(place):
  """Kills: a traceback from pathlib; a path that leaves the folder."""
  with pytest.raises(FileNotFoundError, match=r"no label table .*labels\.csv"):
    place.recipe()
  place.items(1)
  with pytest.raises(FileNotFoundError, match="no folder gone"):
    FairFace(place.path / "labels.csv", pathlib.Path("gone"))
  table = place.path / "labels.csv"
  table.write_text("file,age,gender,race\n../secret.jpg,3-9,Male,White\n")
  with pytest.raises(MediaError, match=r"path '\.\./secret\.jpg' is not inside"):
    place.recipe()


def test_units_are_indexed_like_a_list(place):
  """Kills: an index beyond the end that gives another picture's question; slices unread."""
  place.items(2)
  units = place.recipe().units
  assert [unit.id for unit in units[7:9]] == ["val/0.jpg#7", "val/1.jpg#0"]
  assert units[-1].id == "val/1.jpg#7" and len(units) == 16
  with pytest.raises(IndexError):
    units[16]
  assert len(FairFace(place.path / "labels.csv", place.path, limit=1).units) == 8


def instruct(place, items) -> FaceInstruct:
  path = place.path / "items.json"
  path.write_text(json.dumps(items))
  return FaceInstruct(path, place.path)


def test_faceinstruct_end_to_end(place):
  """Kills: a label that is not sent or is stored; a rater that does not see the answer or the
  media; frames of a clip out of order; a low rating kept, or its sample lost."""
  small_data.write_clip(place.path / "c.mp4", 7)
  for i in range(12):
    write_picture(place.path / f"{i}.png", i)
  np.save(place.path / "c.npy", np.full((7, 68, 2), 99.0, np.float32))
  tasks = list(prompts.WRITERS)
  items = [{"video": "c.mp4", "task": "deepfake", "label": "fake", "landmarks_2d": "c.npy"}]
  items += [{"image": f"{i}.png", "task": tasks[i % 5], "label": ["l4bel", i]} for i in range(12)]
  recipe = instruct(place, items)
  results = place.run(recipe, raters=1, rules=Rules(frames=4, threshold=7.0), concurrency=1)
  (_, written, frames), (_, rated, again) = map(sent, place.endpoint.received[:2])
  assert "Label: fake\n" in written and recipe.units[0].question in written
  assert len(frames) == 4 and frames == again
  grey = [pictures.media.decode_image(data, "frame").mean() for data in frames]
  assert np.allclose(grey, [0, 40, 80, 120], atol=6)
  assert "people: fake\n" in rated and results[0].written.answer.text in rated
  assert "Label: l4bel, 3\n" in sent(place.endpoint.received[8])[1]
  overall = [result.rating["overall"] for result in results]
  assert min(overall) < 7 <= max(overall)
  assert place.states() == ["kept" if score >= 7 else "rejected" for score in overall]
  low = place.lines("rejected.jsonl")
  assert [line["rating"]["overall"] for line in low] == [score for score in overall if score < 7]
  assert {line["reason"] for line in low} == {"low_rating"} and low[0]["written"]["text"]
  assert all(line["rater_prompt"]["id"] == "faceinstruct/rater/1" for line in low)
  dataset = (place.out / "dataset.json").read_text()
  assert "l4bel" not in dataset and "label" not in dataset
  assert len(source(place.path)) == sum(score >= 7 for score in overall)
  before = place.endpoint.requests
  place.run(recipe, raters=1, rules=Rules(frames=4, threshold=1.0))
  assert place.endpoint.requests == before and place.states() == ["kept"] * 13
  assert json.loads((place.out / "dataset.json").read_text())[0]["landmarks_2d"] == "c.npy"
  # Fewer frames are another request of the clip, not of the pictures.
  place.run(recipe, raters=1, rules=Rules(frames=2, threshold=1.0))
  assert place.endpoint.requests == before + 2


def test_a_rating_that_cannot_be_read_is_asked_for_again(place):
  """Kills: truncated JSON of a rater taken for a rating of nothing; the description paid again."""
  write_picture(place.path / "a.png", 1)
  place.endpoint.script = ["", "cut_off", "refusal", ""]
  recipe = instruct(place, [{"image": "a.png", "task": "age", "label": 31}])
  (result,) = place.run(recipe, raters=1, rules=Rules(threshold=1.0), concurrency=1)
  assert result.state == "kept", result
  assert result.rated.reasons == ("cut_off", "refused", "")
  assert place.endpoint.requests == 4
  place.endpoint.script = ["refusal"] * 3
  place.run(recipe, raters=1, rules=Rules(threshold=1.0), concurrency=1)
  assert place.endpoint.requests == 4


def test_a_rater_that_refuses_is_named(place):
  """Kills: an unrated sample kept, or rejected as if the writer had refused."""
  write_picture(place.path / "a.png", 1)
  place.endpoint.script = ["", *["refusal"] * 3]
  recipe = instruct(place, [{"image": "a.png", "task": "age", "label": 31}])
  place.run(recipe, raters=1, concurrency=1)
  (line,) = place.lines("rejected.jsonl")
  assert (line["state"], line["reason"], line["rating"]) == ("rejected", "rater: refused", None)


def test_a_question_with_its_label_is_not_asked(place):
  """Kills: money spent on a sample that gives its answer away."""
  write_picture(place.path / "a.png", 1)
  item = {"image": "a.png", "task": "expression", "label": "happy", "question": "Why so happy?"}
  place.run(instruct(place, [item]), raters=1)
  (line,) = place.lines("rejected.jsonl")
  assert line["reason"] == "question_leak" and "'happy'" in line["detail"]
  assert place.endpoint.requests == 0


@pytest.mark.parametrize("task", list(prompts.WRITERS))
def test_pools_do_not_depend_on_the_label(place, task):
  """Kills: questions that change with the label, or from one reading of the list to the next; a
  pool of which only one question is used."""
  item = lambda name, label: {"image": name, "task": task, "label": label}
  names = [f"{i}.png" for i in range(60)]
  asked = lambda label: [u.question for u in instruct(place, [item(n, label) for n in names]).units]
  assert asked("fake") == asked("real") and len(set(asked("fake"))) == 8


@pytest.mark.parametrize(
  ("items", "message"),
  [
    ({}, "holds a dict - expected a JSON list"),
    ([3], "item 0: 3 - expected a JSON object"),
    (
      [{"image": "a", "video": "b"}],
      "item 0: media [('image', 'a'), ('video', 'b')] - expected one",
    ),
    ([{"task": "age"}], "item 0: media [] - expected one path"),
    ([{"image": "a", "task": "mood"}], "item 0: task 'mood' - expected one of expression,"),
    ([{"image": "a", "task": "age"}], "item 0: label None - expected a text, a number"),
    ([{"image": "a", "task": "age", "label": []}], "item 0: label [] - expected"),
    ([{"image": "a", "task": "age", "label": True}], "item 0: label True - expected"),
    ([{"image": "a", "lable": 3}], "item 0: unknown field 'lable' - expected image, video,"),
    (
      [{"image": "a", "task": "age", "label": 3, "question": "<image>?"}],
      "item 0: question '<image>?' - expected a text without placeholders",
    ),
    ([{"image": "../a", "task": "age", "label": 3}], "path '../a' is not inside"),
  ],
)
def test_wrong_items_are_named(place, items, message):
  """Kills: an item that is skipped, or sent with nonsense for a label."""
  with pytest.raises(ValueError, match=re.escape(message)):
    instruct(place, items)


def test_item_files_are_named(place):
  """Kills: a traceback where a sentence would do."""
  with pytest.raises(FileNotFoundError, match=r"no item list .*gone\.json"):
    FaceInstruct(place.path / "gone.json", place.path)
  (place.path / "items.json").write_text("[")
  with pytest.raises(ValueError, match=r"items\.json: Expecting value"):
    FaceInstruct(place.path / "items.json", place.path)
  with pytest.raises(FileNotFoundError, match="no folder"):
    FaceInstruct(place.path / "items.json", place.path / "gone")


def test_text_files_of_the_released_layout(place):
  """Kills: stems cut at the last dot; indices from 1; a rejected answer written."""
  place.items(1)
  (place.path / "val" / "0.jpg").rename(place.path / "val" / "0.b.jpg")
  table = (place.path / "labels.csv").read_text()
  (place.path / "labels.csv").write_text(table.replace("0.jpg", "0.b.jpg"))
  place.service["model"] = "org/fake"
  place.endpoint.script = ["refusal"] * 3
  results = place.run(concurrency=1)
  assert output.write_text_files(place.path / "t", place.recipe(), results) == 7
  folder = place.path / "t" / "org_fake" / "val" / "0"
  assert sorted(p.name for p in folder.iterdir()) == sorted(
    f"{kind}_{i}.txt" for kind in ("question", "answer") for i in range(1, 8)
  )
  assert (folder / "question_7.txt").read_text() == "Describe this image."
  assert (folder / "answer_7.txt").read_text() == results[7].written.answer.text
  (place.path / "labels.csv").write_text(table + table.splitlines()[1].replace("jpg", "png"))
  with pytest.raises(ValueError, match=r"val/0\.png and val/0\.jpg would both go to val/0/"):
    output.write_text_files(place.path / "t", place.recipe(), results * 2)


def test_formats_that_endpoints_do_not_take_are_sent_as_png(tmp_path):
  """Kills: a BMP sent as such; a JPEG encoded anew, or under another name."""
  for suffix, mime in (("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("bmp", "png")):
    path = write_picture(tmp_path / f"a.{suffix}", 3)
    (part,) = pictures.parts(path, "image", 1, "high")
    url, _, data = part["image_url"]["url"].partition(";base64,")
    assert url == f"data:image/{mime}" and part["image_url"]["detail"] == "high"
    if suffix != "bmp":
      assert base64.b64decode(data) == path.read_bytes()
    else:
      shown = pictures.media.decode_image(base64.b64decode(data), "png")
      np.testing.assert_array_equal(shown, pictures.media.decode_image(path.read_bytes(), "bmp"))


@pytest.mark.parametrize("assistant", ["gpt", "assistant"])
def test_outputs_are_the_released_layouts(place, assistant):
  """Kills: a role tag, a path or an index that the readers of the released forms do not know."""
  place.items(2)
  place.endpoint.script = ["refusal"] * 3
  results = place.run(assistant=assistant, text_files=True, concurrency=1)
  listed = FairFaceGpt((str(place.out / "dataset.json"),), str(place.path)).open()
  labels = str(place.path / "labels.csv")
  folder = FairFaceGptFolder(str(place.out / "ChatGPT" / "fake"), labels, str(place.path)).open()
  assert len(listed) == len(folder) == 15 and folder.id(7) == "val/1.jpg:0"
  for i in range(15):
    human, answer = folder[i].conversation
    assert listed[i].conversation == (human, answer) and (human.role, answer.role) == (
      "human",
      "gpt",
    )
    assert answer.text == results[i + 1].written.answer.text
    assert listed[i].media[0].file.data == folder[i].media[0].file.data
