"""Text -> token ids and back, through a LLaMA-style SentencePiece `tokenizer.model`.

Qwen2's byte-level tokenizer, of InternVL, is in bpe.py; `TextTokenizer` is what both can do.

The ids are those of the slow LLaMA tokenizer, which the official Face-LLaVA code uses: a BOS on
request, never an EOS, and `pad = unk` (id 0), so a vocabulary needs no additions. Special tokens
written out in a text ("<s>", "</s>", "<unk>") stay plain text: a user cannot forge them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Protocol

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb

_ROUNDING = 128  # Rows of a table are rounded up to a multiple of 64, at most of this.
_MARKER = "\u2581"  # SentencePiece writes a space as this character.


class TextTokenizer(Protocol):
  """What data, generation and checkpoints ask of a tokenizer; picklable."""

  def __hash__(self) -> int:
    """Equal where ids are equal: ids of questions are remembered."""
    ...

  @property
  def pad_id(self) -> int:
    """Id at padding and where a visual token stands."""
    ...

  @property
  def eos_id(self) -> int:
    """Id that ends a text."""
    ...

  @property
  def vocab_size(self) -> int:
    """Number of ids, special tokens included."""
    ...

  @property
  def fingerprint(self) -> str:
    """Equal exactly where ids are equal."""
    ...

  def special_id(self, name: str) -> int:
    """Id of a special token; ValueError if the vocabulary has none of this name."""
    ...

  def check_vocab(self, expected: int) -> None:
    """ValueError unless it fits a model of so many ids."""
    ...

  def encode(self, text: str, *, dummy_prefix: bool = True) -> list[int]:
    """Ids of one stretch of text, in which special tokens are plain text."""
    ...

  def decode(self, ids: Sequence[int]) -> str:
    """Text of the ids; special tokens are left out."""
    ...


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A SentencePiece model; picklable, so data workers may hold one.

  Attributes:
    model: the bytes of the `tokenizer.model` file.
    source: where they came from, for error messages only.
    legacy: as in a tokenizer_config.json: the text right after a special token keeps its dummy
      prefix. Vicuna 1.5 has false.
  """

  model: bytes = dataclasses.field(repr=False)
  source: str = dataclasses.field(default="<bytes>", compare=False)
  legacy: bool = False

  def __post_init__(self):
    for name, id_ in (("bos", self.bos_id), ("eos", self.eos_id), ("unk", self.unk_id)):
      if id_ < 0:
        raise ValueError(
          f"{self.source}: this SentencePiece model has no {name} piece (id {id_}) - a LLaMA-style "
          "tokenizer has unk 0, bos 1, eos 2 - use the tokenizer.model that came with the weights"
        )

  @classmethod
  def load(cls, path: str | os.PathLike) -> Tokenizer:
    """Reads a `tokenizer.model` file, or the one inside a folder.

    `legacy` is what the tokenizer_config.json beside it says, if it is there and says it.

    Raises FileNotFoundError when there is none, ValueError when it is not SentencePiece.
    """
    file = pathlib.Path(path)
    if file.is_dir():
      file = file / "tokenizer.model"
    if not file.is_file():
      raise FileNotFoundError(
        f"no tokenizer at {file} - expected a SentencePiece tokenizer.model file, or a folder with "
        "one - give the tokenizer.model that came with the weights"
      )
    legacy = read_settings(file.parent).get("legacy")
    return cls(file.read_bytes(), str(file), legacy is True)

  @classmethod
  def demo(cls) -> Tokenizer:
    """The small tokenizer shipped for demos and tests; no pretrained weights fit it."""
    asset = importlib.resources.files("facejax") / "assets" / "demo_tokenizer.model"
    return cls(asset.read_bytes(), "demo_tokenizer.model")

  @functools.cached_property
  def _processor(self) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
      processor.LoadFromSerializedProto(self.model)
    except RuntimeError as error:
      raise ValueError(
        f"{self.source} ({len(self.model)} bytes) is not a SentencePiece model - expected a "
        "LLaMA-style tokenizer.model, not tokenizer.json and not a Git LFS pointer - fetch the "
        f"file itself ({error})"
      ) from error
    return processor

  @functools.cached_property
  def _bare_processor(self) -> sentencepiece.SentencePieceProcessor:
    """The same model without the dummy prefix."""
    model = pb.ModelProto.FromString(self.model)  # type: ignore[attr-defined]
    model.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())

  def __getstate__(self):
    return {"model": self.model, "source": self.source, "legacy": self.legacy}

  def __setstate__(self, state):
    self.__dict__.update(state)

  @property
  def bos_id(self) -> int:
    """Id that opens a sequence (1 in LLaMA)."""
    return self._processor.bos_id()

  @property
  def eos_id(self) -> int:
    """Id that ends an answer (2 in LLaMA)."""
    return self._processor.eos_id()

  @property
  def unk_id(self) -> int:
    """Id of the unknown piece (0 in LLaMA)."""
    return self._processor.unk_id()

  @property
  def pad_id(self) -> int:
    """Face-LLaVA pads with the unknown piece (official code: pad_token = unk_token)."""
    return self.unk_id

  @property
  def eos(self) -> str:
    """The end-of-answer piece as text, `</s>`."""
    return self._processor.id_to_piece(self.eos_id)

  @property
  def vocab_size(self) -> int:
    """Number of ids; 32000 for LLaMA."""
    return self._processor.vocab_size()

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of the model bytes (and the legacy flag), stored with every checkpoint."""
    return hashlib.sha256(self.model + b"legacy" * self.legacy).hexdigest()

  def special_id(self, name: str) -> int:
    """Id of a control piece such as "</s>". Raises ValueError if there is none of this name."""
    id_ = self._processor.piece_to_id(name)
    if not self._processor.is_control(id_):
      raise ValueError(
        f"{self.source} has no special token {name!r} - use the tokenizer that came with the "
        "weights, or the data.template that fits it"
      )
    return id_

  def check_vocab(self, expected: int) -> None:
    """Raises ValueError unless the model's vocabulary is this tokenizer's.

    It may have some more: transformers' LLaVA-1.5 adds two tokens and rounds 32,002 up to 32,064.
    """
    if not 0 <= expected - self.vocab_size < _ROUNDING:
      raise ValueError(
        f"wrong tokenizer: vocab {self.vocab_size}, the model expects {expected} ({self.source}) - "
        "use the tokenizer.model that came with the weights"
      )

  def encode(self, text: str, *, bos: bool = False, dummy_prefix: bool = True) -> list[int]:
    """Ids of one stretch of text.

    Args:
      text: any text; characters outside the vocabulary become UTF-8 byte pieces.
      bos: put the BOS id in front.
      dummy_prefix: SentencePiece puts a space in front of a text. False takes it away again, as
        the slow LLaMA tokenizer (legacy=False) does right after a special token: the first piece
        loses its space marker ("_US" -> "US") and nothing is tokenised anew, so ids agree with
        those the official weights were trained on. A stretch that itself opens with a space
        keeps the prefix, which is what that tokenizer does too. A legacy tokenizer always does.
    """
    ids = list(self._processor.encode(text))
    if ids and not (dummy_prefix or self.legacy or text.startswith(" ")):
      ids = self._without_marker(ids[0]) + ids[1:]
    return [self.bos_id, *ids] if bos else ids

  def _without_marker(self, id_: int) -> list[int]:
    piece = self._processor.id_to_piece(id_)
    bare = piece.removeprefix(_MARKER)
    if bare == piece:
      return [id_]
    if not bare:
      return []
    found = self._processor.piece_to_id(bare)
    # A vocabulary may hold "_US" and not "US": the official code then emits <unk>; we spell it.
    return [found] if found != self.unk_id else list(self._bare_processor.encode(bare))

  def decode(self, ids: Sequence[int]) -> str:
    """Text of the ids; BOS, EOS and padding (= unknown) are left out.

    Raises ValueError for an id outside the vocabulary.
    """
    for id_ in ids:
      if not 0 <= id_ < self.vocab_size:
        raise ValueError(
          f"token id {id_} is outside the vocabulary of {self.source} (0..{self.vocab_size - 1}) - "
          "the model and the tokenizer do not belong together"
        )
    special = {self.bos_id, self.eos_id, self.unk_id}
    return self._processor.decode([int(id_) for id_ in ids if int(id_) not in special])


def read_settings(folder: pathlib.Path) -> dict:
  """What tokenizer_config.json says; {} where there is none. Raises ValueError if it is damaged."""
  file = folder / "tokenizer_config.json"
  return read_json(file) if file.is_file() else {}


def read_json(file: pathlib.Path) -> dict:
  """A JSON object. Raises ValueError, naming the file, for anything else."""
  try:
    content = json.loads(file.read_text("utf-8"))
  except ValueError as error:
    raise ValueError(
      f"{file} is not JSON ({error}) - expected the file that came with the weights, not a Git LFS "
      "pointer - fetch the file itself"
    ) from error
  if not isinstance(content, dict):
    raise ValueError(
      f"{file} holds a {type(content).__name__} - expected a JSON object - fetch the file again"
    )
  return content
