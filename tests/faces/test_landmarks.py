"""The 68-point layout: regions, mirror image, MediaPipe's correspondence."""

import numpy as np
import pytest

from facejax.faces import landmarks, synthetic
from facejax.faces.landmarks import MEDIAPIPE_468_TO_68, MIRROR, REGIONS


def test_regions_partition_the_68_points_in_the_papers_order():
  # Kills: a shifted boundary, a swapped or dropped region.
  assert [i for region in REGIONS for i in region.indices] == list(range(68))
  sizes = {region.name: region.stop - region.start for region in REGIONS}
  assert sizes == {
    "face": 17,
    "eyebrow1": 5,
    "eyebrow2": 5,
    "nose": 4,
    "nostril": 5,
    "eye1": 6,
    "eye2": 6,
    "lips": 12,
    "teeth": 8,
  }
  assert list(sizes)[:3] == ["face", "eyebrow1", "eyebrow2"]


def test_mirror_is_an_involution_that_keeps_or_swaps_whole_regions():
  # Kills: one wrong pair in MIRROR.
  assert [MIRROR[MIRROR[i]] for i in range(68)] == list(range(68))
  images = {
    region.name: {MIRROR[i] for i in region.indices} == set(partner.indices)
    for region, partner in zip(
      REGIONS, [REGIONS[i] for i in (0, 2, 1, 3, 4, 6, 5, 7, 8)], strict=True
    )
  }
  assert all(images.values()), images
  assert [i for i in range(68) if MIRROR[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_mirror_flips_x_and_renames_points():
  # Kills: renaming without flipping, flipping about 0 instead of the width, flipping y.
  points = np.random.default_rng(0).uniform(0, 100, (3, 68, 2)).astype(np.float32)
  flipped = landmarks.mirror(points, 100.0)
  for i in (0, 17, 36, 41, 48, 60, 67):
    np.testing.assert_allclose(flipped[:, MIRROR[i], 0], 100 - points[:, i, 0], rtol=1e-6)
    np.testing.assert_array_equal(flipped[:, MIRROR[i], 1], points[:, i, 1])
  np.testing.assert_allclose(landmarks.mirror(flipped, 100.0), points, rtol=1e-5)


# Mirror pairs of MediaPipe's mesh, from its published symmetry; two on each contour.
MESH_PAIRS = {127: 356, 58: 288, 70: 300, 107: 336, 75: 305, 33: 263, 160: 387, 61: 291, 78: 308}


def test_mediapipe_mapping_respects_both_symmetries():
  # Kills: a left and a right vertex exchanged, or a table in another order than the 68 points'.
  table = MEDIAPIPE_468_TO_68
  assert len(table) == len(set(table)) == 68
  assert max(table) < 468
  for left, right in MESH_PAIRS.items():
    assert MIRROR[table.index(left)] == table.index(right)
  # Corners every user of the mesh knows: eye corners, mouth corners, chin, nose tip.
  assert [table[i] for i in (36, 45, 48, 54, 8, 30)] == [33, 263, 61, 291, 152, 4]


@pytest.mark.parametrize("vertices", [468, 478])
def test_from_mediapipe_picks_the_mapped_vertices(vertices):
  # Kills: indexing the wrong axis, dropping the third coordinate.
  mesh = np.arange(2 * vertices * 3).reshape(2, vertices, 3)
  picked = landmarks.from_mediapipe(mesh)
  assert picked.shape == (2, 68, 3)
  np.testing.assert_array_equal(picked[1, 8], mesh[1, 152])


def test_wrong_shapes_are_refused_with_the_shape():
  # Kills: a check that passes anything, a message without the actual shape.
  with pytest.raises(ValueError, match=r"\(67, 2\)"):
    landmarks.mirror(np.zeros((67, 2)), 1.0)
  with pytest.raises(ValueError, match=r"\(5, 469, 3\)"):
    landmarks.from_mediapipe(np.zeros((5, 469, 3)))


def test_shape_statistics_are_those_of_drawn_faces():
  # Kills: statistics in pixels, of another point order, of faces that are no longer drawn so.
  mean, covariance = landmarks.shapes()
  points = np.stack([synthetic.face(seed, size=64, split="test").landmarks for seed in range(200)])
  points = points.reshape(200, -1) / 64
  np.testing.assert_allclose(points.mean(0), mean, atol=0.015)
  np.testing.assert_allclose(points.std(0), np.sqrt(np.diag(covariance)), rtol=0.25)
