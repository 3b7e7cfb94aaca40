"""What a run says while it runs. metrics -> metrics.jsonl, TensorBoard files, a progress line."""

import datetime
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import jax
import tensorboardX
import tqdm


def append(path: Path, record: Mapping) -> None:
  """Adds a line to a .jsonl file; a process killed meanwhile leaves one broken last line."""
  with path.open("a") as file:
    file.write(json.dumps(record) + "\n")


def read_until(path: Path, step: int) -> list[dict]:
  """The records of a .jsonl file whose "step" is at most `step`; a broken line ends the file."""
  records: list[dict] = []
  for line in path.read_text().splitlines() if path.is_file() else ():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      break
    if record["step"] <= step:
      records.append(record)
  return records


def rewind(path: Path, step: int) -> list[dict]:
  """Removes the records behind `step`, which a resumed run will write again; returns the rest."""
  records = read_until(path, step)
  if path.is_file():
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text("".join(json.dumps(record) + "\n" for record in records))
    os.replace(partial, path)
  return records


def memory_gib() -> float:
  """Highest use so far: of the fullest local device, or of this process if devices do not say."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
  # Linux counts kilobytes, macOS bytes.
  unit = 1 if sys.platform == "darwin" else 1024
  rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  return max(peaks, default=rss) / 2**30


class Metrics:
  """metrics.jsonl and TensorBoard event files in a stage's folder; only process 0 writes."""

  def __init__(self, folder: Path, start: int):
    """Opens the files; records behind step `start`, of a run that was killed, are removed."""
    self._writes = jax.process_index() == 0
    self._path = folder / "metrics.jsonl"
    if self._writes:
      rewind(self._path, start)
      self._board = tensorboardX.SummaryWriter(str(folder), purge_step=start + 1 if start else None)

  def __enter__(self) -> "Metrics":
    return self

  def __exit__(self, *_) -> None:
    if self._writes:
      self._board.close()

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Records values after update `step`, counted from 1."""
    if not self._writes:
      return
    append(self._path, {"step": step, **values})
    self.draw(step, values)

  def draw(self, step: int, values: Mapping[str, float]) -> None:
    """Adds values to the TensorBoard files alone."""
    if not self._writes:
      return
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
    self._board.flush()


class Progress:
  """A bar on a terminal, plain lines elsewhere (log files should not hold carriage returns)."""

  def __init__(self, name: str, start: int, steps: int, stream: TextIO | None = None):
    """Counts from `start` to `steps` on `stream`, stderr by default."""
    self._stream = stream or sys.stderr
    self._name, self._steps = name, steps
    self._first: tuple[int, float] | None = None  # step and time, after the compilation
    shown = jax.process_index() == 0
    self._bar = None
    self._plain = shown and not self._stream.isatty()
    if shown and not self._plain:
      self._bar = tqdm.tqdm(
        desc=name, initial=start, total=steps, file=self._stream, dynamic_ncols=True, unit="step"
      )

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.close()

  def advance(self, step: int) -> None:
    """Says that `step` is done."""
    self._first = self._first or (step, time.perf_counter())
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def show(self, step: int, text: str) -> None:
    """Shows `text` beside the bar, or as a line with the time that is left."""
    if self._bar is not None:
      self._bar.set_postfix_str(text)
    elif self._plain:
      print(f"{self._name} {step}/{self._steps}  {text}{self._left(step)}", file=self._stream)
      self._stream.flush()

  def _left(self, step: int) -> str:
    if self._first is None or step == self._first[0]:
      return ""
    each = (time.perf_counter() - self._first[1]) / (step - self._first[0])
    return "  ETA " + str(datetime.timedelta(seconds=round(each * (self._steps - step))))


class Window:
  """Sums over the steps since the last record."""

  def __init__(self):
    self._clear()

  def _clear(self) -> None:
    self._began = time.perf_counter()
    self._steps, self._tokens, self._places = 0, 0, 0
    self._wait, self._loss, self._weight = 0.0, 0.0, 0.0

  def waited(self, seconds: float) -> None:
    """Time in which there was no batch."""
    self._wait += seconds

  def paused(self, seconds: float) -> None:
    """Time in which nothing was trained, which speeds leave out."""
    self._began += seconds

  def add(self, loss: float, weight: float, tokens: int, places: int) -> None:
    """One step: mean loss over `weight` target tokens; tokens read in so many places of rows."""
    self._steps += 1
    self._tokens += tokens
    self._places += places
    self._loss += loss * weight
    self._weight += weight

  def close(self) -> dict[str, float]:
    """Means and speeds of the window; the next one starts. loss is in nats a target token."""
    seconds = time.perf_counter() - self._began
    record = {
      "loss": self._loss / self._weight if self._weight else 0.0,
      "weight": self._weight,
      "tokens_per_second": self._tokens / seconds,
      "filled": self._tokens / self._places,
      "step_seconds": seconds / self._steps,
      "data_wait": self._wait / seconds,
      "memory_gib": memory_gib(),
    }
    self._clear()
    return record


def line(record: Mapping[str, float]) -> str:
  """A record as the text of the progress line."""
  return (
    f"loss {record['loss']:.4f}  {record['tokens_per_second']:,.0f} tokens/s, rows "
    f"{record['filled']:.0%} full  {record['step_seconds']:.3f} s/step  "
    f"data {record['data_wait']:.0%}  {record['memory_gib']:.2f} GiB"
  )
