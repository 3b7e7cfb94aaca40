"""Where samples come from: index -> decoded Sample. The official JSON format is in llava.py."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from facejax.config import SyntheticConfig
from facejax.faces import questions, scene, synthetic
from facejax.faces.action_units import RENDERED_ACTION_UNITS
from facejax.types import Kind, Medium, Refusal, Sample, Turn

_ROLES = ("human", "gpt")
_PRESENCES = 4  # questions of the task "presence", which are short


class Source(Protocol):
  """A set of samples in a fixed order. Each is a pure function of its index."""

  @property
  def refusals(self) -> tuple[Refusal, ...]:
    """Samples that were found unusable when the source was made."""
    ...

  def __len__(self) -> int:
    """Usable samples."""
    ...

  def __getitem__(self, index: int) -> Sample:
    """Decodes a sample. Raises MediaError, naming it, where its media cannot be decoded."""
    ...

  def sizes(self) -> Int[np.ndarray, "n 3"]:
    """Tokens, picture slots and clip slots that each sample takes of a row at most."""
    ...

  def name(self, index: int) -> str:
    """What people call the sample, for messages."""
    ...

  def labels(self, index: int) -> Mapping[str, Any]:
    """What is said of the sample's face: Sample.labels, without decoding its media."""
    ...

  def fingerprint(self) -> dict:
    """What the samples are, as JSON values: equal exactly where the samples are equal."""
    ...


def _said(labels: synthetic.Labels) -> dict[str, Any]:
  """What is true of a drawn face, as label tables say it."""
  grades = {f"AU{u}": 5 * labels.action_units.get(u, 0) for u in RENDERED_ACTION_UNITS}
  return {
    "attributes": dict(labels.attributes),
    "intensities": grades,
    "expression": labels.expression,
    "age": int(labels.age),
  }


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
  """Faces drawn by faces/synthetic.py, with questions about what was drawn.

  Sample i is face(seed=i); its tasks, their order and the wording are drawn from (seed, i), each
  task as often as any other. With two kinds, pictures and clips alternate.

  Attributes:
    config: which faces, how many, which tasks.
    image_size: pixels a side; below the renderer's smallest size, that one is drawn.
    row_length: tokens that a sample takes: it has a row of its own, as its text is known only once
      the face is drawn.
    seed: of the questions; the faces follow from their index alone.
    kinds: of sample i: kinds[i % len(kinds)].
    frames: of a clip.
  """

  config: SyntheticConfig
  image_size: int
  row_length: int
  seed: int = 0
  kinds: Sequence[Kind] = ("image",)
  frames: int = 8
  refusals: tuple[Refusal, ...] = ()

  def __post_init__(self):
    tasks = (*questions.TASKS, questions.PRESENCE)
    unknown = [task for task in self.config.tasks if task not in tasks]
    if unknown:
      raise ValueError(
        f"data.synthetic.tasks has {unknown[0]!r} - expected some of {', '.join(tasks)}"
      )

  def __len__(self) -> int:
    return self.config.faces

  def sizes(self) -> Int[np.ndarray, "n 3"]:
    """A whole row's tokens each."""
    kinds = np.resize(np.array([kind == "image" for kind in self.kinds]), len(self))
    return np.stack([np.full(len(self), self.row_length), kinds, ~kinds], 1).astype(np.int32)

  def __getitem__(self, index: int) -> Sample:
    kind = self.kinds[index % len(self.kinds)]
    medium, labels = self._draw(kind, index)
    rng = np.random.default_rng((self.seed, index))
    told: list[tuple[str, str]] = []
    for task in rng.permutation(self.config.tasks)[: self.config.turns].tolist():
      if task == questions.PRESENCE:
        told += [questions.presence(labels, rng) for _ in range(_PRESENCES)]
      else:
        told.append((questions.question(task, rng), questions.answer(task, labels, rng)))
    turns = [Turn(role, text) for pair in told for role, text in zip(_ROLES, pair, strict=True)]
    turns[0] = Turn(_ROLES[0], f"<{kind}>\n{turns[0].text}")
    return Sample(self.name(index), tuple(turns), (medium,), _said(labels))

  def _draw(self, kind: Kind, index: int) -> tuple[Medium, synthetic.Labels]:
    size, split = max(self.image_size, synthetic.MIN_SIZE), self.config.split
    if kind == "video":
      clip = synthetic.clip(index, frames=self.frames, size=size, split=split)
      points = synthetic.located(clip.landmarks / size, index, self.config.landmark_noise)
      return Medium(kind, clip.image, points, clip.segmentation), clip.labels
    face = synthetic.face(index, size=size, split=split)
    points = synthetic.located(face.landmarks[None] / size, index, self.config.landmark_noise)
    return Medium(kind, face.image[None], points, face.segmentation[None]), face.labels

  def name(self, index: int) -> str:
    """The face's split and seed."""
    return f"synthetic/{self.config.split}/{index}"

  def labels(self, index: int) -> Mapping[str, Any]:
    """What is true of the face, without drawing it: 0.4 ms in place of 17."""
    return _said(scene.sample(index, self.config.split).labels)

  def fingerprint(self) -> dict:
    """All settings: the renderer is part of the library."""
    return {
      "source": "synthetic",
      **{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.config).items()},
      "image_size": self.image_size,
      "seed": self.seed,
      "kinds": list(self.kinds),
      "frames": self.frames,
    }
