"""FairFace: age group, gender or race of a picture. Accuracy and UAR, by all three.

    fairface_label_val.csv                file,age,gender,race,service_test
    fairface-img-margin025-trainval/val/1.jpg, or val/1.jpg

Released: 10,954 pictures for validation and no test split. FaceLLM trains on them: its figures here
are no measure of other faces. Questions are ours and name the groups.
"""

import dataclasses
from pathlib import Path

from facejax.annotate import fairface
from facejax.evaluate.benchmarks.labelled import Form, Labelled, benchmark
from facejax.evaluate.fairness import AGE_BANDS
from facejax.evaluate.protocol import Benchmark

TABLE = "fairface_label_val.csv"


@dataclasses.dataclass(frozen=True)
class FairFaceBenchmark:
  """Settings of FairFace.

  Attributes:
    folder: holds the table.
    images: folder in it that the table's paths begin in.
    prompt: see prompts.py; only closed ones here.
  """

  folder: str
  images: str = ""
  prompt: str = "closed"

  kind = "age"

  def open(self) -> Benchmark:
    """Reads the table."""
    source = Path(self.folder) / TABLE
    if not source.is_file():
      raise FileNotFoundError(f"no label table {source} - expected FairFace's - check --data")
    rows = [self._row(row) for row in fairface.read(source)]
    subject = "age_band" if self.kind == "age" else self.kind
    classes = {"age": AGE_BANDS, "gender": fairface.GENDERS, "race": fairface.RACES}[self.kind]
    return benchmark(
      Form(
        f"fairface_{self.kind}",
        task="class",
        subject=subject,
        classes=classes,
        kind="image",
        wording=self.prompt,
        names=tuple(name.replace("_", " or ") for name in classes),
      ),
      rows,
      Path(self.folder) / self.images,
      {"images": self.images},
    )

  def _row(self, row: fairface.Row) -> Labelled:
    age = AGE_BANDS[fairface.AGES.index(row.age)]
    groups = {"age": age, "gender": row.gender, "race": row.race}
    return Labelled(row.file, row.file, groups[self.kind], groups)


class FairFaceAge(FairFaceBenchmark):
  """Which of nine age groups."""


class FairFaceGender(FairFaceBenchmark):
  """Male or female."""

  kind = "gender"


class FairFaceRace(FairFaceBenchmark):
  """Which of seven groups."""

  kind = "race"
