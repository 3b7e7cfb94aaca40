"""Useful tokens a second of one training step: packed rows beside the released collator's batches.

Face-LLaVA's token counts, 85 % pictures of 311 tokens and 15 % clips of 2118. The released
collator pads each sample to the longest of its batch. Its grouping sorts by words and does not keep
pictures and clips apart, so a batch of 8 has n clips with the chance of the binomial distribution;
one step of each n is timed and weighted by that chance. (Its own batches are of 24 and 16 samples a
GPU: more padding yet.) The encoders are narrow, so that empty media slots cost next to nothing on
either side; in the 7B, where an encoder has 4 % of the decoder's parameters, they cost more.
"""

import math
import statistics
import time
from typing import NamedTuple

import jax
import numpy as np
import small

from facejax.config import DataConfig, MeshConfig, OptimConfig, StageConfig
from facejax.data import rows
from facejax.data.pipeline import Pipeline, row_format
from facejax.models.face_mllm import FaceMLLM
from facejax.sharding import make_mesh
from facejax.state import abstract_state, init_state
from facejax.train import make_train_step, put

_PICTURE, _CLIP = 311, 2118  # tokens
_BATCH, _CLIPS = 8, 0.15
# Rows a step, tokens and pictures of a packed row, which has one clip: a clip or seven pictures, or
# a clip and six pictures. Attention over all pairs of a row costs more in the longer one.
_PACKED = ((4, 2192, 7), (2, 4000, 6))


def _sources(form) -> dict[str, small.Noise]:
  """Pictures and clips whose texts make them take exactly those tokens."""
  made = {}
  for kind, target in (("image", _PICTURE), ("video", _CLIP)):
    one = small.Noise(kind, [1], 224, 8, 0)[0]
    tokens = len(form.text(one.id, one.conversation, [form.outline(m) for m in one.media]))
    count = 8500 if kind == "image" else 1500
    made[kind] = small.Noise(kind, [1 + target - tokens] * count, 224, 8, tokens - 1)
  return made


class Cost(NamedTuple):
  """Medians of a step. Processor seconds hardly depend on what else the machine does."""

  seconds: float
  processor_seconds: float


def _cost(config, stage_rows: int, batch, repeats: int) -> Cost:
  """Of a step, compilation and the first run left out."""
  stage = StageConfig(
    trainable=(".*",), optim=OptimConfig(1e-4, schedule="constant"), steps=99, rows=stage_rows
  )
  model, mesh = FaceMLLM(config), make_mesh(MeshConfig(data=1), jax.devices()[:1])
  state = init_state(model, stage, abstract_state(model, stage, mesh), seed=0)
  step = make_train_step(model, stage, mesh)
  with jax.set_mesh(mesh):
    placed = put(batch, stage_rows, mesh)
    taken = []
    for _ in range(repeats + 1):
      start = time.perf_counter(), time.process_time()
      state, metrics = step(state, placed)
      assert math.isfinite(float(metrics["loss"]))
      taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
  return Cost(*(statistics.median(column) for column in zip(*taken[1:], strict=True)))


def _rates(useful: float, cost: Cost) -> dict:
  return {
    "useful_tokens": round(useful, 1),
    "seconds": round(cost.seconds, 3),
    "processor_seconds": round(cost.processor_seconds, 3),
    "useful_tokens_per_second": round(useful / cost.seconds, 1),
    "useful_tokens_per_processor_second": round(useful / cost.processor_seconds, 1),
  }


def compare(repeats: int) -> dict:
  """Useful tokens a second, padded and packed, and the ratios."""
  config = small.model(layers=1, width=1024, vision=64)
  opened = _sources(row_format(config, DataConfig(_CLIP, images_per_row=1, videos_per_row=1)))
  result: dict = {"padded": _padded(config, opened, repeats)}
  print(result, flush=True)
  for count, length, pictures in _PACKED:
    data = DataConfig(
      length, ("image", "video"), (1 - _CLIPS, _CLIPS), images_per_row=pictures, videos_per_row=1
    )
    pipeline = Pipeline(config, data, count, sources=opened)
    batch = pipeline.batch(0)[0]
    sizes = np.concatenate([source.sizes()[:, 0] for source in opened.values()])
    rows_read = [pipeline.schedule.row(step, row) for step in range(1000) for row in range(count)]
    useful = sum(int(sizes[numbers].sum()) for numbers in rows_read) / 1000
    name = f"packed, {count} rows of {length}"
    result[name] = _rates(useful, _cost(config, count, batch, repeats))
    for unit in ("second", "processor_second"):
      rate = f"useful_tokens_per_{unit}"
      result[name][f"ratio_{unit}"] = round(result[name][rate] / result["padded"][rate], 2)
    print(name, result[name], flush=True)
  return result


def _padded(config, opened, repeats: int) -> dict:
  steps, most = {}, 3
  for clips in range(most + 1):
    length = _CLIP if clips else _PICTURE
    form = row_format(config, DataConfig(length, images_per_row=1, videos_per_row=min(clips, 1)))
    samples = [opened["image"][i] for i in range(_BATCH - clips)]
    samples += [opened["video"][i] for i in range(clips)]
    batch = rows.collate([rows.encode([s], [i], form) for i, s in enumerate(samples)])
    steps[clips] = _cost(config, _BATCH, batch, repeats)
    print(f"padded, {clips} clips of {_BATCH}: {steps[clips]}", flush=True)
  chance = [
    math.comb(_BATCH, n) * _CLIPS**n * (1 - _CLIPS) ** (_BATCH - n) for n in range(_BATCH + 1)
  ]
  costs = np.array([steps[min(n, most)] for n in range(_BATCH + 1)])
  useful = _BATCH * ((1 - _CLIPS) * _PICTURE + _CLIPS * _CLIP)
  by_clips = {clips: [round(x, 3) for x in cost] for clips, cost in steps.items()}
  return {**_rates(useful, Cost(*(chance @ costs))), "by_clips": by_clips}
