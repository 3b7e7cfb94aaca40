"""Benchmarks asked while a stage trains. parameters, step -> figures, and which step was the best.

  STAGE/track.jsonl           a line an evaluation: step, what was asked, SUITE.METRIC: value
  STAGE/track/STEP/SUITE/     predictions.jsonl and results.json, as `facejax evaluate` writes them

The items follow from the settings and the answers from the parameters, so a run that was killed and
goes on gets the same figures. The best step so far is read back from track.jsonl.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from facejax import best as checkpoints
from facejax import logs
from facejax.config import RunConfig, TrackConfig
from facejax.config_checks import one_of
from facejax.evaluate import suite
from facejax.evaluate.benchmarks import load, open_benchmark
from facejax.evaluate.command import folders_of, options_of
from facejax.evaluate.protocol import Benchmark, missing
from facejax.evaluate.scores import LESS_IS_BETTER, score
from facejax.generate import Answerer

NAME = "track"
_SHOWN = 10  # missing files that an error names


def check(config: TrackConfig) -> list[Benchmark]:
  """The benchmarks' subsets; everything that would stop the run at its first evaluation.

  Raises:
    FileNotFoundError: a benchmark's folder, or files of its items.
    ValueError: an unknown suite, option or metric; or several processes, which do not share one.
  """
  for name in config.suites:
    load(name, "track.suites")
  if config.suites and jax.process_count() > 1:
    raise ValueError(
      f"track.suites={config.suites} with {jax.process_count()} processes - expected one - set "
      "track.suites=() and run facejax evaluate on the checkpoints"
    )
  folders = folders_of(config.data, config.suites, "track.data")
  options = options_of(config.settings, config.suites, "track.settings")
  found = []
  for name in config.suites:
    _look(folders[name])
    opened = open_benchmark(name, folders[name], options[name], "track.settings")
    found.append(opened.limited(config.limit))
    if lacks := missing(found[-1]):
      lines = "\n  ".join(f"{r.id}: {r.reason}" for r in lacks[:_SHOWN])
      raise FileNotFoundError(
        f"track.suites: {len(lacks)} of the {len(found[-1].items)} items of {name} lack a file, "
        f"such as\n  {lines}\nComplete {found[-1].folder}, or leave {name} out"
      )
  if config.best:
    one_of("track.best", config.best, [name for b in found for name in _metrics(b)])
  return found


def _look(folder: Path) -> None:
  """Raises FileNotFoundError, naming the folders that there are, if there is none of that name."""
  if not folder.is_dir():
    near = sorted(p.name for p in folder.parent.iterdir()) if folder.parent.is_dir() else []
    there = ", ".join(near[:20]) or "nothing"
    raise FileNotFoundError(
      f"track.data: {folder} does not exist - {folder.parent} has {there} - give "
      f"track.data={folder.name}=FOLDER, or the folder that has it"
    )


def _metrics(benchmark: Benchmark) -> list[str]:
  """Names of the figures that an evaluation gives."""
  truths = [item.truth for item in benchmark.items]
  scores = score(benchmark.task, truths, [None] * len(truths), benchmark.classes)
  return [f"{benchmark.name}.{metric}" for metric in scores.main]


class Tracker:
  """The evaluations of one stage.

  Attributes:
    best: step of the best evaluation so far by track.best, of those whose checkpoint is not gone;
      None before the first, or without.
  """

  def __init__(self, config: RunConfig, stage: str, folder: Path, mesh: Mesh, start: int):
    """Opens the suites, and forgets evaluations behind step `start`. Raises as check()."""
    self._config, self._folder, self._mesh = config.track, folder, mesh
    self._benchmarks = check(config.track)
    data = dataclasses.replace(config.data, modalities=config.reads(stage))
    self._run = dataclasses.replace(config, data=data)
    self._stage, self._steps = stage, config.stages[stage].steps
    self._terms = suite.Terms(
      new_tokens=config.track.new_tokens, overwrite=True, allow_missing=True
    )
    self._asked = self._digest()
    self._path = folder / f"{NAME}.jsonl"
    if jax.process_index() == 0:
      logs.rewind(self._path, start)
    self._records = logs.read_until(self._path, start)
    # A run that now asks for another best has removed most checkpoints that would be it.
    kept = lambda step: (folder / checkpoints.FOLDER / str(step)).is_dir()
    self._gone = {r["step"] for r in self._records if not kept(r["step"])}

  def _digest(self) -> str:
    """Of all that figures depend on, but for the parameters."""
    told = [suite.settings(b, self._run, self._stage, self._terms) for b in self._benchmarks]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:12]

  @property
  def best(self) -> int | None:
    """See the class."""
    name = self._config.best
    there = [r for r in self._records if r["step"] not in self._gone]
    comparable = [r for r in there if r["asked"] == self._asked and _is_number(r, name)]
    sign = -1 if name.partition(".")[2] in LESS_IS_BETTER else 1
    return max(comparable, key=lambda r: (sign * r[name], -r["step"]), default={"step": None})[
      "step"
    ]

  def due(self, step: int) -> bool:
    """Whether step `step`, counted from 1, is evaluated, and has not been."""
    if not self._benchmarks or not (step % self._config.every == 0 or step == self._steps):
      return False
    return step > 0 and all(r["step"] < step for r in self._records)

  def ask(self, step: int, params: Any) -> dict[str, float]:
    """Asks all suites; the figures by SUITE.METRIC, as they stand in track.jsonl.

    Args:
      step: updates done.
      params: all parameters, on the mesh.
    """
    began = time.perf_counter()
    figures: dict[str, Any] = {}
    # The loop forbids copies to and from the host that nobody asked for; these are asked for.
    with jax.transfer_guard("allow"):
      answerer = Answerer(self._run, params, self._mesh)
      model = suite.Model(self._run, answerer, str(self._folder), f"step {step}", self._stage)
      for benchmark in self._benchmarks:
        out = self._folder / NAME / str(step) / benchmark.name
        figures |= _figures(benchmark.name, suite.evaluate(benchmark, model, out, self._terms))
    seconds = round(time.perf_counter() - began, 2)
    self._records.append({"step": step, "asked": self._asked, **figures, "seconds": seconds})
    logs.append(self._path, self._records[-1])
    return {name: value for name, value in figures.items() if value is not None}


def _figures(name: str, results: Mapping[str, Any]) -> dict[str, float | None]:
  """Scores, and shares of answers that state no label; None where a figure is none of a number."""
  values = {metric: found["value"] for metric, found in results["scores"].items()}
  values["parse_failures"] = results["parse_failures"]["value"]
  values["not_asked"] = 100 * results["not_asked"]["count"] / results["n"]
  finite = lambda x: float(x) if math.isfinite(x) else None
  return {f"{name}.{metric}": finite(value) for metric, value in values.items()}


def _is_number(record: Mapping, name: str) -> bool:
  return isinstance(record.get(name), float)
