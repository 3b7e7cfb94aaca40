"""What can be wrong with a sample: the table of kinds, and a finding of one of them.

An error makes the sample unusable or the training wrong: it is quarantined. A warning is listed.
Slugs are stable: scripts may filter by them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "off"]


class Kind(NamedTuple):
  """A row of the table: how bad it is, and what it means."""

  severity: Severity
  about: str


_ERRORS = {
  # the record
  "invalid_json": "the record, or the index around it, is no JSON",
  "not_an_object": "the record is no JSON object",
  "field_type": "a field is missing or holds another type than the format says",
  "not_utf8": "bytes of the record are not UTF-8",
  "broken_text": "a text holds half a surrogate pair, which no tokenizer takes",
  "unreadable_sample": "the sample cannot be read from its source",
  # the conversation
  "empty_conversation": "there is no question",
  "unknown_role": "a turn is from neither human nor gpt",
  "turn_order": "turns do not alternate",
  "unanswered_question": "a question has no answer",
  "empty_answer": "an answer has no visible character",
  "no_supervision": "no token of the sample is supervised, so it teaches nothing",
  "stop_in_answer": "an answer holds the text that ends an answer",
  "placeholder_in_answer": "an answer names a medium",
  "placeholder_mismatch": "placeholders and media differ in number or kind",
  "too_long": "the sample takes more tokens than a row has",
  "too_many_media": "the sample takes more media slots than a row has",
  "refused": "training refuses the sample for a reason without a kind of its own",
  # files
  "path_outside": "a path leads out of the dataset's folder",
  "missing_file": "a file is not there",
  "not_a_file": "a path names a folder, pipe or device",
  "unreadable_file": "the system refuses to read a file",
  "empty_file": "a file has no bytes",
  "oversized_file": "a file has more bytes than are read",
  "stand_in_file": "a web page or a Git LFS pointer lies in the place of a medium",
  "wrong_kind": "a clip lies in the place of a picture, or a picture in that of a clip",
  "truncated": "the end of a file is missing",
  "undecodable": "a picture or clip cannot be decoded",
  "oversized_media": "a picture or clip has more pixels, frames or seconds than are read",
  "no_video_stream": "a clip has no pictures, only sound or data",
  "zero_frames": "no frame of a clip decodes",
  "decoder_timeout": "a decoder did not come to an end",
  "decoder_crash": "a decoder took its process down",
  # landmarks
  "landmarks_unreadable": "landmarks are no plain array of numbers",
  "landmarks_shape": "landmarks are not 68 points of two numbers",
  "landmarks_frames": "landmarks have another number of frames than the clip",
  "landmarks_not_finite": "landmarks hold NaN or infinity",
  "landmarks_outside": "landmarks lie outside the face crop",
  "landmarks_normalised": "landmarks are shares of the crop, not pixels",
  "landmarks_not_square": "landmarks belong to a picture that is no square face crop",
  "landmarks_collapsed": "all landmarks lie in one spot",
  # class maps
  "segmentation_unreadable": "a class map cannot be decoded",
  "segmentation_mode": "a class map holds colours instead of class ids",
  "segmentation_shape": "a class map has the wrong number of axes or a wrong type",
  "segmentation_frames": "class maps have another number of frames than the clip",
  "segmentation_classes": "a class map holds ids that the model has no class for",
  "segmentation_size": "a class map has other proportions than its picture",
  # faces, labels, copies
  "no_face": "the detector finds no face (with --detector)",
  "label_range": "a label lies outside its range",
  "label_type": "a label has the wrong type",
  "duplicate_sample": "the sample is there twice: same conversation, same pixels",
  "split_leak": "a medium of a training sample is in a held-out split too",
}
_WARNINGS = {
  "duplicate_key": "a field is there twice in a record; the last one counts",
  "control_characters": "a text holds control or direction characters",
  "garbled_text": "a text was decoded with the wrong encoding",
  "empty_question": "a question has neither text nor medium",
  "unknown_placeholder": "a text holds what looks like a placeholder and is none",
  "template_words": "a text holds the words that open a turn",
  "answer_repeats_question": "an answer is its question",
  "refusal_answer": "an answer refuses to answer",
  "cut_answer": "a long answer ends in the middle of a sentence",
  "unknown_tokens": "the tokenizer does not know the text and spells it out or drops it",
  "wrong_suffix": "the content of a file is not what its name says",
  "tiny_media": "a side of a picture or clip has fewer than 32 pixels",
  "extreme_shape": "a picture or clip is more than ten times as long as wide",
  "animation": "a picture moves; its first frame is used",
  "blank_media": "a picture, or each frame of a clip, is of one colour",
  "half_grey": "the lower part of a picture is plain grey, as after a broken download",
  "rotated_picture": "EXIF turns a picture that has landmarks or a class map",
  "short_clip": "a clip has fewer frames than the model takes; some are repeated",
  "frozen_clip": "all frames of a clip are the same",
  "landmarks_mirrored": "landmarks are in the order of a mirrored face",
  "landmarks_turned": "the eyes do not lie above the mouth",
  "segmentation_blank": "a class map has one class only",
  "several_faces": "the detector finds several faces (with --detector)",
  "duplicate_id": "two samples have the same id",
  "duplicate_media": "a medium of the split is there twice under two names",
  "same_conversation": "a long answer stands below different media",
  "split_overlap": "a medium is in two held-out splits",
}
KINDS: dict[str, Kind] = {
  **{slug: Kind("error", about) for slug, about in _ERRORS.items()},
  **{slug: Kind("warning", about) for slug, about in _WARNINGS.items()},
}


class Note(NamedTuple):
  """A finding before it is known whose it is. `mild`: at most a warning."""

  kind: str
  message: str
  file: str = ""
  mild: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something wrong with one sample.

  Attributes:
    kind: a slug of KINDS.
    severity: error or warning.
    sample: id.
    message: what was found - what was expected - where - what to do.
    file: that it is about; "" for the record itself.
  """

  kind: str
  severity: str
  sample: str
  message: str
  file: str = ""


def severities(settings: Sequence[str]) -> dict[str, Severity]:
  """KIND=error|warning|off settings over the table's own. Raises ValueError for others."""
  chosen: dict[str, Severity] = {slug: kind.severity for slug, kind in KINDS.items()}
  for setting in settings:
    slug, _, level = setting.partition("=")
    if slug not in KINDS or level not in ("error", "warning", "off"):
      raise ValueError(
        f"--severity {setting}: expected KIND=error, KIND=warning or KIND=off, where KIND is one "
        f"of {', '.join(KINDS)}"
      )
    chosen[slug] = level  # type: ignore[assignment]
  return chosen


def judged(sample: str, notes: Sequence[Note], levels: Mapping[str, Severity]) -> list[Finding]:
  """Findings of a sample in the order of its notes; a note that is there twice counts once."""
  found = []
  for note in dict.fromkeys(notes):
    level = levels[note.kind]
    if level == "error" and note.mild:
      level = "warning"
    if level != "off":
      found.append(Finding(note.kind, level, sample, note.message, note.file))
  return found
