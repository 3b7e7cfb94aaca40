"""Damage to records, conversations and labels: one function a kind."""

from collections.abc import Callable

from folder import Folder, conversation

LONG_ANSWER = (
  "The person looks to the left and smiles a little, with the corners of the mouth raised and the "
  "cheeks lifted, while the brows stay at rest and the eyes are wide open in a calm and friendly "
  "way that suits the light of the room and"
)


def a_record_without_a_comma(folder: Folder) -> None:
  record = b'{"id": "comma", "conversations": [] "image": "face1.png"}'
  folder.add(record, "invalid_json")


def a_record_that_does_not_end(folder: Folder) -> None:
  folder.add(b'{"id": "end", "conversations": [{"from": "human"', "invalid_json")


def a_record_that_is_text(folder: Folder) -> None:
  folder.add(b'"face1.png"', "not_an_object")


def a_record_in_latin_1(folder: Folder) -> None:
  folder.add(
    '{"id": "latin", "conversations": [{"from": "human", "value": "Où?"}, '
    '{"from": "gpt", "value": "Here."}]}'.encode("latin-1"),
    *("not_utf8", "garbled_text"),
  )


def a_field_twice(folder: Folder) -> None:
  folder.add(
    b'{"id": 1, "id": "twice", "conversations": [{"from": "human", "value": "Who is it?"}, '
    b'{"from": "gpt", "value": "Nobody you know."}]}',
    "duplicate_key",
  )


def no_conversation(folder: Folder) -> None:
  record = folder.sample()
  del record["conversations"]
  folder.add(record, "field_type")


def a_turn_without_a_value(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1] = {"from": "gpt", "text": "Here."}
  folder.add(record, "field_type", "unanswered_question", "no_supervision")


def a_picture_that_is_a_number(folder: Folder) -> None:
  folder.add({**folder.text_sample(), "image": 7}, "field_type")


def landmarks_for_another_number_of_media(folder: Folder) -> None:
  record = folder.sample()
  folder.add({**record, "landmarks_2d": [record["landmarks_2d"], None]}, "field_type")


def half_a_surrogate(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += " \ud83d"
  folder.add(record, "broken_text")


def control_characters(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += "\x00\x1b[2J"
  folder.add(record, "control_characters")


def wrong_encoding(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += " It\u00e2\u20ac\u2122s so."
  folder.add(record, "garbled_text")


def no_question_at_all(folder: Folder) -> None:
  folder.add(
    {"id": "gpt", "conversations": [{"from": "gpt", "value": "Hello."}]},
    *("empty_conversation", "no_supervision"),
  )


def roles_of_another_format(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["from"] = "assistant"
  folder.add(record, "unknown_role", "no_supervision")


def two_questions_in_a_row(folder: Folder) -> None:
  turns = [*conversation("Who is it?"), *conversation("Who is this?", "Nobody.")]
  folder.add({"id": "two", "conversations": turns}, "turn_order", "unanswered_question")


def an_unanswered_question(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"] += conversation("And then?")
  folder.add(record, "unanswered_question")


def an_empty_answer(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"] += conversation("And then?", "  \n")
  folder.add(record, "empty_answer")


def answers_of_invisible_characters(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] = "\u200b\u2060"
  folder.add(record, "empty_answer", "no_supervision")


def an_empty_question(folder: Folder) -> None:
  folder.add({"id": "blank", "conversations": conversation(" ", "Yes, it is.")}, "empty_question")


def the_stop_text_in_an_answer(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += "</s>"
  folder.add(record, "stop_in_answer")


def a_placeholder_in_an_answer(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += " <image>"
  folder.add(record, "placeholder_in_answer")


def more_placeholders_than_media(folder: Folder) -> None:
  record = folder.sample()
  record["conversations"][0]["value"] += " <image>"
  folder.add(record, "placeholder_mismatch")


def a_picture_without_a_placeholder(folder: Folder) -> None:
  record = folder.sample()
  record["conversations"][0]["value"] = "Who is it?"
  folder.add(record, "placeholder_mismatch")


def a_placeholder_of_another_project(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][0]["value"] += " <img>"
  folder.add(record, "unknown_placeholder")


def words_of_the_template(folder: Folder) -> None:
  record = folder.text_sample()
  record["conversations"][1]["value"] += " USER: And? ASSISTANT: So."
  folder.add(record, "template_words")


def an_answer_that_is_its_question(folder: Folder) -> None:
  turns = conversation("Is it a face at rest?", "Is it a face at rest?")
  folder.add({"id": "echo", "conversations": turns}, "answer_repeats_question")


def a_refusal(folder: Folder) -> None:
  turns = conversation("How old is she?", "I'm sorry, but I can't help with that.")
  folder.add({"id": "no", "conversations": turns}, "refusal_answer")


def an_answer_that_was_cut(folder: Folder) -> None:
  turns = conversation("What does the person do?", LONG_ANSWER)
  folder.add({"id": "cut", "conversations": turns}, "cut_answer")


def a_text_the_tokenizer_does_not_know(folder: Folder) -> None:
  turns = conversation(
    "这个人看起来多大年纪，心情如何？", "这个人大约三十岁，看起来很高兴，正在微笑。"
  )
  folder.add({"id": "zh", "conversations": turns}, "unknown_tokens")


def a_text_longer_than_a_row(folder: Folder) -> None:
  answer = "The mouth is open and the brows are raised. " * 150
  folder.add({"id": "long", "conversations": conversation("And?", answer)}, "too_long")


def more_pictures_than_slots(folder: Folder) -> None:
  records = [folder.sample() for _ in range(3)]
  merged = {
    field: [record[field] for record in records]
    for field in ("image", "landmarks_2d", "segmentation")
  }
  turns = conversation("<image><image><image>\nWho of them smiles?", "The second one does.")
  folder.add({"id": "three", **merged, "conversations": turns}, "too_many_media")


def an_age_below_zero(folder: Folder) -> None:
  folder.add({**folder.sample(), "age": -3}, "label_range")


def an_age_that_is_a_word(folder: Folder) -> None:
  folder.add({**folder.sample(), "age": "unknown"}, "label_type")


def four_things_at_once(folder: Folder) -> None:
  record = folder.sample()
  (folder.path / record["image"]).write_bytes(b"")
  (folder.path / record["landmarks_2d"]).unlink()
  record["conversations"] += conversation("And then?", "")
  folder.add({**record, "age": 400}, "empty_file", "missing_file", "empty_answer", "label_range")


PLANTS: tuple[Callable[[Folder], None], ...] = tuple(
  value
  for value in list(globals().values())
  if callable(value) and getattr(value, "__module__", "") == __name__
)
