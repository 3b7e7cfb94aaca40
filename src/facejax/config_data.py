"""Settings of the data: which samples, how often each source, how rows are laid out."""

import dataclasses
import math

from facejax.config_checks import each_once, one_of, within

MODALITIES = ("landmarks", "segmentation")
SPLITS = ("train", "validation", "test")  # of drawn faces
TEMPLATES = ("vicuna_v1", "face_llava_released", "internvl", "internvl_system")


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
  """Faces drawn by faces/synthetic.py."""

  split: str = "train"  # identities of the splits are disjoint
  faces: int = 100_000  # sample i is face(seed=i); an epoch is all of them
  tasks: tuple[str, ...] = ("expression", "action_units", "attributes", "age", "deepfake")
  turns: int = 1  # questions asked about each face, of different tasks
  # Deviation of each landmark coordinate from where the point was drawn, of the crop's side: 0.36
  # pixels of 256, by which detected points of real crops are off (0.45 pixels from the point).
  landmark_noise: float = 0.0014

  def __post_init__(self):
    one_of("SyntheticConfig.split", self.split, SPLITS)
    each_once("SyntheticConfig.tasks", self.tasks)
    within(self, "faces", 1)
    within(self, "landmark_noise", 0)
    within(self, "turns", 1, len(self.tasks))


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
  """The official Face-LLaVA (LLaVA) JSON format."""

  index: tuple[str, ...] = ()  # JSON files, joined in this order
  image_folder: str = ""  # "": the folder of the JSON file; media paths may not leave it
  video_folder: str = ""


@dataclasses.dataclass(frozen=True)
class Mixture:
  """The sources that samples are drawn from, from one step of a stage on.

  A source is "synthetic" (drawn faces), "llava" (index files) or a folder that `facejax data build`
  wrote for one source.
  """

  sources: tuple[str, ...]
  weights: tuple[float, ...] = ()  # share of the samples from each; (): as many as it has
  start: int = 0  # step

  def __post_init__(self):
    each_once("Mixture.sources", self.sources)
    within(self, "start", 0)
    if self.weights and len(self.weights) != len(self.sources):
      raise ValueError(
        f"Mixture: {len(self.weights)} weights for {len(self.sources)} sources - expected one each "
        "- set data.weights beside data.sources"
      )
    for source, weight in zip(self.sources, self.weights, strict=False):
      if not 0 < weight < math.inf:
        raise ValueError(
          f"Mixture: weight {weight} of source '{source}' - expected above 0 - leave the source out"
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What rows hold. A batch is a pure function of (this, a stage's changes, seed, step)."""

  # Tokens a row, visual ones included. Samples share a row where they fit; a longer one is refused.
  row_length: int
  sources: tuple[str, ...] = ("synthetic",)  # "synthetic", "llava", or folders of built records
  weights: tuple[float, ...] = ()  # share of the samples from each source; (): as many as it has
  seed: int = 0  # of the order and of the drawn questions
  images_per_row: int = 1
  videos_per_row: int = 0
  modalities: tuple[str, ...] = MODALITIES  # optional inputs that are read where a sample has them
  tokenizer: str = "demo"  # or the path of a tokenizer.model, a tokenizer.json, or their folder
  template: str = "vicuna_v1"  # how a conversation is written out: data/chat.py
  resize: str = "pad"  # of a non-square picture: "pad" (Face-LLaVA training), "crop" or "stretch"
  antialias: bool = True  # of pictures made smaller; False: torchvision before 0.17
  min_tiles: int = 1  # pieces that a picture is cut into (InternVL); above 1 a thumbnail follows
  max_tiles: int = 1  # 1: the whole picture at once; a piece takes one of images_per_row
  max_refused: float = 0.01  # share of samples that may be unusable before the run stops
  workers: int = 0  # decoding processes; 0: threads in this process
  synthetic: SyntheticConfig = SyntheticConfig()
  llava: LlavaConfig = LlavaConfig()

  def __post_init__(self):
    Mixture(self.sources, self.weights)  # refuses what cannot be mixed
    one_of("DataConfig.template", self.template, TEMPLATES)
    one_of("DataConfig.resize", self.resize, ("pad", "crop", "stretch"))
    within(self, "row_length", 1)
    within(self, "seed images_per_row videos_per_row workers", 0)
    within(self, "max_refused", 0, 1)
    if not 1 <= self.min_tiles <= self.max_tiles:
      raise ValueError(
        f"DataConfig: min_tiles={self.min_tiles}, max_tiles={self.max_tiles} - expected "
        "1 <= min_tiles <= max_tiles"
      )
    if self.max_tiles > 1 and self.resize != "stretch":
      raise ValueError(
        f"DataConfig: max_tiles={self.max_tiles} with resize={self.resize!r} - tiles are cut from "
        "the whole picture, as InternVL does - set resize='stretch'"
      )
    for name in self.modalities:
      one_of("DataConfig.modalities", name, MODALITIES)
