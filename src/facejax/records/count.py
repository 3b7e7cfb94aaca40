"""Text tokens of a source's samples, by the one function that lays conversations out.

A column of the manifest for each tokenizer and template: tokens-XXXXXXXX.npy, and beside it
tokens-XXXXXXXX.json, which says whose it is and why a conversation cannot be laid out (-1 there).
Visual tokens follow from the pictures' sizes and the model, and are not stored.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from facejax.data import chat
from facejax.data.rows import RowFormat, placeholders
from facejax.records.manifest import Manifest, write_text

_CHUNK = 4096  # conversations


def fingerprint(form: RowFormat) -> str:
  """Eight hexadecimal digits: of the tokenizer, the template, and frames where they are written."""
  return hashlib.sha256(json.dumps(_about(form), sort_keys=True).encode()).hexdigest()[:8]


def _about(form: RowFormat) -> dict:
  template = form.template
  told = bool(template.frame_separator) or template.frame != "{}"
  return {
    "tokenizer": form.tokenizer.fingerprint,
    "template": {k: v for k, v in dataclasses.asdict(template).items() if k != "name"},
    "frames": form.table.model.frames if told else 0,
  }


def count(folder: str | pathlib.Path, form: RowFormat, workers: int = 1) -> str:
  """Counts a built source's text tokens and adds the column, unless it is there.

  Args:
    folder: OUT/SOURCE.
    form: whose tokenizer and template count.
    workers: processes; 1: this one.

  Returns:
    What a person needs to know, in a line.
  """
  manifest = Manifest(pathlib.Path(folder) / "manifest")
  name = f"tokens-{fingerprint(form)}"
  path = manifest.folder / f"{name}.npy"
  if path.is_file():
    return f"{folder}: {name} is there, nothing to count"
  starts = range(0, len(manifest), _CHUNK)
  with tqdm(total=len(manifest), desc=f"counting {name}", unit=" samples") as progress:
    tokens: list[np.ndarray] = []
    refused: dict[int, str] = {}
    for chunk, bad in _chunks(manifest, form, starts, workers):
      tokens.append(chunk)
      refused |= bad
      progress.update(len(chunk))
  about = _about(form) | {"refused": refused}
  write_text(manifest.folder / f"{name}.json", json.dumps(about, indent=1, ensure_ascii=False))
  part = manifest.folder / f".{name}.{os.getpid()}.npy"
  np.save(part, np.concatenate(tokens))
  os.replace(part, path)  # the column last: it says that both are complete
  total = sum(int(np.maximum(chunk, 0).sum()) for chunk in tokens)
  return f"{folder}: {name} counts {total:,} text tokens, {len(refused)} samples refused"


def _chunks(manifest: Manifest, form: RowFormat, starts: range, workers: int):
  if workers == 1:
    for start in starts:
      yield _chunk(manifest, form, start)
    return
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    yield from pool.map(_chunk, *zip(*((manifest, form, start) for start in starts), strict=True))


def _chunk(
  manifest: Manifest, form: RowFormat, start: int
) -> tuple[Int[np.ndarray, "n"], dict[int, str]]:
  stop = min(start + _CHUNK, len(manifest))
  tokens, refused = np.full(stop - start, -1, np.int32), {}
  for record in range(start, stop):
    name = f"{manifest.about['source']}/{manifest.id(record)}"
    try:
      tokens[record - start] = text_tokens(manifest, form, record, name)
    except ValueError as error:
      refused[record] = str(error)
  return tokens, refused


def text_tokens(manifest: Manifest, form: RowFormat, record: int, name: str) -> int:
  """Tokens of a record without the visual ones. Raises ValueError as chat.encode does."""
  conversation, frames = manifest.conversation(record), form.table.model.frames
  visual = [1 if kind == "image" else frames for kind in placeholders(conversation)]
  encoded = chat.encode(
    conversation, form.tokenizer, form.template, visual, frames=frames, sample=name
  )
  return len(encoded) - sum(visual)


def load(manifest: Manifest, form: RowFormat) -> tuple[Int[np.ndarray, "n"], dict[int, str]]:
  """The column for a tokenizer and template, and why records of -1 cannot be laid out.

  Raises:
    FileNotFoundError: it was not counted, with what to run.
  """
  name = f"tokens-{fingerprint(form)}"
  path = manifest.folder / f"{name}.npy"
  if not path.is_file():
    there = sorted(p.name for p in manifest.folder.glob("tokens-*.npy"))
    raise FileNotFoundError(
      f"{manifest.folder.parent} has no text tokens counted by this tokenizer and template "
      f"({form.template.name}): no {name}.npy, but {', '.join(there) or 'none at all'} - run "
      f"facejax data count {manifest.folder.parent} --config=YOURS"
    )
  refused = json.loads((manifest.folder / f"{name}.json").read_bytes())["refused"]
  return manifest.column(name), {int(record): reason for record, reason in refused.items()}
