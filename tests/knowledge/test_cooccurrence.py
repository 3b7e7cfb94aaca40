"""Counts against loops over rows, restarts, and both graphs against loops over entries."""

import dataclasses
import re

import numpy as np
import pytest

from facejax.knowledge import cooccurrence
from facejax.knowledge.cooccurrence import conditional, count, empty, graph, load, save
from facejax.knowledge.labels import LabelSet

LABELS = LabelSet("made", tuple("abcd"))
ROWS = np.random.default_rng(0).choice(np.array([-1, 0, 1], np.int8), (23, 4), p=(0.2, 0.4, 0.4))


def by_hand(rows):
  together, known, both = (np.zeros((4, 4), int) for _ in range(3))
  for row in rows.tolist():
    for i in range(4):
      for j in range(4):
        together[i, j] += row[i] == 1 and row[j] == 1
        known[i, j] += row[i] == 1 and row[j] != -1
        both[i, j] += row[i] != -1 and row[j] != -1
  return together, known, both


def test_counts_equal_a_loop(monkeypatch):
  """Kills: an unknown label counted as absent or present, i and j turned around, a part's last rows
  lost, counts that are not whole numbers."""
  monkeypatch.setattr(cooccurrence, "ROWS", 5)
  got = count([ROWS[:9], ROWS[9:9], ROWS[9:]], LABELS, "made")
  for own, expected in zip((got.together, got.known, got.both_known), by_hand(ROWS), strict=True):
    assert own.dtype == np.int64
    np.testing.assert_array_equal(own, expected)
  assert got.rows == 23
  known = ROWS != -1
  np.testing.assert_allclose(got.prevalence, (ROWS == 1).sum(0) / known.sum(0))
  p = conditional(got)
  own = [row for row in ROWS.tolist() if row[1] == 1 and row[3] != -1]
  assert p[1, 3] == sum(row[3] == 1 for row in own) / len(own)
  assert (np.diag(p) == 1).all()


def test_counts_of_two_tables_add_up():
  """Kills: a merge that forgets the rows, or takes labels of another order."""
  one, other = count([ROWS[:7]], LABELS, "x"), count([ROWS[7:]], LABELS, "y")
  both, whole = one + other, count([ROWS], LABELS, "x")
  for field in ("together", "known", "both_known", "rows"):
    np.testing.assert_array_equal(getattr(both, field), getattr(whole, field))
  assert both.source == "x + y" and (one + one).source == "x"
  turned = dataclasses.replace(other, labels=tuple("bacd"))
  with pytest.raises(ValueError, match="'x' are of labels a, b, c, d, those of 'y' of b, a, c, d"):
    one + turned


def stop_after(parts, number):
  for i, part in enumerate(parts):
    if i == number:
      raise KeyboardInterrupt
    yield part


def test_a_stopped_count_goes_on(tmp_path):
  """Kills: rows counted twice or lost where the second run's parts are cut elsewhere."""
  state = tmp_path / "counts.npz"
  whole = count([ROWS], LABELS, "made")
  with pytest.raises(KeyboardInterrupt):
    count(stop_after([ROWS[:6], ROWS[6:10], ROWS[10:]], 2), LABELS, "made", state)
  assert load(state).rows == 10
  got = count([ROWS[:4], ROWS[4:15], ROWS[15:]], LABELS, "made", state)
  assert got.rows == 23 and (got.together == whole.together).all()
  assert (got.both_known == whole.both_known).all()
  again = count([ROWS], LABELS, "made", state)  # complete: nothing is added
  assert again.rows == 23 and (again.known == whole.known).all()
  assert [path.name for path in tmp_path.iterdir()] == ["counts.npz"]


def test_a_file_appears_whole(tmp_path, monkeypatch):
  """Kills: writing into the file itself, which a killed process would leave broken."""
  state = tmp_path / "counts.npz"
  save(count([ROWS[:3]], LABELS, "made"), state)

  def full(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(OSError, match="disk full"):
    save(count([ROWS], LABELS, "made"), state)
  assert load(state).rows == 3


def test_counts_of_something_else(tmp_path):
  """Kills: a count that goes on with another table's, or reads any file."""
  state = tmp_path / "counts.npz"
  count([ROWS], LABELS, "made", state)
  with pytest.raises(ValueError, match=r"holds counts of 'made' with 4 labels - expected 'other'"):
    count([ROWS], LABELS, "other", state)
  with pytest.raises(ValueError, match="holds counts of 23 rows, the table 'made' has 9"):
    count([ROWS[:9]], LABELS, "made", state)
  state.write_bytes(b"PK nothing")
  with pytest.raises(ValueError, match=re.escape(f"{state} holds no counts of labels")):
    load(state)
  with pytest.raises(ValueError, match=r"rows of shape \[2, 3\] - expected \[S, 4\]"):
    count([np.zeros((2, 3), np.int8)], LABELS, "made")
  rows = ROWS.copy()
  rows[20, 2] = 3
  with pytest.raises(ValueError, match="made from row 16, row 6: c is 3 - expected 1, 0 or -1"):
    count([ROWS[:15], rows[15:]], LABELS, "made")


P = np.array(
  [[1, 0.4, 0.39, 0.9], [0.1, 1, 0.5, 0.2], [0.0, 0.1, 1, 0.3], [0.41, 0.8, 0.95, 1]], float
)


def test_the_papers_graph_equals_a_loop():
  """Kills: a column's sum for a row's, > for >= at the threshold, a neighbour of itself, a label
  without neighbours that loses 1 - omega of its own weight."""
  got, omega = graph(P, 0.4, 0.2), 0.2
  for i in range(4):
    neighbours = [j for j in range(4) if j != i and P[i, j] >= 0.4]
    for j in range(4):
      if i == j:
        expected = 1 - omega if neighbours else 1
      else:
        expected = omega / len(neighbours) if j in neighbours else 0
      assert got[i, j] == np.float32(expected)
  assert got.dtype == np.float32 and got[2].tolist() == [0, 0, 1, 0]
  np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)


def test_the_codes_graph_equals_a_loop():
  """Kills: the paper's weights, the row's sum for the column's, a transposition left out."""
  got = graph(P, 0.4, reweight="code")
  a = np.zeros((4, 4))
  for i in range(4):
    for j in range(4):
      column = sum(P[k, j] >= 0.4 for k in range(4) if k != j)
      a[i, j] = 1 if i == j else (P[i, j] >= 0.4) * 0.25 / (column + 1e-6)
  d = [a[i].sum() ** -0.5 for i in range(4)]
  expected = [[d[i] * a[j, i] * d[j] for j in range(4)] for i in range(4)]
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_labels_that_nobody_has():
  # Kills: 0 / 0, which would spread as NaN through the graph.
  counts = count([np.zeros((5, 4), np.int8)], LABELS, "made")
  for reweight in ("paper", "code"):
    np.testing.assert_allclose(graph(conditional(counts), reweight=reweight), np.eye(4))
  assert (empty(LABELS).prevalence == 0).all()


def test_settings_of_the_graph():
  # Kills: a threshold in percent, an unknown form taken for one of them.
  with pytest.raises(ValueError, match="tau=40: expected 0 to 1"):
    graph(P, 40)
  with pytest.raises(ValueError, match=r"omega=-0\.2: expected 0 to 1"):
    graph(P, omega=-0.2)
  with pytest.raises(ValueError, match="reweight is 'papers', expected one of paper, code"):
    graph(P, reweight="papers")
