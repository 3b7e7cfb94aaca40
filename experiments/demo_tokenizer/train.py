"""Trains the demo tokenizer: synthetic questions and answers + English sentences -> .model bytes.

python experiments/demo_tokenizer/train.py            writes src/facejax/assets/demo_tokenizer.model
python experiments/demo_tokenizer/train.py --check    says whether the shipped file is up to date
"""

from __future__ import annotations

import argparse
import io
import pathlib
import string

import numpy as np
import sentencepiece

from facejax.data import chat
from facejax.faces import questions, scene

HERE = pathlib.Path(__file__).parent
TARGET = HERE.parents[1] / "src/facejax/assets/demo_tokenizer.model"
VOCABULARY = 1024
FACES = 400  # Every phrasing occurs; 4000 faces would change 100 of the 1024 pieces.


def corpus() -> list[str]:
  """Lines in a fixed order: face i asks and answers every task with generator i."""
  lines = []
  for seed in range(FACES):
    rng = np.random.default_rng(seed)
    labels = scene.sample(seed, "train").labels
    for task in questions.TASKS:
      asked = questions.question(task, rng)
      lines.append(f"USER: {asked} ASSISTANT: {questions.answer(task, labels, rng)}")
  # Weighted so that the words of users, not only those of the renderer, get pieces of their own.
  lines += (HERE / "sentences.txt").read_text().splitlines() * 20
  lines += [template.system.rstrip() for template in (chat.VICUNA, chat.RELEASED)] * 200
  return lines


def train(lines: list[str]) -> bytes:
  """A SentencePiece model with the settings of the LLaMA tokenizer; same lines, same bytes."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=model,
    model_type="bpe",
    vocab_size=VOCABULARY,
    byte_fallback=True,
    split_digits=True,
    allow_whitespace_only_pieces=True,
    remove_extra_whitespaces=False,
    normalization_rule_name="identity",
    required_chars=string.ascii_letters + string.digits + string.punctuation,
    unk_id=0,
    bos_id=1,
    eos_id=2,
    pad_id=-1,
    num_threads=1,
    minloglevel=2,
  )
  return model.getvalue()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--check", action="store_true", help="compare with the shipped file only")
  check = parser.parse_args().check
  model = train(corpus())
  if check:
    raise SystemExit(
      0 if model == TARGET.read_bytes() else f"{TARGET} is out of date: run train.py"
    )
  TARGET.parent.mkdir(exist_ok=True)
  TARGET.write_bytes(model)
  print(f"{TARGET}: {len(model)} bytes, {VOCABULARY} pieces")


if __name__ == "__main__":
  main()
