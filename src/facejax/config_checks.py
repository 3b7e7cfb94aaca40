"""What a setting may be, and the error where it is not."""

import difflib
import math
from collections.abc import Sequence


def one_of(where: str, value: str, choices: Sequence[str]) -> None:
  """Raises ValueError naming the nearest choice unless value is one of them."""
  if value not in choices:
    near = difflib.get_close_matches(value, choices, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"{where} is '{value}', expected one of {', '.join(choices)}{hint}")


def within(config, names: str, least: float, most: float = math.inf) -> None:
  """Raises ValueError for the first field of `names`, which is not None, outside least to most."""
  for name in names.split():
    value = getattr(config, name)
    if value is not None and not least <= value <= most:  # refuses nan too
      expected = f"at least {least}" if most == math.inf else f"{least} to {most}"
      raise ValueError(f"{type(config).__name__}.{name}={value}: expected {expected}")


def each_once(where: str, values: Sequence[str]) -> None:
  """Raises ValueError unless there are values, all different."""
  if not values or len(set(values)) < len(values):
    raise ValueError(f"{where}={values}: expected at least one, and each once")
