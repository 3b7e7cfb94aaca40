"""Slow NumPy versions of the modules, one number at a time where that matters. Float64."""

import math

import internvl_reference
import numpy as np

from facejax.faces.segmentation import PALETTE as COLOURS

RANGES = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68)]
NAMES = ["face", "eyebrow1", "eyebrow2", "nose", "nostril", "eye1", "eye2", "lips", "teeth"]


def linear(p, x):
  return x @ p["kernel"] + p.get("bias", 0)


def layer_norm(p, x, eps):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def rms_norm(p, x, eps):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"]


def gelu(x):
  return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def mha(p, x, memory, heads, bias=None):
  """x [n D], memory [m D] -> [n D], weights [heads n m]. Without p["out"], no last projection."""
  q, k, v = linear(p["q"], x), linear(p["k"], memory), linear(p["v"], memory)
  width = x.shape[-1] // heads
  mixed, weights = np.zeros_like(q), np.zeros((heads, len(x), len(memory)))
  for n in range(heads):
    span = slice(n * width, (n + 1) * width)
    for i in range(len(x)):
      logits = k[:, span] @ q[i, span] / math.sqrt(width)
      weights[n, i] = softmax(logits if bias is None else logits + bias[i])
      mixed[i, span] = weights[n, i] @ v[:, span]
  return (linear(p["out"], mixed) if "out" in p else mixed), weights


def vit_block(p, x, cfg):
  """x [T P E]."""
  T, P, _ = x.shape
  if cfg.frames:
    x = x + p["temporal_embedding"][:, None]
    y = layer_norm(p["temporal_norm"], x, cfg.eps)
    new = [mha(p["temporal_attention"], y[:, i], y[:, i], cfg.heads)[0] for i in range(P)]
    x = x + np.stack(new, axis=1)
  y = layer_norm(p["attention_norm"], x, cfg.eps)
  x = x + np.stack([mha(p["attention"], y[t], y[t], cfg.heads)[0] for t in range(T)])
  y = linear(p["fc1"], layer_norm(p["mlp_norm"], x, cfg.eps))
  y = gelu(y) if cfg.activation == "gelu" else y * sigmoid(1.702 * y)
  return x + linear(p["fc2"], y)


def vit_hidden_states(p, pixels, cfg):
  """pixels [T Y X 3] uint8 -> the list of hidden states [T P+1 E] and the post-normed last."""
  mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
  kernel = p["patch"]["kernel"].reshape(cfg.patch, cfg.patch, 3, cfg.width)
  x = np.zeros((len(pixels), cfg.grid**2 + 1, cfg.width))
  x[:, 0] = p["class_embedding"]
  for t, row, col in np.ndindex(len(pixels), cfg.grid, cfg.grid):
    for y, z, c in np.ndindex(cfg.patch, cfg.patch, 3):
      value = pixels[t, row * cfg.patch + y, col * cfg.patch + z, c] / 255
      x[t, 1 + row * cfg.grid + col] += (value - mean[c]) / std[c] * kernel[y, z, c]
  states = [layer_norm(p["pre_norm"], x + p["positions"], cfg.eps)]
  for part in ("blocks", "rest"):
    for i in range(len(p[part]["mlp_norm"]["scale"]) if part in p else 0):
      states.append(vit_block(layer(p[part], i), states[-1], cfg))
  return states, layer_norm(p["post_norm"], states[-1], cfg.eps)


def layer(p, i):
  return {k: layer(v, i) if isinstance(v, dict) else v[i] for k, v in p.items()}


def region_tokens(p, landmarks):
  """landmarks [68 2] -> [9 D]."""
  tokens = [
    linear(p[n], np.array([c for point in landmarks[a:b] for c in point]))
    for n, (a, b) in zip(NAMES, RANGES, strict=True)
  ]
  return np.stack(tokens) + linear(p["global"], landmarks.reshape(-1))


def proximity(landmarks, grid, class_token, swapped=False):
  """[P 9]: minus the distance of patch and region, both (x, y), or a patch as (y, x)."""
  rows = [[0.0] * 9] if class_token else []
  for y in range(grid):
    for x in range(grid):
      centre = ((x + 0.5) / grid, (y + 0.5) / grid)
      centre = centre[::-1] if swapped else centre
      rows.append([-math.dist(centre, landmarks[a:b].mean(0)) for a, b in RANGES])
  return np.array(rows)


def map_tokens(params, maps, cfg):
  """maps [y x] -> [Q D], as the config says."""
  seg = cfg.segmentation
  if seg.form == "shares":
    return segmentation_tokens(params["segmentation"], maps, seg)
  encoder, vit = ("segmentation_encoder", seg.vit) if seg.vit else ("image_encoder", cfg.image)
  painted = np.array([[COLOURS[i] if i < 19 else COLOURS[0] for i in row] for row in maps])
  x = vit_hidden_states(params[encoder], painted[None], vit)[0][vit.select_layer][0, 1:]
  p = params["segmentation" if seg.projector == "own" else "projector"]
  return linear(p["fc2"], gelu(linear(p["fc1"], x)))


def segmentation_tokens(p, maps, cfg):
  """maps [y x] -> [Q D]."""
  cell = cfg.size // cfg.grid
  x = np.array(p["positions"])
  for y, z in np.ndindex(cfg.size, cfg.size):
    if maps[y, z] < cfg.classes:
      x[y // cell * cfg.grid + z // cell] += p["classes"][maps[y, z]] / cell**2
  return linear(p["fc2"], gelu(linear(p["fc1"], x)))


def rotate(x, position, theta):
  """x [H]: rotate-half."""
  half = len(x) // 2
  out = np.zeros_like(x)
  for i in range(half):
    angle = position * theta ** (-i / half)
    out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
    out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
  return out


def decoder(p, x, positions, segments, cfg):
  """One row, x [L D] -> hidden [L D]."""
  L, H = len(x), cfg.head_width
  theta = internvl_reference.rope_bases(positions, segments, cfg)
  for i in range(cfg.layers):
    b = layer(p["blocks"], i)
    y = rms_norm(b["attention_norm"], x, cfg.eps)
    q = linear(b["attention"]["q"], y).reshape(L, cfg.heads, H)
    k = linear(b["attention"]["k"], y).reshape(L, cfg.kv_heads, H)
    v = linear(b["attention"]["v"], y).reshape(L, cfg.kv_heads, H)
    mixed = np.zeros((L, cfg.heads, H))
    for n, j in np.ndindex(cfg.heads, L):
      seen = [s for s in range(j + 1) if segments[s] == segments[j] and segments[j] > 0]
      if not seen:
        continue
      head = n // (cfg.heads // cfg.kv_heads)
      turned = rotate(q[j, n], positions[j], theta[j])
      logits = [turned @ rotate(k[s, head], positions[s], theta[s]) for s in seen]
      weights = softmax(np.array(logits) / math.sqrt(H))
      mixed[j, n] = sum(w * v[s, head] for w, s in zip(weights, seen, strict=True))
    x = x + linear(b["attention"]["out"], mixed.reshape(L, -1))
    y = rms_norm(b["mlp_norm"], x, cfg.eps)
    gate = linear(b["gate"], y)
    x = x + linear(b["down"], gate * sigmoid(gate) * linear(b["up"], y))
  return rms_norm(p["norm"], x, cfg.eps)


def released_fusion(p, patches, regions, cfg):
  mixed, weights = mha(p["attention"], patches, regions, cfg.heads)
  inner = layer_norm(p["norm"], patches + mixed, 1e-5)
  return patches + cfg.branch_scale * linear(p["linear"], inner), weights


def masked_fusion(p, patches, regions, landmarks, cfg):
  grid = math.isqrt(len(patches))
  distance = proximity(landmarks, grid, len(patches) > grid**2, cfg.grid == "yx")
  mask = np.array([softmax(row) for row in distance])
  mixed, weights = mha(p["attention"], patches, regions, cfg.heads, mask)
  inner = layer_norm(p["norm"], patches + mixed, 1e-5)
  return patches + cfg.branch_scale * linear(p["linear"], inner), weights


def paper_fusion(p, patches, regions, landmarks, cfg):
  grid = math.isqrt(len(patches))
  bias = proximity(landmarks, grid, len(patches) > grid**2)
  mixed, weights = mha(p["attention"], patches, regions, cfg.heads, bias)
  return patches + mixed, weights


def visual_rows(params, cfg, media, kind, row):
  """The tokens of a row's media of one kind, and of their maps, as lists."""
  vit = cfg.video if kind == "video" and cfg.video else cfg.image
  encoder = "video_encoder" if kind == "video" and cfg.video else "image_encoder"
  tokens, maps = [], []
  for m in range(media.pixels.shape[1]):
    pixels = np.asarray(media.pixels[row, m])
    if vit.layout == "intern":
      states = internvl_reference.vit_hidden_states(params[encoder], pixels, vit)
    else:
      states, _ = vit_hidden_states(params[encoder], pixels, vit)
    features = states[vit.select_layer]
    features = features if vit.tokens == "all" else features[:, 1:]
    for t in range(len(features)):
      x = features[t]
      if cfg.projector == "pixel_shuffle":
        x = internvl_reference.shuffled_and_normed(params["projector"]["norm"], x)
      x = linear(params["projector"]["fc2"], gelu(linear(params["projector"]["fc1"], x)))
      points = np.asarray(media.landmarks[row, m, t], np.float64)
      if media.landmarks_valid[row, m, t]:
        regions = region_tokens(params["landmark_projector"], points)
        if cfg.fusion.form == "released":
          x, _ = released_fusion(params["fusion"], x, regions, cfg.fusion)
        else:
          x, _ = paper_fusion(params["fusion"], x, regions, points, cfg.fusion)
      seg = np.asarray(media.segmentation[row, m, t])
      own = map_tokens(params, seg, cfg)
      if cfg.segmentation.mode == "add" and media.segmentation_valid[row, m, t]:
        x[len(x) - len(own) :] += own
      tokens += list(x)
      maps += list(own)
  return tokens, maps


def face_mllm(params, cfg, batch):
  """Logits [B L V]."""
  logits = []
  for b in range(len(batch.tokens)):
    table, maps = [], []
    for kind, media in (("image", batch.images), ("video", batch.videos)):
      own, own_maps = visual_rows(params, cfg, media, kind, b)
      table += own
      maps += own_maps
    table += maps if cfg.segmentation.mode == "concat" else []
    embedding = params["decoder"]["embedding"]
    x = np.stack(
      [
        table[i] if i >= 0 else embedding[t]
        for t, i in zip(batch.tokens[b], batch.visual_index[b], strict=True)
      ]
    )
    segments, positions = np.asarray(batch.segment_ids[b]), np.asarray(batch.positions[b])
    hidden = decoder(params["decoder"], x, positions, segments, cfg.decoder)
    logits.append(hidden @ params["decoder"]["head"]["kernel"])
  return np.stack(logits)
