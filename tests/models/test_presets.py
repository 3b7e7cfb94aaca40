"""Presets against published parameter counts and sums made by hand. Nothing is computed."""

import math

import jax
import pytest

from facejax.models import presets
from facejax.models.face_mllm import init_shapes
from facejax.visual_table import VisualTable


def counts(config):
  leaves = lambda tree: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
  return {name: leaves(part) for name, part in init_shapes(config).items()}


@pytest.mark.parametrize(
  ("name", "vision", "projector", "language", "total"),
  [
    ("internvl3_1b", 304_012_288, 4_482_816, 629_697_920, 938_193_024),
    ("internvl3_8b", 304_012_288, 27_540_480, 7_612_820_992, 7_944_373_760),
    ("internvl3_38b", 5_536_496_000, 91_786_240, 32_759_882_752, 38_388_164_992),
  ],
)
def test_internvl3_counts(name, vision, projector, language, total):
  """As published. Kills: a bias or norm too many, a tied head, Qwen's own vocabulary."""
  config = getattr(presets, name)()
  got = counts(config)
  assert got == {"image_encoder": vision, "projector": projector, "decoder": language}
  assert sum(got.values()) == total
  assert VisualTable(config, 13, 0).size == 13 * 256  # twelve tiles and a thumbnail


def test_internvl3_settings_that_no_count_shows():
  """Specification. Kills: a default of CLIP or LLaMA left in place."""
  for config in (presets.internvl3_1b(), presets.internvl3_8b(), presets.internvl3_38b()):
    vit, decoder = config.image, config.decoder
    assert (vit.select_layer, vit.tokens, vit.activation, vit.eps) == (-1, "patches", "gelu", 1e-6)
    assert (decoder.rope_theta, decoder.max_length, decoder.longest) == (1e6, 32_768, 65_536)
    assert decoder.eps == 1e-6
    assert vit.width // vit.heads == (128 if vit.norm == "rms" else 64)
  assert presets.internvl3_1b().decoder.head_width * 14 == presets.internvl3_1b().decoder.width


@pytest.mark.parametrize(
  ("name", "D", "F", "layers"), [("7b", 4096, 11_008, 32), ("13b", 5120, 13_824, 40)]
)
def test_llava_15_counts(name, D, F, layers):
  """Sums by hand. Kills: 224 pixels, a decoder of the other size, grouped keys, a bias."""
  config = getattr(presets, f"llava_15_{name}")()
  E, patch, positions = 1024, 14 * 14 * 3, 24 * 24 + 1
  block = 4 * (E * E + E) + 2 * (2 * E) + (E * 4096 + 4096) + (4096 * E + E)
  clip = patch * E + E + positions * E + 2 * (2 * E) + 24 * block
  assert clip == 303_507_456
  assert counts(config) == {
    "image_encoder": clip,
    "projector": E * D + D + D * D + D,
    "decoder": 2 * 32_000 * D + layers * (4 * D * D + 3 * D * F + 2 * D) + D,
  }
  assert VisualTable(config, 1, 0).size == 576
  assert (config.image.select_layer, config.image.activation) == (-2, "quick_gelu")
  assert config.decoder.head_width * config.decoder.heads == D
