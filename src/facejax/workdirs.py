"""The folders of a run: which stages, from what, and may they be written. All before any work."""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from facejax import distributed
from facejax.checkpoint import is_released, steps_in
from facejax.config import RunConfig, StageConfig
from facejax.config_checks import one_of
from facejax.weights import located


def selected(config: RunConfig, stages: Sequence[str] | None) -> list[str]:
  """The stages to run, in the config's order. Raises ValueError for a name it does not have."""
  if not config.stages:
    raise ValueError("the config has no stages - expected at least one - name one in its stages")
  for name in stages or ():
    one_of("--stages", name, list(config.stages))
  return [name for name in config.stages if stages is None or name in stages]


def check_sources(config: RunConfig, workdir: Path, names: Sequence[str], resume: bool) -> None:
  """Raises unless each stage's init_from exists, or is trained before the stage, to its end.

  A stage that is resumed from its own checkpoint needs its start no more, unless it has adapters,
  whose base the checkpoint does not hold.
  """
  order = list(config.stages)
  for name in names:
    if resume and steps_in(workdir / name) and not config.stages[name].lora:
      continue
    source = config.stages[name].init_from
    if source.endswith(".safetensors"):
      if not located(source).is_file():
        raise FileNotFoundError(f"stages.{name}.init_from={source}: no such file")
    elif source:
      earlier = order[: order.index(name)]
      if source not in earlier:
        if is_released(source):
          continue
        raise ValueError(
          f"stages.{name}.init_from='{source}': expected '', a .safetensors file or an earlier "
          f"stage ({', '.join(earlier) or 'there is none'}), or a folder of released weights"
        )
      if source not in names:
        _check_trained(workdir, source, config.stages[source].steps, name)


def origin(workdir: Path, stage: StageConfig) -> str | None:
  """What a stage starts from now, such as "base at step 500"; None if that has no checkpoint left.

  If an earlier stage was trained on meanwhile, a later one no longer belongs to it.
  """
  if not stage.init_from or stage.init_from.endswith(".safetensors"):
    return stage.init_from
  done = steps_in(workdir / stage.init_from)
  if not done and is_released(stage.init_from):
    return stage.init_from
  return f"{stage.init_from} at step {done[-1]}" if done else None


def _check_trained(workdir: Path, source: str, steps: int, name: str) -> None:
  done = steps_in(workdir / source)
  if not done:
    raise FileNotFoundError(
      f"stage {name} starts from {source}, but {workdir / source} has no checkpoint; train it "
      f"first: --stages={source},{name}"
    )
  if done[-1] < steps:
    raise ValueError(
      f"stage {name} starts from {source}, which stopped at step {done[-1]} of {steps}; finish it: "
      f"--stages={source},{name} --resume"
    )


def prepare(workdir: Path, names: Sequence[str], resume: bool, overwrite: bool) -> None:
  """Makes the stages' folders, emptied with `overwrite`.

  Only a folder that looks like a stage's (config.json or checkpoints/ in it) is ever removed, and
  none is if another is not. Raises FileExistsError if there is content that may not be touched.
  """
  if resume and overwrite:
    raise ValueError("--resume and --overwrite exclude each other; use one of them")
  used = [p for p in (workdir / name for name in names) if p.exists() and any(p.iterdir())]
  if used and not (resume or overwrite):
    raise FileExistsError(
      f"{used[0]} has content: expected an empty or new folder; use --resume or --overwrite"
    )
  for folder in used if overwrite else ():
    if not ((folder / "config.json").is_file() or (folder / "checkpoints").is_dir()):
      raise FileExistsError(
        f"{folder} has neither config.json nor checkpoints/, so it is no stage's folder and "
        "--overwrite does not remove it; move it away"
      )
  distributed.meet("workdir checked")  # before another process changes what this one looks at
  if jax.process_index() == 0:
    for folder in used if overwrite else ():
      shutil.rmtree(folder)
    for name in names:
      (workdir / name).mkdir(parents=True, exist_ok=True)
  _check_shared(workdir)


def _check_shared(workdir: Path) -> None:
  """Raises ValueError, in all processes, if one of them sees another folder of that name."""
  if jax.process_count() == 1:
    return
  own = f".shared-{secrets.token_hex(8)}"
  if jax.process_index() == 0:
    (workdir / own).touch()
  # By its name, under the folder that each was given: paths may differ, what is in them may not.
  mark = workdir / distributed.meet("workdir made", own)[0]
  seen = distributed.meet("workdir seen", mark.exists())
  if jax.process_index() == 0:
    mark.unlink()
  if strangers := [index for index, sees in enumerate(seen) if not sees]:
    hosts = ", ".join(f"process {i} ({distributed.host(i)})" for i in strangers[:8])
    raise ValueError(
      f"--workdir {workdir} is another folder for {len(strangers)} of {len(seen)} processes: "
      f"{hosts} - expected one folder on a file system that all machines share - mount one, and "
      "give its path"
    )
