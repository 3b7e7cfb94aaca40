"""FaceXBench (arXiv 2501.10360): 5,000 questions with four options, 14 tasks in 6 categories.

    benchmark/fairface_single_mcq_age_test.json       one of 48 files
    benchmark/images/fairface_single_mcq_age_test/question_7.png, question_7_2.png

    {"category": "bias_fairness", "sub-category": "age", "dataset": ..., "num_images": "single",
     "prepend_text": ..., "postpend_text": ..., "context": ..., "questions": {"1": {
        "image_paths": [...], "question_text": ..., "options": ["20-29", ...],
        "correct_answer_option": "B", "answer": "20-29"}}}

Released: files, prompts, extraction and micro averages. The paper's chain of thought has no prompt
in the release and is not here. Ours: that questions without a usable truth are listed and no items,
that an item whose pictures cannot be read counts as wrong, and the checks of counts.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facejax.config_checks import one_of
from facejax.evaluate.benchmarks.facexbench_answers import MODES, letters
from facejax.evaluate.protocol import Benchmark, Item, MediaFile, from_files
from facejax.types import Refusal

CATEGORIES: Mapping[str, str] = {
  "bias_fairness": "Bias & Fairness",
  "face_recognition": "Face Recognition",
  "fas_deepfakes": "Face Authentication",
  "attributes_expression": "Face Analysis",
  "face_localization": "Face Localization",
  "tools_use": "Face Tools Use",
}
# Sub-task -> category and questions.
SUB_TASKS: Mapping[str, tuple[str, int]] = {
  "age": ("bias_fairness", 500),
  "gender": ("bias_fairness", 500),
  "race": ("bias_fairness", 500),
  "hr_fr": ("face_recognition", 400),
  "lr_fr": ("face_recognition", 100),
  "celebrity_identification": ("face_recognition", 300),
  "fas": ("fas_deepfakes", 400),
  "deepfakes": ("fas_deepfakes", 300),
  "attributes": ("attributes_expression", 400),
  "expression": ("attributes_expression", 400),
  "headpose": ("face_localization", 400),
  "segmentation": ("face_localization", 400),
  "crowd_counting": ("face_localization", 300),
  "tools_retrieval": ("tools_use", 100),
}
# FaceLLM's rows fit 298 questions on deepfakes and no other number: 4,998 in all.
ALSO = {"deepfakes": 298}


def _stems() -> tuple[str, ...]:
  """The 48 files of the release."""
  people = [
    f"{data}_{images}_mcq_{task}_test"
    for data in ("fairface", "utkface")
    for images in ("single", "multiple")
    for task in ("age", "gender", "race")
  ]
  multiple = "lfw agedb30 calfw cplfw cfpff cfpfp tinyface casia_mfsd msu_mfsd replay_attack"
  both = "imdb wmca celeba affectnet biwi"
  return (
    *people,
    *(f"{data}_multiple_mcq" for data in (*multiple.split(), "celebdf", "ff++")),
    *(f"{data}_{images}_mcq" for data in both.split() for images in ("single", "multiple")),
    *("rafdb_single_mcq_train", "rafdb_multiple_mcq_train"),
    *("aflw2000_single_mcq_test", "aflw2000_multiple_mcq_test"),
    *("celebamaskhq_single_mcq_test", "celebamaskhq_single_mcq_val", "lapa_single_mcq"),
    *(f"jhucrowd_single_mcq{kind}_{s}" for kind in ("", "_range") for s in ("test", "val")),
    *("shanghaitech_single_mcq", "shanghaitech_single_mcq_range", "tools_retrieval"),
  )


FILES = _stems()


@dataclasses.dataclass(frozen=True)
class FaceXBench:
  """Settings of FaceXBench.

  Attributes:
    folder: "benchmark", which holds the 48 files and images.
    setting: "zero_shot", or "in_context" with each file's description of its task in front.
    extraction: "official", or "strict"; see facexbench_answers.py.
    partial: a folder with fewer files or questions than released is accepted.
  """

  folder: str
  setting: str = "zero_shot"
  extraction: str = "official"
  partial: bool = False

  def __post_init__(self):
    one_of("FaceXBench.setting", self.setting, ("zero_shot", "in_context"))
    one_of("FaceXBench.extraction", self.extraction, tuple(MODES))

  def open(self) -> Benchmark:
    """Reads all files.

    Raises:
      FileNotFoundError: no such folder, or no file of the release in it.
      ValueError: a file that is not FaceXBench's, or counts that are not, without `partial`.
    """
    folder = Path(self.folder)
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
      raise FileNotFoundError(
        f"no .json files in {folder} - expected the 48 of FaceXBench's folder 'benchmark' - "
        "check --data"
      )
    items: list[Item] = []
    left_out: list[Refusal] = []
    notes: list[Refusal] = []
    for path in paths:
      data = _read(path)
      for number, question in data["questions"].items():
        name = f"{path.stem}/{number}"
        problem = _unusable(question)
        if problem:
          left_out.append(Refusal(name, problem))
          continue
        items.append(_item(name, data, question, self.setting))
        notes += [Refusal(name, note) for note in _oddities(question)]
    if not self.partial:
      _check_counts(items, {path.stem for path in paths}, left_out)
    extract, version = MODES[self.extraction]
    return Benchmark(
      name="facexbench",
      items=items,
      task="choice",
      classes=(),
      parse=lambda answer, item: extract(answer, item.choices),
      parser=version,
      folder=folder,
      load=from_files(folder),
      settings={"setting": self.setting, "partial": self.partial, "files": len(paths)},
      # Our choice: a letter needs a few; FaceLLM's evaluation allows 2,048.
      new_tokens=128,
      breakdowns=("category", "sub-task", "images", "pictures", "dataset"),
      left_out=tuple(left_out),
      notes=tuple(notes),
    )


def _read(path: Path) -> dict[str, Any]:
  try:
    data = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path} is no JSON ({error}) - expected a file of FaceXBench") from error
  needed = ("category", "sub-category", "num_images", "questions")
  lacks = [key for key in needed if not isinstance(data, dict) or key not in data]
  if lacks or not isinstance(data["questions"], dict):
    raise ValueError(
      f"{path}: no {', '.join(lacks) or 'questions by number'} - expected {', '.join(needed)} - is "
      "it a file of FaceXBench?"
    )
  for key, known in (("category", CATEGORIES), ("sub-category", SUB_TASKS)):
    if data[key] not in known:
      raise ValueError(f"{path}: {key} {data[key]!r} - expected one of {', '.join(known)}")
  return data


def _unusable(question: Any) -> str:
  """Why a question is no item, or ""."""
  if not isinstance(question, dict):
    return f"{question!r} is no question"
  options, paths = question.get("options"), question.get("image_paths")
  if not isinstance(question.get("question_text"), str):
    return f"question_text is {question.get('question_text')!r} - expected a text"
  if not isinstance(options, list) or not 2 <= len(options) <= 26:
    return f"options are {options!r} - expected a list of four"
  if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
    return f"image_paths are {paths!r} - expected a list of paths"
  if question.get("correct_answer_option") not in letters(options):
    return (
      f"correct_answer_option is {question.get('correct_answer_option')!r} - expected one of "
      f"{', '.join(letters(options))}"
    )
  return ""


def _oddities(question: Mapping) -> list[str]:
  """What is unusual in a question that counts all the same."""
  found, options = [], question["options"]
  answer = question.get("answer")
  if not isinstance(answer, str):
    found.append(f"answer is the {type(answer).__name__} {answer!r}; the letter decides")
  if len(options) != 4:
    found.append(f"{len(options)} options, not four")
  if any(not isinstance(option, str) for option in options):
    found.append("an option is no text; it is shown as one")
  return found


def _item(name: str, data: Mapping, question: Mapping, setting: str) -> Item:
  text = prompt(data, question, in_context=setting == "in_context")
  paths, count = question["image_paths"], len(question["image_paths"])
  forged = [mark for mark in ("<image>", "<video>") if mark in text]
  error = f"the question holds {forged[0]}, which stands for a medium" if forged else ""
  return Item(
    id=name,
    prompt="<image>\n" * count + text,
    media=tuple(MediaFile("image", path) for path in paths),
    truth=question["correct_answer_option"],
    choices=tuple(str(option) for option in question["options"]),
    groups={
      "category": CATEGORIES[data["category"]],
      "sub-task": data["sub-category"],
      "dataset": str(data.get("dataset", "")),
      "images": str(data["num_images"]),
      "pictures": str(count),
    },
    error=error,
  )


def prompt(data: Mapping, question: Mapping, in_context: bool) -> str:
  """The text of a question as FaceXBench's evaluate.py makes it: options behind the instruction."""
  parts = []
  if data["category"] == "tools_use":
    parts.append(data.get("context") or "")
  if in_context and data.get("prepend_text"):
    parts.append(data["prepend_text"])
  parts.append(question["question_text"])
  if data.get("postpend_text"):
    parts.append(data["postpend_text"])
  options = question["options"]
  parts += [f"({a}) {x}" for a, x in zip(letters(options), options, strict=True)]
  return "".join(f"{part}\n" for part in parts)


def _check_counts(items: list[Item], stems: set[str], left_out: list[Refusal]) -> None:
  """Raises ValueError naming files and sub-tasks whose numbers are not the released ones."""
  counts = collections.Counter(item.groups["sub-task"] for item in items)
  wrong = [
    f"{task}: {counts[task]} of {expected}" + (f" (or {ALSO[task]})" if task in ALSO else "")
    for task, (_, expected) in SUB_TASKS.items()
    if counts[task] not in (expected, ALSO.get(task))
  ]
  lacks = [stem for stem in FILES if stem not in stems]
  if wrong or lacks:
    unusable = [f"{r.id}: {r.reason}" for r in left_out[:5]]
    raise ValueError(
      f"FaceXBench has {len(items)} usable questions here - expected 5,000, or 4,998 as in "
      f"FaceLLM's runs - {'; '.join(wrong) or 'sub-tasks are complete'} - missing files: "
      f"{', '.join(lacks) or 'none'} - unusable questions: {len(left_out)} {unusable} - complete "
      "the folder, or accept it with --set facexbench.partial=true"
    )
