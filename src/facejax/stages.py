"""Stages as data: what trains, from what, how long. parameters, StageConfig -> two halves.

Face-LLaVA trains in two stages, from weights that can already see and talk (the released run takes
Video-LLaVA-7B). `base` makes such weights where there are none to download.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from facejax import lora
from facejax.config import LoraConfig, OptimConfig, StageConfig

# Beside adapters and quantised kernels: bytes, but no parameters of the model.
_SCALES = ("/lora_scale", "/kernel_scale")


def base(steps: int, rows: int, peak_lr: float = 1e-3, accumulate: int = 1) -> StageConfig:
  """Pictures and text from random weights, without landmarks and maps.

  Ours: the released run starts from Video-LLaVA instead, so no value here is the paper's.
  """
  return StageConfig(
    trainable=(r"(image_encoder|video_encoder|projector|decoder)/.*",),
    optim=OptimConfig(peak_lr),
    steps=steps,
    rows=rows,
    accumulate=accumulate,
    modalities=(),
  )


def stage1(
  steps: int, rows: int, init_from: str = "base", peak_lr: float = 1e-4, accumulate: int = 1
) -> StageConfig:
  """Face-region pretraining: only the landmark modules learn. Released: 168 rows, one epoch.

  The segmentation encoder learns here too (ours: Face-LLaVA has none).
  """
  modules = r"(landmark_projector|fusion|segmentation)/.*"
  return StageConfig(
    trainable=(modules,),
    optim=OptimConfig(peak_lr),
    steps=steps,
    rows=rows,
    init_from=init_from,
    new=(modules,),
    accumulate=accumulate,
  )


def stage2(
  steps: int, rows: int, init_from: str = "stage1", peak_lr: float = 2e-5, accumulate: int = 1
) -> StageConfig:
  """Fine-tuning: all but the vision encoders learns. Released: 112 rows, one epoch."""
  return StageConfig(
    trainable=(r"(?!(image|video|segmentation)_encoder/).*",),
    optim=OptimConfig(peak_lr),
    steps=steps,
    rows=rows,
    init_from=init_from,
    accumulate=accumulate,
  )


def adapters(
  steps: int, rows: int, init_from: str, peak_lr: float = 1e-5, accumulate: int = 1
) -> StageConfig:
  """LoRA as FaceLLM trains it (arXiv 2507.10300): the decoder's linears, and nothing else.

  Values of the released script: rank 16, alpha 32, cosine without warm-up, norm clipped at 1.
  """
  return StageConfig(
    trainable=(),
    optim=OptimConfig(peak_lr, warmup=0.0, clip_norm=1.0),
    steps=steps,
    rows=rows,
    init_from=init_from,
    accumulate=accumulate,
    modalities=(),
    lora=LoraConfig(),
  )


def split(params: Mapping, stage: StageConfig) -> tuple[dict, dict]:
  """(trainable, frozen): two trees that share no leaf and together have all of them.

  A parameter trains if a pattern of stage.trainable matches its "/"-joined path in full, and so do
  the adapters of stage.lora (params has them already: see lora.with_adapters). Raises ValueError
  for a pattern that matches nothing, is no regular expression, or names the kernel below an
  adapter, or if nothing trains.
  """
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  patterns = (*stage.trainable, *([lora.TRAINED] if stage.lora else ()))
  if not patterns:
    raise ValueError("StageConfig.trainable is empty: expected at least one pattern, such as '.*'")
  chosen: set[str] = set()
  for pattern in patterns:
    try:
      names = {name for name in flat if re.fullmatch(pattern, name)}
    except re.error as error:
      raise ValueError(f"StageConfig.trainable: '{pattern}' is no pattern: {error}") from error
    if not names:
      near = difflib.get_close_matches(pattern, flat, 3, cutoff=0.4) or sorted(flat)[:3]
      raise ValueError(
        f"StageConfig.trainable: '{pattern}' matches no parameter; near it: {', '.join(near)}; "
        f"components: {', '.join(sorted(params))}"
      )
    kernels = sorted(name for name in names if name.endswith("/kernel"))
    if below := [name for name in kernels if f"{name.removesuffix('/kernel')}/lora_a" in flat]:
      raise ValueError(
        f"StageConfig.trainable: '{pattern}' trains {below[0]}, which has an adapter and is frozen "
        "- expected parameters beside those of lora.targets - narrow one of the two"
      )
    chosen |= {name for name in names if not name.endswith(_SCALES)}
  half = lambda keep: flax.traverse_util.unflatten_dict(
    {name: x for name, x in flat.items() if (name in chosen) == keep}, sep="/"
  )
  return half(True), half(False)


def merge(trainable: Mapping, frozen: Mapping) -> dict:
  """The inverse of split()."""
  join = lambda tree: flax.traverse_util.flatten_dict(tree)
  return flax.traverse_util.unflatten_dict({**join(frozen), **join(trainable)})


def table(params: Mapping, stage: StageConfig) -> str:
  """What trains, a line a component: parameters, how they are held, bytes with optimiser slots.

  `params` is the merged tree of arrays, or of ShapeDtypeStruct, in the types they are held in.
  """
  training = set(flax.traverse_util.flatten_dict(split(params, stage)[0], sep="/"))
  rows = [("component", "parameters", "", "held as", "bytes", "optimiser bytes")]
  total = [0, 0, 0, 0]
  for component in sorted(params):
    leaves = flax.traverse_util.flatten_dict({component: params[component]}, sep="/")
    count = sum(x.size for name, x in leaves.items() if not name.endswith(_SCALES))
    trained = sum(x.size for name, x in leaves.items() if name in training)
    size = sum(_bytes(x) for x in leaves.values())
    state = "trainable" if trained == count else f"{trained:,} train" if trained else "frozen"
    held = "+".join(sorted({str(jnp.dtype(x.dtype)) for x in leaves.values()}))
    slots = 8 * trained  # two float32 moments
    rows.append((component, f"{count:,}", state, held, f"{size:,}", f"{slots:,}"))
    total = [a + b for a, b in zip(total, (count, trained, size, slots), strict=True)]
  rows.append(
    ("total", f"{total[0]:,}", f"{total[1]:,} train", "", f"{total[2]:,}", f"{total[3]:,}")
  )
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  left = (0, 2, 3)
  cell = lambda i, text: text.ljust(widths[i]) if i in left else text.rjust(widths[i])
  return "\n".join("  ".join(cell(i, text) for i, text in enumerate(r)).rstrip() for r in rows)


def _bytes(x: Any) -> int:
  """Of an array on TPU or GPU, where two numbers of 4 bits share a byte."""
  dtype = jnp.dtype(x.dtype)
  return x.size // 2 if dtype == jnp.uint4 else x.size * dtype.itemsize
