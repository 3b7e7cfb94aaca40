"""Encoders, projectors and fusion: pixels and points of a folder -> every stage of the vision part.

A picture's stages are [B P E] or [B P D], a clip's [B T P E] or [B T P D], as in the references.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from face_llava.folder import Arrays, Folder, Model
from face_llava.report import Report, statistics
from facejax.config import VitConfig
from facejax.models.attention import Attention
from facejax.models.fusion import EPS, FUSIONS, RELEASED_INIT
from facejax.models.landmark_projector import LandmarkProjector
from facejax.models.layers import LayerNorm
from facejax.models.projector import Projector
from facejax.models.vit import Vit
from facejax.types import LANDMARKS, Kind

NO_TOKEN = "use_landmark_tokens=True is not supported: the global landmark token has no place"
KINDS: tuple[Kind, ...] = ("image", "video")


def compare(folder: Folder, models: Mapping[str, Model], report: Report) -> None:
  """vision.npz."""
  stages: dict[str, np.ndarray] = {}
  for kind in KINDS:
    stages |= compute(folder, models, kind)
  indices = folder.vision["tok_idx"]
  values = {}
  for name in folder.vision:
    medium, stage, which = (*name.split(".", 2), "", "")[:3]
    if f"{medium}.{stage}" in stages:
      values[name] = view(stages[f"{medium}.{stage}"], which, indices)
  report.compare(folder.vision, values)
  report.leave([n for n in folder.vision if "_lmtok." in n], NO_TOKEN)
  report.inputs.add("tok_idx")
  report.rest(folder.vision)


def view(stage: np.ndarray, which: str, indices: np.ndarray) -> np.ndarray:
  """What a reference keeps of a stage: "tok", "stats", "shape", "sample1.tok", "frame3", or all."""
  if match := re.fullmatch(r"sample(\d+)(?:\.(.*))?", which):
    return view(stage[int(match[1])], match[2] or "", indices)
  if match := re.fullmatch(r"frame(\d+)", which):
    return stage[:, int(match[1])]
  if which == "tok":
    return np.take(stage, indices[indices < stage.shape[-2]], axis=-2)
  if which == "stats":
    return statistics(stage)
  return np.array(stage.shape) if which == "shape" else stage


def pixels(folder: Folder, kind: Kind) -> jnp.ndarray:
  """Normalised pixels [B T Y X 3]; channels are in front in the folder."""
  stored = folder.inputs[f"{kind}_pixels"]
  stored = stored[:, :, None] if kind == "image" else stored
  return jnp.asarray(stored.transpose(0, 2, 3, 4, 1))


def landmarks(folder: Folder, kind: Kind) -> jnp.ndarray:
  """(x, y) in [0, 1], [B T 68 2]."""
  stored = folder.inputs[f"landmarks_{kind}"]
  return jnp.asarray(stored.reshape(len(stored), -1, LANDMARKS, 2))


def compute(folder: Folder, models: Mapping[str, Model], kind: Kind) -> Arrays:
  """Every stage of one kind of media, by the references' names."""
  config, params = models["simple"].config, models["simple"].params
  features, out = _encoder(folder, models["simple"], kind)
  tokens = _apply(Projector(config.decoder.width), params["projector"], features)
  points = landmarks(folder, kind)
  parts = params["landmark_projector"]
  project = lambda p: _apply(LandmarkProjector(config.decoder.width), p, points)
  zero = lambda names: {
    n: jax.tree.map(jnp.zeros_like, p) if n in names else p for n, p in parts.items()
  }
  # A sum of the two: with one of them at zero the other is left.
  out["region_tokens"] = project(zero({"global"}))
  out["global_token"] = project(zero(parts.keys() - {"global"}))[:, :, 0]
  out["proj"] = tokens
  regions = project(parts)
  for form, model in models.items():
    fusion, own = model.config.fusion, model.params["fusion"]
    assert fusion is not None  # folder.load_models refuses weights without one
    args = (tokens, regions, points, jnp.ones(tokens.shape[:2], bool))
    fused, inside = _apply(FUSIONS[fusion.form](fusion), own, *args)
    out |= {f"fused_{form}": fused, f"cross_attn_{form}": inside["inner"]}
    if form == "masked":
      out["rpp_mask"] = inside["mask"]
      without = _without_mask(own, fusion.heads, tokens, regions)
      out["cross_attn_masked_without_mask"] = without
  # A picture has no axis of frames in the references.
  squeeze = lambda x: np.asarray(x[:, 0] if kind == "image" else x)
  stages = {f"{kind}.{name}": squeeze(x) for name, x in out.items()}
  return stages | {f"{kind}.n_hidden_states": np.array([config.encoder(kind).layers + 1])}


def _apply(module: Any, params: Any, *args: Any) -> Any:
  return jax.jit(module.apply)({"params": params}, *args)


def _encoder(folder: Folder, model: Model, kind: Kind) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The features and the hidden states that the references hold."""
  config, params = model.config.encoder(kind), model.params[f"{kind}_encoder"]
  features, out = _apply(Vit(config), params, pixels(folder, kind))
  found = {
    "hidden0": out["embeddings"],
    "hidden_sel_full257": out["selected"],
    "tower": features,
  }
  for name, layer in (("hidden1", 1), ("hidden_last", config.layers)):
    vit, own = selecting(config, params, layer)
    found[name] = _apply(Vit(vit), own, pixels(folder, kind))[1]["selected"]
  return features, found


def selecting(config: VitConfig, params: Any, layer: int) -> tuple[VitConfig, Any]:
  """The same encoder with hidden state `layer` as its result, and its parameters."""
  stacks = [params[name] for name in ("blocks", "rest") if name in params]
  blocks = jax.tree.map(lambda *x: jnp.concatenate(x), *stacks)
  own = {name: p for name, p in params.items() if name not in ("blocks", "rest")}
  own["blocks"] = jax.tree.map(lambda x: x[:layer], blocks)
  if layer < config.layers:
    own["rest"] = jax.tree.map(lambda x: x[layer:], blocks)
  return dataclasses.replace(config, select_layer=layer - config.layers - 1), own


def _without_mask(params: Any, heads: int, tokens: jax.Array, regions: jax.Array) -> jax.Array:
  fold = lambda x: x.reshape(-1, *x.shape[2:])
  bias = jnp.zeros((tokens.shape[0] * tokens.shape[1], tokens.shape[2], regions.shape[2]))
  attention = Attention(heads, RELEASED_INIT, None)
  mixed, _ = _apply(attention, params["attention"], fold(tokens), fold(regions), bias)
  return _apply(LayerNorm(EPS), params["norm"], tokens + mixed.reshape(tokens.shape))
