"""What a source says of a sample -> values that cannot be."""

import math
import re
from collections.abc import Mapping
from typing import Any

from facejax.doctor.findings import Note

_AGE = (0, 120)  # years; the oldest person known reached 122
# Numbers of a name that is matched in full, without regard to case. Ranges are those of the
# datasets' own descriptions: AU intensities 0..5 (DISFA), valence and arousal -1..1.
_RANGES: tuple[tuple[str, float, float], ...] = (
  (r"age|age_years|real_age|apparent_age", *_AGE),
  (r"(au|action_unit)_?\d{1,2}(_intensity)?", 0, 5),
  (r"valence|arousal", -1, 1),
  (r"score|rating|quality|confidence", 0, math.inf),
)
_SHARES = re.compile("probability|prob|share", re.IGNORECASE)


def check(labels: Mapping[str, Any], prefix: str = "") -> list[Note]:
  """Notes numbers outside their range, NaN, text where a number belongs, and empty texts.

  Labels without a known name are only asked to be finite. Nested objects are looked into.
  """
  notes: list[Note] = []
  for name, value in labels.items():
    where = f"{prefix}{name}"
    if isinstance(value, Mapping):
      notes += check(value, f"{where}.")
      continue
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
      notes.append(
        Note("label_range", f"label {where} is {value} - expected a finite number - remove it")
      )
    elif isinstance(value, str) and not value.strip():
      notes.append(Note("label_type", f"label {where} is {value!r} - expected text - remove it"))
    elif span := _range(name):
      notes += _checked(where, value, span)
  return notes


def _range(name: str) -> tuple[float, float] | None:
  if _SHARES.fullmatch(name):
    return 0, 1
  for pattern, low, high in _RANGES:
    if re.fullmatch(pattern, name, re.IGNORECASE):
      return low, high
  return None


def _checked(where: str, value: Any, span: tuple[float, float]) -> list[Note]:
  low, high = span
  expected = f"expected {low:g} to {high:g}" if high < math.inf else f"expected {low:g} or more"
  if isinstance(value, str) and re.fullmatch(r"\d+\s*[-\u2013]\s*\d+|\d+\+", value.strip()):
    return []  # an age group, such as "20-29" or "70+"
  try:
    number = float(value)
  except (TypeError, ValueError):
    return [Note("label_type", f"label {where} is {value!r} - {expected}, a number - correct it")]
  if low <= number <= high:
    return []
  return [Note("label_range", f"label {where} is {value} - {expected} - correct or remove it")]
