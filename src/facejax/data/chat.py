"""A conversation -> token ids, the mask of supervised tokens, and where visual tokens stand.

The sequence is built piece by piece, so the mask comes from the pieces and never from tokenising
a prefix again and counting (which is how a whole sample silently loses its loss elsewhere):

    <s> system USER: <image> \\n question ASSISTANT:  answer </s> USER: why? ASSISTANT:  answer </s>
    tokens      1 319 ..  0 0 .. 0   29871 13 ..      ..      2   ..                    ..      2
    supervised  . .       . .    .   .     .          x  x    x   .  .   .  .           x  x    x
    visual     -1 -1 ..   0 1 .. 255 -1    -1        -1      -1  -1 ..                 -1      -1

Each stretch of text between placeholders is tokenised on its own and so gets the SentencePiece
dummy prefix (official Face-LLaVA code): the line break after an image reads 29871, 13 in LLaMA ids.
Cutting a stretch before the answer's leading space changes no id, because no piece of a
LLaMA-style vocabulary holds a space after another character.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from facejax.data.tokenizer import Tokenizer
from facejax.types import Turn

_PLACEHOLDER = re.compile("(<image>|<video>)")


@dataclasses.dataclass(frozen=True)
class Template:
  """How a conversation is written out; the vicuna-v1 shape with its words as data.

  Attributes:
    name: how configurations refer to it.
    system: the sentence in front of the first turn.
    user: role name of a question.
    assistant: role name of an answer.
    frame_separator: text between two frames of a video.
  """

  name: str
  system: str
  user: str = "USER"
  assistant: str = "ASSISTANT"
  frame_separator: str = ""


_SYSTEM = (
  "A chat between a curious {0} and an artificial intelligence assistant. "
  "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
# Official training scripts: --version v1.
VICUNA = Template("vicuna_v1", _SYSTEM.format("user"))
# The released inference script says "human" where training said "user", and puts a space between
# frames, seven tokens training never saw. Kept to reproduce its output; ask with VICUNA otherwise.
RELEASED = Template("face_llava_released", _SYSTEM.format("human"), frame_separator=" ")
TEMPLATES = {template.name: template for template in (VICUNA, RELEASED)}


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One conversation as arrays; n is its length with all visual tokens.

  Attributes:
    tokens: ids; `pad_id` where a visual token stands.
    supervised: True on answer tokens and the `</s>` that ends each answer.
    visual: running number of the visual token at this position over all media of the sample, -1
      for text.
  """

  tokens: Int[np.ndarray, "n"]
  supervised: Bool[np.ndarray, "n"]
  visual: Int[np.ndarray, "n"]

  def __len__(self) -> int:
    return len(self.tokens)


def encode(
  conversation: Sequence[Turn],
  tokenizer: Tokenizer,
  template: Template,
  visual_lengths: Sequence[int] = (),
  *,
  frames: int = 8,
  sample: object = "?",
) -> Encoded:
  """Tokenises a training conversation.

  Args:
    conversation: turns, question and answer in alternation; a leading gpt turn is dropped.
    tokenizer: gives the ids.
    template: how it is written out; `VICUNA` for training.
    visual_lengths: visual tokens of each medium, in the order of the placeholders: the n-th
      `<image>` or `<video>` takes the n-th medium. A video counts frames x tokens per frame.
    frames: frames of a video; only matters when the template separates frames.
    sample: id for error messages.

  Returns:
    The arrays. Against the official masking (which drops the loss of a whole sample, with a
    warning, when an answer holds " ASSISTANT: ") such a sample keeps its supervision here; all
    other ids and labels are equal.

  Raises:
    ValueError: naming sample and turn; nothing is cut or guessed.
  """
  rounds = _rounds(conversation, sample)
  row = _Row(tokenizer, template, list(visual_lengths), frames, sample)
  for turn, question, answer in rounds:
    if answer is None:
      raise ValueError(
        f"sample {sample!r}, turn {turn}: the question has no answer - every human turn is "
        "followed by a gpt turn - add the answer or remove the turn"
      )
    _check_answer(answer, turn + 1, tokenizer, sample)
    row.ask(question, turn)
    row.answer(answer)
  return row.finish()


def prompt(
  question: str,
  tokenizer: Tokenizer,
  template: Template,
  visual_lengths: Sequence[int] = (),
  *,
  history: Sequence[Turn] = (),
  frames: int = 8,
  sample: object = "prompt",
) -> Encoded:
  """Tokenises an unanswered question for generation, after the answered turns of `history`.

  Ends with "ASSISTANT:" and no space, so the first generated token carries the space itself, as
  in training. Nothing is supervised. `visual_lengths`, `frames` and `sample` as in `encode`; the
  media are counted over history and question together.
  """
  turns = [*history, Turn("human", question)]
  row = _Row(tokenizer, template, list(visual_lengths), frames, sample)
  for turn, asked, answer in _rounds(turns, sample):
    row.ask(asked, turn)
    if answer is not None:
      _check_answer(answer, turn + 1, tokenizer, sample)
      row.answer(answer)
  encoded = row.finish()
  return dataclasses.replace(encoded, supervised=np.zeros_like(encoded.supervised))


def _rounds(conversation: Sequence[Turn], sample: object) -> list[tuple[int, str, str | None]]:
  """(turn number of the question, question, answer or None for a last unanswered one)."""
  for i, turn in enumerate(conversation):
    if turn.role not in ("human", "gpt"):
      raise ValueError(
        f"sample {sample!r}, turn {i}: unknown role {turn.role!r} - expected 'human' or 'gpt' - "
        "fix the record"
      )
  # The official loader drops a leading gpt turn too.
  start = 1 if conversation and conversation[0].role == "gpt" else 0
  turns = conversation[start:]
  if not turns:
    raise ValueError(
      f"sample {sample!r}: the conversation is empty ({len(conversation)} turns, none of them from "
      "human) - expected a human turn and a gpt turn - remove the sample or add its question"
    )
  for k, turn in enumerate(turns):
    expected = ("human", "gpt")[k % 2]
    if turn.role != expected:
      raise ValueError(
        f"sample {sample!r}, turn {start + k}: from {turn.role!r} - expected {expected!r}, "
        "as turns alternate human, gpt - put the turns in order"
      )
  answers = [*(turn.text for turn in turns[1::2]), None]
  return [(start + 2 * k, turn.text, answers[k]) for k, turn in enumerate(turns[::2])]


def _check_answer(answer: str, turn: int, tokenizer: Tokenizer, sample: object) -> None:
  where = f"sample {sample!r}, turn {turn}"
  if not answer.strip():
    raise ValueError(
      f"{where}: the answer is empty ({answer!r}) - it would teach the model to stop at once - "
      "write an answer or remove the sample"
    )
  if tokenizer.eos in answer:
    raise ValueError(
      f"{where}: the answer contains {tokenizer.eos!r} ({answer!r}) - that text ends an answer and "
      "is added here - remove it from the record"
    )
  found = _PLACEHOLDER.search(answer)
  if found:
    raise ValueError(
      f"{where}: the answer contains {found[0]!r} - media stand in questions only - remove it"
    )


class _Row:
  """Collects the pieces of one conversation."""

  def __init__(self, tokenizer, template, visual_lengths, frames, sample):
    self.tokenizer: Tokenizer = tokenizer
    self.template: Template = template
    self.visual_lengths: list[int] = visual_lengths
    self.frames: int = frames
    self.sample = sample
    self.media = 0  # Media consumed so far.
    self.seen = 0  # Visual tokens written so far.
    self.tokens: list[int] = [tokenizer.bos_id]
    self.supervised: list[bool] = [False]
    self.visual: list[int] = [-1]

  def ask(self, question: str, turn: int) -> None:
    """Adds "USER: question ASSISTANT:", with the system sentence in front of the first one."""
    first = len(self.tokens) == 1
    text = f"{self.template.user}: {question} {self.template.assistant}:"
    if first:
      text = f"{self.template.system} {text}"
    for n, piece in enumerate(_PLACEHOLDER.split(text)):
      if _PLACEHOLDER.fullmatch(piece):
        self._medium(piece, turn)
      else:
        # Right after </s> the dummy prefix is taken away again: "USER:", not " USER:".
        self._write(self.tokenizer.encode(piece, dummy_prefix=first or n > 0), False)

  def answer(self, text: str) -> None:
    """Adds the answer, whose leading space is the dummy prefix, and `</s>`; both supervised."""
    self._write([*self.tokenizer.encode(text), self.tokenizer.eos_id], True)

  def finish(self) -> Encoded:
    """The arrays, once every medium has found its placeholder."""
    if self.media < len(self.visual_lengths):
      raise ValueError(
        f"sample {self.sample!r}: {len(self.visual_lengths)} media but {self.media} placeholders - "
        "each medium needs its own <image> or <video> in a question - add them or drop the media"
      )
    return Encoded(
      np.array(self.tokens, np.int32),
      np.array(self.supervised, bool),
      np.array(self.visual, np.int32),
    )

  def _medium(self, placeholder: str, turn: int) -> None:
    if self.media == len(self.visual_lengths):
      raise ValueError(
        f"sample {self.sample!r}, turn {turn}: {placeholder} number {self.media + 1} but only "
        f"{len(self.visual_lengths)} media - the n-th placeholder takes the n-th medium - add the "
        "file or remove the placeholder"
      )
    length = self.visual_lengths[self.media]
    self.media += 1
    split = placeholder == "<video>" and self.template.frame_separator
    parts = self.frames if split else 1
    if length < 1 or length % parts:
      raise ValueError(
        f"sample {self.sample!r}, turn {turn}: {placeholder} has {length} visual tokens - expected "
        f"a positive multiple of {parts} frames - check the model's visual token count"
      )
    for part in range(parts):
      if part:
        self._write(self.tokenizer.encode(self.template.frame_separator), False)
      self._see(length // parts)

  def _see(self, count: int) -> None:
    self.tokens += [self.tokenizer.pad_id] * count
    self.supervised += [False] * count
    self.visual += range(self.seen, self.seen + count)
    self.seen += count

  def _write(self, ids: list[int], supervised: bool) -> None:
    self.tokens += ids
    self.supervised += [supervised] * len(ids)
    self.visual += [-1] * len(ids)
