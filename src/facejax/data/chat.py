"""A conversation -> token ids, the mask of supervised tokens, and where visual tokens stand.

The sequence is built piece by piece, so the mask comes from the pieces and never from tokenising
a prefix again and counting (which is how a whole sample silently loses its loss elsewhere):

    <s> system USER: <image> \\n question ASSISTANT:  answer </s> USER: why? ASSISTANT:  answer </s>
    tokens      1 319 ..  0 0 .. 0   29871 13 ..      ..      2   ..                    ..      2
    supervised  . .       . .    .   .     .          x  x    x   .  .   .  .           x  x    x
    visual     -1 -1 ..   0 1 .. 255 -1    -1        -1      -1  -1 ..                 -1      -1

Each stretch of text between special tokens, media and answers is tokenised on its own. With
SentencePiece it so gets the dummy prefix (official Face-LLaVA code): the line break after an image
reads 29871, 13 in LLaMA ids. Cutting before the answer's leading space changes no id, because no
piece of a LLaMA-style vocabulary holds a space after another character. InternVL's stretches are
those of its own tokenizer, with the cut before an answer that LLaMA-Factory makes in training.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from facejax.data.tokenizer import TextTokenizer
from facejax.types import Turn

_PLACEHOLDER = re.compile("(<image>|<video>)")


@dataclasses.dataclass(frozen=True)
class Template:
  """How a conversation is written out, as data.

  In these texts, and only here, the names in `specials` stand for tokens of the vocabulary: the
  same words in a question or an answer stay plain text, so a user cannot forge a turn.

  Attributes:
    name: how configurations refer to it.
    system: in front of the first question.
    question: around a question, which "{}" stands for; ends where the answer starts.
    stop: the special token that ends an answer, supervised.
    behind: text behind it, supervised too.
    start: the special token that opens a sequence; "" for none.
    image: around the visual tokens of a picture, which "{}" stands for.
    frame: around those of each frame of a clip; "{n}" is its number, from 1.
    frame_separator: text between two frames.
    specials: every special token that the other texts use.
  """

  name: str
  system: str
  question: str
  stop: str
  specials: tuple[str, ...]
  behind: str = ""
  start: str = ""
  image: str = "{}"
  frame: str = "{}"
  frame_separator: str = ""

  def asked(self, question: str) -> str:
    """The prompt of a first question as text, for records."""
    return self.system + self.question.replace("{}", question, 1)

  def check(self, tokenizer: TextTokenizer) -> None:
    """Raises ValueError unless the vocabulary has the template's special tokens."""
    for special in self.specials:
      try:
        tokenizer.special_id(special)
      except ValueError as error:
        raise ValueError(f"data.template={self.name!r} does not fit: {error}") from error


_SYSTEM = (
  "A chat between a curious {0} and an artificial intelligence assistant. "
  "The assistant gives helpful, detailed, and polite answers to the {0}'s questions. "
)
# Official training scripts: --version v1.
VICUNA = Template(
  "vicuna_v1",
  system=_SYSTEM.format("user"),
  question="USER: {} ASSISTANT:",
  stop="</s>",
  specials=("<s>", "</s>"),
  start="<s>",
)
# The released inference script says "human" where training said "user", and puts a space between
# frames, seven tokens training never saw. Kept to reproduce its output; ask with VICUNA otherwise.
RELEASED = dataclasses.replace(
  VICUNA, name="face_llava_released", system=_SYSTEM.format("human"), frame_separator=" "
)
# The chat template of the transformers-native InternVL3 checkpoints, and their processor's
# expansion of pictures and frames: no system turn.
INTERNVL = Template(
  "internvl",
  system="",
  question="<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
  stop="<|im_end|>",
  specials=("<|im_start|>", "<|im_end|>", "<img>", "</img>"),
  behind="\n",
  image="<img>{}</img>",
  frame="Frame{n}: <img>{}</img>",
  frame_separator="\n",
)
# What InternVL (conversation.py, "internvl2_5") and LLaMA-Factory ("intern_vl", FaceLLM's) train
# with: "You are Shusheng Wanxiang, in English InternVL, a multimodal large language model developed
# jointly by Shanghai AI Laboratory, Tsinghua University and several partner institutions."
INTERNVL_SYSTEM = dataclasses.replace(
  INTERNVL,
  name="internvl_system",
  system=(
    "<|im_start|>system\n你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位"
    "联合开发的多模态大语言模型。<|im_end|>\n"
  ),
)
TEMPLATES = {template.name: template for template in (VICUNA, RELEASED, INTERNVL, INTERNVL_SYSTEM)}


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One conversation as arrays; n is its length with all visual tokens.

  Attributes:
    tokens: ids; `pad_id` where a visual token stands.
    supervised: True on answer tokens and on what ends each answer: `</s>`, or `<|im_end|>` and a
      line break.
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
  tokenizer: TextTokenizer,
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
      `<image>` or `<video>` takes the n-th medium. A video counts frames x tokens per frame, a
      picture in tiles the tokens of all of them.
    frames: frames of a video; only matters when the template tells frames apart.
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
    _check_answer(answer, turn + 1, template, sample)
    row.ask(question, turn)
    row.answer(answer)
  return row.finish()


def prompt(
  question: str,
  tokenizer: TextTokenizer,
  template: Template,
  visual_lengths: Sequence[int] = (),
  *,
  history: Sequence[Turn] = (),
  frames: int = 8,
  sample: object = "prompt",
) -> Encoded:
  """Tokenises an unanswered question for generation, after the answered turns of `history`.

  Vicuna's ends with "ASSISTANT:" and no space, so the first generated token carries the space
  itself, as in training. Nothing is supervised. `visual_lengths`, `frames` and `sample` as in
  `encode`; the media are counted over history and question together.
  """
  turns = [*history, Turn("human", question)]
  row = _Row(tokenizer, template, list(visual_lengths), frames, sample)
  for turn, asked, answer in _rounds(turns, sample):
    row.ask(asked, turn)
    if answer is not None:
      _check_answer(answer, turn + 1, template, sample)
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
    _check_text(turn.text, i, sample)
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


def _check_text(text: str, turn: int, sample: object) -> None:
  """JSON can hold half of a surrogate pair, which is no character and no tokenizer takes."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f"sample {sample!r}, turn {turn}: character {error.start} is {text[error.start]!r}, half of "
      "a surrogate pair - expected text - write the index as UTF-8 from whole characters"
    ) from error


def _check_answer(answer: str, turn: int, template: Template, sample: object) -> None:
  where = f"sample {sample!r}, turn {turn}"
  if not answer.strip():
    raise ValueError(
      f"{where}: the answer is empty ({answer!r}) - it would teach the model to stop at once - "
      "write an answer or remove the sample"
    )
  if template.stop in answer:
    raise ValueError(
      f"{where}: the answer contains {template.stop!r} ({answer!r}) - that text ends an answer and "
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
    self.tokenizer: TextTokenizer = tokenizer
    self.template: Template = template
    self.visual_lengths: list[int] = visual_lengths
    self.frames: int = frames
    self.sample = sample
    self.media = 0  # Media consumed so far.
    self.tokens: list[int] = []
    self.supervised: list[slice] = []
    self.visual: list[slice] = []
    self._text = ""  # Not yet tokenised.
    # Right after </s> the dummy prefix is taken away again: "USER:", not " USER:".
    self._dummy_prefix = True
    self._fixed(template.start + template.system)

  def ask(self, question: str, turn: int) -> None:
    """Adds a question, up to where its answer starts."""
    before, behind = self.template.question.split("{}")
    self._fixed(before)
    for piece in _PLACEHOLDER.split(question):
      if _PLACEHOLDER.fullmatch(piece):
        self._medium(piece, turn)
      else:
        self._text += piece
    self._fixed(behind)
    self._flush()

  def answer(self, text: str) -> None:
    """Adds the answer (its leading space is the dummy prefix) and what ends it, all supervised."""
    self._text = text
    self._flush(True)
    self._fixed(self.template.stop, True)
    self._dummy_prefix = False
    self._fixed(self.template.behind, True)
    self._flush(True)

  def finish(self) -> Encoded:
    """The arrays, once every medium has found its placeholder."""
    if self.media < len(self.visual_lengths):
      raise ValueError(
        f"sample {self.sample!r}: {len(self.visual_lengths)} media but {self.media} placeholders - "
        "each medium needs its own <image> or <video> in a question - add them or drop the media"
      )
    supervised = np.zeros(len(self.tokens), bool)
    visual = np.full(len(self.tokens), -1, np.int32)
    for span in self.supervised:
      supervised[span] = True
    seen = 0
    for span in self.visual:
      count = span.stop - span.start
      visual[span] = np.arange(seen, seen + count)
      seen += count
    return Encoded(np.array(self.tokens, np.int32), supervised, visual)

  def _medium(self, placeholder: str, turn: int) -> None:
    if self.media == len(self.visual_lengths):
      raise ValueError(
        f"sample {self.sample!r}, turn {turn}: {placeholder} number {self.media + 1} but only "
        f"{len(self.visual_lengths)} media - the n-th placeholder takes the n-th medium - add the "
        "file or remove the placeholder"
      )
    length = self.visual_lengths[self.media]
    self.media += 1
    around = self.template.image if placeholder == "<image>" else self.template.frame
    separator = self.template.frame_separator
    split = placeholder == "<video>" and (separator or around != "{}")
    parts = self.frames if split else 1
    if length < 1 or length % parts:
      raise ValueError(
        f"sample {self.sample!r}, turn {turn}: {placeholder} has {length} visual tokens - expected "
        f"a positive multiple of {parts} frames - check the model's visual token count"
      )
    for part in range(parts):
      before, behind = around.replace("{n}", str(part + 1)).split("{}")
      self._fixed((separator if part else "") + before)
      self._see(length // parts)
      self._fixed(behind)

  def _fixed(self, text: str, supervised: bool = False) -> None:
    """Adds a text of the template, in which special tokens are tokens."""
    for piece in re.split(f"({'|'.join(map(re.escape, self.template.specials))})", text):
      if piece in self.template.specials:
        self._flush(supervised)
        self._write([self.tokenizer.special_id(piece)], supervised)
      else:
        self._text += piece

  def _see(self, count: int) -> None:
    self._flush()
    self.visual.append(self._append([self.tokenizer.pad_id] * count))
    self._dummy_prefix = True

  def _flush(self, supervised: bool = False) -> None:
    if self._text:
      encode = self.tokenizer.encode if supervised else functools.partial(_known, self.tokenizer)
      self._write(encode(self._text, dummy_prefix=self._dummy_prefix), supervised)
      self._text, self._dummy_prefix = "", True

  def _write(self, ids: Sequence[int], supervised: bool) -> None:
    span = self._append(ids)
    if supervised:
      self.supervised.append(span)

  def _append(self, ids: Sequence[int]) -> slice:
    start = len(self.tokens)
    self.tokens += ids
    return slice(start, len(self.tokens))


@functools.lru_cache(maxsize=4096)  # Some 2 MB; every answer is another text, questions recur.
def _known(tokenizer: TextTokenizer, text: str, dummy_prefix: bool) -> tuple[int, ...]:
  """Ids of a text that many samples share: the template's, with a question."""
  return tuple(tokenizer.encode(text, dummy_prefix=dummy_prefix))
