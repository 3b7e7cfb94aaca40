"""Krippendorff's alpha against a published table, hand-made cases and a slow reference."""

import itertools

import numpy as np
import pytest

from facejax.evaluate.judge.agreement import alpha, weighted

X = np.nan
# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", his example E: four observers,
# twelve units, some values missing; he prints 0.849 for interval data.
EXAMPLE = np.array(
  [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
    [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
  ]
).T


def slow(ratings) -> float:
  """From the coincidences of values, pair by pair, as the definition has it."""
  units = [[v for v in row if not np.isnan(v)] for row in ratings]
  units = [unit for unit in units if len(unit) > 1]
  together, every = 0.0, []
  for unit in units:
    every += unit
    pairs = itertools.permutations(unit, 2)
    together += sum((a - b) ** 2 for a, b in pairs) / (len(unit) - 1)
  n = len(every)
  apart = sum((a - b) ** 2 for a, b in itertools.permutations(every, 2))
  return 1 - (together / n) / (apart / (n * (n - 1)))


def test_the_published_example():
  """Kills: another metric than the interval one (nominal 0.743, ordinal 0.815, ratio 0.797); the
  unit with one value counted in."""
  assert round(alpha(EXAMPLE), 3) == 0.849


@pytest.mark.parametrize("seed", range(3))
def test_against_the_definition(seed):
  """Kills: a wrong factor for units with fewer ratings, or for n - 1."""
  rng = np.random.default_rng(seed)
  ratings = rng.integers(1, 11, (17, 5)) + rng.normal(0, 1, (17, 1)).round(2)
  ratings[rng.random(ratings.shape) < 0.4] = np.nan
  assert alpha(ratings) == pytest.approx(slow(ratings), abs=1e-12)


def test_weights_are_copies():
  """Kills: a resample whose alpha is not that of the items in it."""
  weights = np.array([[2, 0, 1, 3, 0, 1, 1, 0, 0, 1, 2, 1], [1] * 12], float)
  copies = np.repeat(EXAMPLE, weights[0].astype(int), axis=0)
  found = weighted(EXAMPLE)(weights)
  assert found[0] == pytest.approx(slow(copies)) and found[1] == alpha(EXAMPLE)


def test_the_ends():
  """Kills: 1 for ratings that never vary; a division by zero; systematic disagreement at 0."""
  assert alpha(np.array([[3, 3], [7.1, 7.1], [9, X]])) == 1
  assert alpha(np.array([[1, 9], [9, 1]])) == pytest.approx(1 - 64 / (256 / 6))
  for nothing in ([[4.1, 4.1], [4.1, 4.1]], [[2, X], [X, 5]]):
    assert np.isnan(alpha(np.array(nothing)))
