"""Trains the stages of a run, in order. RunConfig, workdir -> checkpoints and metrics.

  workdir/STAGE/checkpoints/STEP/   params, train, meta: see checkpoint.py
  workdir/STAGE/metrics.jsonl       a record every log_every steps, beside TensorBoard event files
  workdir/STAGE/refused.jsonl       samples that could not be used, with the reason; of process p
                                    refused.p.jsonl
  workdir/STAGE/config.json         the resolved config
  workdir/STAGE/track.jsonl         figures of RunConfig.track, and STAGE/best: evaluate/track.py

Parameters come, in this order, from
  1 the stage's own newest checkpoint, with resume=True
  2 the stage's init_from: an earlier stage's newest checkpoint or a .safetensors file
  3 the run's seed: what init_from lacks and the stage names as new, or everything
"""

import contextlib
import functools
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from facejax import (
  bases,
  checkpoint,
  compile_cache,
  config_io,
  distributed,
  logs,
  meta,
  stages,
  workdirs,
)
from facejax.config import RunConfig, StageConfig
from facejax.data.pipeline import Pipeline
from facejax.evaluate import track
from facejax.hub import INTERRUPTED
from facejax.models.face_mllm import FaceMLLM
from facejax.refusals import Refusals
from facejax.sharding import check_rows, make_mesh
from facejax.signals import StopRequest
from facejax.state import TrainState, abstract_state
from facejax.train_step import Step, make_train_step, put
from facejax.types import Batch, tree_of_shapes

# Barrier timeouts: one process has its step from the cache, another compiles it for minutes, and
# files come to machines at very different speeds.
_SLOW = 6


class NonFiniteLoss(ValueError):
  """The loss, a gradient or a parameter is no longer a number; the message says where."""


def train(
  config: RunConfig,
  workdir: str | Path,
  *,
  stages: Sequence[str] | None = None,
  resume: bool = False,
  overwrite: bool = False,
  allow_change: Sequence[str] = (),
) -> int:
  """Trains; returns 0, or INTERRUPTED (75) after SIGTERM or Ctrl-C, with the state saved.

  Args:
    config: the run.
    workdir: folder of the run; each stage has a folder in it.
    stages: those to run, in the config's order; all if None.
    resume: go on from what is there, stage by stage.
    overwrite: remove the folders of these stages first.
    allow_change: names of settings that may differ from the resumed run; see meta.check.

  Raises:
    FileExistsError: a stage's folder has content, and neither resume nor overwrite is set.
    FileNotFoundError: weights or an earlier stage to start from do not exist.
    ValueError: the settings do not fit each other, the parameters, or the resumed run.
    NonFiniteLoss, data.refused.TooManyRefused: the run stopped.
  """
  workdir = Path(workdir)
  names = workdirs.selected(config, stages)
  mesh = prepare(config, workdir, names, resume, overwrite)
  compile_cache.use(mesh)
  with StopRequest() as stop:
    for name in names:
      if not _train_stage(config, workdir, name, mesh, allow_change, stop):
        _say(f"{name}: stopped and saved; continue with --resume")
        return INTERRUPTED
  return 0


def prepare(
  config: RunConfig, workdir: Path, names: Sequence[str], resume: bool, overwrite: bool
) -> Mesh:
  """All that can be refused before the first stage trains; makes the stages' folders.

  Raises FileExistsError, FileNotFoundError and ValueError as train() does.
  """
  workdirs.check_sources(config, workdir, names, resume)
  track.check(config.track)
  mesh = make_mesh(config.mesh)
  for name in names:
    stage = config.stages[name]
    check_rows(name, stage.rows, stage.accumulate, mesh)
  workdirs.prepare(workdir, names, resume, overwrite)
  return mesh


class _Stage(NamedTuple):
  """What the loop of one stage needs, besides the state."""

  name: str
  folder: Path
  config: RunConfig
  stage: StageConfig
  pipeline: Any
  mesh: Mesh
  step: Any  # make_train_step's, jitted: a Step that can be lowered
  checkpoints: checkpoint.Checkpoints
  tracker: track.Tracker
  record: dict  # meta


def _train_stage(
  config: RunConfig,
  workdir: Path,
  name: str,
  mesh: Mesh,
  allow_change: Sequence[str],
  stop: StopRequest,
) -> bool:
  """Trains one stage to its end; False if it was asked to stop before."""
  stage, folder = config.stages[name], workdir / name
  model = FaceMLLM(config.model)
  pipeline = Pipeline(config.model, config.data, stage.rows, stage.modalities, stage.mixtures)
  start = workdirs.origin(workdir, stage)
  record = meta.describe(config, name, pipeline.fingerprint(), mesh, start)
  abstract = abstract_state(model, stage, mesh)
  with checkpoint.Checkpoints(folder, config.keep) as checkpoints:
    done = checkpoints.latest()
    _agree(name, done, record)
    if done is not None:
      where, saved = f"{folder}/checkpoints/{done}", checkpoints.meta(done)
      for line in meta.check(saved, record, allow_change, done, where):
        _say(f"{name}: changed since step {done}: {line}")
      if done >= stage.steps:
        _say(f"{name}: finished at step {done}, {where}")
        return True
      record["base"] = saved.get("base")
      frozen = _frozen(config, workdir, name, abstract, record["base"], where)
      state = checkpoints.restore(done, abstract, frozen)
      distributed.meet(f"{name} restored {done}", patience=_SLOW)
      _say(f"{name}: resumed at step {done} from {where}")
    else:
      state, record["base"] = _fresh(config, workdir, name, abstract)
    if jax.process_index() == 0:
      (folder / "config.json").write_text(config_io.to_json(config))
    _describe(name, stage, state, mesh)
    step = make_train_step(model, stage, mesh)
    tracker = track.Tracker(config, name, folder, mesh, done or 0)
    run = _Stage(name, folder, config, stage, pipeline, mesh, step, checkpoints, tracker, record)
    with jax.set_mesh(mesh):
      finished = _loop(run, state, done or 0, stop)
    _say(f"{name}: saved {folder}/checkpoints/{checkpoints.latest()}")
  distributed.meet(f"{name} saved")
  return finished


def _agree(name: str, done: int | None, record: Mapping) -> None:
  """Raises ValueError unless all processes read the same data, from the same step on."""
  told: dict[str, Any] = {"checkpoint": done}
  for key, value in record["fingerprint"].items():
    text = json.dumps(value, sort_keys=True)
    short = len(text) < 100
    told[f"data.{key}"] = text if short else hashlib.sha256(text.encode()).hexdigest()[:16]
  advice = "give every machine the same files, and a workdir that all of them share"
  distributed.agree(f"{name} start", told, advice)


def _fresh(
  config: RunConfig, workdir: Path, name: str, abstract: TrainState
) -> tuple[TrainState, dict[str, str] | None]:
  """The state of a stage that begins, and what is saved of the base of its adapters."""
  begun = checkpoint.start(config, workdir, name, abstract)
  if begun.found:
    source = config.stages[name].init_from
    _say(f"{name}: {len(begun.found.loaded)} parameters from {source}")
    for what, names in (("fresh", begun.found.missing), ("unused", begun.found.unused)):
      if names:
        _say(f"{name}: {len(names)} {what}: {', '.join(names)}")
  return begun.state, begun.base


def _frozen(
  config: RunConfig, workdir: Path, name: str, abstract: TrainState, saved: Any, where: str
) -> Any:
  """The base of a stage with adapters, whose checkpoints have none; None of any other stage."""
  stage = config.stages[name]
  if not stage.lora:
    return None
  begun = checkpoint.start(config, workdir, name, abstract)
  bases.check(saved, begun.base or {}, where, stage.init_from)
  return begun.state.frozen


def _describe(name: str, stage: StageConfig, state: TrainState, mesh: Mesh) -> None:
  _say(f"{name}: mesh {dict(mesh.shape)}, {mesh.devices.size} {mesh.devices.flat[0].platform}")
  _say(f"parameters\n{tree_of_shapes(state.params)}")
  _say(stages.table(state.params, stage))


def _compiled(run: _Stage, state: TrainState, batch: Batch) -> Step:
  """The step; of several processes none runs it before all have compiled it.

  The first would wait in a collective for the last, on CPUs for 30 seconds and no more.
  """
  if jax.process_count() == 1:
    return run.step
  step = run.step.lower(state, batch).compile()
  distributed.meet(f"{run.name} compiled", patience=_SLOW)
  return step


class _Pending(NamedTuple):
  """A step whose numbers are still being computed."""

  done: int
  metrics: dict[str, jax.Array]
  samples: np.ndarray  # sample_id of its rows
  tokens: int


def _loop(run: _Stage, state: TrainState, start: int, stop: StopRequest) -> bool:
  """Steps start, ..., steps - 1; False if asked to stop before the last. Consumes the state.

  The numbers of a step are read after the next one was dispatched, so that the device never waits
  for Python, except where a checkpoint is due: what is saved is known to be finite.
  """
  stage, every = run.stage, run.config.checkpoint_every
  drawn, early = run.pipeline.drawn, run.pipeline.refusals
  refusals = Refusals(run.folder, start, early, drawn, run.config.data.max_refused)
  with (
    logs.Metrics(run.folder, start) as metrics,
    logs.Progress(run.name, start, stage.steps) as progress,
    contextlib.closing(run.pipeline.batches(start, stage.steps)) as batches,
    jax.transfer_guard("disallow"),  # a copy that nobody asked for would stall every step
  ):
    window = logs.Window()
    report = functools.partial(_report, run, start, metrics, progress, window)
    pending = None
    _track(run, start, state, metrics, window)  # where a stop came first
    for done in range(start + 1, stage.steps + 1):
      distributed.at(f"{run.name} batch {done}")
      asked = time.perf_counter()
      batch, refused = next(batches)
      window.waited(time.perf_counter() - asked)
      if done == start + 1:
        _say(f"batch, of process 0\n{tree_of_shapes(batch)}")
      refusals.add(done, refused)
      distributed.at(f"{run.name} step {done}")
      placed = put(batch, stage.rows, run.mesh)
      if done == start + 1:
        step = _compiled(run, state, placed)
      state, values = step(state, placed)
      if pending:
        report(pending)
      tokens = int(np.count_nonzero(batch.segment_ids)) * jax.process_count()
      pending = _Pending(done, values, np.asarray(batch.sample_id), tokens)
      stopping = stop.requested(done)
      last = done == stage.steps
      tracked = run.tracker.due(done) and (last or not stopping)  # a stop must not wait for answers
      better = False
      if tracked or stopping or last or done % every == 0:
        report(pending)
        pending = None
        better = tracked and _track(run, done, state, metrics, window)
      if better or stopping or last or done % every == 0:
        distributed.meet(f"{run.name} save {done}")
        run.checkpoints.save(done, state, run.record)
      if stopping and not last:
        return False
  return True


def _track(
  run: _Stage, done: int, state: TrainState, metrics: logs.Metrics, window: logs.Window
) -> bool:
  """Evaluates if step `done` is due; whether it is the best so far, and its checkpoint stays."""
  best = run.tracker.best
  if run.tracker.due(done):
    distributed.at(f"{run.name} evaluation {done}")
    began = time.perf_counter()
    figures = run.tracker.ask(done, state.params)
    metrics.draw(done, {name.replace(".", "/"): value for name, value in figures.items()})
    _say(f"{run.name}: step {done}: " + ", ".join(f"{n} {x:.2f}" for n, x in figures.items()))
    window.paused(time.perf_counter() - began)
  run.checkpoints.kept.best = run.tracker.best
  return run.tracker.best not in (None, best)


def _report(
  run: _Stage,
  start: int,
  metrics: logs.Metrics,
  progress: logs.Progress,
  window: logs.Window,
  pending: _Pending,
) -> None:
  """Reads a step's numbers; raises NonFiniteLoss, or logs them when a record is due."""
  done, stage = pending.done, run.stage
  values = {name: float(x) for name, x in jax.device_get(pending.metrics).items()}
  if not all(map(math.isfinite, values.values())):
    raise NonFiniteLoss(_non_finite(run, pending, values))
  places = stage.rows * pending.samples.shape[1]
  window.add(values["loss"], values["weight"], pending.tokens, places)
  progress.advance(done)
  # The first step has a record of its own: it holds the compilation.
  if done == start + 1 or done % run.config.log_every == 0 or done == stage.steps:
    record = {**values, **window.close()}
    metrics.write(done, record)
    progress.show(done, logs.line(record))


def _non_finite(run: _Stage, pending: _Pending, values: dict[str, float]) -> str:
  """Where the numbers ended: step, values, samples, and what to go back to."""
  names = ("loss", *sorted(set(values) - {"loss"}))
  wrong = ", ".join(f"{name} {values[name]}" for name in names if not math.isfinite(values[name]))
  samples = [run.pipeline.name(int(i)) for i in np.unique(pending.samples) if i >= 0]
  last = run.checkpoints.latest()
  good = "none yet" if last is None else f"{run.folder}/checkpoints/{last}"
  return (
    f"stage {run.name}, step {pending.done}: {wrong} - expected finite numbers - "
    f"samples of the batch: {', '.join(samples)} - last good checkpoint: {good} - look "
    f"at these samples, or lower stages.{run.name}.optim.peak_lr or set clip_norm, then --resume "
    f"--allow-change=stages.{run.name}.optim"
  )


def _say(text: str) -> None:
  if jax.process_index() == 0:
    print(text, flush=True)
