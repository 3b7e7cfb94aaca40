"""Templates, prompts, ids, label masks and decoding: conversations.json, number by number."""

import dataclasses
import re
from typing import Any

import numpy as np

from face_llava import batches
from face_llava.folder import Folder
from face_llava.report import Report
from facejax.data import chat, rows
from facejax.data.tokenizer import Tokenizer

TEMPLATES = {"v1": chat.VICUNA, "llava_v1": chat.RELEASED}
_SEPARATOR = " ASSISTANT: "
_SPECIAL = "(<s>|</s>|<unk>)"
_IDS = ("legacy_false", "legacy_true")


def compare(folder: Folder, report: Report) -> None:
  """conversations.json."""
  stored = folder.conversations
  for name, template in stored["templates"].items():
    if name in TEMPLATES:
      want = template["system"] + template["sep"]
      report.equal(f"conversations.templates.{name}", TEMPLATES[name].system, want)
    else:
      why = "a template of the base project that no Face-LLaVA script uses"
      report.leave([f"conversations.templates.{name}"], why)
  for n, sample in enumerate(stored["samples"]):
    for legacy in _IDS:
      _compare_sample(folder, f"conversations.samples.{n}", sample, legacy, report)
  for n, prompt in enumerate(stored.get("inference_prompts", [])):
    for legacy in _IDS:
      _compare_prompt(folder, f"conversations.inference_prompts.{n}", prompt, legacy, report)
  for n, case in enumerate(stored.get("tokenizer_image_token", [])):
    for legacy in _IDS:
      own = tokenizer(folder, legacy)
      for kind, want in case[legacy].items():
        got = tokenise(own, case["text"], placeholders=kind == "tokenizer_image_token")
        name = f"conversations.tokenizer_image_token.{n}.{legacy}.{kind}"
        report.equal(name, got, want)
  for n, case in enumerate(stored.get("decode", [])):
    name = f"conversations.decode.{n}"
    report.equal(f"{name}.skip_special", folder.tokenizer.decode(case["ids"]), case["skip_special"])
    report.leave([f"{name}.decode"], "the library never writes special tokens out")
  _compare_special_ids(folder, report)


def tokenizer(folder: Folder, legacy: str) -> Tokenizer:
  """The folder's, with the setting of one of the two sets of ids."""
  return dataclasses.replace(folder.tokenizer, legacy=legacy == "legacy_true")


def _compare_special_ids(folder: Folder, report: Report) -> None:
  own = folder.tokenizer
  ours = {
    "bos": own.bos_id,
    "eos": own.eos_id,
    "unk": own.unk_id,
    "pad_after_setup": own.pad_id,
    "vocab_size": own.vocab_size,
  }
  for name, want in folder.conversations.get("special_ids", {}).items():
    report.equal(f"conversations.special_ids.{name}", ours[name], want)


def _compare_sample(
  folder: Folder, name: str, sample: dict[str, Any], legacy: str, report: Report
) -> None:
  """One training conversation: the prompt, its ids, its labels."""
  turns, want = batches.turns(sample["conversations"]), sample[legacy]
  kinds = rows.placeholders(turns)
  lengths = [1 if kind == "image" else _frames(sample, kinds) for kind in kinds]
  own = tokenizer(folder, legacy)
  if any(re.search(_SPECIAL, turn.text) for turn in turns):
    why = (
      "a turn spells a special token: the library reads it as text, so that no one forges a turn"
    )
    report.differs_by_design[f"{name}.{legacy}"] = why
    return
  try:
    encoded = chat.encode(turns, own, chat.VICUNA, lengths, sample=name)
  except ValueError as error:
    report.differs_by_design[f"{name}.{legacy}"] = f"refused by the library: {error}"
    return
  ids = official(encoded)
  report.equal(f"{name}.{legacy}.prompt", render(ids, own), sample["prompt"])
  report.equal(f"{name}.{legacy}.input_ids", ids, want["input_ids"])
  labels = np.where(encoded.supervised, encoded.tokens, batches.IGNORED)
  if set(want["labels"]) == {batches.IGNORED} and any(_SEPARATOR in f" {t.text}" for t in turns):
    report.differs_by_design[f"{name}.{legacy}.labels"] = (
      f"an answer holds {_SEPARATOR!r}: the official code drops the whole sample's loss, the "
      f"library keeps its {encoded.supervised.sum()} labels"
    )
    return
  report.equal(f"{name}.{legacy}.labels", labels, want["labels"])


def _frames(sample: dict[str, Any], kinds: list) -> int:
  """Frames of the sample's clips, counted in what the official code made of its placeholders."""
  expanded = " ".join(turn["value"] for turn in sample["after_preprocess_multimodal"])
  pictures = expanded.count("<image>") - kinds.count("image")
  return pictures // max(kinds.count("video"), 1)


def _compare_prompt(
  folder: Folder, name: str, prompt: dict[str, Any], legacy: str, report: Report
) -> None:
  """One unanswered question."""
  frames = prompt["prompt"].count("<image>")
  asked, template = question(folder, prompt, frames)
  length = frames if "<video>" in asked else 1
  own = tokenizer(folder, legacy)
  lengths = [length] * len(rows.placeholders(batches.turns([{"from": "human", "value": asked}])))
  encoded = chat.prompt(asked, own, template, lengths, frames=length)
  ids = official(encoded)
  report.equal(f"{name}.{legacy}.prompt", render(ids, own), prompt["prompt"])
  report.equal(f"{name}.{legacy}.input_ids", ids, prompt[legacy]["input_ids"])


def question(folder: Folder, prompt: dict[str, Any], frames: int) -> tuple[str, chat.Template]:
  """The question inside an official prompt, its clip as <video>, and the template around it."""
  theirs = folder.conversations["templates"][prompt["conv_mode"]]
  user, assistant = theirs["roles"]
  asked = prompt["prompt"].removeprefix(f"{theirs['system']}{theirs['sep']}{user}: ")
  asked = asked.removesuffix(f"{theirs['sep']}{assistant}:")
  spaced = " ".join(["<image>"] * frames)
  separator = " " if spaced in asked and frames > 1 else ""
  if prompt["media"].startswith("video"):
    asked = asked.replace(separator.join(["<image>"] * frames), "<video>", 1)
  template = TEMPLATES[prompt["conv_mode"]]
  return asked, dataclasses.replace(template, frame_separator=separator)


def official(encoded: chat.Encoded) -> np.ndarray:
  """The ids with the official placeholder for visual tokens, one for each."""
  return np.where(encoded.visual >= 0, batches.VISUAL, encoded.tokens)


def render(ids: np.ndarray, own: Tokenizer) -> str:
  """The text that ids stand for, with <image> and </s> written out."""
  marks = {batches.VISUAL: "<image>", own.eos_id: "</s>", own.bos_id: ""}
  out = ""
  stretch: list[int] = []
  for id_ in [*ids.tolist(), own.bos_id]:
    if id_ in marks:
      out += own.decode(stretch) + marks[id_]
      stretch = []
    else:
      stretch.append(id_)
  return out


def tokenise(own: Tokenizer, text: str, placeholders: bool) -> np.ndarray:
  """Ids of any text as data/chat.py puts them together, from stretches between special tokens.

  The library reads special tokens in a template only; the official code reads them anywhere.
  """
  special = {"<s>": own.bos_id, "</s>": own.eos_id, "<unk>": own.unk_id}
  ids = [own.bos_id]
  for n, chunk in enumerate(text.split("<image>") if placeholders else [text]):
    ids += [batches.VISUAL] if n else []
    behind = False
    for piece in re.split(_SPECIAL, chunk):
      ids += [special[piece]] if piece in special else own.encode(piece, dummy_prefix=not behind)
      behind = piece in special
  return np.array(ids)
