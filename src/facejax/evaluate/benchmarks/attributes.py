"""CelebA: forty attributes of a picture. Accuracy of each, and their mean (mAcc).

    Anno/list_attr_celeba.txt, Eval/list_eval_partition.txt, Img/img_align_celeba/000001.jpg
    split test: 19,962 pictures

One question a picture, and the attributes that its answer affirms (answers.py); what it is silent
about is absent. `ask=each` asks for every attribute by itself instead, forty questions a picture:
closed, fair to models that describe little, and forty times the work. Face-LLaVA does not say which
way its figures were made. Male and Young are also the groups that results are told by.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from facejax.config_checks import one_of
from facejax.evaluate import answers
from facejax.evaluate.benchmarks.labelled import Form, Labelled, benchmark, of_table
from facejax.evaluate.protocol import Benchmark, Item, MediaFile, from_files
from facejax.records.layouts.celeba import NOUNS, CelebA
from facejax.records.layouts.table import Row


@dataclasses.dataclass(frozen=True)
class CelebABenchmark:
  """Settings of CelebA.

  Attributes:
    folder: holds Anno, Eval and Img, or their files.
    split: "test", "validation" or "train".
    ask: "once" or "each".
    prompt: see prompts.py; with ask=once.
  """

  folder: str
  split: str = "test"
  ask: str = "once"
  prompt: str = "official"

  def __post_init__(self):
    one_of("CelebABenchmark.ask", self.ask, ("once", "each"))

  def open(self) -> Benchmark:
    """Reads both lists."""
    root = Path(self.folder)
    table = CelebA(
      _place(root, "Anno", "list_attr_celeba.txt"),
      _place(root, "Eval", "list_eval_partition.txt"),
      _place(root, "Img", "img_align_celeba"),
      self.split,
    ).open()
    present = lambda labels: sorted(name for name, has in labels["attributes"].items() if has)
    rows = of_table(table, present, _people)
    folder = Path(_place(root, "Img", "img_align_celeba"))
    settings = {"split": self.split, "ask": self.ask}
    if self.ask == "each":
      return _each(rows, folder, settings)
    return benchmark(
      Form(
        "celeba",
        task="attributes",
        subject="attributes",
        classes=tuple(NOUNS),
        kind="image",
        wording=self.prompt,
        names=tuple(name.replace("_", " ") for name in NOUNS),
      ),
      rows,
      folder,
      settings,
    )


def _place(root: Path, folder: str, name: str) -> str:
  """The file or folder in its folder of the release, or without that."""
  inside = root / folder / name
  return str(inside if inside.exists() or not (root / name).exists() else root / name)


def _people(row: Row) -> dict[str, str]:
  has = row.labels["attributes"]
  groups = {}
  if "Male" in has:
    groups["gender"] = "Male" if has["Male"] else "Female"
  if "Young" in has:
    groups["age"] = "young" if has["Young"] else "not young"
  return groups


def _each(rows: list[Labelled], folder: Path, settings: dict) -> Benchmark:
  """A yes-or-no question of each attribute of each picture; accuracy is mAcc."""
  return Benchmark(
    name="celeba",
    items=list(_questions(rows)),
    task="class",
    classes=("yes", "no"),
    parse=lambda answer, item: {True: "yes", False: "no", None: None}[answers.yes(answer)],
    parser=answers.version("yes"),
    folder=folder,
    load=from_files(folder),
    settings={"prompt": "each", **settings},
    breakdowns=("attribute",),
    cluster="picture",
    new_tokens=16,
  )


def _questions(rows: list[Labelled]) -> Iterator[Item]:
  for row in rows:
    for name in NOUNS:
      yield Item(
        f"{row.id}/{name}",
        f"<image>\nDoes this attribute of a face fit the picture: {name.replace('_', ' ')}? Answer "
        "with yes or no only.",
        (MediaFile("image", row.path),),
        "yes" if name in row.truth else "no",
        (),
        {**row.groups, "attribute": name, "picture": row.id},
        row.error,
      )
