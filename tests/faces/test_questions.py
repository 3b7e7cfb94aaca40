"""Questions, answers and their parsing: every answer reads back as its label."""

import re
from dataclasses import replace

import numpy as np
import pytest

from facejax.faces.action_units import ACTION_UNITS, EXPRESSIONS, RENDERED_ACTION_UNITS
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.questions import QUESTIONS, TASKS, answer, parse, presence, question, truth
from facejax.faces.scene import sample


def labels(**changes):
  return replace(sample(0, "train").labels, **changes)


def answers(task, one, count=60):
  """Distinct answers to one face."""
  rng = np.random.default_rng(0)
  return {answer(task, one, rng) for _ in range(count)}


def test_answers_read_back_for_many_faces():
  # Kills: a template whose words parse to another label; a label not in the first 25 words.
  rng = np.random.default_rng(1)
  for seed in range(600):
    one = sample(seed, "train").labels
    for task in TASKS:
      text = answer(task, one, rng)
      assert parse(task, text) == truth(task, one), text
      assert len(text.split()) <= 45, text
      assert parse(task, " ".join(text.split()[:25])) == truth(task, one), text
      assert parse(task, re.split(r"[.:]", text)[0]) is not None, text


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_reads_back(expression):
  # Kills: an expression missing from the synonyms.
  assert parse("expression", answer("expression", labels(expression=expression,
               action_units={}), np.random.default_rng(0))) == expression  # fmt: skip


def test_every_unit_and_attribute_reads_back_alone_and_all_together():
  # Kills: a name or noun missing from a table; the empty set.
  sets = [{u: 0.5} for u in RENDERED_ACTION_UNITS] + [dict.fromkeys(RENDERED_ACTION_UNITS, 1.0), {}]
  for units in sets:
    for text in answers("action_units", labels(action_units=units), 8):
      assert parse("action_units", text) == frozenset(units), text
  every = [{name} for name in ATTRIBUTES] + [set(ATTRIBUTES), set()]
  for has in every:
    one = labels(attributes={name: name in has for name in ATTRIBUTES})
    for text in answers("attributes", one, 8):
      assert parse("attributes", text) == frozenset(has), text


def test_every_age_and_verdict_reads_back():
  # Kills: rounding differences, ages of one digit, swapped verdicts.
  for age in (5.0, 9.49, 10.6, 44.5, 79.9):
    for text in answers("age", labels(age=age), 20):
      assert parse("age", text) == round(age), text
  for fake in (False, True):
    for text in answers("deepfake", labels(manipulated=fake), 30):
      assert parse("deepfake", text) is fake, text


def test_units_below_the_threshold_are_absent():
  # Kills: > for >=, or a threshold that is not applied.
  one = labels(action_units={6: 0.29, 12: 0.3})
  assert truth("action_units", one) == {12}
  assert parse("action_units", answer("action_units", one, np.random.default_rng(0))) == {12}


def test_there_are_enough_wordings_and_few_words():
  # Kills: one paraphrase for all; a vocabulary that grows past what a small tokenizer holds.
  rng = np.random.default_rng(2)
  words = set()
  for task in TASKS:
    assert len(set(QUESTIONS[task])) >= 8
    assert len({question(task, rng) for _ in range(200)}) >= 8
    assert len(answers(task, labels(action_units={6: 1.0, 12: 1.0}))) >= 4
  for seed in range(1500):
    for task in TASKS:
      text = question(task, rng) + " " + answer(task, sample(seed, "train").labels, rng)
      words.update(re.findall(r"[a-z]+|\d+", text.lower()))
  assert len(words) < 500


def test_reasons_agree_with_the_labels():
  # Kills: wrinkles on a child, a seam on a real face, a sign of an absent unit.
  for text in answers("age", labels(age=8.0)):
    assert "line" not in text and "sag" not in text
  for text in answers("age", labels(age=75.0)):
    assert "child" not in text
  for text in answers("deepfake", labels(manipulated=False)):
    assert "no seam" in text or "seam" not in text
  for text in answers("expression", labels(expression="anger", action_units={4: 1.0, 7: 0.5})):
    assert "upper lids are raised" not in text and "brows are lowered" in text
  for text in answers("attributes", labels(attributes={n: n == "Beard" for n in ATTRIBUTES})):
    assert "frame" not in text and "chin" in text


def test_attributes_come_in_the_canonical_order():
  # Kills: a set's own order, which changes between processes.
  one = labels(attributes={name: True for name in reversed(ATTRIBUTES)})
  text = answer("attributes", one, np.random.default_rng(0)).lower()
  places = [text.index(phrase.noun) for phrase in ATTRIBUTES.values()]
  assert places == sorted(places)


FREE_TEXT = [
  ("expression", "The person looks HAPPY and not sad.", "happiness"),
  ("expression", "This is not anger but fear", "fear"),
  ("expression", "There is no expression here", "neutral"),
  ("expression", "A face.", None),
  ("expression", "She is unhappy.", "sadness"),
  ("action_units", "au 6, AU12 and AU-25", frozenset({6, 12, 25})),
  ("action_units", "Action units 1, 2 and 26 are active; no AU4.", frozenset({1, 2, 26})),
  ("action_units", "I see the cheek raiser and the lip corner puller", frozenset({6, 12})),
  ("action_units", "None.", frozenset()),
  ("action_units", "No active action units.", frozenset()),
  ("action_units", "A calm face", None),
  ("attributes", "Grey hair and spectacles, no beard, hat", frozenset({"Gray_Hair", "Eyeglasses"})),
  ("attributes", "Without glasses. A moustache.", frozenset({"Mustache"})),
  ("attributes", "No glasses.", frozenset()),
  ("attributes", "None", frozenset()),
  ("attributes", "A nice face", None),
  ("age", "About 34 years old", 34.0),
  ("age", "A 7-year-old child, one of 3", 7.0),
  ("age", "between 20 and 30 years old", 25.0),
  ("age", "20-29", 24.5),
  ("age", "He was born in 1990, so 35", 35.0),
  ("age", "Seed 4: she is 61 years old", 61.0),
  ("age", "old", None),
  ("deepfake", "This image is not manipulated.", False),
  ("deepfake", "It isn't real", True),
  ("deepfake", "Genuine, nothing altered", False),
  ("deepfake", "hard to say", None),
]


@pytest.mark.parametrize(("task", "text", "expected"), FREE_TEXT)
def test_free_text_is_read_by_the_documented_rules(task, text, expected):
  # Kills: each rule and synonym of parsing.py, and negation.
  assert parse(task, text) == expected


def test_unknown_tasks_are_refused_by_name():
  # Kills: each of the four entry points' checks.
  rng = np.random.default_rng(0)
  for call in (
    lambda: question("ages", rng),
    lambda: answer("ages", labels(), rng),
    lambda: truth("ages", labels()),
    lambda: parse("ages", "5"),
  ):
    with pytest.raises(ValueError, match=r"'ages'.*deepfake"):
      call()


def test_tables_cover_the_rendered_units():
  # Kills: a rendered unit without a FACS name.
  assert set(RENDERED_ACTION_UNITS) <= set(ACTION_UNITS)


def test_presence_is_true_and_balanced():
  # Kills: an answer about another label; a label that is never asked about; always "No.".
  rng = np.random.default_rng(5)
  asked, yes = set(), 0
  for seed in range(900):
    one = sample(seed, "train").labels
    question_, told = presence(one, rng)
    words = re.search(r"(?:this: |there )(.+?)(?: in this face)?\?", question_)[1]
    nouns = {ATTRIBUTES[name].noun for name, on in one.attributes.items() if on}
    true = nouns | {one.expression} | {f"au{n}" for n in truth("action_units", one)}
    assert told == ("Yes." if words in true else "No."), question_
    asked, yes = asked | {words}, yes + (told == "Yes.")
  assert asked == {*(a.noun for a in ATTRIBUTES.values()), *EXPRESSIONS} | {
    f"au{n}" for n in RENDERED_ACTION_UNITS
  }
  assert 380 < yes < 520
