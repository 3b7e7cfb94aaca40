"""The byte-level tokenizer against a slow BPE and the tokenizers library, and its refusals."""

import itertools
import json
import pickle
import re
import sys

import pytest
import tokenizers

from facejax.data import bpe
from facejax.data.bpe import BpeTokenizer
from facejax.data.pipeline import load_tokenizer

TEXTS = (
  "How old is the person in this picture? The person is about 30 years old.",
  "She's smiling: the corners of the lips are raised.\n\nIt isn't a sad face!",
  "user\n\n\nHello   world  \n what's up?",
  "你是书生·万象, été, naïve 😀\t12345",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>")


def _trained():
  """A tiny tokenizer as Qwen2's: NFC, its splitting, bytes; five special tokens, one other."""
  trained = tokenizers.Tokenizer(tokenizers.models.BPE())
  trained.normalizer = tokenizers.normalizers.NFC()
  split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(bpe.SPLIT), "isolated")
  byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
  trained.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=330,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  trained.train_from_iterator(TEXTS * 3, trainer)
  trained.add_special_tokens(list(SPECIAL))
  trained.add_tokens(["<tool>"])
  return trained


@pytest.fixture(scope="module")
def official():
  return _trained()


@pytest.fixture(scope="module")
def fast(official, tmp_path_factory):
  """A folder as a fast tokenizer leaves it."""
  folder = tmp_path_factory.mktemp("fast")
  official.save(str(folder / "tokenizer.json"))
  settings = {"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  return folder


@pytest.fixture(scope="module")
def slow(official, tmp_path_factory):
  """The same as a slow tokenizer leaves it."""
  folder = tmp_path_factory.mktemp("slow")
  model = json.loads(official.to_str())["model"]
  (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
  merges = [" ".join(merge) for merge in model["merges"]]
  (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
  added = {name: official.token_to_id(name) for name in (*SPECIAL, "<tool>")}
  (folder / "added_tokens.json").write_text(json.dumps(added))
  decoder = {str(added["<tool>"]): {"content": "<tool>", "special": False}}
  settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  return folder


@pytest.fixture(scope="module")
def tokenizer(fast):
  return BpeTokenizer.load(fast)


def _byte_letters():
  """The letter that stands for each byte in a byte-level vocabulary."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = [b for b in range(256) if b not in plain]
  return {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(rest)}


def _slow_bpe(folder, words):
  """Merges the best-ranked pair again and again, within each word."""
  vocabulary = json.loads((folder / "vocab.json").read_text())
  lines = (folder / "merges.txt").read_text().splitlines()[1:]
  rank = {tuple(line.split(" ")): n for n, line in enumerate(lines)}
  letters, ids = _byte_letters(), []
  for word in words:
    parts = [letters[b] for b in word.encode()]
    while pairs := [(rank[p], i) for i, p in enumerate(itertools.pairwise(parts)) if p in rank]:
      _, i = min(pairs)
      parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids += [vocabulary[part] for part in parts]
  return ids


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("She's 30, isn't she?", ["She", "'s", " ", "3", "0", ",", " isn", "'t", " she", "?"]),
    ("user\n\nHello  world", ["user", "\n\n", "Hello", " ", " world"]),
    ("a \n b!\n", ["a", " \n", " b", "!\n"]),
    ("e\u0301te\u0301 \u4f60\u597d\U0001f600", ["\u00e9t\u00e9", " \u4f60\u597d", "\U0001f600"]),
  ],
)
def test_ids_equal_a_slow_merge_of_qwens_words(slow, fast, text, words):
  """Kills: GPT-2's rule of splitting, no NFC, digits together, a space in front, merge order."""
  want = _slow_bpe(slow, words)
  assert BpeTokenizer.load(slow).encode(text) == want
  assert BpeTokenizer.load(fast).encode(text, dummy_prefix=False) == want


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_the_library_and_texts_survive(official, slow, tokenizer, text):
  """Kills: a model that loses something when its added tokens are taken away."""
  assert tokenizer.encode(text) == official.encode(text).ids == BpeTokenizer.load(slow).encode(text)
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_in_a_text_are_text(official, tokenizer):
  """Kills: "<|im_end|>" parsed out of a question, which would let a user speak for the model."""
  for name in (*SPECIAL, "<tool>"):
    ids = tokenizer.encode(f"a{name}b")
    assert official.token_to_id(name) in official.encode(f"a{name}b").ids
    assert max(ids) < official.token_to_id(SPECIAL[0])
    assert tokenizer.decode(ids) == f"a{name}b"


def test_special_ids(official, tokenizer, slow):
  """Kills: eos and pad swapped, an added token without an id, a vocabulary without added tokens."""
  ids = {name: official.token_to_id(name) for name in SPECIAL}
  for read in (tokenizer, BpeTokenizer.load(slow)):
    assert {name: read.special_id(name) for name in SPECIAL} == ids
    assert (read.eos_id, read.pad_id) == (ids["<|im_end|>"], ids["<|endoftext|>"])
    assert read.vocab_size == official.get_vocab_size() == official.token_to_id("<tool>") + 1
  with pytest.raises(ValueError, match=r"tokenizer.json has no special token '<s>' - use the tok"):
    tokenizer.special_id("<s>")


def test_decode_leaves_special_tokens_out_and_others_in(official, tokenizer):
  """Kills: specials in answers, tools lost, a crash on half a character."""
  smile = tokenizer.encode("\U0001f600")
  tool = official.token_to_id("<tool>")
  ids = [tokenizer.eos_id, *tokenizer.encode("a b"), tool, *smile, tokenizer.pad_id]
  assert tokenizer.decode(ids) == "a b<tool>\U0001f600"
  assert tokenizer.decode(smile[:1]) == "\ufffd"
  assert tokenizer.decode([]) == ""
  size = tokenizer.vocab_size
  for bad in (size, -1):
    with pytest.raises(ValueError, match=rf"token id {bad} is outside .*\(0\.\.{size - 1}\)"):
      tokenizer.decode([5, bad])


def test_a_model_may_have_more_ids(tokenizer):
  """Kills: refusing Qwen2.5's rounded table, or accepting ids that have no row."""
  size = tokenizer.vocab_size
  tokenizer.check_vocab(size)
  tokenizer.check_vocab(size + 7)
  with pytest.raises(
    ValueError, match=rf"wrong tokenizer: vocab {size}, the model has {size - 1} "
  ):
    tokenizer.check_vocab(size - 1)


def test_survives_pickling_and_is_fingerprinted(tokenizer, fast, tmp_path):
  """Kills: a Rust handle in the state; a fingerprint of the path, or blind for added tokens."""
  tokenizer.encode("x")
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy == tokenizer
  assert copy.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
  content = json.loads((fast / "tokenizer.json").read_text())
  (tmp_path / "tokenizer.json").write_text(json.dumps(content))
  other = BpeTokenizer.load(tmp_path)
  assert other.fingerprint == tokenizer.fingerprint
  content["added_tokens"][3]["content"] = "<picture>"
  (tmp_path / "tokenizer.json").write_text(json.dumps(content))
  assert BpeTokenizer.load(tmp_path).fingerprint != tokenizer.fingerprint


def test_load_tokenizer_tells_the_kinds_apart(fast, slow, tmp_path):
  """Kills: a folder of a Qwen2 tokenizer looked through for SentencePiece, or the other way."""
  for path in (fast, slow, fast / "tokenizer.json"):
    assert isinstance(load_tokenizer(str(path)), BpeTokenizer)
  (tmp_path / "tokenizer.json").write_text("{}")  # LLaMA folders have both
  (tmp_path / "tokenizer.model").write_bytes(load_tokenizer("demo").model)
  assert load_tokenizer(str(tmp_path)).fingerprint == load_tokenizer("demo").fingerprint
  with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*nothing/tokenizer.model"):
    (tmp_path / "nothing").mkdir()
    load_tokenizer(str(tmp_path / "nothing"))
  with pytest.raises(
    FileNotFoundError, match=r"no tokenizer at .*gone.json - expected tokenizer.j"
  ):
    load_tokenizer(str(tmp_path / "gone.json"))


def _changed(folder, tmp_path, change):
  for file in folder.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  change(tmp_path)
  return tmp_path


def _edit(name, **changes):
  def change(folder):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | changes))

  return change


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: (f / "tokenizer.json").write_text("version https"), r"tokenizer.json is not JSON"),
    (lambda f: (f / "tokenizer.json").write_text("[]"), r"tokenizer.json holds a list"),
    (_edit("tokenizer.json", model={"type": "Unigram"}), r"no byte-level BPE \(model Unigram\)"),
    (_edit("tokenizer.json", pre_tokenizer=None), r"no byte-level BPE \(model BPE\) - .* LLaMA"),
    (_edit("tokenizer.json", model={"type": "BPE", "vocab": 3}), r"tokenizer.json is damaged \("),
    (_edit("tokenizer.json", added_tokens=[{"id": 3}]), r"added_tokens are no list of .*content"),
    (
      _edit("tokenizer.json", added_tokens=[]),
      r"eos_token is '<\|im_end\|>', which is none of its 0",
    ),
    (_edit("tokenizer_config.json", pad_token="[PAD]"), r"pad_token is '\[PAD\]', which is none"),
    (
      _edit("tokenizer_config.json", added_tokens_decoder=[3]),
      r"added_tokens_decoder of .* damaged",
    ),
    (
      _edit("tokenizer_config.json", added_tokens_decoder={"330": {"content": "<other>"}}),
      r"added tokens '<other>' and '<\|endoftext\|>' both have id 330",
    ),
  ],
)
def test_damaged_files_are_refused(fast, tmp_path, change, message):
  """Kills: each check; a plain Exception of the library; a file that is not named."""
  with pytest.raises(ValueError, match=message) as caught:
    BpeTokenizer.load(_changed(fast, tmp_path, change))
  assert str(tmp_path) in str(caught.value)


def test_another_slow_tokenizer_is_refused(slow, tmp_path):
  """Kills: GPT-2's vocabulary split by Qwen2's rule."""
  change = _edit("tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
  with pytest.raises(ValueError, match=r"tokenizer_class 'GPT2Tokenizer' - expected 'Qwen2Token"):
    BpeTokenizer.load(_changed(slow, tmp_path, change))


def test_without_the_library_the_extra_is_named(fast, monkeypatch):
  """Kills: a bare ModuleNotFoundError; an import at the top, which all users would need."""
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  message = f"reading {re.escape(str(fast))}.* needs tokenizers.* pip install -e '.\\[qwen\\]'"
  with pytest.raises(ModuleNotFoundError, match=message):
    BpeTokenizer.load(fast)
