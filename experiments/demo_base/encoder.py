"""Pretrains the demo's image encoder from drawn labels: faces -> .safetensors of image_encoder/*.

The stand-in for CLIP's or LanguageBind's pretraining, which a demo cannot download; run.py calls
it. Everything here is our choice. One classifier on the encoder learns the labels of the five
tasks, and one on each patch whether it was pasted: a manipulated face is drawn a second time
without its paste, and where the two differ is the target. The heads are thrown away. Neither
landmarks nor class maps are used, so that what those bring is left for the stages to show.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from facejax import weights
from facejax.config import VitConfig
from facejax.faces.action_units import EXPRESSIONS, RENDERED_ACTION_UNITS, present
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.scene import sample
from facejax.faces.synthetic import render
from facejax.models.layers import ACTIVATIONS
from facejax.models.vit import Vit

UNITS, NAMES = tuple(RENDERED_ACTION_UNITS), tuple(ATTRIBUTES)
CHANGED = 6  # grey levels: a pixel that differs by more was pasted (re-drawn noise stays below)
PATCH_SHARE = 0.1  # of a patch's pixels, from which on the patch counts as pasted


def main(config: VitConfig, faces: int, steps: int, target: Path, rows: int = 64) -> dict:
  """Trains and writes the weights; returns figures for the result file."""
  started = time.monotonic()
  pool = make_pool(config, faces)
  model = Classifier(config)
  params = model.init(jax.random.key(0), jnp.asarray(pool["image"][:2]))["params"]
  params["encoder"] = from_scratch(params["encoder"], config)
  schedule = optax.warmup_cosine_decay_schedule(0.0, 1.5e-3, 200, steps)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.02))
  state = params, optimizer.init(params)
  step = make_step(model, optimizer)
  order = np.random.default_rng(0)
  progress = tqdm(range(steps), desc="encoder", mininterval=10)
  for i in progress:
    state, metrics = step(state, draw(pool, order, rows))
    if i % 50 == 49:
      progress.set_postfix({k: f"{float(v):.3f}" for k, v in metrics.items()})
  weights.save_weights(target, {"image_encoder": state[0]["encoder"]})
  return {
    "encoder_faces": faces,
    "encoder_views": steps * rows,
    "encoder_minutes": round((time.monotonic() - started) / 60, 1),
    "encoder_training": {k: round(float(v), 4) for k, v in metrics.items()},
  }


def make_pool(config: VitConfig, faces: int) -> dict[str, np.ndarray]:
  """Training faces, those without their paste behind them; `twin` is a face's other version."""
  chunks = [range(i, min(i + 500, faces)) for i in range(0, faces, 500)]
  spawn = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(2, spawn) as workers:
    jobs = [workers.submit(draw_faces, chunk, config) for chunk in chunks]
    parts = [job.result() for job in tqdm(jobs, desc="faces", mininterval=10)]
  pool = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  pool["pasted"] = pool["pasted"].reshape(-1, config.grid, config.grid)
  return pool


def draw_faces(seeds: range, config: VitConfig) -> dict[str, np.ndarray]:
  """Images [n Y X 3], their versions without the paste, labels, pasted patches."""
  size, patch = config.image_size, config.patch
  rows: dict[str, list] = {"image": [], "clean": [], "pasted": [], "labels": []}
  for seed in seeds:
    scene = sample(seed, "train")
    image = render(scene, size=size).image
    clean = render(dataclasses.replace(scene, seam=None), size=size).image if scene.seam else image
    changed = np.abs(image.astype(np.int16) - clean).max(-1) > CHANGED
    share = changed.reshape(size // patch, patch, size // patch, patch).mean((1, 3))
    rows["image"].append(image)
    rows["clean"].append(clean)
    rows["pasted"].append((share > PATCH_SHARE).ravel())
    rows["labels"].append(label_vector(scene.labels))
  return {name: np.stack(values) for name, values in rows.items()}


def label_vector(labels) -> np.ndarray:
  """[expression, age in decades, action units ..., attributes ...] float32."""
  active = present(labels.action_units)
  units = [float(u in active) for u in UNITS]
  names = [float(labels.attributes[n]) for n in NAMES]
  return np.array([EXPRESSIONS.index(labels.expression), labels.age / 10, *units, *names], "f4")


def draw(pool: dict, order: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
  """A batch: drawn faces, a quarter of them without their paste, half of them mirrored."""
  i = order.integers(0, len(pool["image"]), rows)
  clean = order.random(rows) < 0.25
  fake = pool["pasted"][i].any((1, 2)) & ~clean
  image = np.where(fake[:, None, None, None], pool["image"][i], pool["clean"][i])
  pasted = pool["pasted"][i] & fake[:, None, None]
  flip = order.random(rows) < 0.5
  image[flip], pasted[flip] = image[flip, :, ::-1], pasted[flip, :, ::-1]
  return {"image": image, "pasted": pasted.reshape(rows, -1), "labels": pool["labels"][i]}


class Classifier(nn.Module):
  """The encoder with throw-away heads."""

  config: VitConfig

  @nn.compact
  def __call__(self, image):
    """Scores [B labels] of the face and [B P] of its patches."""
    features, _ = Vit(dataclasses.replace(self.config, tokens="patches"), name="encoder")(
      image[:, None]
    )
    features = features[:, 0]
    pooled = jnp.concatenate([features.mean(1), features.max(1)], -1)
    hidden = ACTIVATIONS["gelu"](nn.Dense(256)(pooled))
    face = nn.Dense(len(EXPRESSIONS) + 2 + len(UNITS) + len(NAMES))(hidden)
    patches = nn.Dense(1)(ACTIVATIONS["gelu"](nn.Dense(64)(features)))[..., 0]
    return face, patches


def make_step(model: Classifier, optimizer):
  """state, batch -> state, training errors of the batch."""

  def loss(params, batch):
    face, patches = model.apply({"params": params}, batch["image"])
    labels, fake = batch["labels"], batch["pasted"].any(1).astype(jnp.float32)
    binary = optax.sigmoid_binary_cross_entropy
    cuts = np.cumsum([len(EXPRESSIONS), 1, 1, len(UNITS)])
    expression, age, seam, units, names = jnp.split(face, cuts, axis=1)
    true_units, true_names = labels[:, 2 : 2 + len(UNITS)], labels[:, 2 + len(UNITS) :]
    kinds = labels[:, 0].astype(int)
    years = jnp.abs(age[:, 0] + 4.2 - labels[:, 1])
    total = (
      optax.softmax_cross_entropy_with_integer_labels(expression, kinds).mean()
      + years.mean()
      + binary(seam[:, 0], fake).mean()
      + 3 * binary(units, true_units).mean()
      + 3 * binary(names, true_names).mean()
      + 3 * binary(patches, batch["pasted"].astype(jnp.float32)).mean()
    )
    metrics = {
      "expression": (expression.argmax(1) == kinds).mean(),
      "years": 10 * years.mean(),
      "deepfake": ((seam[:, 0] > 0) == (fake > 0)).mean(),
      "units": ((units > 0) == (true_units > 0)).mean(),
      "attributes": ((names > 0) == (true_names > 0)).mean(),
    }
    return total, metrics

  @jax.jit
  def step(state, batch):
    params, slots = state
    grads, metrics = jax.grad(loss, has_aux=True)(params, batch)
    updates, slots = optimizer.update(grads, slots, params)
    return (optax.apply_updates(params, updates), slots), metrics

  return step


def from_scratch(encoder: dict, config: VitConfig) -> dict:
  """Fan-in scaled kernels and whitened patches; N(0, 0.02) starts too flat at this width."""

  def scale(path, x):
    kernel = path[-1].key == "kernel"
    return x * (x.shape[-2] ** -0.5 / 0.02) if kernel else x

  encoder = jax.tree_util.tree_map_with_path(scale, encoder)
  return {**encoder, "patch": {"kernel": whitened_patches(config.patch, config.width)}}


def whitened_patches(patch: int, width: int) -> jnp.ndarray:
  """[patch * patch * 3, width]: the lowest cosines of brightness and two colour contrasts.

  Their gain grows with frequency, as amplitudes of pictures fall with it, so that a fold or a seam
  weighs as much as the colour of the skin.
  """
  n = np.arange(patch)
  cosines = np.cos(np.pi * (n[:, None] + 0.5) * n / patch)
  cosines /= np.linalg.norm(cosines, axis=0)
  colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
  waves = [(c, u, v) for c in range(3) for u in n for v in n]
  waves.sort(key=lambda w: (1 + (w[0] > 0)) * (np.hypot(*w[1:]) + 0.5))  # colour at half detail
  kernel = np.zeros((patch, patch, 3, width), np.float32)
  for i, (c, u, v) in enumerate(waves[:width]):
    gain = (np.hypot(u, v) + 0.5) * (1 + (c > 0))
    kernel[..., i] = gain * np.multiply.outer(np.outer(cosines[:, u], cosines[:, v]), colours[c])
  return jnp.asarray(kernel.reshape(-1, width)) / 5  # to a deviation of about 1 over drawn faces
