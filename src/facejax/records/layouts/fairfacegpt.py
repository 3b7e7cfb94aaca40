"""FairFaceGPT (FaceLLM): eight questions about each picture of FairFace, answered by a model.

As dataset.json, whose assistant is called "assistant" as well as "gpt":

    [{"image": "val/1.jpg",                      or "images": a path or a list of paths
      "conversations": [{"from": "human", "value": "Describe this image."},
                        {"from": "assistant", "value": "..."}]}, ...]

As the generation script leaves it, one question and answer a file, beside FairFace's labels:

    ChatGPT/gpt-4o-2024-11-20/val/1/question_0.txt ... question_7.txt, answer_0.txt ... answer_7.txt
    fairface_label_val.csv          file,age,gender,race,service_test

Released: both forms. Ours: "<image>" and a line break in front of a first question where a record
has pictures and no placeholder (nothing is trained without its picture), and one sample a question.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from facejax.config import LlavaConfig
from facejax.data import files
from facejax.data.llava import read_indexes
from facejax.data.media import MediaError
from facejax.records.layouts import path
from facejax.records.layouts.llava import LlavaLayout
from facejax.records.layouts.table import bad_line, columns, lines
from facejax.records.raw import Encoded, RawMedium, RawSample
from facejax.types import Turn

QUESTIONS = 8
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclasses.dataclass(frozen=True)
class FairFaceGpt:
  """Settings of dataset.json.

  Attributes:
    index: JSON files, joined in this order.
    image_root: folder that picture paths are relative to; "": that of the JSON file.
  """

  index: tuple[str, ...] = path(...)
  image_root: str = path()

  def open(self) -> LlavaLayout:
    """Reads the index files."""
    indexes = read_indexes(LlavaConfig(self.index, self.image_root), "index")
    return LlavaLayout([i._replace(records=[_official(r) for r in i.records]) for i in indexes])


def _official(raw: Any) -> Any:
  """A record under the official names; what is no such record is refused where it is read."""
  if not isinstance(raw, dict):
    return raw
  record = {key: value for key, value in raw.items() if key != "images"}
  if raw.get("images") is not None:
    given = raw.get("image")
    record["image"] = [given, raw["images"]] if given is not None else raw["images"]
  turns = raw.get("conversations")
  if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
    return record
  turns = [{**turn, "from": _ROLES.get(str(turn.get("from")), turn.get("from"))} for turn in turns]
  images = record.get("image")
  count = len(images) if isinstance(images, list) else int(images is not None)
  texts = [str(turn.get("value")) for turn in turns]
  first = next((i for i, turn in enumerate(turns) if turn["from"] == "human"), None)
  if count and first is not None and not any("<image>" in text for text in texts):
    turns[first] = {**turns[first], "value": "<image>\n" * count + texts[first]}
  return {**record, "conversations": turns}


@dataclasses.dataclass(frozen=True)
class FairFaceGptFolder:
  """Settings of the generation script's folder.

  Attributes:
    folder: of the answering model: ChatGPT/gpt-4o-2024-11-20.
    labels: fairface_label_val.csv (or train).
    images: folder that `file` of the labels is relative to: fairface_img_margin025.
  """

  folder: str = path(...)
  labels: str = path(...)
  images: str = path(...)

  def open(self) -> "FolderLayout":
    """Reads the labels and lists the questions that were asked."""
    return FolderLayout(pathlib.Path(self.folder), pathlib.Path(self.labels), self.images)


class FolderLayout:
  """The questions of a generation folder, in the labels' order; one that was not asked is none."""

  def __init__(self, folder: pathlib.Path, labels: pathlib.Path, images: str):
    self._folder, self._images = folder, images
    if not folder.is_dir():
      raise FileNotFoundError(f"no folder {folder} - expected ChatGPT/MODEL - check 'folder'")
    self._rows: list[tuple[str, int, dict[str, str]]] = []  # picture, question, labels
    sizes = hashlib.sha256()
    for file, facts in _faces(labels):
      # The script's own rule: the text in front of the first dot.
      stem = folder / file.partition(".")[0]
      for number in range(QUESTIONS):
        question, answer = (stem / f"{kind}_{number}.txt" for kind in ("question", "answer"))
        if question.is_file() or answer.is_file():
          self._rows.append((file, number, facts))
          for text in (question, answer):
            sizes.update(str(text.stat().st_size if text.is_file() else -1).encode())
    told = [[file, number, facts] for file, number, facts in self._rows]
    sizes.update(json.dumps(told, sort_keys=True).encode())
    self._digest = sizes.hexdigest()

  def __len__(self) -> int:
    return len(self._rows)

  def id(self, index: int) -> str:
    """Picture and question: val/1.jpg:0."""
    file, number, _ = self._rows[index]
    return f"{file}:{number}"

  def digest(self) -> str:
    """Of labels, and of the names and sizes of questions and answers."""
    return self._digest

  def __getitem__(self, index: int) -> RawSample:
    """Reads a question, its answer and the picture. Raises MediaError, naming sample and file."""
    (file, number, facts), name = self._rows[index], self.id(index)
    stem = file.partition(".")[0]
    try:
      question, answer = (
        self._text(f"{stem}/{kind}_{number}.txt", name) for kind in ("question", "answer")
      )
      picture = Encoded(file, files.read(files.inside(self._images, file, name)))
    except MediaError as error:
      raise MediaError(f"sample {name!r}: {error}") from error
    asked = question if "<image>" in question else f"<image>\n{question}"
    turns = (Turn("human", asked), Turn("gpt", answer))
    return RawSample(name, turns, (RawMedium("image", picture),), facts)

  def _text(self, relative: str, name: str) -> str:
    path = files.inside(self._folder, relative, name)
    try:
      return files.read(path).decode()
    except UnicodeDecodeError as error:
      raise MediaError(f"{path}: byte {error.start} is not UTF-8 - save it again") from error


def _faces(path: pathlib.Path) -> list[tuple[str, dict[str, str]]]:
  """Pictures and what FairFace says of them."""
  header, *rest = [*lines(path, "labels"), ""]
  needed = ("file", "age", "gender", "race")
  places = columns(path, header, needed)
  found = []
  for number, line in enumerate(rest, 2):
    fields = line.split(",")
    if not line.strip():
      continue
    if len(fields) <= max(places) or not fields[places[0]].strip():
      raise bad_line(path, number, line, "file,age,gender,race")
    values = [fields[place].strip() for place in places]
    found.append((values[0], dict(zip(needed[1:], values[1:], strict=True))))
  return found
