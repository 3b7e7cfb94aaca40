"""The 19 CelebAMask-HQ classes and their colours."""

import numpy as np
import pytest

from facejax.faces import segmentation
from facejax.faces.segmentation import CLASS_ID, CLASSES, MIRROR_CLASS, PALETTE


def test_classes_have_the_published_ids():
  # Kills: a class moved or renamed.
  expected = "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip"
  expected += " hair hat ear_r neck_l neck cloth"
  assert list(CLASSES) == expected.split()
  assert CLASS_ID["hair"] == 13 and CLASS_ID["cloth"] == 18


def test_palette_tells_all_classes_apart():
  # Kills: a repeated colour.
  assert len({tuple(colour) for colour in PALETTE.tolist()}) == 19


def test_colourise_looks_up_each_pixel():
  # Kills: a transposed or flattened result.
  ids = np.array([[0, 5, 18], [13, 4, 1]], np.uint8)
  painted = segmentation.colourise(ids)
  assert painted.shape == (2, 3, 3) and painted.dtype == np.uint8
  for y in range(2):
    for x in range(3):
      np.testing.assert_array_equal(painted[y, x], PALETTE[ids[y, x]])


def test_mirror_swaps_left_and_right_names():
  # Kills: flipping without renaming, renaming a middle class.
  for index, name in enumerate(CLASSES):
    partner = {"l_": "r_", "r_": "l_"}.get(name[:2], "") + name[2:]
    paired = partner in CLASS_ID and name not in ("l_lip",)
    assert MIRROR_CLASS[index] == (CLASS_ID[partner] if paired else index), name
  ids = np.array([[4, 1, 0]], np.uint8)
  np.testing.assert_array_equal(segmentation.mirror(ids), [[0, 1, 5]])


def test_bad_maps_are_refused_with_their_values():
  # Kills: a silent wrap-around of ids, a message that names only the expectation.
  with pytest.raises(ValueError, match=r"ids 0\.\.19"):
    segmentation.colourise(np.array([[0, 19]]))
  with pytest.raises(ValueError, match=r"ids -1\.\.3"):
    segmentation.mirror(np.array([[-1, 3]]))
  with pytest.raises(ValueError, match="float64"):
    segmentation.colourise(np.zeros((2, 2)))
