"""Compiled steps, kept on disk. config, stage, topology -> Compiled, compiled once.

What is kept is the program's text and its memory: a plan can be made from it anew in a second. The
key is the content of all that decides a program: the config, the topology, the versions, and the
sources of the step.
"""

import dataclasses
import gzip
import hashlib
import json
import os
from pathlib import Path

import facejax
from facejax import chips, config_io
from facejax.config import RunConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.plan.compiled import Compiled, Memory, compile_step
from facejax.plan.planner import versions
from facejax.plan.topology import Topology
from facejax.sharding import check_rows, make_mesh
from facejax.state import abstract_state

_SOURCES = (
  "models/*.py",
  "chips.py",
  "config.py",
  "fake.py",
  "knowledge/*.py",
  "lora.py",
  "losses.py",
  "optim.py",
  "quantize.py",
  "sharding.py",
  "stages.py",
  "state.py",
  "train_step.py",
  "types.py",
  "visual_table.py",
)


def default_folder() -> Path:
  """~/.cache/facejax/plans, or below XDG_CACHE_HOME."""
  root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
  return Path(root) / "facejax" / "plans"


def step(config: RunConfig, name: str, topology: Topology, folder: Path | None) -> Compiled:
  """The compiled step, from `folder` if it is there; None compiles. Raises as compile_step does."""
  if folder is None:
    return compile_step(config, name, topology)
  path = folder / f"{key(config, name, topology)}.json.gz"
  if path.exists():
    return _read(path, config, name, topology)
  program = compile_step(config, name, topology)
  folder.mkdir(parents=True, exist_ok=True)
  record = {
    "text": program.text,
    "memory": dataclasses.asdict(program.memory),
    "seconds": program.seconds,
    "arguments": program.arguments,
  }
  partial = path.with_suffix(f".{os.getpid()}")
  partial.write_bytes(gzip.compress(json.dumps(record).encode(), 3))
  partial.rename(path)  # whole or not at all: a plan may be stopped while it writes
  return program


def key(config: RunConfig, name: str, topology: Topology) -> str:
  """Sixteen hexadecimal digits of what decides the program."""
  stage = config.stages[name]
  decides = {
    "model": config_io.to_dict(config)["model"],
    "stage": config_io.to_dict(config)["stages"][name],
    "row": [config.data.row_length, config.data.images_per_row, config.data.videos_per_row],
    "rows": stage.rows,
    "mesh": dataclasses.asdict(config.mesh),
    "topology": [topology.name, topology.slices],
    "options": chips.CHIPS[chips.CHIPS.index(topology.chip)].options,
    "versions": {k: v for k, v in versions().items() if k != "facejax"},
    "sources": _sources(),
  }
  return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _sources() -> str:
  root = Path(facejax.__file__).parent
  found = sorted(path for pattern in _SOURCES for path in root.glob(pattern))
  return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()


def _read(path: Path, config: RunConfig, name: str, topology: Topology) -> Compiled:
  """A kept program; raises ValueError if the file is damaged."""
  try:
    record = json.loads(gzip.decompress(path.read_bytes()))
    memory = Memory(**record["memory"])
  except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
    raise ValueError(f"{path} is damaged ({error}) - delete it and plan again") from error
  stage = config.stages[name]
  mesh = make_mesh(config.mesh, topology.devices)
  check_rows(name, stage.rows, stage.accumulate, mesh)
  trainable = abstract_state(FaceMLLM(config.model), stage, mesh).trainable
  seconds, arguments = record["seconds"], record["arguments"]
  return Compiled(record["text"], memory, seconds, mesh, trainable, arguments)
