"""Action units, age and pose move the right points the right way."""

import itertools

import numpy as np
import pytest

from facejax.faces import geometry
from facejax.faces.action_units import PROTOTYPES, RENDERED_ACTION_UNITS
from facejax.faces.geometry import Pose, Shape
from facejax.faces.landmarks import MIRROR
from facejax.faces.scene import sample

AVERAGE = Shape(*([0.0] * len(Shape._fields)))


def moved(*units):
  """Displacement of the 68 points of the average adult by units at full intensity."""
  neutral = geometry.head(AVERAGE, 30.0)
  return (geometry.express(neutral, dict.fromkeys(units, 1.0)) - neutral)[:68]


def test_average_face_and_every_unit_are_symmetric():
  # Kills: a displacement with a wrong sign or a missing point on one side.
  mirror = list(MIRROR)
  for units in [(), *[(unit,) for unit in RENDERED_ACTION_UNITS], (1, 4), (12, 26), (6, 7)]:
    points = geometry.express(geometry.head(AVERAGE, 50.0), dict.fromkeys(units, 1.0))[:68]
    np.testing.assert_allclose(points[mirror] * (-1, 1, 1), points, atol=1e-12, err_msg=str(units))


# unit -> (points, axis, sign): y grows downwards; x outwards is negative on the image's left.
MOVES = {
  1: ((20, 21, 22, 23), 1, -1),
  2: ((17, 18, 25, 26), 1, -1),
  4: ((19, 20, 21, 22), 1, 1),
  5: ((37, 38, 43, 44), 1, -1),
  6: ((40, 41, 46, 47), 1, -1),
  7: ((37, 38, 43, 44), 1, 1),
  9: ((31, 33, 35), 1, -1),
  10: ((50, 51, 52, 62), 1, -1),
  12: ((48, 54), 1, -1),
  15: ((48, 54), 1, 1),
  17: ((56, 57, 58), 1, -1),
  20: ((48, 60), 0, -1),
  23: ((48, 60), 0, 1),
  25: ((66, 57), 1, 1),
  26: ((8, 57, 66), 1, 1),
}


@pytest.mark.parametrize("unit", RENDERED_ACTION_UNITS)
def test_each_unit_moves_its_points_in_its_direction(unit):
  # Kills: a unit that does nothing, or pulls the other way.
  points, axis, sign = MOVES[unit]
  assert (moved(unit)[list(points), axis] * sign > 0.015).all()


def test_smile_widens_the_mouth_and_raises_its_corners():
  # Kills: AU12 without widening.
  shift = moved(12)
  assert shift[54, 0] - shift[48, 0] > 0.15
  assert shift[48, 1] < -0.1


def test_jaw_drop_opens_the_mouth_and_brows_knit():
  # Kills: AU26 that moves the jaw but not the lip; AU4 that lowers without drawing together.
  assert moved(26)[66, 1] - moved(26)[62, 1] > 0.15
  assert moved(4)[21, 0] > 0.04 and moved(4)[22, 0] < -0.04


def test_lids_and_lips_never_cross():
  # Kills: a missing clamp, for all pairs of units at full strength and all prototypes.
  pairs = [(a, b) for a in RENDERED_ACTION_UNITS for b in RENDERED_ACTION_UNITS]
  for units in [*pairs, *[prototype.required for prototype in PROTOTYPES.values()]]:
    p = geometry.express(geometry.head(AVERAGE, 80.0), dict.fromkeys(units, 1.0))
    assert (p[[41, 40, 47, 46], 1] > p[[37, 38, 43, 44], 1]).all(), units
    assert (p[[67, 66, 65], 1] > p[[61, 62, 63], 1]).all(), units
    assert (p[[61, 62, 63], 1] - p[[50, 51, 52], 1] > 0.031).all(), units
    assert (p[[58, 57, 56], 1] - p[[67, 66, 65], 1] > 0.041).all(), units


def test_children_have_large_eyes_and_short_faces_and_the_old_sag():
  # Kills: an age cue that does not reach the points or is not monotonic.
  heads = [geometry.head(AVERAGE, age) for age in (5.0, 10.0, 15.0, 20.0)]
  eyes = [p[39, 0] - p[36, 0] for p in heads]
  chins = [p[8, 1] for p in heads]
  assert eyes == sorted(eyes, reverse=True) and eyes[0] > 1.2 * eyes[-1]
  assert chins == sorted(chins) and chins[0] < 0.9 * chins[-1]
  jowls = [geometry.head(AVERAGE, age)[11, 0] for age in (20.0, 40.0, 60.0, 80.0)]
  assert all(later > earlier + 0.01 for earlier, later in itertools.pairwise(jowls))


def test_projection_follows_the_stated_signs():
  # Kills: a sign error in yaw, pitch or roll. The nose tip is the nearest point.
  nose = np.array([[0.0, 0.0, 1.0]])
  right = np.array([[1.0, 0.0, 0.0]])
  turn = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "scale": 10.0, "centre": (50.0, 40.0)}
  np.testing.assert_allclose(geometry.project(nose, Pose(**turn)), [[50, 40]])
  np.testing.assert_allclose(geometry.project(nose, Pose(**{**turn, "yaw": 30.0})), [[55, 40]])
  np.testing.assert_allclose(geometry.project(nose, Pose(**{**turn, "pitch": 30.0})), [[50, 45]])
  # Clockwise on a screen: the right end of a level line goes down.
  np.testing.assert_allclose(geometry.project(right, Pose(**{**turn, "roll": 90.0})), [[50, 50]])


def test_projection_matches_three_plain_rotations():
  # Kills: rotations in another order, or a transposed product.
  rng = np.random.default_rng(0)
  points = rng.normal(size=(7, 3))
  pose = Pose(20.0, -12.0, 9.0, 31.0, (50.0, 60.0))
  slow = []
  for x, y, z in points:
    a, b, c = np.radians((pose.yaw, pose.pitch, pose.roll))
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    y = y * np.cos(b) + z * np.sin(b)
    x, y = x * np.cos(c) - y * np.sin(c), x * np.sin(c) + y * np.cos(c)
    slow.append((50 + 31 * x, 60 + 31 * y))
  np.testing.assert_allclose(geometry.project(points, pose), slow, rtol=1e-12)


@pytest.mark.parametrize("closed", [False, True])
def test_smooth_curves_pass_through_their_points(closed):
  # Kills: a wrong spline weight, a curve that ends early.
  points = np.random.default_rng(1).normal(size=(5, 3))
  curve = geometry.smooth(points, closed=closed, steps=3)
  np.testing.assert_allclose(curve[::3], points, atol=1e-12)
  assert len(curve) == (15 if closed else 13)
  # A straight, evenly spaced line stays straight between its inner points.
  line = geometry.smooth(np.arange(6.0)[:, None], steps=2)[2:-2, 0]
  np.testing.assert_allclose(line, np.arange(1.0, 4.01, 0.5), atol=1e-12)


def ridge(features, targets, split):
  """Scores of held-out rows by ridge regression fitted on the first `split` rows."""
  x = np.concatenate((features, np.ones((len(features), 1))), 1)
  gram = x[:split].T @ x[:split] + np.eye(x.shape[1])
  return x[split:] @ np.linalg.solve(gram, x[:split].T @ targets[:split])


def test_landmarks_tell_the_expression_and_the_action_units():
  """Kills: geometry too weak to learn from. Measured: 0.996 and at least 0.99 area per unit."""
  scenes = [sample(seed, "train") for seed in range(1500)]
  points = []
  for scene in scenes:
    neutral = geometry.head(scene.identity.shape, scene.age)
    p = geometry.project(geometry.express(neutral, scene.action_units)[:68], scene.pose)
    p = p - p[27:48].mean(0)
    points.append((p / np.sqrt((p**2).mean())).ravel())
  x = np.array(points)
  x = (x - x.mean(0)) / x.std(0)
  names = sorted({scene.expression for scene in scenes})
  expression = np.array([names.index(scene.expression) for scene in scenes])
  guess = ridge(x, np.eye(7)[expression], 1000).argmax(1)
  assert (guess == expression[1000:]).mean() > 0.95
  for unit in RENDERED_ACTION_UNITS:
    has = np.array([unit in scene.action_units for scene in scenes])
    score = ridge(x, has.astype(float), 1000)
    area = (score[has[1000:]][:, None] > score[~has[1000:]]).mean()
    assert area > 0.95, (unit, area)
