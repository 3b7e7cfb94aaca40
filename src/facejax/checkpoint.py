"""State <-> disk <-> state, exactly. workdir/STAGE/checkpoints/STEP/{params, train, meta}.

`params` has all parameters, enough to answer with; of a stage with adapters (StageConfig.lora) what
trains alone, and its base is found again where the stage started. `train` has the optimiser, the
step and the key; `meta` says in JSON what the run was, and what its base is: see bases.py. Orbax
writes a folder of another name and renames it when it is complete, so a process killed at any
moment leaves the last complete checkpoint.

A resume compares, in this order, before any array is read:
  1 `meta`: a difference that changes the mathematics or the data is refused, by name
  2 names, shapes and types of the arrays
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from facejax import bases, best, config_io, convert, lora, weights
from facejax.config import MeshConfig, RunConfig, StageConfig
from facejax.models.face_mllm import FaceMLLM, init_shapes
from facejax.saved_arrays import compare_arrays
from facejax.sharding import make_mesh, param_shardings
from facejax.state import TrainState, abstract_state, as_loaded, assemble, draw

_ITEMS = ("params", "train", "meta")


def steps_in(stage_dir: Path) -> list[int]:
  """Steps of the complete checkpoints of a stage, ascending; [] if there are none."""
  folder = stage_dir / "checkpoints"
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


class Checkpoints:
  """The checkpoints of a stage. Use it in a `with` statement: leaving it waits for the writer."""

  def __init__(self, stage_dir: Path, keep: int | None):
    """Opens stage_dir/checkpoints, of which the `keep` newest stay (None: all), and kept.best."""
    self.kept = best.Newest(keep)
    self._best: int | None = None  # when the last checkpoint was saved: now complete on disk
    self.folder = stage_dir.absolute() / "checkpoints"
    handlers = {name: ocp.StandardCheckpointHandler() for name in _ITEMS[:2]}
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self.kept, enable_async_checkpointing=True
      ),
      item_handlers={**handlers, "meta": ocp.JsonCheckpointHandler()},
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self._manager.close()
    best.link(self.folder.parent, self.kept.best)

  def latest(self) -> int | None:
    """Step of the newest checkpoint, complete on disk, or None."""
    self._manager.wait_until_finished()
    return self._manager.latest_step()

  def save(self, step: int, state: TrainState, meta: Mapping) -> None:
    """Starts to write; returns when the state may be donated to the next step."""
    self._manager.wait_until_finished()
    done = self._best if self.kept.best == step else self.kept.best
    self.kept.linked, self._best = best.link(self.folder.parent, done), self.kept.best
    with jax.transfer_guard("allow"):  # Orbax copies to the host, which the loop forbids elsewhere
      self._manager.save(
        step,
        args=ocp.args.Composite(
          params=ocp.args.StandardSave(_params_of(state)),
          train=ocp.args.StandardSave(_train_item(state)),
          meta=ocp.args.JsonSave({**meta, "step": step}),
        ),
      )

  def meta(self, step: int) -> dict:
    """What the run that saved `step` was."""
    with _reading(self.folder / str(step)):
      args = ocp.args.Composite(meta=ocp.args.JsonRestore())
      return self._manager.restore(step, args=args).meta

  def restore(self, step: int, abstract: TrainState, frozen: Any = None) -> TrainState:
    """Reads a state onto the layout of `abstract`, which may be another mesh's: exact.

    `frozen` is the frozen half of a stage with adapters, whose checkpoints do not have it. Raises
    ValueError if names, shapes or types differ, or if the files are damaged.
    """
    where = self.folder / str(step)
    with _reading(where):
      saved = self._manager.item_metadata(step)
    items = {"params": _params_of(abstract), "train": _train_item(abstract)}
    for name, tree in items.items():
      compare_arrays(saved[name].tree, tree, f"{where}/{name}")
    arguments = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    with _reading(where):
      restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
    flat = flax.traverse_util.flatten_dict(restored["params"], sep="/")
    pick = lambda half: flax.traverse_util.unflatten_dict(
      {n: flat[n] for n in flax.traverse_util.flatten_dict(half, sep="/")}, sep="/"
    )
    halves = pick(abstract.trainable), pick(abstract.frozen) if frozen is None else frozen
    train = restored["train"]
    return TrainState(train["step"], *halves, train["opt_state"], train["rng"])


def _params_of(state: TrainState) -> dict:
  """The parameters that a checkpoint holds."""
  adapted = any(map(lora.is_adapter, lora.flatten(state.frozen)))
  return state.trainable if adapted else state.params


def _train_item(state: TrainState) -> dict:
  return {"opt_state": state.opt_state, "step": state.step, "rng": state.rng}


@contextlib.contextmanager
def _reading(where: Path) -> Iterator[None]:
  """Whatever the libraries below raise about damaged files names the checkpoint and a way out."""
  try:
    yield
  except Exception as error:
    reason = " ".join(str(error).split())[:300]  # TensorStore adds 125 lines of specification
    raise ValueError(
      f"checkpoint {where} cannot be read: {reason} - expected the files as they were written - "
      "remove this folder to fall back to the checkpoint before it"
    ) from error


def load_params(folder: str | Path, step: int | None = None, shardings: Any = None) -> dict:
  """All parameters of a checkpoint; nothing else is read, but for the base of adapters.

  Args:
    folder: of a stage or of one of its checkpoints (STAGE/best, too), or a workdir, whose last
      trained stage is taken.
    step: which checkpoint; that of the folder, or the newest, if None.
    shardings: tree of shardings; the first local device holds everything if None.

  Raises FileNotFoundError if there is no checkpoint, or no base any more, ValueError if one is
  damaged, or the base another one.
  """
  place, own = best.located(Path(folder))
  item = _params_item(_stage_dir(place), own if step is None else step)
  if _is_adapted(item):
    params = _assembled(*_with_base(item, None)).params
    return jax.device_put(params, shardings) if shardings else params
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  places = flax.traverse_util.flatten_dict(shardings, sep="/") if shardings else {}
  targets = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places.get(name, device))
    for name, x in _saved(item).items()
  }
  return flax.traverse_util.unflatten_dict(_read(item, targets), sep="/")


def load_run(
  workdir: str | Path, stage: str | None = None, mesh: Mesh | None = None
) -> tuple[RunConfig, dict, Path]:
  """(config, parameters, stage folder) of a stage's newest checkpoint; the last stage if None.

  A workdir that is a checkpoint's own folder, or STAGE/best, means that one.

  With a mesh the parameters are read onto it, else onto the first local device. The folder may
  also be one that `facejax convert import` wrote, or one in a released layout: its config has no
  stages, and its parameters the type they are stored in. The config is data from JSON; nothing of
  it is executed. Raises as load_params or convert.load.
  """
  if stage is None and is_released(workdir):
    opened = convert.open_checkpoint(workdir)
    if not isinstance(opened.config, RunConfig):
      raise ValueError(f"{workdir} is a lone {opened.family} - expected a whole model")
    imported = convert.load(workdir, dtype=None, shardings=_on(mesh, opened.config))
    return opened.config, imported.params, Path(workdir)
  place, step = best.located(Path(workdir) / stage if stage else Path(workdir))
  stage_dir = _stage_dir(place)
  item = _params_item(stage_dir, step)
  with Checkpoints(stage_dir, keep=None) as checkpoints:
    saved = checkpoints.meta(int(item.parent.name))
  config = config_io.from_dict(RunConfig, saved["config"])
  params = load_params(stage_dir, int(item.parent.name), _on(mesh, config))
  return config, params, stage_dir


def _on(mesh: Mesh | None, config: RunConfig) -> Any:
  """Where the parameters lie on a mesh; None without one."""
  return param_shardings(init_shapes(config.model), mesh) if mesh else None


def is_released(folder: str | Path) -> bool:
  """Whether a folder holds weights and their config.json, and no checkpoints of ours."""
  return not steps_in(Path(folder)) and convert.is_checkpoint(folder)


class Start(NamedTuple):
  """What a stage begins with."""

  state: TrainState
  found: weights.Loaded | None  # names in init_from, if the stage has one; no arrays
  base: dict[str, str] | None  # of a stage with adapters: what bases.check() compares


def start(config: RunConfig, workdir: Path, name: str, abstract: TrainState) -> Start:
  """The state of a stage before its first step, in the layout of `abstract`.

  Raises as load_init() does.
  """
  begun = _begin(config, workdir, name, abstract)
  stage = config.stages[name]
  base = None
  if stage.lora:
    kept = lora.flatten(abstract.frozen)
    base = bases.manifest(
      {n: x for n, x in begun.params.items() if n in kept and not lora.is_adapter(n)}
    )
  return Start(_assembled(stage, abstract, begun), begun.found, base)


class _Begun(NamedTuple):
  """A stage's parameters by path before its base is quantised."""

  params: dict[str, jax.Array]
  step: jax.Array
  rng: jax.Array
  found: weights.Loaded | None


def _begin(config: RunConfig, workdir: Path, name: str, abstract: TrainState) -> _Begun:
  model, stage = FaceMLLM(config.model), config.stages[name]
  given = stage.init_from or stage.over
  found = load_init(workdir, stage, as_loaded(abstract, model)) if given else None
  loaded = found.params if found else None
  drawn = draw(model, stage, abstract, config.seed, loaded)
  # Its arrays are in the state now, or quantised: held here, too, a base would be there twice.
  return _Begun(*drawn, found._replace(params={}) if found else None)


def _assembled(stage: StageConfig, abstract: TrainState, begun: _Begun) -> TrainState:
  return assemble(stage, abstract, begun.params, begun.step, begun.rng)


def load_init(workdir: Path, stage: StageConfig, abstract: TrainState) -> weights.Loaded:
  """Parameters that a stage starts from, in the types and layout of `abstract`.

  Adapters start fresh, unless init_from is a stage with equal ones (StageConfig.lora), which go on
  over the same base. Other adapters of an earlier stage are merged into the base.

  Raises:
    FileNotFoundError: the earlier stage has no checkpoint, or the file or folder does not exist.
    ValueError: a parameter is missing, unexpected or of another shape; see weights.compare_names.
  """
  flat = lora.flatten(abstract.params)
  targets = {name: x for name, x in flat.items() if not lora.is_adapter(name)}
  given = (name for path in stage.over for name in weights.safetensors_names(path))
  copies = (rf"{re.escape(copy)}/.*" for _, copy in stage.copied)
  lacking = dataclasses.replace(stage, new=(*stage.new, *map(re.escape, given), *copies))
  found = _load_init(workdir, lacking, abstract, flat, targets)
  found = weights.with_copies(found, stage.copied, targets)
  return weights.with_over(found, stage.over, targets)


def _load_init(
  workdir: Path,
  stage: StageConfig,
  abstract: TrainState,
  flat: Mapping[str, Any],
  targets: Mapping[str, Any],
) -> weights.Loaded:
  if not stage.init_from:
    return weights.Loaded({}, (), tuple(targets), ())
  if stage.init_from.endswith(".safetensors"):
    return weights.load_weights(stage.init_from, lora.unflatten(targets), stage.new)
  if not steps_in(workdir / stage.init_from) and is_released(stage.init_from):
    return convert.load_into(stage.init_from, lora.unflatten(targets), stage.new)
  item = _params_item(workdir / stage.init_from, None)
  if _is_adapted(item):
    return _load_adapted(item, stage, flat, targets)
  saved = _saved(item)
  names = weights.compare_names(
    targets, {name: x.shape for name, x in saved.items()}, stage.new, str(item)
  )
  everywhere = abstract.step.sharding
  unused = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
  arrays = _read(item, {name: targets.get(name, unused(x)) for name, x in saved.items()})
  return weights.Loaded({name: arrays[name] for name in names[0]}, *names)


def _is_adapted(item: Path) -> bool:
  """Whether a checkpoint is that of a stage with adapters, without its base."""
  return any(map(lora.is_adapter, _saved(item)))


def _with_base(item: Path, mesh: Mesh | None) -> tuple[StageConfig, TrainState, _Begun]:
  """What a stage with adapters holds and its base, before that is quantised, on a mesh.

  Raises FileNotFoundError or ValueError if the base is not found, or is another one.
  """
  stage_dir, step = item.parents[2], item.parent.name
  with Checkpoints(stage_dir, keep=None) as checkpoints:
    saved = checkpoints.meta(int(step))
  config, name = config_io.from_dict(RunConfig, saved["config"]), saved["stage"]
  stage = config.stages[name]
  mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
  abstract = abstract_state(FaceMLLM(config.model), stage, mesh)
  try:
    begun = _begin(config, stage_dir.parent, name, abstract)
  except (FileNotFoundError, ValueError) as error:
    raise type(error)(
      f"{item.parent} holds adapters alone, and their base cannot be read: {error} - expected what "
      f"the stage started from, init_from='{stage.init_from}' - put it there again"
    ) from error
  found = bases.manifest({n: begun.params[n] for n in saved["base"] if n in begun.params})
  bases.check(saved["base"], found, str(item.parent), stage.init_from)
  begun.params.update(_read(item, lora.flatten(abstract.trainable)))
  return stage, abstract, begun


def _load_adapted(
  item: Path, stage: StageConfig, flat: Mapping[str, Any], targets: Mapping[str, Any]
) -> weights.Loaded:
  """load_init() from a stage with adapters."""
  source, abstract, begun = _with_base(item, next(iter(flat.values())).sharding.mesh)
  if source.lora == stage.lora:
    params, wanted = begun.params, flat
  else:
    merged = lora.merge(_assembled(source, abstract, begun).params)
    params, wanted = lora.flatten(merged), targets
  names = weights.compare_names(
    wanted, {name: x.shape for name, x in params.items()}, stage.new, str(item)
  )
  place = lambda name: jax.device_put(
    params[name].astype(wanted[name].dtype), wanted[name].sharding
  )
  return weights.Loaded({name: place(name) for name in names[0]}, *names)


def _stage_dir(folder: Path) -> Path:
  """The folder itself if it is a stage's, else that of the last of its stages that was trained."""
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder} does not exist; expected the --workdir of a training run")
  if steps_in(folder):
    return folder
  trained = [path for path in folder.iterdir() if path.is_dir() and steps_in(path)]
  if not trained:
    raise FileNotFoundError(
      f"{folder} has no checkpoint: expected {folder}/STAGE/checkpoints/STEP - train first"
    )
  return max(trained, key=_place)


def _place(stage_dir: Path) -> tuple[int, str]:
  """Where a stage stands in its run; times of files would not survive a copy."""
  with Checkpoints(stage_dir, keep=None) as checkpoints:
    order = list(checkpoints.meta(steps_in(stage_dir)[-1])["config"]["stages"])
  name = stage_dir.name
  return (order.index(name) if name in order else -1, name)


def _params_item(stage_dir: Path, step: int | None) -> Path:
  steps = steps_in(stage_dir)
  if not steps or step not in (None, *steps):
    wanted = "a checkpoint" if step is None else f"step {step}"
    raise FileNotFoundError(f"{stage_dir} has not {wanted}; it has the steps {steps}")
  return stage_dir.absolute() / "checkpoints" / str(steps[-1] if step is None else step) / "params"


def _saved(item: Path) -> dict[str, Any]:
  """Shape and type of each parameter in a checkpoint, by name."""
  with _reading(item.parent):
    tree = ocp.StandardCheckpointHandler().metadata(epath.Path(item)).tree
  return flax.traverse_util.flatten_dict(tree, sep="/")


def _read(item: Path, targets: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
  """Reads the arrays of an item by name, in the types and layout of `targets`."""
  tree = flax.traverse_util.unflatten_dict(dict(targets), sep="/")
  reader = ocp.StandardCheckpointHandler()
  with _reading(item.parent):
    restored = reader.restore(epath.Path(item), args=ocp.args.StandardRestore(tree))
  return flax.traverse_util.flatten_dict(restored, sep="/")
