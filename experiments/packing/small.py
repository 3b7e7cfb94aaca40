"""Face-LLaVA with the token counts of the 7B and narrow layers, and samples for it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from facejax.config import FusionConfig, ModelConfig
from facejax.models import presets
from facejax.types import Kind, Medium, Sample, Turn


def model(layers: int, width: int, vision: int) -> ModelConfig:
  """256 tokens a picture, 8 x 257 a clip; a decoder and encoders of these widths, in float32."""
  full = presets.face_llava_7b()
  assert full.video is not None and isinstance(full.fusion, FusionConfig)
  vit = dataclasses.replace(full.image, width=vision, layers=2, heads=4, mlp=4 * vision)
  video = dataclasses.replace(vit, tokens="all", frames=full.frames)
  decoder = dataclasses.replace(
    full.decoder, width=width, layers=layers, heads=8, kv_heads=8, head_width=width // 8,
    mlp=3 * width, vocab=1024,
  )  # fmt: skip
  return dataclasses.replace(
    full, image=vit, video=video, decoder=decoder, dtype="float32", remat="none"
  )


class Noise:
  """Pictures and clips of noise with landmarks; sample i has `words[i]` words of answer.

  What a pixel shows changes no cost, and a gradient of noise is as good as any to compare.
  """

  refusals = ()

  def __init__(self, kind: Kind, words: Sequence[int], size: int, frames: int, tokens: int):
    self._kind, self._words, self._size = kind, words, size
    self._frames = 1 if kind == "image" else frames
    self._tokens = tokens  # of a sample without its answer's words

  def __len__(self):
    return len(self._words)

  def __getitem__(self, index: int) -> Sample:
    rng = np.random.default_rng((index, self._frames))
    pixels = rng.integers(0, 256, (self._frames, self._size, self._size, 3), np.uint8)
    points = rng.uniform(0.2, 0.8, (self._frames, 68, 2)).astype(np.float32)
    answer = " ".join(["the"] * int(self._words[index]))
    turns = (Turn("human", f"<{self._kind}>\nWho?"), Turn("gpt", answer))
    return Sample(self.name(index), turns, (Medium(self._kind, pixels, points),))

  def name(self, index: int) -> str:
    """Kind and number."""
    return f"{self._kind}/{index}"

  def sizes(self) -> np.ndarray:
    """One token a word."""
    tokens = self._tokens + np.asarray(self._words)
    picture = np.full(len(self), self._kind == "image")
    return np.stack([tokens, picture, ~picture], 1).astype(np.int32)

  def fingerprint(self) -> dict:
    """Never compared."""
    return {"noise": self._kind}
