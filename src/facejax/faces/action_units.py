"""Facial action units (FACS), and the seven expressions as sets of them.

An intensity is a number in 0..1: the FACS grades A..E (1..5) divided by 5.
"""

from collections.abc import Mapping
from typing import NamedTuple

# Names of the Facial Action Coding System (Ekman, Friesen and Hager 2002), in lower case.
ACTION_UNITS: dict[int, str] = {
  1: "inner brow raiser",
  2: "outer brow raiser",
  4: "brow lowerer",
  5: "upper lid raiser",
  6: "cheek raiser",
  7: "lid tightener",
  9: "nose wrinkler",
  10: "upper lip raiser",
  12: "lip corner puller",
  14: "dimpler",
  15: "lip corner depressor",
  17: "chin raiser",
  20: "lip stretcher",
  23: "lip tightener",
  24: "lip pressor",
  25: "lips part",
  26: "jaw drop",
  45: "blink",
}

# Those the renderer of faces/synthetic.py draws. AU24 and AU14 would need a lip texture finer than
# a pixel at 112 px; AU45 would hide the eyes' other units.
RENDERED_ACTION_UNITS: tuple[int, ...] = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 25, 26)

# From this intensity on a unit counts as present in labels and answers (our choice: between FACS
# grade A, a trace, at 0.2 and grade B, slight, at 0.4).
PRESENT_FROM = 0.3

# Order of Face-LLaVA's emotion labels without contempt: class index = position here.
EXPRESSIONS: tuple[str, ...] = (
  "neutral",
  "happiness",
  "sadness",
  "surprise",
  "fear",
  "disgust",
  "anger",
)


class Prototype(NamedTuple):
  """The units that make an expression.

  `required` come always, `optional` sometimes (EMFACS, Friesen and Ekman 1983); `compatible` are
  units that may join in without turning the face into another expression (our choice).
  """

  required: tuple[int, ...]
  optional: tuple[int, ...]
  compatible: tuple[int, ...]


PROTOTYPES: dict[str, Prototype] = {
  "neutral": Prototype((), (), ()),
  "happiness": Prototype((6, 12), (25,), (1, 2, 7, 26)),
  "sadness": Prototype((1, 4, 15), (17,), (7, 10, 25)),
  "surprise": Prototype((1, 2, 5, 26), (), (6, 10, 17)),
  "fear": Prototype((1, 2, 4, 5, 20, 25), (26,), (9, 10, 15)),
  "disgust": Prototype((9, 10), (17,), (4, 6, 7, 25)),
  "anger": Prototype((4, 5, 7, 23), (24,), (10, 15, 17, 25)),
}


def present(intensities: Mapping[int, float]) -> frozenset[int]:
  """Units whose intensity (0..1) is at least `PRESENT_FROM`."""
  return frozenset(unit for unit, value in intensities.items() if value >= PRESENT_FROM)
