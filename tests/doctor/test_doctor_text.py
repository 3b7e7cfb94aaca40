"""Conversations and labels: every damage by its name, and nothing said of good ones."""

import pytest

from facejax.data import chat
from facejax.data.pipeline import load_tokenizer
from facejax.doctor import conversation, labels
from facejax.types import Turn

Q, A = Turn("human", "Who is it?"), Turn("gpt", "Nobody you know.")
LONG = "word " * 50


def kinds(*turns: Turn) -> set[str]:
  return {note.kind for note in conversation.check(turns, chat.VICUNA)}


@pytest.mark.parametrize(
  "turns, expected",
  [
    ((), {"empty_conversation", "no_supervision"}),
    ((A,), {"empty_conversation", "no_supervision"}),
    ((A, Q), {"unanswered_question", "no_supervision"}),
    ((Q, A, Q), {"unanswered_question"}),
    ((Q, Q, A), {"turn_order", "unanswered_question"}),
    ((Q, A, A), {"turn_order"}),
    ((Q, Turn("assistant", "x")), {"unknown_role", "no_supervision"}),
    ((Q, Turn("gpt", " \n")), {"empty_answer", "no_supervision"}),
    ((Q, Turn("gpt", "\u200b")), {"empty_answer", "no_supervision"}),
    ((Q, A, Q, Turn("gpt", "")), {"empty_answer"}),
    ((Turn("human", "\t"), A), {"empty_question"}),
    ((Q, Turn("gpt", "a</s>")), {"stop_in_answer"}),
    ((Q, Turn("gpt", "a <video>")), {"placeholder_in_answer"}),
    ((Turn("human", "<Image> who?"), A), {"unknown_placeholder"}),
    ((Turn("human", "</image> who?"), A), {"unknown_placeholder"}),
    ((Q, Turn("gpt", "x ASSISTANT: y")), {"template_words"}),
    ((Turn("human", "<image>\nSure?"), Turn("gpt", "sure?")), {"answer_repeats_question"}),
    ((Q, Turn("gpt", "I\u2019m sorry, no.")), {"refusal_answer"}),
    ((Q, Turn("gpt", "As an AI model I see nothing.")), {"refusal_answer"}),
    ((Q, Turn("gpt", LONG)), {"cut_answer"}),
    ((Q, Turn("gpt", "a\x00")), {"control_characters"}),
    ((Q, Turn("gpt", "a\u202eb")), {"control_characters"}),
    ((Q, Turn("gpt", "\udfff")), {"broken_text"}),
    ((Q, Turn("gpt", "caf\u00c3\u00a9")), {"garbled_text"}),
    ((Q, Turn("gpt", "\ufffd")), {"garbled_text"}),
  ],
)
def test_damage_is_named(turns, expected):
  """Kills: each check turned off, or one that speaks up beside another's damage."""
  assert kinds(*turns) == expected


@pytest.mark.parametrize(
  "turns",
  [
    (Q, A),
    (A, Q, A),
    (Turn("human", "<image>\n<video>"), A),
    (
      Turn("human", "Is 3 < 4 and 5 > 4?"),
      Turn("gpt", "\u00c3 la carte: caf\u00e9, na\u00efve \u2019"),
    ),
    (Q, Turn("gpt", LONG + "end.")),
    (Q, Turn("gpt", "\u4ed6" * 300)),
    (Q, Turn("gpt", "He looks sorry, line\nby\tline.")),
    (Q, Turn("gpt", "\U0001f600")),
  ],
)
def test_good_text_is_not_accused(turns):
  """Kills: a pattern that is too wide; a dropped leading answer that counts as a turn."""
  assert kinds(*turns) == set()


def test_what_training_refuses_is_an_error_here():
  """Kills: a refusal of chat.encode that no kind stands for."""
  tokenizer = load_tokenizer("demo")
  for turns in ((), (Q,), (Q, Q, A), (Q, A, A), (Q, Turn("x", "y")), (Q, Turn("gpt", " "))):
    with pytest.raises(ValueError, match="sample"):
      chat.encode(turns, tokenizer, chat.VICUNA)
    assert kinds(*turns)


def test_messages_name_turn_and_value():
  """Kills: a message without the place, the value or the remedy."""
  (note,) = conversation.check((Q, A, Q, Turn("gpt", "a</s>")), chat.VICUNA)
  assert note.message.startswith("turn 3: the answer contains '</s>'") and "remove" in note.message
  (note,) = conversation.check((Q, A, Q), chat.VICUNA)
  assert "turn 2: the question 'Who is it?' has no answer" in note.message


@pytest.mark.parametrize(
  "given, expected",
  [
    ({"age": -1}, "label_range"),
    ({"Age": 121}, "label_range"),
    ({"age": float("nan")}, "label_range"),
    ({"other": float("inf")}, "label_range"),
    ({"age": "old"}, "label_type"),
    ({"age": None}, "label_type"),
    ({"expression": " "}, "label_type"),
    ({"au_12": 6}, "label_range"),
    ({"AU4_intensity": -1}, "label_range"),
    ({"valence": 1.5}, "label_range"),
    ({"score": -0.1}, "label_range"),
    ({"meta": {"age": 300}}, "label_range"),
  ],
)
def test_labels_out_of_range(given, expected):
  """Kills: a range that ends elsewhere, a nested label not seen, NaN that compares false."""
  (note,) = labels.check(given)
  assert note.kind == expected and str(next(iter(given))).split(".")[0] in note.message


def test_good_labels_are_not_accused():
  """Kills: age groups, lists and numbers without a known name taken for damage."""
  good = {"age": 0, "expression": "happy", "au_1": 5, "AU12": 0.0, "valence": -1, "x": -7}
  assert not labels.check(good | {"points": [1, -2.5], "image_root": "a", "stage": -9})
  assert not labels.check({"age": "20-29"}) and not labels.check({"age": "70+"})
  assert not labels.check({"age": 120, "score": 1e9, "nested": {"age": "31"}})
