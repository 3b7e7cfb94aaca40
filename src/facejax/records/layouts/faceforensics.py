"""FaceForensics++: real clips, and the same ones manipulated by several methods.

    original_sequences/youtube/c23/videos/071.mp4
    manipulated_sequences/Deepfakes/c23/videos/071_054.mp4     target_source
    splits/train.json                                          [["071", "054"], ...]

Released: clips and splits (train, val, test); both orders of a pair are manipulated. Ours: that
all of a split is taken, which is one real clip to as many manipulated ones as there are methods.
"""

import dataclasses
import json
import pathlib
from typing import Any

from facejax.config_checks import each_once, one_of
from facejax.records.layouts import path
from facejax.records.layouts.table import Row, Table, said

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


@dataclasses.dataclass(frozen=True)
class FaceForensics:
  """Settings of FaceForensics++ and of folders made like it.

  Attributes:
    folder: holds original_sequences and manipulated_sequences.
    splits: the split's JSON file.
    compression: "raw", "c23" or "c40".
    methods: names of folders in manipulated_sequences.
    seed: of the wording.
  """

  folder: str = path(...)
  splits: str = path(...)
  compression: str = "c23"
  methods: tuple[str, ...] = METHODS
  seed: int = 0

  def __post_init__(self):
    one_of("FaceForensics.compression", self.compression, ("raw", "c23", "c40"))
    each_once("FaceForensics.methods", self.methods)

  def open(self) -> Table:
    """Reads the split."""
    pairs = _pairs(pathlib.Path(self.splits))
    root = pathlib.Path(self.folder)
    rows = []
    for group, sub in (("original_sequences", "youtube"), *(("", m) for m in self.methods)):
      real = bool(group)
      place = f"{group or 'manipulated_sequences'}/{sub}/{self.compression}/videos"
      if not (root / place).is_dir():
        raise FileNotFoundError(f"no folder {root / place} - check 'folder', 'methods'")
      names = [n for a, b in pairs for n in ((a, b) if real else (f"{a}_{b}", f"{b}_{a}"))]
      labels = {"manipulated": not real, "method": None if real else sub}
      rows += [
        Row(f"{sub}/{name}", f"{place}/{name}.mp4", *said("deepfake", not real), labels)
        for name in names
      ]
    return Table(self.folder, rows, "deepfake", "video", self.seed)


def _pairs(path: pathlib.Path) -> list[tuple[str, str]]:
  if not path.is_file():
    raise FileNotFoundError(f"no split {path} - expected train.json, val.json or test.json")
  try:
    data: Any = json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path} is no JSON ({error}) - expected pairs of clip numbers") from error
  good = lambda pair: (
    isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, str) for n in pair)
  )
  if not isinstance(data, list) or not all(map(good, data)):
    raise ValueError(f'{path} - expected [["071", "054"], ...] - is it the released split?')
  return [(a, b) for a, b in data]
