"""A folder in the format of the official references, of other sizes, with numbers from slow loops.

No size, count or seed is that of the official folder: 9 patches, 5 frames, 3 and 2 heads in the
encoders, shared key heads and 3 blocks in the decoder, another tokenizer, another hidden layer.
"""

import importlib.resources
import json
import sys
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import model_reference as reference

from facejax import convert
from facejax.config import (
  DataConfig,
  DecoderConfig,
  FusionConfig,
  ModelConfig,
  RunConfig,
  VitConfig,
)
from facejax.data import chat, rows
from facejax.data.tokenizer import Tokenizer
from facejax.models import face_mllm
from facejax.types import Medium, Sample, Turn
from facejax.visual_table import VisualTable

FRAMES, SIZE = 5, 42
SHAPE = dict(image_size=SIZE, patch=14, width=12, layers=4, mlp=20, select_layer=-3)
DECODER = DecoderConfig(1024, 24, 3, heads=4, kv_heads=2, head_width=6, mlp=30, max_length=300)
TALKS = {
  "img_simple": (
    ("<image>\nHow old?", "About 30."),
    ("<image>\nIs it a smile?", "Yes.", "Why?", "The lips."),
  ),
  "vid_masked": (("<video>\nWhat is shown?", "A calm face."),),
}
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def model(form):
  return ModelConfig(
    image=VitConfig(**SHAPE, heads=3),
    video=VitConfig(**SHAPE, heads=2, tokens="all", frames=FRAMES),
    decoder=DECODER,
    fusion=FusionConfig(form=form, grid="yx" if form == "masked" else "xy"),
    frames=FRAMES,
    dtype="float32",
    remat="none",
  )


def parameters(config, seed):
  draw = np.random.default_rng(seed)

  def leaf(path, x):
    scale = 1.2 / np.sqrt(x.shape[-2]) if path[-1].key == "kernel" else 0.3
    return (draw.normal(0, scale, x.shape) + (path[-1].key == "scale")).astype(np.float32)

  return jax.tree_util.tree_map_with_path(leaf, face_mllm.init_shapes(config))


def write(folder):
  """Writes the folder. The masked model differs from the other in its fusion alone."""
  draw = np.random.default_rng(11)
  tokenizer = Tokenizer.demo()
  asset = importlib.resources.files("facejax") / "assets" / "demo_tokenizer.model"
  params = {"simple": parameters(model("released"), 1)}
  fusion = parameters(model("masked"), 2)["fusion"]
  params["masked"] = params["simple"] | {"fusion": fusion}
  for form, target in (("released", folder), ("masked", folder / "masked")):
    run = RunConfig(model(form), DataConfig(row_length=200, resize="crop"), {})
    own = params["masked" if form == "masked" else "simple"]
    (name,) = convert.export(run, own, "face_llava", target)
    tensors = safetensors.numpy.load_file(target / name)
    if form == "masked":
      tensors = {n: x for n, x in tensors.items() if n.startswith("model.landmarks_cross_attn.")}
      safetensors.numpy.save_file(tensors, folder / "weights_masked_cross_attn.safetensors")
    else:
      (target / name).rename(target / "weights.safetensors")
  (folder / "tokenizer.model").write_bytes(asset.read_bytes())
  media = {
    "image": Medium("image", draw.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)),
    "video": Medium("video", draw.integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)),
  }
  points = {k: draw.random((len(m.pixels), 68, 2)).astype(np.float32) for k, m in media.items()}
  _write_inputs(folder, media, points)
  vision, table = _vision(params, media, points)
  np.savez(folder / "vision.npz", **vision)
  samples, e2e = _e2e(params, tokenizer, table)
  np.savez(folder / "e2e.npz", **e2e)
  np.savez(folder / "preprocess.npz", rows=np.arange(3))
  (folder / "conversations.json").write_text(json.dumps({"samples": samples, "templates": {}}))
  (folder / "grads.json").write_text("{}")


def _write_inputs(folder, media, points):
  normal = lambda x: ((x / 255 - MEAN) / STD).astype(np.float32)
  np.savez(
    folder / "inputs.npz",
    image_pixels=normal(media["image"].pixels).transpose(0, 3, 1, 2),
    video_pixels=normal(media["video"].pixels).transpose(3, 0, 1, 2)[None],
    landmarks_image=points["image"].reshape(-1, 136),
    landmarks_video=points["video"].reshape(1, -1, 136),
  )


def _vision(params, media, points):
  """vision.npz, and the fused tokens by kind and form."""
  indices = np.array([0, 2, 5, 9])
  arrays, table = {"tok_idx": indices}, {}
  for kind, medium in media.items():
    stages, fused = _stages(params, kind, medium.pixels, points[kind])
    table |= {(kind, form): x for form, x in fused.items()}
    for name, x in stages.items():
      x = x if kind == "image" else x[None]
      if name == "tower":
        arrays[f"{kind}.tower.shape"] = np.array(x.shape)
      else:
        arrays[f"{kind}.{name}.tok"] = np.take(x, indices[indices < x.shape[-2]], axis=-2)
    arrays[f"{kind}.n_hidden_states"] = np.array([SHAPE["layers"] + 1])
  return arrays, table


def _stages(params, kind, pixels, points):
  """Every stage [pictures or frames, P, E or D], and the fused tokens of both forms."""
  config, encoder = model("released").encoder(kind), params["simple"][f"{kind}_encoder"]
  clips = [x[None] for x in pixels] if kind == "image" else [pixels]
  states = [reference.vit_hidden_states(encoder, clip, config)[0] for clip in clips]
  states = [np.concatenate(layer) for layer in zip(*states, strict=True)]
  features = states[config.select_layer][:, int(config.tokens == "patches") :]
  projector = params["simple"]["projector"]
  hidden = reference.gelu(reference.linear(projector["fc1"], features))
  tokens = reference.linear(projector["fc2"], hidden)
  own = params["simple"]["landmark_projector"]
  regions = [reference.region_tokens(own, p.astype(float)) for p in points]
  triples = list(zip(tokens, regions, points, strict=True))
  fusion = model("masked").fusion
  form = lambda name: params[name]["fusion"]
  simple = [reference.released_fusion(form("simple"), x, r, fusion)[0] for x, r, _ in triples]
  masked = [reference.masked_fusion(form("masked"), *triple, fusion)[0] for triple in triples]
  fused = {"simple": np.stack(simple), "masked": np.stack(masked)}
  stages = {
    "hidden0": states[0],
    "hidden1": states[1],
    "hidden_last": states[-1],
    "tower": features,
    "proj": tokens,
    "fused_simple": fused["simple"],
    "fused_masked": fused["masked"],
  }
  return stages, fused


def _e2e(params, tokenizer, table):
  """The samples of conversations.json, and e2e.npz."""
  samples, arrays = [], {}
  for case, talks in TALKS.items():
    form = "masked" if "masked" in case else "simple"
    kind = "image" if case.startswith("img") else "video"
    texts = [
      tuple(Turn(("human", "gpt")[n % 2], text) for n, text in enumerate(talk)) for talk in talks
    ]
    ids = [
      chat.encode(t, tokenizer, chat.VICUNA, [1 if kind == "image" else FRAMES]) for t in texts
    ]
    marked = [np.where(i.visual >= 0, -200, i.tokens) for i in ids]
    labels = [np.where(i.supervised, i.tokens, -100) for i in ids]
    for text, row, label in zip(texts, marked, labels, strict=True):
      turns = [{"from": turn.role, "value": turn.text} for turn in text]
      official = {"input_ids": row.tolist(), "labels": label.tolist()}
      samples.append({"conversations": turns, "legacy_false": official})
    batch = _batch(tokenizer, kind, texts)
    logits, loss = _logits(params[form], table[kind, form], batch)
    length = int((batch.segment_ids > 0).sum(1).max())
    at = np.array([3, 20, length - 4])
    values = {
      "input_ids": _padded(marked, 0),
      "labels": _padded(labels, -100),
      "attention_mask": _padded([np.ones(len(x), np.uint8) for x in marked], 0),
      "spliced.shape": np.array([len(texts), length, DECODER.width]),
      "logit_pos_idx": at,
      "logits.at_logit_pos_idx": logits[:, at],
      "loss": np.array([loss]),
    }
    arrays |= {f"{case}.{name}": x for name, x in values.items()}
  return samples, arrays


def _padded(lines, value):
  longest = max(map(len, lines))
  return np.stack([np.pad(x, (0, longest - len(x)), constant_values=value) for x in lines])


def _batch(tokenizer, kind, texts):
  form = rows.RowFormat(VisualTable(model("released"), 1, 1), 300, tokenizer, resize="crop")
  frames = 1 if kind == "image" else FRAMES
  blank = Medium(kind, np.zeros((frames, SIZE, SIZE, 3), np.uint8))
  return rows.collate([rows.encode([Sample("x", t, (blank,))], [0], form) for t in texts])


def _logits(params, visual, batch):
  """Logits [B L V], zero at padding, and the mean loss; `visual` is [frames or pictures, P, D]."""
  decoder, found, nll, count = params["decoder"], [], 0.0, 0
  for b, tokens in enumerate(batch.tokens):
    own = visual[b] if len(batch.tokens) > 1 else visual.reshape(-1, visual.shape[-1])
    real = int((batch.segment_ids[b] > 0).sum())
    # A clip's tokens come behind the row's one picture slot in the table.
    index = batch.visual_index[b][:real]
    index = np.where(index >= 0, index - index[index >= 0].min(), -1)
    x = np.stack(
      [own[i] if i >= 0 else decoder["embedding"][t] for t, i in zip(tokens, index, strict=False)]
    )
    hidden = reference.decoder(decoder, x.astype(float), np.arange(real), np.ones(real), DECODER)
    logits = np.zeros((len(tokens), DECODER.vocab))
    logits[:real] = hidden @ decoder["head"]["kernel"]
    for i in np.flatnonzero(batch.loss_weights[b]):
      nll -= np.log(reference.softmax(logits[i])[batch.targets[b][i]])
      count += 1
    found.append(logits)
  return np.stack(found), nll / count
