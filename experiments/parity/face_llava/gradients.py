"""d loss / d parameter in the layout of the released files: norms and numbers of each.

The encoders are frozen, as in the released fine-tuning stage.
"""

import functools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from face_llava import batches, end_to_end
from face_llava.folder import Arrays, Folder, Model
from face_llava.report import RELATIVE, Report
from facejax import convert
from facejax.losses import next_token, per_weight
from facejax.models.face_mllm import FaceMLLM

# A gradient that is zero in exact arithmetic (a key's bias: softmax ignores what all keys share)
# is rounding noise on both sides: errors are relative to this share of the whole norm at least.
FLOOR = 1e-5


def compare(folder: Folder, models: Mapping[str, Model], report: Report) -> None:
  """grads.json."""
  for case in [name for name in folder.grads if not name.startswith("_")]:
    model = models[end_to_end.form(case)]
    with report.attempt(f"gradients.{case}"):
      batch = batches.arrange(folder, case, batches.whole(folder, model, case))
      got = released(model, gradients(model, batch))
      compare_case(folder.grads[case], got, case, report)
  names = [f"gradients.{name}" for name in folder.grads if name.startswith("_")]
  report.leave(names, "not about this library: what the official code does with itself")


def gradients(model: Model, batch: Any) -> dict[str, Any]:
  """The tree of gradients, without the encoders'."""
  frozen = {n: p for n, p in model.params.items() if n.endswith("_encoder")}
  trained = {n: p for n, p in model.params.items() if n not in frozen}
  return _gradients(FaceMLLM(model.config), frozen, trained, batches.on_device(batch))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(module: FaceMLLM, frozen: Any, trained: Any, batch: Any) -> Any:
  def loss(trained: Any) -> jax.Array:
    logits: Any = module.apply({"params": frozen | trained}, batch)
    return per_weight(*next_token(logits, batch.targets, batch.loss_weights))

  return jax.grad(loss)(trained)


def released(model: Model, tree: Any) -> Arrays:
  """A tree of ours under the released names and in their layout: as export() writes parameters."""
  with tempfile.TemporaryDirectory() as folder:
    names = convert.export(model.run, tree, "face_llava", pathlib.Path(folder) / "gradients")
    files = [safetensors.numpy.load_file(f"{folder}/gradients/{name}") for name in names]
  tensors = {name: value for file in files for name, value in file.items()}
  # A buffer that the layout has beside the parameters.
  return {name: x for name, x in tensors.items() if not name.endswith("rotary_emb.inv_freq")}


def compare_case(want: dict[str, Any], got: Arrays, case: str, report: Report) -> None:
  """One case: relative errors of norms, sums, largest and first values."""
  squares = {name: float((x.astype(np.float64) ** 2).sum()) for name, x in got.items()}
  total = want["total_norm"]

  def relative(name: str, ours: Any, theirs: Any, scale: float) -> None:
    error = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs)).max()
    report.add(f"gradients.{case}.{name}", error / max(scale, FLOOR * total), RELATIVE)

  relative("total_norm", np.sqrt(sum(squares.values())), total, total)
  for module, norm in want["top_level"].items():
    own = [s for name, s in squares.items() if module in name.split(".")]
    relative(f"top_level.{module}", np.sqrt(sum(own)), norm, norm)
  for name, their in want["per_parameter"].items():
    if name not in got:
      report.add(f"gradients.{case}.{name}.norm", np.inf, RELATIVE)
      continue
    flat, norm = got[name].astype(np.float64).reshape(-1), their["norm"]
    relative(f"{name}.norm", np.sqrt(squares[name]), norm, norm)
    relative(f"{name}.sum", flat.sum(), their["sum"], max(abs(their["sum"]), norm))
    relative(f"{name}.first", flat[: len(their["first"])], their["first"], their["absmax"])
    at_largest = abs(flat[their["absmax_index"]])
    relative(f"{name}.absmax", [at_largest, np.abs(flat).max()], their["absmax"], their["absmax"])
  for name in want["grad_none_although_requires_grad"]:
    largest = np.abs(got.get(name, np.array(np.inf))).max()
    report.add(f"gradients.{case}.{name}.unused", largest, 0.0)
