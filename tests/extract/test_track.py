"""A face through a clip: which one is followed, what is filled, what is refused."""

import numpy as np
import pytest
from small_media import points_in

from facejax.extract.track import follow, largest
from facejax.faces.detect import Detection


def _face(left, top, side):
  box = (float(left), float(top), float(left + side), float(top + side))
  return Detection(box, 0.9, points_in(left, top, side).astype(np.float32))


def test_largest_first_then_the_nearest():
  """Kills: the most confident one, the largest in each frame, the nearest to the first frame."""
  small = _face(0, 0, 20)
  # A large face walks right; from frame 2 on another, larger one stands where it started.
  frames = [[small, _face(100 + 15 * n, 50, 30)] for n in range(2)]
  frames += [[_face(90, 140, 60), small, _face(100 + 15 * n, 50, 30)] for n in range(2, 6)]
  track = follow(frames, 0, "c.mp4")
  np.testing.assert_allclose(track.boxes[:, 0], 100 + 15 * np.arange(6))
  np.testing.assert_allclose(track.points[5], points_in(175, 50, 30), rtol=1e-6)
  assert track.several == 6 and track.detected.all()
  assert largest(frames[3]).box == (90.0, 140.0, 150.0, 200.0)


def test_gaps_are_filled_between_sights_and_held_at_the_ends():
  """Kills: a gap copied from one side, ends extrapolated, boxes filled and points not."""
  seen = {1: 10.0, 4: 40.0, 5: 44.0}
  frames = [[_face(seen[n], 7, 64)] if n in seen else [] for n in range(6)]
  with pytest.raises(ValueError, match="in 3 of 6 frames, 2 of them in a row from frame 2"):
    follow(frames, 1, "c.mp4")
  frames += [[_face(44, 7, 64)]] * 4 + [[]]  # 4 of 11 would be too many in all
  with pytest.raises(ValueError, match="in 4 of 11 frames, 2 of them in a row"):
    follow(frames, 2, "c.mp4")
  frames += [[_face(44, 7, 64)]] * 4
  track = follow(frames, 2, "c.mp4")
  expected = [10, 10, 20, 30, 40, 44, *[44] * 9]
  np.testing.assert_allclose(track.boxes[:, 0], expected, rtol=1e-6)
  for frame, left in enumerate(expected):
    np.testing.assert_allclose(track.points[frame], points_in(left, 7, 64), rtol=1e-5)
  assert np.flatnonzero(~track.detected).tolist() == [0, 2, 3, 10]


def test_another_face_is_not_taken_for_the_one_that_left():
  """Kills: tracking without a limit on how far a face may jump."""
  frames = [[_face(0, 0, 30)]] * 8 + [[_face(31, 0, 30)]] + [[_face(100, 0, 30)]]
  with pytest.raises(ValueError, match="in 2 of 10 frames, 2 of them in a row from frame 8"):
    follow(frames, 1, "c.mp4")
  near = [[_face(0, 0, 30)]] * 8 + [[_face(29, 0, 30)]]
  assert follow(near, 0, "c.mp4").boxes[8, 0] == 29


def test_a_clip_without_a_face_is_refused():
  """Kills: an empty track, which has no largest gap either."""
  with pytest.raises(ValueError, match=r"c\.mp4: no face in any of 3 frames"):
    follow([[], [], []], 9, "c.mp4")
