"""A conversation and its decoded media -> how much of a row they take, as training counts it."""

import re
from collections.abc import Sequence

import numpy as np

from facejax.data import chat
from facejax.data.rows import KINDS, Outline, RowFormat, placeholders, slots
from facejax.doctor.cases import Case, Piece
from facejax.doctor.findings import Note
from facejax.doctor.pixels import Seen
from facejax.types import Turn

_UNKNOWN = 0.01  # share of a text's tokens from which the tokenizer does not know it (our choice)
_SPELLED = 1.5  # tokens a character: above it, a text is spelled out byte by byte
_SHORT = 20  # characters below which that ratio says nothing


def lay_out(
  case: Case, seen: Sequence[Seen | None], form: RowFormat, notes: list[Note]
) -> tuple[int, int]:
  """(text, visual) tokens as training counts them; (-1, 0) where it would not get so far."""
  turns = case.turns or ()
  asked, kinds = placeholders(turns), [piece.kind for piece in case.media]
  if asked != kinds:
    notes.append(
      Note(
        "placeholder_mismatch",
        f"the questions have the placeholders [{', '.join(asked)}] but the media are "
        f"[{', '.join(kinds)}] - the n-th placeholder stands for the n-th medium - add or remove "
        "placeholders or files",
      )
    )
    return -1, 0
  outlines = [_outline(piece, look, form) for piece, look in zip(case.media, seen, strict=True)]
  lengths = [form.count(outline) for outline in outlines]
  try:
    encoded = chat.encode(
      turns,
      form.tokenizer,
      form.template,
      lengths,
      frames=form.table.model.frames,
      sample=case.id,
    )
  # SentencePiece raises RuntimeError, a byte-level tokenizer TypeError, for half surrogates.
  except (ValueError, RuntimeError, TypeError) as error:
    if not any(note.kind in _CONVERSATION for note in notes):
      notes.append(Note("refused", str(error)))
    return -1, 0
  visual = int((encoded.visual >= 0).sum())
  _fit(len(encoded), visual, outlines, form, notes)
  _known(turns, encoded, form, notes)
  return len(encoded) - visual, visual


# What stops a conversation from being laid out, so that its refusal is no news.
_CONVERSATION = (
  *("empty_conversation", "unknown_role", "turn_order", "unanswered_question", "empty_answer"),
  *("stop_in_answer", "placeholder_in_answer", "broken_text"),
)


def _outline(piece: Piece, seen: Seen | None, form: RowFormat) -> Outline:
  """A picture that does not decode counts as one tile."""
  mapped = piece.segmentation is not None and "segmentation" in form.reads
  size = (1, 1) if seen is None else seen.pixels.shape[1:3]
  return Outline(piece.kind, mapped, form.pictures(piece.kind, *size) if seen else 1)


def _fit(
  length: int, visual: int, outlines: list[Outline], form: RowFormat, notes: list[Note]
) -> None:
  tokens, *room = form.capacity
  if length > tokens:
    notes.append(
      Note(
        "too_long",
        f"the sample takes {length} tokens ({visual} of them visual), a row and the decoder have "
        f"{tokens} - raise data.row_length or shorten the sample",
      )
    )
  for kind, taken, slots_ in zip(KINDS, slots(outlines), room, strict=True):
    if taken > slots_:
      notes.append(
        Note(
          "too_many_media",
          f"the sample takes {taken} {kind} slots, a row has {slots_} - raise data.{kind}s_per_row",
        )
      )


def _known(
  turns: Sequence[Turn], encoded: chat.Encoded, form: RowFormat, notes: list[Note]
) -> None:
  """Whether the tokenizer knows the text."""
  text = re.sub("<image>|<video>", "", "".join(turn.text for turn in turns))
  ids = encoded.tokens[encoded.visual < 0]
  unknown = float(np.mean(ids == form.tokenizer.pad_id)) if len(ids) else 0.0
  spelled = len(form.tokenizer.encode(text)) / max(len(text), 1)
  if unknown > _UNKNOWN or (len(text) >= _SHORT and spelled > _SPELLED):
    notes.append(
      Note(
        "unknown_tokens",
        f"{unknown:.0%} of the tokens are unknown, {spelled:.1f} tokens a character - expected "
        f"less than {_UNKNOWN:.0%} and {_SPELLED:g} - use a tokenizer of this language",
      )
    )
