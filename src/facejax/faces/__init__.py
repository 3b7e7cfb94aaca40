"""What a face is, without learning: points, parts, action units, attributes, and drawn faces."""

from facejax.faces.action_units import ACTION_UNITS, EXPRESSIONS
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.landmarks import MEDIAPIPE_468_TO_68, MIRROR, NUM_LANDMARKS, REGIONS, Region
from facejax.faces.segmentation import CLASSES, NUM_CLASSES, colourise
from facejax.faces.synthetic import Clip, Face, Labels, clip, face

__all__ = [
  "ACTION_UNITS",
  "ATTRIBUTES",
  "CLASSES",
  "EXPRESSIONS",
  "MEDIAPIPE_468_TO_68",
  "MIRROR",
  "NUM_CLASSES",
  "NUM_LANDMARKS",
  "REGIONS",
  "Clip",
  "Face",
  "Labels",
  "Region",
  "clip",
  "colourise",
  "face",
]
