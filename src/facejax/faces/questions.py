"""Questions and answers about a face: labels -> (question, answer), and an answer -> its label.

Five tasks in the manner of FaceInstruct-1M (Face-LLaVA, section 3.1): the answer opens with the
label and goes on with a sentence of visual reasoning that is true of the labels. All wording is
ours; a few hundred distinct words in all, so that a small tokenizer and a small model can learn it.
Beside the five, "presence" asks yes or no about one label at a time, as training-free scores do.
"""

import numpy as np

from facejax.faces.action_units import (
  ACTION_UNITS,
  EXPRESSIONS,
  PROTOTYPES,
  RENDERED_ACTION_UNITS,
  present,
)
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.parsing import TASKS, Label, check_task, parse
from facejax.faces.scene import Labels

__all__ = ["PRESENCE", "TASKS", "answer", "parse", "presence", "question", "truth"]

PRESENCE = "presence"  # a task of training alone: its answer is no label that evaluation parses

QUESTIONS: dict[str, tuple[str, ...]] = {
  "expression": (
    "What expression does this face show?",
    "Which emotion is on this face?",
    "How does this person seem to feel?",
    "Name the expression of the face and say why.",
    "Look at the face. Which emotion do you see?",
    "What is the facial expression here, and what shows it?",
    "Tell me the emotion of this person.",
    "Classify the expression of this face.",
  ),
  "action_units": (
    "Which action units are active in this face?",
    "List the facial action units that you see.",
    "What action units does this face show?",
    "Name the active action units and what they do.",
    "Which muscles of the face are at work? Answer with action units.",
    "Give the action units of this face.",
    "Code this face with action units.",
    "Look at the face. Which action units are present?",
  ),
  "attributes": (
    "Which attributes does this person have?",
    "List the facial attributes that you see.",
    "What can you say about hair, beard and accessories?",
    "Name the visible attributes of this face.",
    "What does the person wear, and how is the hair?",
    "Describe the attributes of this face.",
    "Give the attributes of the person.",
    "Look at the face. Which attributes are present?",
  ),
  "age": (
    "How old is this person?",
    "What is the age of this face?",
    "Estimate the age of the person.",
    "Guess how many years old this person is.",
    "Tell me the age of this person and say why.",
    "Look at the face. What age do you see?",
    "Give the age of this face in years.",
    "About how old does this person look?",
  ),
  "deepfake": (
    "Is this face real or fake?",
    "Has this face been manipulated?",
    "Is this a real face or a deepfake?",
    "Can you trust this face? Say real or fake.",
    "Tell me whether the face is real or fake.",
    "Look at the face. Is it real or fake?",
    "Does this face show signs of manipulation?",
    "Decide: is the face real or fake, and why?",
  ),
}

# What each unit looks like, as a clause.
SIGNS: dict[int, str] = {
  1: "the inner brows are raised",
  2: "the outer brows are raised",
  4: "the brows are lowered and drawn together",
  5: "the upper lids are raised",
  6: "the cheeks are raised",
  7: "the lids are tight",
  9: "the nose is wrinkled",
  10: "the upper lip is raised",
  12: "the lip corners are pulled up",
  15: "the lip corners are pulled down",
  17: "the chin is pushed up",
  20: "the lips are stretched to the sides",
  23: "the lips are tight and thin",
  25: "the lips are apart",
  26: "the jaw has dropped",
}

_EXPRESSION_TAILS = (
  "{signs}.",
  "This shows because {signs}.",
  "Here {signs}.",
  "One can see that {signs}.",
)
_NEUTRAL_TAILS = (
  "No part of the face moves.",
  "The brows, the eyes and the mouth are at rest.",
  "The mouth is closed and the brows are at rest.",
  "The face is at rest.",
)
_UNIT_TAILS = ("That is {names}.", "{signs}.", "These are {names}.", "Here {signs}.")
_ATTRIBUTE_TAILS = (
  "{evidence}.",
  "Here {evidence}.",
  "One can see that {evidence}.",
  "Look: {evidence}.",
)
_AGE_TAILS = (
  "{evidence}.",
  "Here {evidence}.",
  "This shows because {evidence}.",
  "Look: {evidence}.",
)
_FAKE_TAILS = (
  "a seam runs around the inner face, and the skin changes its tone there.",
  "the light on the inner face comes from another side than on the rest.",
  "the skin of the inner face does not fit the skin around it.",
  "there is a border on the cheeks where tone and light change.",
)
_REAL_TAILS = (
  "the skin keeps its tone from the forehead to the chin, with no seam.",
  "the light comes from one side on the whole face.",
  "the inner face fits the skin around it.",
  "there is no border on the cheeks, and the light fits.",
)

# From this age (years) on, until the next line's: what the renderer shows at that age.
_AGE_SIGNS: tuple[tuple[float, tuple[str, ...]], ...] = (
  (
    0,
    (
      "the eyes are large and the face is short, as in a child",
      "the face has a small nose and large eyes",
    ),
  ),
  (
    13,
    (
      "the face is nearly grown and the skin is even",
      "the face is long for a child, and the skin is even",
    ),
  ),
  (
    20,
    ("the face is grown and the skin is even", "the face is grown, with few lines of age"),
  ),
  (
    35,
    ("fine lines show around the eyes and the mouth", "first lines show on the forehead"),
  ),
  (
    50,
    (
      "lines run over the forehead and beside the mouth",
      "there are clear lines around the eyes and the mouth",
    ),
  ),
  (
    65,
    (
      "deep lines run over the forehead and the cheeks sag",
      "there are deep lines and spots on the skin",
    ),
  ),
)


def question(task: str, rng: np.random.Generator) -> str:
  """One of at least eight ways to ask for a task's label.

  Raises:
    ValueError: unknown task.
  """
  check_task(task)
  return _pick(rng, QUESTIONS[task])


def answer(task: str, labels: Labels, rng: np.random.Generator) -> str:
  """The true answer: the label in the first words, then one of at least four kinds of reasons.

  `parse(task, answer(task, labels, rng)) == truth(task, labels)` for all labels; at most 45 words.

  Raises:
    ValueError: unknown task.
  """
  check_task(task)
  return _ANSWERS[task](labels, rng)


_PRESENCE = (
  "Does this face show this: {words}? Answer with yes or no.",
  "Is there {words} in this face? Answer with yes or no.",
  "Does the face have this: {words}? Answer with yes or no.",
)


def presence(labels: Labels, rng: np.random.Generator) -> tuple[str, str]:
  """A question about one attribute, expression or action unit, and "Yes." or "No.".

  Half of the questions are about what the face has, where it has anything: a model that learns from
  them says yes more often than labels are present. An expression and a unit are present as in
  `truth`; words are those of the label set drawn_faces.
  """
  has = {ATTRIBUTES[name].noun: on for name, on in labels.attributes.items()}
  has |= {name: name == labels.expression for name in EXPRESSIONS}
  units = present(labels.action_units)
  has |= {f"au{unit}": unit in units for unit in RENDERED_ACTION_UNITS}
  wanted = rng.random() < 0.5
  options = tuple(words for words, on in has.items() if on == wanted) or tuple(has)
  words = _pick(rng, options)
  return _pick(rng, _PRESENCE).format(words=words), "Yes." if has[words] else "No."


def truth(task: str, labels: Labels) -> Label:
  """The label that a right answer parses to.

  expression -> name; action_units -> frozenset of numbers with intensity >= PRESENT_FROM;
  attributes -> frozenset of names; age -> whole years as float; deepfake -> manipulated or not.

  Raises:
    ValueError: unknown task.
  """
  check_task(task)
  labels_by_task: dict[str, Label] = {
    "expression": labels.expression,
    "action_units": present(labels.action_units),
    "attributes": frozenset(name for name, has in labels.attributes.items() if has),
    "age": float(round(labels.age)),
    "deepfake": labels.manipulated,
  }
  return labels_by_task[task]


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
  return options[int(rng.integers(len(options)))]


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def _listing(items: list[str]) -> str:
  """a, b and c."""
  return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _signs(units: list[int], rng: np.random.Generator, most: int) -> str:
  """Signs of up to `most` of the units, in a random choice but in the units' order."""
  keep = sorted(rng.permutation(len(units))[:most].tolist())
  return _listing([SIGNS[units[index]] for index in keep])


def _expression(labels: Labels, rng: np.random.Generator) -> str:
  units = sorted(present(labels.action_units))
  prototype = PROTOTYPES[labels.expression]
  typical = [unit for unit in units if unit in prototype.required + prototype.optional]
  if not typical:
    tail = _pick(rng, _NEUTRAL_TAILS)
  else:
    tail = _pick(rng, _EXPRESSION_TAILS).format(signs=_signs(typical, rng, 3))
  return f"{_capital(labels.expression)}. {_capital(tail)}"


def _action_units(labels: Labels, rng: np.random.Generator) -> str:
  units = sorted(present(labels.action_units))
  if not units:
    return f"No action unit. {_pick(rng, _NEUTRAL_TAILS)}"
  template = _pick(rng, _UNIT_TAILS)
  names = _listing([ACTION_UNITS[unit] for unit in units])
  signs = _signs(units, rng, 3)
  tail = template.format(names=names, signs=signs)
  return f"{', '.join(f'AU{unit}' for unit in units)}. {_capital(tail)}"


def _attributes(labels: Labels, rng: np.random.Generator) -> str:
  names = [name for name in ATTRIBUTES if labels.attributes[name]]
  if not names:
    return "None of the attributes. The face is plain."
  keep = sorted(rng.permutation(len(names))[:2].tolist())
  evidence = _listing([ATTRIBUTES[names[index]].evidence for index in keep])
  tail = _pick(rng, _ATTRIBUTE_TAILS).format(evidence=evidence)
  return f"{_capital(_listing([ATTRIBUTES[name].noun for name in names]))}. {_capital(tail)}"


def _age(labels: Labels, rng: np.random.Generator) -> str:
  signs = next(signs for start, signs in reversed(_AGE_SIGNS) if labels.age >= start)
  evidence = _pick(rng, signs)
  if labels.attributes["Gray_Hair"] and rng.random() < 0.5:
    evidence += ", and " + ATTRIBUTES["Gray_Hair"].evidence
  tail = _pick(rng, _AGE_TAILS).format(evidence=evidence)
  return f"{round(labels.age)} years old. {_capital(tail)}"


def _deepfake(labels: Labels, rng: np.random.Generator) -> str:
  if labels.manipulated:
    return f"Fake: {_pick(rng, _FAKE_TAILS)}"
  return f"Real: {_pick(rng, _REAL_TAILS)}"


_ANSWERS = {
  "expression": _expression,
  "action_units": _action_units,
  "attributes": _attributes,
  "age": _age,
  "deepfake": _deepfake,
}
