"""The one function of token counts."""

import dataclasses

import numpy as np
import pytest

from facejax.config import DecoderConfig, ModelConfig, SegmentationConfig, VitConfig
from facejax.visual_table import VisualTable

VIT = VitConfig(image_size=6, patch=3, width=4, layers=2, heads=2, mlp=8)  # 4 patches
VIDEO = dataclasses.replace(VIT, tokens="all", frames=2)  # 5 tokens a frame
DECODER = DecoderConfig(
  vocab=9, width=8, layers=1, heads=2, kv_heads=1, head_width=4, mlp=8, max_length=99
)
MODEL = ModelConfig(
  image=VIT,
  video=VIDEO,
  decoder=DECODER,
  frames=2,
  segmentation=SegmentationConfig("concat", 6, 1, 3),
)


def test_every_entry_has_one_owner():
  """Kills: an offset that is off, a map counted in the wrong block, frames forgotten."""
  table = VisualTable(MODEL, images=3, videos=2)
  owned = np.concatenate(
    [table.indices("image", i, True) for i in range(3)]
    + [table.indices("video", i, True) for i in range(2)]
  )
  # 3 x (4 + 1 map cell) + 2 x 2 frames x (5 + 1)
  assert table.size == 3 * 5 + 2 * 2 * 6 == len(owned)
  np.testing.assert_array_equal(np.sort(owned), np.arange(table.size))
  np.testing.assert_array_equal(table.indices("image", 1, True), [4, 5, 6, 7, 33])
  np.testing.assert_array_equal(table.indices("video", 1, True), [*range(22, 32), 37, 38])


def test_an_absent_map_takes_no_position():
  """Kills: positions reserved for a map that the sample does not have."""
  table = VisualTable(MODEL, images=1, videos=1)
  assert table.count("image", False) == 4 and table.count("image", True) == 5
  assert len(table.indices("video", 0, False)) == table.count("video", False) == 10
  added = dataclasses.replace(MODEL, segmentation=SegmentationConfig("add", 6, 2, 3))
  assert VisualTable(added, 1, 1).count("image", True) == 4


def test_face_llava_numbers():
  """256 tokens an image, 8 x 257 a video (released code). Kills: the class token miscounted."""
  vit = VitConfig(image_size=224, patch=14, width=1024, layers=24, heads=16, mlp=4096)
  model = ModelConfig(
    image=vit, video=dataclasses.replace(vit, tokens="all", frames=8), decoder=DECODER
  )
  table = VisualTable(model, 1, 1)
  assert table.count("image", True) == 256 and table.count("video", True) == 2056


def test_pixel_shuffle_leaves_a_quarter():
  """256 of 1024 (InternVL3). Kills: patches counted before the projector, the table's size too."""
  vit = VitConfig(image_size=448, patch=14, width=1024, layers=24, heads=16, mlp=4096)
  small = dataclasses.replace(vit, image_size=112)  # 8 x 8 patches
  model = ModelConfig(image=vit, video=small, decoder=DECODER, projector="pixel_shuffle", frames=3)
  assert (model.grid("image"), model.tokens("image")) == (16, 256)
  assert (model.grid("video"), model.tokens("video")) == (4, 16)
  table = VisualTable(model, 2, 1)
  assert table.count("image", True) == 256 and table.count("video", True) == 48
  assert table.size == 560


def test_a_missing_slot_names_the_setting():
  """Kills: an index that silently runs into the next block."""
  with pytest.raises(ValueError, match="video 0 does not fit: a row has 0 video slots; raise data"):
    VisualTable(MODEL, 1, 0).indices("video", 0, False)
