"""The shipped tokenizer: what it must be able to read, and that it is the one its script trains."""

import importlib.util
import pathlib

import numpy as np
import pytest

from facejax.data import chat
from facejax.data.tokenizer import Tokenizer
from facejax.faces import questions, scene
from facejax.types import Turn

SCRIPT = pathlib.Path(__file__).parents[1] / "experiments" / "demo_tokenizer" / "train.py"


@pytest.fixture(scope="module")
def train():
  spec = importlib.util.spec_from_file_location("train_demo_tokenizer", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _pieces(tokenizer):
  return [tokenizer._processor.id_to_piece(i) for i in range(tokenizer.vocab_size)]


def test_it_has_llama_ids():
  """Kills: sentencepiece's default of a pad id, another vocabulary, missing byte pieces."""
  tokenizer = Tokenizer.demo()
  assert (tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
  tokenizer.check_vocab(1024)
  assert _pieces(tokenizer)[3:259] == [f"<0x{i:02X}>" for i in range(256)]


@pytest.mark.parametrize(
  "text", ["née  Ωλ 😀", " two\n\nlines ", "42 of 1024", "it's <b>[ok]</b> #1"]
)
def test_any_text_survives(text):
  """Kills: normalisation, merged spaces, numbers as one piece, characters lost to <unk>."""
  tokenizer = Tokenizer.demo()
  ids = tokenizer.encode(text)
  assert tokenizer.unk_id not in ids
  assert tokenizer.decode(ids) == text
  assert not [p for p in _pieces(tokenizer) if p.strip("▁").isdigit() and len(p.strip("▁")) > 1]


def test_answers_about_drawn_faces_survive_and_stay_short():
  """Kills: a tokenizer of other texts (letter by letter an answer would take 100 tokens)."""
  tokenizer = Tokenizer.demo()
  rng = np.random.default_rng(7)
  lengths = []
  for seed in range(40):
    labels = scene.sample(seed, "test").labels
    for task in questions.TASKS:
      answer = questions.answer(task, labels, rng)
      turns = [Turn("human", questions.question(task, rng)), Turn("gpt", answer)]
      encoded = chat.encode(turns, tokenizer, chat.VICUNA)
      kept = encoded.tokens[encoded.supervised].tolist()
      assert tokenizer.decode(kept) == answer
      lengths.append(len(kept))
  assert np.mean(lengths) < 35


def test_the_shipped_file_is_what_the_script_trains(train):
  """Kills: questions changed without retraining, or a training that depends on its run."""
  lines = train.corpus()
  model = train.train(lines)
  assert model == train.train(lines)
  assert _pieces(Tokenizer(model)) == _pieces(Tokenizer.demo()), f"out of date: run {SCRIPT}"
