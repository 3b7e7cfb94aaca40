"""Conversations against the official ids and labels, and every refusal."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from facejax.data import chat
from facejax.data.tokenizer import Tokenizer
from facejax.types import Turn

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "chat"
CASES = json.loads((GOLDENS / "conversations.json").read_text())
QUESTION = Turn("human", "<image>\nHow old?")
ANSWER = Turn("gpt", "About 30.")


@pytest.fixture(scope="module")
def tokenizer():
  return Tokenizer.load(GOLDENS)


def _lengths(conversations):
  """The official code has one -200 per image and eight per video."""
  words = " ".join(turn.text for turn in conversations).replace("<", " <").replace(">", "> ")
  return [{"<image>": 1, "<video>": 8}[w] for w in words.split() if w in ("<image>", "<video>")]


def _official(encoded):
  return np.where(encoded.visual >= 0, -200, encoded.tokens).tolist()


@pytest.mark.parametrize("case", range(len(CASES["samples"])))
def test_training_ids_and_labels_equal_the_official_code(tokenizer, case):
  """Kills: a prompt token supervised, `</s>` not supervised, an off-by-one span, a lost prefix."""
  case = CASES["samples"][case]
  turns = [Turn(turn["from"], turn["value"]) for turn in case["conversations"]]
  encoded = chat.encode(turns, tokenizer, chat.VICUNA, _lengths(turns))
  assert _official(encoded) == case["input_ids"]
  labels = np.where(encoded.supervised, encoded.tokens, -100).tolist()
  if case["warning"]:
    # The official code loses this sample's whole loss; here the answer stays supervised.
    assert set(case["labels"]) == {-100}
    kept = [label for label in labels if label != -100]
    assert tokenizer.decode(kept) == turns[-1].text
    assert labels[-1] == tokenizer.eos_id
  else:
    assert labels == case["labels"]


@pytest.mark.parametrize("case", range(len(CASES["inference_prompts"])))
def test_prompts_equal_the_official_code(tokenizer, case):
  """Kills: a space after "ASSISTANT:", the wrong system sentence, frames not (or always) spaced."""
  case = CASES["inference_prompts"][case]
  template = {"v1": chat.VICUNA, "llava_v1": chat.RELEASED}[case["conv_mode"]]
  spaced = "joined_with_spaces" in case["media"]
  template = dataclasses.replace(template, frame_separator=" " if spaced else "")
  question = case["prompt"].split("USER: ")[1].removesuffix(" ASSISTANT:")
  lengths = [1]
  if "video" in case["media"]:
    question = "<video>" + question[question.index("\n") :]
    lengths = [8]
  encoded = chat.prompt(question, tokenizer, template, lengths)
  assert _official(encoded) == case["input_ids"]
  assert not encoded.supervised.any()


def test_prompt_is_the_front_of_the_training_sequence(tokenizer):
  """Kills: prompt and training drifting apart, in the first turn or with a history."""
  turns = [QUESTION, ANSWER, Turn("human", "Why?"), Turn("gpt", "Lines.")]
  whole = chat.encode(turns, tokenizer, chat.VICUNA, [7])
  asked = chat.prompt("Why?", tokenizer, chat.VICUNA, [7], history=turns[:2])
  assert len(asked) < len(whole)
  np.testing.assert_array_equal(asked.tokens, whole.tokens[: len(asked)])
  np.testing.assert_array_equal(asked.visual, whole.visual[: len(asked)])
  rest = tokenizer.decode(whole.tokens[len(asked) :].tolist())
  assert rest == "Lines."


def test_visual_numbers_run_over_all_media(tokenizer):
  """Kills: numbering from 0 per medium, media out of order, a visual token with a text id."""
  turns = [
    Turn("human", "<video><image>\nCompare."),
    ANSWER,
    Turn("human", "And <image>?"),
    ANSWER,
  ]
  encoded = chat.encode(turns, tokenizer, chat.VICUNA, [6, 3, 4])
  at = np.flatnonzero(encoded.visual >= 0)
  np.testing.assert_array_equal(encoded.visual[at], np.arange(13))
  assert (encoded.tokens[at] == tokenizer.pad_id).all()
  assert not encoded.supervised[at].any()
  # Video and image stand side by side; the second image comes after the first answer.
  np.testing.assert_array_equal(np.diff(at)[:8], np.ones(8))
  assert encoded.supervised[at[8] : at[9]].any()
  assert (encoded.tokens.dtype, encoded.visual.dtype) == (np.int32, np.int32)
  assert encoded.supervised.dtype == bool


def test_separated_frames_stay_in_order(tokenizer):
  """Kills: separators numbered as visual, or frames of the wrong length."""
  template = dataclasses.replace(chat.VICUNA, frame_separator=" ")
  question = Turn("human", "<video>\nWhat?")
  encoded = chat.encode([question, ANSWER], tokenizer, template, [10], frames=2)
  at = np.flatnonzero(encoded.visual >= 0)
  np.testing.assert_array_equal(encoded.visual[at], np.arange(10))
  gap = len(tokenizer.encode(" "))
  np.testing.assert_array_equal(np.diff(at), [1, 1, 1, 1, 1 + gap, 1, 1, 1, 1])


def test_an_answer_may_name_the_role(tokenizer):
  """Kills: finding the answer by searching " ASSISTANT: " in the text."""
  answer = "The sign says ASSISTANT: hi ASSISTANT:"
  turns = [QUESTION, Turn("gpt", answer)]
  encoded = chat.encode(turns, tokenizer, chat.VICUNA, [2])
  assert tokenizer.decode(encoded.tokens[encoded.supervised].tolist()) == answer


def test_templates_differ_in_the_system_word():
  """Kills: training on the released prompt."""
  assert chat.VICUNA.system.count("user") == 2
  assert chat.RELEASED.system == chat.VICUNA.system.replace("user", "human")
  assert set(chat.TEMPLATES) == {"vicuna_v1", "face_llava_released"}


def _turns(*pairs):
  return [Turn(role, text) for role, text in pairs]


@pytest.mark.parametrize(
  "turns, lengths, message",
  [
    ([], [], r"sample 's7': the conversation is empty \(0 turns"),
    (_turns(("gpt", "Hi.")), [], r"sample 's7': the conversation is empty \(1 turns, none"),
    (_turns(("human", "Hi?")), [], r"sample 's7', turn 0: the question has no answer"),
    (_turns(("gpt", "x"), ("gpt", "y")), [], r"turn 1: from 'gpt' - expected 'human'"),
    (_turns(("human", "x"), ("human", "y")), [], r"turn 1: from 'human' - expected 'gpt'"),
    (_turns(("system", "x")), [], r"sample 's7', turn 0: unknown role 'system'"),
    (_turns(("human", "x"), ("gpt", " \n")), [], r"turn 1: the answer is empty \(' \\n'\)"),
    (_turns(("human", "x"), ("gpt", "a</s>b")), [], r"turn 1: the answer contains '</s>'"),
    (_turns(("human", "x"), ("gpt", "a <video>")), [4], r"turn 1: the answer contains '<video>'"),
    ([QUESTION, ANSWER], [], r"turn 0: <image> number 1 but only 0 media"),
    ([QUESTION, ANSWER], [4, 5], r"sample 's7': 2 media but 1 placeholders"),
    ([QUESTION, ANSWER], [0], r"turn 0: <image> has 0 visual tokens"),
  ],
)
def test_refusals_name_sample_and_turn(tokenizer, turns, lengths, message):
  """Kills: each check, and messages without the sample."""
  with pytest.raises(ValueError, match=message) as caught:
    chat.encode(turns, tokenizer, chat.VICUNA, lengths, sample="s7")
  assert "sample 's7'" in str(caught.value)


def test_separated_frames_must_divide(tokenizer):
  """Kills: dropping the tokens of a part frame."""
  turns = _turns(("human", "<video>"), ("gpt", "x"))
  with pytest.raises(
    ValueError, match="<video> has 9 visual tokens - expected a positive multiple"
  ):
    chat.encode(turns, tokenizer, chat.RELEASED, [9], frames=2)


def test_history_is_checked_like_training(tokenizer):
  """Kills: a client's history smuggling the end token."""
  with pytest.raises(ValueError, match=r"turn 1: the answer contains '</s>'"):
    chat.prompt("And?", tokenizer, chat.VICUNA, history=_turns(("human", "x"), ("gpt", "</s>")))
