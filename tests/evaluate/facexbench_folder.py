"""FaceXBench's folder in its released layout, made up: 48 files, the released counts."""

import json
import pathlib

import numpy as np
from PIL import Image

from facejax.evaluate.benchmarks import facexbench

POSTPEND = (
  "Please answer the question and provide only the correct option letter, e.g., A, B, C, D."
)
OPTIONS = {
  "age": ["20-29", "30-39", "40-49", "None of the above"],
  "gender": ["male", "female", "Both", "None of the above"],
  "crowd_counting": ["22 to 26", "27 to 31", "32 to 36", "37 to 41"],
  "deepfakes": ["Image 1", "Image 2", "Both", "None"],
}
_SUB_TASK = (
  ("tools_retrieval", "tools_retrieval"),
  ("_age", "age"),
  ("_gender", "gender"),
  ("_race", "race"),
  ("imdb", "celebrity_identification"),
  ("tinyface", "lr_fr"),
  *((name, "hr_fr") for name in ("lfw", "agedb", "cfp")),
  *((name, "fas") for name in ("wmca", "mfsd", "replay")),
  *((name, "deepfakes") for name in ("celebdf", "ff++")),
  *((name, "segmentation") for name in ("celebamask", "lapa")),
  ("celeba", "attributes"),
  *((name, "expression") for name in ("affectnet", "rafdb")),
  *((name, "headpose") for name in ("aflw", "biwi")),
  *((name, "crowd_counting") for name in ("jhucrowd", "shanghaitech")),
)


def sub_task(stem: str) -> str:
  return next(task for part, task in _SUB_TASK if part in stem)


def images(stem: str) -> str:
  if stem == "tools_retrieval":
    return "zero"
  return "multiple" if "multiple" in stem else "single"


def question(stem: str, number: int) -> dict:
  """Question `number`: its true letter goes round A, B, C, D."""
  kind, task = images(stem), sub_task(stem)
  places = [f"images/{stem}/question_{number}.png"]
  if kind == "multiple":
    count = 2 + number % 3
    places = [f"images/{stem}/question_{number}_{i}.png" for i in range(1, count + 1)]
  options = OPTIONS.get(task, [f"{task} {word}" for word in ("one", "two", "three", "four")])
  letter = number % 4
  answer = 24 if task == "crowd_counting" else options[letter]
  return {
    "image_paths": places,
    "question_text": f"Which {task} is it, number {number}?",
    "options": options,
    "correct_answer_option": "ABCD"[letter],
    "answer": answer,
  }


def make(folder: pathlib.Path, deepfakes: int = 300) -> pathlib.Path:
  """All 48 files, without pictures."""
  folder.mkdir(parents=True, exist_ok=True)
  stems: dict[str, list[str]] = {}
  for stem in facexbench.FILES:
    stems.setdefault(sub_task(stem), []).append(stem)
  for task, (category, count) in facexbench.SUB_TASKS.items():
    count = deepfakes if task == "deepfakes" else count
    for place, stem in enumerate(stems[task]):
      own = count // len(stems[task]) + (place < count % len(stems[task]))
      write(folder, stem, category, own)
  return folder


def write(
  folder: pathlib.Path, stem: str, category: str, count: int, changes: dict | None = None
) -> dict:
  """One file with so many questions."""
  data = {
    "category": category,
    "sub-category": sub_task(stem),
    "dataset": stem.split("_")[0],
    "question_type": "MCQ",
    "num_images": images(stem),
    "prepend_text": f"You have to perform the task of {sub_task(stem)}.",
    "postpend_text": POSTPEND,
    "questions": {str(n): question(stem, n) for n in range(1, count + 1)},
  }
  if category == "tools_use":
    data["context"] = "Ignore the image. You have the tools api_1 to api_13."
  data |= changes or {}
  (folder / f"{stem}.json").write_text(json.dumps(data))
  return data


def draw(folder: pathlib.Path, size: int = 16) -> None:
  """The pictures that the files name; another one each."""
  for path in sorted(folder.glob("*.json")):
    for entry in json.loads(path.read_text())["questions"].values():
      for name in entry["image_paths"]:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(map(ord, name))
        noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(noise).save(place)
