"""FaceForensics++: real clips and manipulated ones. Accuracy; UAR, as there are more of the latter.

    original_sequences/youtube/c23/videos/071.mp4
    manipulated_sequences/Deepfakes/c23/videos/071_054.mp4
    splits/test.json                                     [["071", "054"], ...], 140 real clips

Face-LLaVA does not say which methods and which compression it asked about. With all four methods
four of five clips are manipulated: saying "fake" always scores 80 %, and a UAR of 50 %.
"""

import dataclasses
from pathlib import Path

from facejax.config_checks import one_of
from facejax.evaluate.benchmarks.labelled import Form, benchmark, of_table
from facejax.evaluate.protocol import Benchmark
from facejax.records.layouts.faceforensics import METHODS, FaceForensics


@dataclasses.dataclass(frozen=True)
class FaceForensicsBenchmark:
  """Settings of FaceForensics++.

  Attributes:
    folder: holds original_sequences, manipulated_sequences and splits.
    split: "test", "val" or "train".
    compression: "raw", "c23" or "c40".
    methods: such as Deepfakes+FaceSwap.
    prompt: see prompts.py.
  """

  folder: str
  split: str = "test"
  compression: str = "c23"
  methods: tuple[str, ...] = METHODS
  prompt: str = "official"

  def __post_init__(self):
    one_of("FaceForensicsBenchmark.split", self.split, ("test", "val", "train"))

  def open(self) -> Benchmark:
    """Reads the split."""
    splits = Path(self.folder) / "splits" / f"{self.split}.json"
    table = FaceForensics(self.folder, str(splits), self.compression, self.methods).open()
    made = benchmark(
      Form(
        "ffpp",
        task="class",
        subject="deepfake",
        classes=("real", "fake"),
        kind="video",
        wording=self.prompt,
      ),
      of_table(
        table,
        lambda labels: "fake" if labels["manipulated"] else "real",
        lambda row: {"method": row.labels["method"] or "original"},
      ),
      self.folder,
      {
        "split": self.split,
        "compression": self.compression,
        "methods": list(self.methods),
      },
    )
    return dataclasses.replace(made, breakdowns=("method",))
