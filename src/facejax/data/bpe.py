"""Text -> token ids and back, through Qwen2's byte-level BPE: the tokenizer of InternVL.

    tokenizer.json                                 what fast tokenizers write; or
    vocab.json, merges.txt, added_tokens.json      what slow ones write, and Qwen2's splitting rule
    tokenizer_config.json, special_tokens_map.json which tokens end a text and pad it

Hugging Face's `tokenizers` does the work, on a model without its added tokens: "<|im_end|>" in a
question is plain text, and only data/chat.py writes the token. (transformers and LLaMA-Factory
would let a user end a turn that way.)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from facejax.data.tokenizer import read_json, read_settings

# How Qwen2 cuts a text before merging: contractions, words, single digits, punctuation, spaces.
SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDS = ("<|im_end|>", "<|endoftext|>")  # of a text, where no file says it
_PADS = ("<|endoftext|>", "<|im_end|>")


@dataclasses.dataclass(frozen=True)
class BpeTokenizer:
  """A byte-level BPE with its added tokens; picklable, so data workers may hold one.

  Attributes:
    model: a tokenizer.json without added tokens.
    added: (name, id, whether it is special), ascending by id; the others are read out by `decode`.
    eos: name of the token that ends a text.
    pad: name of the token at padding.
    source: where they came from, for error messages only.
  """

  model: bytes = dataclasses.field(repr=False)
  added: tuple[tuple[str, int, bool], ...] = dataclasses.field(repr=False)
  eos: str
  pad: str
  source: str = dataclasses.field(default="<bytes>", compare=False)

  @classmethod
  def load(cls, path: str | os.PathLike) -> BpeTokenizer:
    """Reads a tokenizer.json, or the vocab.json of a folder with merges.txt, or such a folder.

    Raises FileNotFoundError when there is none, ValueError for damaged files or another kind of
    tokenizer, ModuleNotFoundError without the `qwen` extra.
    """
    file = pathlib.Path(path)
    folder = file if file.is_dir() else file.parent
    file = folder / "tokenizer.json" if file.is_dir() or file.name == "vocab.json" else file
    settings = read_settings(folder)
    added = _added_of_settings(settings, folder)
    if file.is_file():
      model = read_json(file)
      added |= _added_of_json(model, file)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
      file = folder / "vocab.json"
      model = _from_vocabulary(folder, settings)
    else:
      raise FileNotFoundError(
        f"no tokenizer at {file} - expected tokenizer.json, or vocab.json and merges.txt - give "
        "the folder that came with the weights"
      )
    listed = tuple(sorted(((n, i, s) for n, (i, s) in added.items()), key=lambda token: token[1]))
    _check_added(listed, file)
    names = settings | _optional(folder / "special_tokens_map.json")
    tokenizer = cls(
      json.dumps(_bare(model, file), ensure_ascii=False, sort_keys=True).encode(),
      listed,
      _name(names.get("eos_token"), _ENDS, added, file, "eos_token"),
      _name(names.get("pad_token"), _PADS, added, file, "pad_token"),
      str(file),
    )
    assert tokenizer.vocab_size  # opens it: a damaged file is refused here, not in a data worker
    return tokenizer

  @functools.cached_property
  def _processor(self):
    try:
      import tokenizers
    except ModuleNotFoundError as error:
      raise ModuleNotFoundError(
        f"reading {self.source} needs tokenizers, which is not installed - pip install -e '.[qwen]'"
      ) from error
    try:
      return tokenizers.Tokenizer.from_str(self.model.decode())
    except Exception as error:  # the library raises plain Exceptions
      raise ValueError(
        f"{self.source} is damaged ({error}) - expected the tokenizer of the weights - fetch it "
        "again"
      ) from error

  def __getstate__(self):
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  def __setstate__(self, state):
    self.__dict__.update(state)

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {name: id_ for name, id_, _ in self.added}

  @functools.cached_property
  def _names(self) -> dict[int, str]:
    """What `decode` writes for added tokens: nothing for the special ones."""
    return {id_: "" if special else name for name, id_, special in self.added}

  @property
  def eos_id(self) -> int:
    """Id that ends a text (151645 in InternVL3)."""
    return self.special_id(self.eos)

  @property
  def pad_id(self) -> int:
    """Id at padding and where a visual token stands (151643 in InternVL3)."""
    return self.special_id(self.pad)

  @functools.cached_property
  def vocab_size(self) -> int:
    """Ids, added tokens included; 151674 for InternVL3."""
    return max(self._processor.get_vocab_size(), *(id_ + 1 for _, id_, _ in self.added))

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of all that decides about ids, stored with every checkpoint."""
    rest = json.dumps([self.added, self.eos, self.pad], ensure_ascii=False)
    return hashlib.sha256(self.model + rest.encode()).hexdigest()

  def special_id(self, name: str) -> int:
    """Id of an added token such as "<|im_end|>". Raises ValueError if there is none."""
    if name not in self._ids:
      raise ValueError(
        f"{self.source} has no special token {name!r} - use the tokenizer that came with the "
        "weights, or the data.template that fits it"
      )
    return self._ids[name]

  def check_vocab(self, expected: int) -> None:
    """Raises ValueError unless a model of so many ids has one for each token.

    It may have more: Qwen2.5 rounds its table up (152,064 rows for 151,665 tokens at 7B).
    """
    if self.vocab_size > expected:
      raise ValueError(
        f"wrong tokenizer: vocab {self.vocab_size}, the model has {expected} ({self.source}) - "
        "use the tokenizer that came with the weights"
      )

  def encode(self, text: str, *, dummy_prefix: bool = True) -> list[int]:
    """Ids of one stretch of text, in which added tokens are plain text.

    `dummy_prefix` is SentencePiece's; this tokenizer has none.
    """
    del dummy_prefix
    return self._processor.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Text of the ids; special tokens are left out, half a UTF-8 character becomes U+FFFD.

    Raises ValueError for an id outside the vocabulary.
    """
    ids = [int(id_) for id_ in ids]
    for id_ in ids:
      if not 0 <= id_ < self.vocab_size:
        raise ValueError(
          f"token id {id_} is outside the vocabulary of {self.source} (0..{self.vocab_size - 1}) - "
          "the model and the tokenizer do not belong together"
        )
    stretches = itertools.groupby(ids, key=self._names.__contains__)
    return "".join(
      "".join(self._names[id_] for id_ in part) if added else self._processor.decode(list(part))
      for added, part in stretches
    )


def _optional(file: pathlib.Path) -> dict:
  return read_json(file) if file.is_file() else {}


def _added_of_json(model: dict, file: pathlib.Path) -> dict[str, tuple[int, bool]]:
  try:
    return {t["content"]: (int(t["id"]), bool(t["special"])) for t in model["added_tokens"]}
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{file}: added_tokens are no list of {{content, id, special}} ({error!r}) - fetch it again"
    ) from error


def _added_of_settings(settings: dict, folder: pathlib.Path) -> dict[str, tuple[int, bool]]:
  """Added tokens of a slow tokenizer; where tokenizer_config.json is silent they are special."""
  plain = _optional(folder / "added_tokens.json")
  decoder = settings.get("added_tokens_decoder", {})
  try:
    added = {name: (int(id_), True) for name, id_ in plain.items()}
    return added | {
      t["content"]: (int(id_), bool(t.get("special", True))) for id_, t in decoder.items()
    }
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{folder}: added_tokens.json or added_tokens_decoder of tokenizer_config.json is damaged "
      f"({error!r}) - expected names with their ids - fetch it again"
    ) from error


def _check_added(added: Sequence[tuple[str, int, bool]], file: pathlib.Path) -> None:
  for (first, id_, _), (second, other, _) in itertools.pairwise(added):
    if id_ == other:
      raise ValueError(
        f"{file}: added tokens {first!r} and {second!r} both have id {id_} - the files beside it "
        "are of another tokenizer - fetch the folder again"
      )


def _name(given: Any, usual: Sequence[str], added: dict, file: pathlib.Path, field: str) -> str:
  """The token that a settings file names, or the usual one."""
  name = given.get("content") if isinstance(given, dict) else given
  name = name or next((token for token in usual if token in added), None)
  if not isinstance(name, str) or name not in added:
    raise ValueError(
      f"{file}: {field} is {name!r}, which is none of its {len(added)} added tokens - expected "
      f"one such as {usual[0]!r} - fetch added_tokens.json and tokenizer_config.json too"
    )
  return name


def _bare(model: dict, file: pathlib.Path) -> dict:
  """A tokenizer.json that adds, cuts and fills nothing."""
  kind = (model.get("model") or {}).get("type")
  if kind != "BPE" or "ByteLevel" not in json.dumps(model.get("pre_tokenizer")):
    raise ValueError(
      f"{file} is no byte-level BPE (model {kind}) - expected a tokenizer as Qwen2's - for LLaMA "
      "give its tokenizer.model"
    )
  empty: dict = dict.fromkeys(("truncation", "padding", "post_processor"))
  return {**model, **empty, "added_tokens": []}


def _from_vocabulary(folder: pathlib.Path, settings: dict) -> dict:
  """The tokenizer.json that Qwen2's vocab.json and merges.txt stand for."""
  kind = settings.get("tokenizer_class", "Qwen2Tokenizer")
  if not str(kind).startswith("Qwen2Tokenizer"):
    raise ValueError(
      f"{folder / 'tokenizer_config.json'}: tokenizer_class {kind!r} - expected 'Qwen2Tokenizer' "
      "beside vocab.json, whose rules of splitting are known - give a tokenizer.json"
    )
  lines = (folder / "merges.txt").read_text("utf-8").split("\n")
  merges = [line for line in lines if line.strip() and not line.startswith("#version")]
  byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
  split = {
    "type": "Split",
    "pattern": {"Regex": SPLIT},
    "behavior": "Isolated",
    "invert": False,
  }
  return {
    "version": "1.0",
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
      "type": "Sequence",
      "pretokenizers": [split, {**byte_level, "use_regex": False}],
    },
    "decoder": {**byte_level, "use_regex": False},
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": None,
      "continuing_subword_prefix": "",
      "end_of_word_suffix": "",
      "fuse_unk": False,
      "byte_fallback": False,
      "vocab": read_json(folder / "vocab.json"),
      "merges": merges,
    },
  }
