"""The tokenizer against ids the official slow LLaMA tokenizer gave, and its refusals."""

import hashlib
import json
import pathlib
import pickle
import re

import pytest

from facejax.data.tokenizer import Tokenizer

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "chat"


@pytest.fixture(scope="module")
def tokenizer():
  return Tokenizer.load(GOLDENS / "tokenizer.model")


def _plain(text):
  return not any(special in text for special in ("<s>", "</s>", "<unk>", "<image>"))


def test_ids_equal_the_official_tokenizer(tokenizer):
  """Kills: no BOS, whitespace stripped or merged, byte fallback off, a wrong dummy prefix."""
  cases = json.loads((GOLDENS / "conversations.json").read_text())["texts"]
  plain = [case for case in cases if _plain(case["text"])]
  assert len(plain) == 5
  for case in plain:
    assert tokenizer.encode(case["text"], bos=True) == case["input_ids"], case["text"]


def test_after_a_special_token_the_first_piece_loses_its_space(tokenizer):
  """Kills: tokenising anew, or keeping the marker, right after `</s>`."""
  cases = json.loads((GOLDENS / "conversations.json").read_text())["texts"]
  after = {case["text"]: case["input_ids"] for case in cases}
  for text in ("USER: hi", "x"):
    golden = after.get(f"</s>{text}") or after[f"<s>{text}"]
    assert tokenizer.encode(text, dummy_prefix=False) == golden[2:]
  # "x</s> y": a stretch that opens with a space keeps prefix and space.
  assert tokenizer.encode(" y", dummy_prefix=False) == after["x</s> y"][4:]


def test_without_prefix_nothing_becomes_unknown(tokenizer):
  """Kills: dropping the marker of a piece whose bare form is not in the vocabulary."""
  for text in ("the person", "and", "is", "12", "é"):
    ids = tokenizer.encode(text, dummy_prefix=False)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == text


def test_without_marker_spells_a_piece_missing_bare(tokenizer):
  """Kills: returning <unk> where only the space-marked form of a piece is in the vocabulary."""
  processor = tokenizer._processor
  pieces = [processor.id_to_piece(i) for i in range(tokenizer.vocab_size)]
  only_marked = [p for p in pieces if p[0] == "▁" and len(p) > 2 and p[1:] not in pieces]
  assert only_marked
  for piece in only_marked:
    ids = tokenizer._without_marker(processor.piece_to_id(piece))
    assert len(ids) > 1
    assert tokenizer.decode(ids) == piece[1:]


def test_special_ids(tokenizer):
  """Kills: pad as its own id, bos and eos swapped."""
  ids = (tokenizer.unk_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
  assert ids == (0, 0, 1, 2)
  assert tokenizer.vocab_size == 320
  assert tokenizer.eos == "</s>"


def test_special_tokens_have_names(tokenizer):
  """Kills: a plain piece or <unk> taken for a special token."""
  assert [tokenizer.special_id(name) for name in ("<s>", "</s>")] == [1, 2]
  for name in ("<unk>", "the", "<|im_end|>"):
    with pytest.raises(ValueError, match=rf"has no special token {re.escape(repr(name))} - use"):
      tokenizer.special_id(name)


def test_the_legacy_flag_is_read_beside_the_model(tmp_path, tokenizer):
  """Kills: the flag ignored or assumed, left out of the fingerprint or lost in a worker."""
  (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
  settings = tmp_path / "tokenizer_config.json"
  for text, legacy in (('{"legacy": true}', True), ('{"legacy": false}', False), ("{}", False)):
    settings.write_text(text)
    read = Tokenizer.load(tmp_path)
    assert (read.legacy, pickle.loads(pickle.dumps(read)).legacy) == (legacy, legacy)
    assert (read.fingerprint == tokenizer.fingerprint) == (not legacy)
    assert (read.encode("USER", dummy_prefix=False) == read.encode("USER")) == legacy
  settings.write_text("[1")
  with pytest.raises(ValueError, match=r"tokenizer_config.json is not JSON \(Expecting"):
    Tokenizer.load(tmp_path)
  settings.write_text("[1]")
  with pytest.raises(ValueError, match=r"tokenizer_config.json holds a list - expected a JSON obj"):
    Tokenizer.load(tmp_path)


def test_special_tokens_in_a_text_are_text(tokenizer):
  """Kills: parsing "</s>" out of a question, with which a user could end a turn."""
  ids = tokenizer.encode("a</s><s>")
  assert tokenizer.eos_id not in ids
  assert tokenizer.bos_id not in ids
  assert tokenizer.decode(ids) == "a</s><s>"


def test_decode_equals_the_official_decode_without_specials(tokenizer):
  """Kills: specials or padding in answers, a crash on half a UTF-8 character."""
  for case in json.loads((GOLDENS / "conversations.json").read_text())["decode"]:
    assert tokenizer.decode(case["ids"]) == case["skip_special"]
  assert tokenizer.decode([]) == ""


def test_decode_refuses_an_id_outside_the_vocabulary(tokenizer):
  """Kills: an IndexError from SentencePiece, or a silent gap."""
  with pytest.raises(ValueError, match=r"token id 320 is outside the vocabulary.*\(0\.\.319\)"):
    tokenizer.decode([5, 320])
  with pytest.raises(ValueError, match=r"token id -1 is outside"):
    tokenizer.decode([-1])


def test_fingerprint_is_of_the_bytes(tokenizer):
  """Kills: a fingerprint of the path or of Python's hash."""
  model = (GOLDENS / "tokenizer.model").read_bytes()
  assert tokenizer.fingerprint == hashlib.sha256(model).hexdigest()
  assert Tokenizer(model) == tokenizer


def test_survives_pickling(tokenizer):
  """Kills: a C++ handle in the state, which a data worker cannot receive."""
  tokenizer.encode("x")
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy == tokenizer
  assert copy.encode("USER: hi", dummy_prefix=False) == tokenizer.encode(
    "USER: hi", dummy_prefix=False
  )


def test_load_takes_a_folder_and_names_a_missing_file(tmp_path):
  """Kills: reading only file paths; a bare OSError from SentencePiece."""
  assert Tokenizer.load(GOLDENS).vocab_size == 320
  with pytest.raises(FileNotFoundError, match=f"no tokenizer at {tmp_path}/tokenizer.model"):
    Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"{}"])
def test_load_refuses_another_format(tmp_path, content):
  """Kills: a RuntimeError that does not name the file."""
  path = tmp_path / "tokenizer.model"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=rf"{path} \({len(content)} bytes\) is not a SentencePiece"):
    Tokenizer.load(path)


def test_load_refuses_a_model_without_bos(tmp_path):
  """Kills: id -1 written into sequences."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString((GOLDENS / "tokenizer.model").read_bytes())
  model.pieces[1].type = model.pieces[1].NORMAL
  path = tmp_path / "tokenizer.model"
  path.write_bytes(model.SerializeToString())
  with pytest.raises(ValueError, match=r"has no bos piece \(id -1\)"):
    Tokenizer.load(path)


def test_check_vocab(tokenizer):
  """Kills: a tokenizer of other weights going unnoticed."""
  for rows in (320, 384, 447):  # rounded up, as LLaVA-1.5's 32,064 for 32,000
    tokenizer.check_vocab(rows)
  for rows in (319, 448):
    with pytest.raises(ValueError, match=f"vocab 320, the model expects {rows}"):
      tokenizer.check_vocab(rows)
  with pytest.raises(ValueError, match="wrong tokenizer: vocab 320, the model expects 32000"):
    tokenizer.check_vocab(32000)
