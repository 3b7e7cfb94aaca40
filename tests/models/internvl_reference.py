"""Slow NumPy versions of what InternVL adds, one number at a time where that matters. Float64."""

import math

import numpy as np


def _linear(p, x):
  return np.array([row @ p["kernel"] for row in x]) + p.get("bias", 0)


def _norm(p, x, eps):
  """Layer norm with a bias, RMS norm without one, of each row of x [n E]."""
  out = np.zeros_like(x)
  for i, row in enumerate(x):
    row = row - row.mean() if "bias" in p else row
    out[i] = row / math.sqrt(sum(row**2) / len(row) + eps) * p["scale"] + p.get("bias", 0)
  return out


def _gelu(x):
  return np.vectorize(lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def _attention(p, x, heads, eps):
  """x [n E], every token sees every token."""
  q, k, v = (_linear(p[name], x) for name in "qkv")
  if "q_norm" in p:
    q, k = _norm(p["q_norm"], q, eps), _norm(p["k_norm"], k, eps)
  mixed = np.zeros_like(q)
  for own in np.split(np.arange(x.shape[1]), heads):
    for i in range(len(x)):
      e = np.array([math.exp(q[i, own] @ k[j, own] / math.sqrt(len(own))) for j in range(len(x))])
      mixed[i, own] = sum(w * v[j, own] for j, w in enumerate(e / e.sum()))
  return _linear(p["out"], mixed)


def _block(p, x, cfg):
  """x [T P E]."""
  x = np.array(x)
  attend = lambda name, y: _attention(p[name], y, cfg.heads, cfg.eps)
  if cfg.frames:
    x += p["temporal_embedding"][:, None]
    for i in range(x.shape[1]):
      x[:, i] += attend("temporal_attention", _norm(p["temporal_norm"], x[:, i], cfg.eps))
  for t in range(len(x)):
    x[t] += p["attention_scale"] * attend("attention", _norm(p["attention_norm"], x[t], cfg.eps))
    hidden = _gelu(_linear(p["fc1"], _norm(p["mlp_norm"], x[t], cfg.eps)))
    x[t] += p["mlp_scale"] * _linear(p["fc2"], hidden)
  return x


def _layer(p, i):
  return {k: _layer(v, i) if isinstance(v, dict) else np.float64(v[i]) for k, v in p.items()}


def vit_hidden_states(p, pixels, cfg):
  """pixels [T Y X 3] uint8 -> the list of hidden states [T P+1 E]."""
  mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  kernel = p["patch"]["kernel"].reshape(cfg.patch, cfg.patch, 3, cfg.width)
  x = np.zeros((len(pixels), cfg.grid**2 + 1, cfg.width)) + p["positions"]
  x[:, 0] += p["class_embedding"]
  x[:, 1:] += p["patch"]["bias"]
  for t, y, z, c in np.ndindex(pixels.shape):
    cell = 1 + y // cfg.patch * cfg.grid + z // cfg.patch
    value = (pixels[t, y, z, c] / 255 - mean[c]) / deviation[c]
    x[t, cell] += value * kernel[y % cfg.patch, z % cfg.patch, c]
  states = [x]
  for part in ("blocks", "rest"):
    for i in range(len(p[part]["mlp_scale"]) if part in p else 0):
      states.append(_block(_layer(p[part], i), states[-1], cfg))
  return states


def shuffled_and_normed(p, features):
  """features [P E] -> [P / 4, 4E], with the projector's layer norm (eps 1e-5)."""
  side = math.isqrt(len(features))
  picture = np.asarray(features, np.float64).reshape(side, side, -1)
  cells = []
  for i in range(side // 2):
    for j in range(side // 2):
      corners = [(2 * i, 2 * j), (2 * i, 2 * j + 1), (2 * i + 1, 2 * j), (2 * i + 1, 2 * j + 1)]
      cells.append([value for corner in corners for value in picture[corner]])
  return _norm(p, np.array(cells), 1e-5)


def rope_bases(positions, segments, cfg):
  """The rotary base at each position of a row: dynamic NTK by the length of its segment."""
  bases, d = [], cfg.head_width
  for own in segments:
    n = 1 + max(p for p, s in zip(positions, segments, strict=True) if s == own)
    growth = 1.0
    if n > cfg.max_length:
      growth = (cfg.rope_factor * n / cfg.max_length - (cfg.rope_factor - 1)) ** (d / (d - 2))
    bases.append(cfg.rope_theta * growth)
  return bases
