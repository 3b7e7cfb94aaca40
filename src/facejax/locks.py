"""One run at a time on an output folder."""

import fcntl
from typing import IO


def hold(file: IO | int, refusal: str) -> None:
  """Locks an open file, or a folder's handle, until it is closed or the process ends, however.

  Raises ValueError(refusal) if another process holds it.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ValueError(refusal) from error
