"""Scores into words: which, in which order, and where they stand."""

import re

import numpy as np
import pytest

from facejax.knowledge.handoff import Handoff, before, chosen, render
from facejax.knowledge.labels import LabelSet

LABELS = LabelSet(
  "made", ("Hat", "fear", "anger", "Gray_Hair", "AU1"), (("fear", "anger"),), {"AU1": "brows up"}
)
SCORES = np.array([0.75, 0.8, 0.9, 0.70, 0.9])


def test_off_unless_asked_for():
  # Kills: a comparison whose prompts already hold the answer.
  assert Handoff().order == "off" and render(SCORES, LABELS, Handoff()) == ""
  assert render(SCORES, LABELS, Handoff(none="Nothing.")) == ""
  assert before("<image>\nWho?", "") == "<image>\nWho?"


@pytest.mark.parametrize(
  ("how", "expected"),
  [
    (Handoff("score"), [2, 4, 0, 3]),  # ties as the set has them
    (Handoff("table"), [0, 2, 3, 4]),
    (Handoff("score", threshold=0.71), [2, 4, 0]),
    (Handoff("table", limit=2), [2, 4]),
    (Handoff("score", threshold=0.95), []),
  ],
)
def test_which_labels(how, expected):
  """Kills: > for >= at the threshold, two labels of a group, a limit that keeps the first ones."""
  assert chosen(SCORES, LABELS, how) == expected


def test_words():
  # Kills: names with underscores, a score of another label.
  text = render(SCORES, LABELS, Handoff("score"))
  assert text == "Detected attributes: anger (0.90), brows up (0.90), hat (0.75), gray hair (0.70)."
  how = Handoff("table", "Seen: {labels}!", "{label}", none="Seen: nothing.")
  assert render(SCORES, LABELS, how) == "Seen: hat, anger, gray hair, brows up!"
  assert render(SCORES * 0.5, LABELS, how) == "Seen: nothing."


@pytest.mark.parametrize(
  ("question", "expected"),
  [
    ("<image>\nWho is it?", "<image>\nTold.\nWho is it?"),
    ("<image>Who?", "<image>\nTold.\nWho?"),
    ("<image>\n<video>\nWho?\n", "<image>\n<video>\nTold.\nWho?\n"),
    ("Who is in <image>?", "Told.\nWho is in <image>?"),
  ],
)
def test_place(question, expected):
  """Kills: words in front of the picture, a placeholder lost or doubled."""
  assert before(question, "Told.") == expected
  assert before(question, ["Told.", ""]) == expected


BAD = {
  "Handoff.order is 'scores', expected one of off, score, table": {"order": "scores"},
  "Handoff.threshold=70": {"threshold": 70},
  "Handoff.limit=0: expected at least 1": {"limit": 0},
  "Handoff.template='Seen {label}' cannot be filled (KeyError('label'))": {
    "template": "Seen {label}"
  },
  "Handoff.item='{score}' lacks {label}": {"item": "{score}"},
  "Handoff.template='<image> {labels}' holds a placeholder": {"template": "<image> {labels}"},
}


@pytest.mark.parametrize("expected", BAD)
def test_bad_settings(expected):
  # Kills: a template that fails at the first confident face, or adds a medium to the prompt.
  with pytest.raises(ValueError, match=re.escape(expected)):
    Handoff(**BAD[expected])


def test_scores_of_many():
  # Kills: a batch whose first row is taken.
  with pytest.raises(ValueError, match=r"scores of shape \[2, 5\] - expected \[5\]"):
    render(np.stack([SCORES, SCORES]), LABELS, Handoff("score"))
