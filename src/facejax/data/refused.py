"""How many samples may be unusable before a run stops: nothing is left out in silence."""

from collections.abc import Sequence

from facejax.types import Refusal

_SHOWN = 10  # refusals in an error


class TooManyRefused(ValueError):
  """More samples are unusable than allowed."""


def check_share(
  refusals: Sequence[Refusal], total: int, max_refused: float, setting: str = "data.max_refused"
) -> None:
  """Raises TooManyRefused, which lists ten, if more than `max_refused` of `total` are refused.

  Args:
    refusals: samples that cannot be used.
    total: samples, usable or not.
    max_refused: share that is allowed.
    setting: what the share is called where it is set.
  """
  if len(refusals) <= max_refused * total:
    return
  listed = "".join(f"\n  {refusal.reason}" for refusal in refusals[:_SHOWN])
  more = len(refusals) - _SHOWN
  raise TooManyRefused(
    f"{len(refusals)} of {total} samples cannot be used - {setting}={max_refused:g} "
    f"allows {int(max_refused * total)} - repair them, remove them from the index, or raise "
    f"{setting}:{listed}" + (f"\n  and {more} more" if more > 0 else "")
  )
