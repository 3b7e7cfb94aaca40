"""FLOPs that a training step needs. config, stage -> FLOPs by component, forward and backward.

Products with parameters and of attention, two FLOPs a multiplication. The backward pass counts the
gradient of a product's input only where something before it trains, that of its matrix only where
the matrix trains. What is computed twice to save memory does not count, nor do norms, activations
and the optimiser: under 1 % of the products.

Attention is needed within samples: how much of a row that is follows from the mix (mix.Fill.pairs).
Products count for all positions and media slots of the rows; `useful` counts those in use alone.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import flax.traverse_util

from facejax.config import DataConfig, ModelConfig, StageConfig, VitConfig
from facejax.faces.landmarks import REGIONS
from facejax.models import face_mllm
from facejax.plan.mix import Fill
from facejax.types import Kind
from facejax.visual_table import VisualTable

_KINDS: tuple[Kind, ...] = ("image", "video")


@dataclasses.dataclass
class Part:
  """FLOPs of a component in one step, over all rows."""

  forward: float = 0.0
  backward: float = 0.0
  useful: float = 0.0  # of both, for positions and slots in use

  @property
  def total(self) -> float:
    """Forward and backward."""
    return self.forward + self.backward

  def add(self, forward: float, times: float, useful: float) -> None:
    """`times` as much backward as forward, of which a share is useful."""
    self.forward += forward
    self.backward += times * forward
    self.useful += (1 + times) * forward * useful


@dataclasses.dataclass(frozen=True)
class Trained:
  """Names of the parameters that a stage trains, for the questions below."""

  names: frozenset[str]

  def any(self, *components: str) -> bool:
    """Whether something of these components, or one of these parameters, trains."""
    below = tuple(f"{c}/" for c in components)
    return any(name.startswith(below) or name in components for name in self.names)


def count(
  model: ModelConfig, data: DataConfig, stage: StageConfig, trainable: Any, fill: Fill
) -> dict[str, Part]:
  """FLOPs of a step by component. `trainable` is the trained half of a state, adapters too."""
  flat = lambda tree: flax.traverse_util.flatten_dict(tree, sep="/")
  kernels = {k: x.shape for k, x in flat(face_mllm.init_shapes(model)).items()}
  adapters = {k: x.shape for k, x in flat(trainable).items() if k.endswith(("lora_a", "lora_b"))}
  trained = Trained(frozenset(flat(trainable)))
  table = VisualTable(model, data.images_per_row, data.videos_per_row)
  parts: dict[str, Part] = {}
  for name, shape in (kernels | adapters).items():
    if not name.endswith(("kernel", "lora_a", "lora_b")):
      continue
    for component, tokens, useful in _positions(name, model, data, table, fill):
      size = 1.0
      for n in shape:
        size *= n
      times = _inputs_train(name, trained) + (name in trained.names)
      forward = 2 * size * tokens * stage.rows
      parts.setdefault(component, Part()).add(forward, times, useful)
  if model.decoder.tied:
    d = model.decoder
    times = _inputs_train("decoder/head/kernel", trained) + trained.any("decoder")
    head = 2.0 * d.vocab * d.width * data.row_length * stage.rows
    parts.setdefault("head", Part()).add(head, times, fill.tokens)
  _attention(parts, model, data, stage, trained, table, fill)
  return parts


def decoder_parameters(model: ModelConfig) -> int:
  """Elements of the matrices that every position is multiplied by, with the output head."""
  shapes = flax.traverse_util.flatten_dict(face_mllm.init_shapes(model)["decoder"], sep="/")
  total = sum(x.size for name, x in shapes.items() if name.endswith("kernel"))
  return total + (model.decoder.vocab * model.decoder.width if model.decoder.tied else 0)


def _positions(name: str, model: ModelConfig, data: DataConfig, table: VisualTable, fill: Fill):
  """(component, positions a row that meet this matrix, share of them in use)."""
  used = {"image": fill.pictures, "video": fill.clips}
  component = name.split("/")[0]
  if component == "decoder":
    yield "head" if name.startswith("decoder/head") else "decoder", data.row_length, fill.tokens
    return
  for kind in _KINDS:
    frames = table.slots(kind) * table.frames(kind)
    tokens = model.tokens(kind)
    if not frames:
      continue
    if component.endswith("_encoder"):
      for mine, seen in _encoders(model, kind):
        if component == mine and not re.match(r"\w+/rest/", name):
          yield component, frames * (seen.grid**2 + ("/patch/" not in name)), used[kind]
    elif component == "landmark_projector":
      yield component, frames, used[kind]
    elif component == "fusion":
      regions = re.fullmatch(r"fusion/attention/[kv]/.*", name)
      yield component, frames * (len(REGIONS) if regions else tokens), used[kind]
    elif component == "segmentation":
      yield component, frames * model.segmentation.grid**2, used[kind]
    elif component == "labels":
      if "/project/" in name:  # the graph sees 40 labels a step: nothing beside the rows
        yield component, table.slots(kind), used[kind]
    else:
      maps = model.map_encoder and model.segmentation.projector == "image"
      own = tokens + (model.segmentation.grid**2 if maps and component == "projector" else 0)
      yield component, frames * own, used[kind]


def _encoders(model: ModelConfig, kind: Kind) -> Iterator[tuple[str, VitConfig]]:
  """The encoders that a picture or frame goes through, and its map: component, config."""
  yield "video_encoder" if kind == "video" and model.video else "image_encoder", model.encoder(kind)
  if model.map_encoder:
    yield "segmentation_encoder" if model.segmentation.vit else "image_encoder", model.map_encoder


_BEFORE = (  # whose training asks for the gradient of a matrix's input; the first match counts
  (r"landmark_projector/.*", ()),
  (r"image_encoder/.*", ("image_encoder",)),
  (r"video_encoder/.*", ("video_encoder",)),
  (r"projector/fc1/.*", ("image_encoder", "video_encoder")),
  (r"projector/.*", ("image_encoder", "video_encoder", "projector")),
  (r"fusion/attention/q/.*", ("image_encoder", "video_encoder", "projector")),
  (r"fusion/attention/[kv]/.*", ("landmark_projector",)),
  (
    r"fusion/.*",
    ("image_encoder", "video_encoder", "projector", "landmark_projector", "fusion"),
  ),
  (r"segmentation_encoder/.*", ("segmentation_encoder",)),
  (r"segmentation/fc1/.*", ("image_encoder", "segmentation_encoder", "segmentation/classes")),
  (r"segmentation/.*", ("segmentation",)),
  (
    r"labels/.*",
    (
      "image_encoder",
      "video_encoder",
      "projector",
      "landmark_projector",
      "fusion",
      "segmentation",
    ),
  ),
)
_ALL = (
  "image_encoder",
  "video_encoder",
  "projector",
  "landmark_projector",
  "fusion",
  "segmentation_encoder",
  "segmentation",
  "decoder",
)


def _inputs_train(name: str, trained: Trained) -> bool:
  """Whether the gradient of this matrix's input is needed."""
  if name.endswith("lora_b"):
    return True  # lora_a trains
  for pattern, before in _BEFORE:
    if re.fullmatch(pattern, name):
      return trained.any(*before)
  return trained.any(*_ALL)


def _attention(parts, model, data, stage, trained: Trained, table: VisualTable, fill: Fill) -> None:
  """Scores and mixing: two products forward, four backward where gradients pass."""
  d, L = model.decoder, data.row_length
  causal = 2.0 * d.layers * d.heads * d.head_width * L * L * stage.rows
  parts.setdefault("attention", Part()).add(causal * fill.pairs, 2 * trained.any(*_ALL), 1.0)
  used = {"image": fill.pictures, "video": fill.clips}
  for kind in _KINDS:
    frames = table.slots(kind) * table.frames(kind) * stage.rows
    if not frames:
      continue
    for name, vit in _encoders(model, kind):
      parts[name].add(frames * _vit_attention(vit), 2 * trained.any(name), used[kind])
    if model.fusion:
      mixed = 4.0 * frames * model.tokens(kind) * len(REGIONS) * d.width
      before = trained.any("image_encoder", "video_encoder", "projector", "fusion")
      times = 2 * (before or trained.any("landmark_projector"))
      parts["fusion"].add(mixed, times, used[kind])


def _vit_attention(vit: VitConfig) -> float:
  """Forward FLOPs of a frame's attention, over the blocks that are used."""
  tokens, layers = vit.grid**2 + 1, vit.layers + 1 + vit.select_layer
  spatial = 4.0 * tokens * tokens * vit.width
  temporal = 4.0 * tokens * vit.frames * vit.width
  return layers * (spatial + temporal)
