"""LoRA adapters in PEFT's layout: read and added to their base, W + scale * B @ A; and written.

  adapter_config.json           r, lora_alpha, use_rslora
  adapter_model.safetensors     base_model.model.<module>.lora_A.weight [r in], lora_B [out r]

A module's name is that of transformers' tree when the adapter was trained, before or since 4.52,
whichever names the base's file has. The sum is float32, rounded once, to the type that is asked.
Written are the names since 4.52: PEFT looks for them in the model as it is in memory.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from facejax import lora
from facejax.config import ModelConfig, RunConfig
from facejax.convert import export_configs, files, tables, writer
from facejax.convert.configs import Fields
from facejax.convert.families import FAMILIES
from facejax.convert.mapped import Stored
from facejax.convert.parameter import Delta, Parameter
from facejax.convert.tables import Piece

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(\.default)?\.weight")


def attach(
  parameters: Mapping[str, Parameter], adapter: str | Path, family: str, config: ModelConfig
) -> dict[str, Parameter]:
  """The parameters with an adapter's changes, which are computed when they are read.

  Raises:
    FileNotFoundError: no adapter_config.json or no weights.
    ValueError: another kind of adapter, or one whose names or shapes are not this base's.
  """
  folder = Path(adapter)
  fields = Fields.read(folder / "adapter_config.json")
  scale = _scale(fields)
  origin = f"the adapter was trained on {fields.data.get('base_model_name_or_path')!r}"
  places = _places(family, config)
  changed = {path: list(p.deltas or (None,) * len(p.pieces)) for path, p in parameters.items()}
  for module, (a, b) in _pairs(files.open_weights(folder), folder).items():
    found = places.get(f"{module}.weight", [])
    if not found or any(path not in parameters for path, _, _ in found):
      raise ValueError(f"{a}: the base has no linear layer {module} - {origin}")
    for path, number, piece in found:
      shape = piece.shape(parameters[path].shape[-2:])
      rank = fields.size("r")
      for half, expected in ((a, (rank, shape[1])), (b, (shape[0], rank))):
        if half.shape != expected:
          raise ValueError(f"{half}: the base's layer needs {list(expected)} - {origin}")
      third = slice(None)
      if piece.part is not None:
        third = slice(piece.part * shape[0] // 3, (piece.part + 1) * shape[0] // 3)
      changed[path][number] = Delta(a.array, b.array[third], scale)
  return {path: p._replace(deltas=tuple(changed[path])) for path, p in parameters.items()}


def _scale(fields: Fields) -> float:
  """What B @ A is multiplied by. Raises ValueError for what is not implemented."""
  fields.expect("peft_type", "LORA", "LORA")
  fields.expect("bias", "none", "none")
  for key in ("use_dora", "fan_in_fan_out"):
    fields.expect(key, False, False, None)
  for key in ("modules_to_save", "rank_pattern", "alpha_pattern"):
    fields.expect(key, None, None, [], {})
  rank = fields.size("r")
  root = math.sqrt(rank) if fields.get("use_rslora", bool, False) else rank
  return fields.get("lora_alpha", float) / root


def _places(family: str, config: ModelConfig) -> dict[str, list[tuple[str, int, Piece]]]:
  """(path, layer, piece) of ours by the name of each linear weight of theirs, in every layout."""
  places: dict[str, list[tuple[str, int, Piece]]] = {}
  for table in FAMILIES[family].values():
    for path, plan in tables.expand(table, config).items():
      for number, piece in enumerate(plan.pieces):
        entry = (path, number, piece)
        if piece.form == "linear" and entry not in places.setdefault(piece.theirs, []):
          places[piece.theirs].append(entry)
  return places


def _pairs(tensors: Mapping[str, Stored], folder: Path) -> dict[str, tuple[Stored, Stored]]:
  """The two halves of each module's change. Raises ValueError for any other tensor."""
  halves: dict[str, dict[str, Stored]] = {}
  for name, tensor in tensors.items():
    match = _NAME.fullmatch(name)
    if not match:
      raise ValueError(f"{tensor}: expected base_model.model.MODULE.lora_A.weight or lora_B")
    halves.setdefault(match["module"], {})[match["half"]] = tensor
  for module, found in halves.items():
    if len(found) != 2:
      raise ValueError(
        f"{folder}: {module} has only lora_{''.join(found)} - the other half is gone"
      )
  if not halves:
    raise ValueError(f"{folder}: the adapter's file holds no tensors")
  return {module: (found["A"], found["B"]) for module, found in halves.items()}


def export_adapter(
  config: RunConfig, stage: str, params: Mapping[str, Any], folder: str | Path
) -> list[str]:
  """Writes a stage's adapters as PEFT does; returns the names of its modules.

  Args:
    config: of the run.
    stage: its stage with adapters.
    params: our tree, as checkpoint.load_run gives it.
    folder: new or empty.

  Raises:
    FileExistsError: the folder has content.
    ValueError: the stage has no adapters or trains more than them, or the other project has no
      linear layer where an adapter is.
  """
  folder, trained = Path(folder), config.stages.get(stage)
  if trained is None or trained.lora is None:
    raise ValueError(f"format peft: stage '{stage}' has no adapters - export another format of it")
  if trained.trainable:
    raise ValueError(
      f"format peft: stage '{stage}' trained {', '.join(trained.trainable)} beside its adapters, "
      "which PEFT's layout cannot hold - export the merged model, such as --format face_llava"
    )
  family, layout = _home(config.model)
  plans = tables.expand(FAMILIES[family][layout], config.model)
  flat = lora.flatten(params)
  tensors: dict[str, np.ndarray] = {}
  patterns = []
  for name in [name.removesuffix("/lora_a") for name in flat if name.endswith("/lora_a")]:
    plan = plans.get(f"{name}/kernel")
    if not plan or any(p.form != "linear" or p.part is not None for p in plan.pieces):
      raise ValueError(f"format peft: {family} has no linear layer of its own for {name}")
    for number, piece in enumerate(plan.pieces):
      module = piece.theirs.removesuffix(".weight")
      for half, last in (("A", "lora_a"), ("B", "lora_b")):
        ours = np.asarray(flat[f"{name}/{last}"], np.float32)
        own = ours[number] if plan.stacked else ours
        tensors[f"base_model.model.{module}.lora_{half}.weight"] = np.ascontiguousarray(own.T)
    patterns.append(re.sub(r"(?<=\.)\d+(?=\.)", "[0-9]+", module).replace(".", r"\."))
  writer.prepare(folder)
  safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
  alpha = trained.lora.alpha
  fields = {
    "peft_type": "LORA",
    "task_type": None,
    "base_model_name_or_path": trained.init_from,
    "r": trained.lora.rank,
    "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": None,
    "inference_mode": True,
    # A pattern over whole names: q_proj alone would be found in the vision tower too.
    "target_modules": "|".join(patterns),
  }
  writer.write_json(folder / "adapter_config.json", fields)
  return sorted({name.rpartition(".lora_")[0] for name in tensors})


def _home(model: ModelConfig) -> tuple[str, str]:
  """The family and layout whose modules an adapter names."""
  for family in ("internvl_hf", "llava_hf", "face_llava"):
    try:
      layout = export_configs.check(model, family)
    except ValueError as error:
      reason = error
    else:
      return family, "memory" if layout == "files" else layout
  raise ValueError(f"format peft: {reason}")
