"""Which steps are planned: one a row of docs/plans.md."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Row:
  """A config's stage on a topology. `device_rows` are rows of a device along the batch."""

  config: str
  stage: str
  topology: str
  device_rows: int = 1
  slices: int = 1
  mesh: str = "fsdp=-1"
  changes: tuple[str, ...] = ()  # as after --config.

  @property
  def name(self) -> str:
    """Of its file of results."""
    place = self.topology.replace(":", "_") + (f"x{self.slices}" if self.slices > 1 else "")
    changes = (c.split("=", 1) for c in self.changes)
    more = "".join(f"-{key.split('.')[-1]}_{value}" for key, value in changes)
    mesh = "" if self.mesh == "fsdp=-1" else "-" + self.mesh.replace("=", "").replace(",", "_")
    name = f"{self.config}-{self.stage}-{place}-{self.device_rows}{mesh}{more}"
    return re.sub(r"[^a-zA-Z0-9-]+", "_", name).strip("_")


@dataclasses.dataclass(frozen=True)
class Answers:
  """Questions answered: prompts of one picture each, new tokens behind them."""

  config: str
  topology: str
  mesh: str
  rows: int
  prompt: int = 1024
  new_tokens: int = 128

  @property
  def name(self) -> str:
    """Of its file of results."""
    name = f"{self.config}-answers-{self.topology}-{self.mesh}-{self.rows}"
    return re.sub(r"[^a-zA-Z0-9-]+", "_", name)


_PODS = ("v5e:16x16", "v5p:8x8x4", "v6e:16x16", "tpu7x:4x4x8")


_DOTS = ("model.remat=dots",)
# Whole tiles of 512, and one row a device: a row that is padded to tiles, or one of two in a loop,
# is copied in each block. On v5e 12.3 GB are kept of 4096 positions; elsewhere twice as many fit.
# Keeping everything (remat=none), which v5p could, is slower: MFU .597, for the copies.
_SHORT = (*_DOTS, "data.row_length=4096", "data.images_per_row=7")
_ADDED = (*_DOTS, "model.segmentation.mode=add", "data.row_length=1536")
_LONG = (*_DOTS, "data.row_length=8192", "data.images_per_row=13", "data.videos_per_row=2")


def _face_llava(stage: str) -> list[Row]:
  changes = {"v5e:16x16": _SHORT}
  return [Row("face_llava_7b", stage, pod, changes=changes.get(pod, _LONG)) for pod in _PODS]


ROWS: list[Row] = [
  *_face_llava("stage2"),
  *_face_llava("stage1"),
  # Four slices beside one.
  Row("face_llava_7b", "stage2", "v5e:16x16", slices=4, mesh="data=4,fsdp=-1", changes=_SHORT),
  # The config's 64 rows; with maps added to the picture's tokens, as many samples in shorter rows.
  *(
    Row("faceinsight_7b", "fine_tuned", pod, changes=changes)
    for pod in ("v5e:8x8", "v5p:4x4x4", "v6e:8x8", "tpu7x:4x4x2")
    for changes in ((_DOTS, _ADDED) if pod == "v5e:8x8" else (_DOTS,))
  ),
  # 8 x 8 chips are more than the small ones need: their batches are 80 rows. The 8B's products,
  # 27 GB, are kept where they fit. (The 1B's fit everywhere: on v5e .563 s in place of .604.)
  *(
    Row(f"facellm_{size}", "lora", topology, 5, changes=(*remat, "stages.lora.accumulate=1"))
    for size, topology, remat in (
      ("1b", "v5e:4x4", ()),
      ("1b", "v5p:2x2x4", ()),
      ("1b", "v6e:4x4", ()),
      ("1b", "tpu7x:2x2x2", ()),
      ("8b", "v5e:4x4", ()),
      ("8b", "v5p:2x2x4", _DOTS),
      ("8b", "v6e:4x4", ()),
      ("8b", "tpu7x:2x2x2", _DOTS),
    )
  ),
  # The smallest v5e and v6e slices that hold it (half of them holds less than its parameters).
  *(
    Row("facellm_38b", "lora", topology, 1, changes=(*remat, "stages.lora.accumulate=1"))
    for topology, remat in (
      ("v5e:2x4", ()),
      ("v6e:2x2", ()),
      ("v5p:2x2x2", _DOTS),
      ("tpu7x:2x2x1", _DOTS),
    )
  ),
  # All parameters of the 38B.
  Row(
    "facellm_38b",
    "lora",
    "v5p:8x8x4",
    1,
    mesh="data=4,fsdp=64",  # its vision encoder is 25 x 128 wide; 64 is a layer of the torus
    changes=(
      *_DOTS,
      "stages.lora.accumulate=1",
      "stages.lora.lora=None",
      "stages.lora.trainable=('(projector|decoder)/.*',)",
    ),
  ),
]

ANSWERS: list[Answers] = [
  *(
    Answers("face_llava_7b", topology, f"tensor={chips}", rows)
    for topology, chips, rows in (("v5e:2x4", 8, 8), ("v5e:2x4", 8, 64), ("v6e:2x2", 4, 64))
  ),
  Answers("facellm_8b", "v6e:2x2", "data=2,tensor=2", 32),
]
