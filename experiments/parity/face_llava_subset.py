"""A folder of official Face-LLaVA references -> the part of it that the tests carry, packed.

python experiments/parity/face_llava_subset.py FOLDER tests/goldens/face_llava
"""

import argparse
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from face_llava.folder import MASKED, WEIGHTS

SMALL = (
  "config.json",
  "image_tower_config.json",
  "video_tower_config.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "preprocess.npz",
)
CASES = ("img_simple", "vid_simple", "vid_masked", "mixed", "truncated_all", "left_pad")
ANSWERS = ("gen_img_simple", "gen_vid_masked")
POSITIONS = 6  # of embeddings and logits
TOKENS = 4  # of the encoders and the fusion
# Of random float32 numbers only the exponents compress, which are every fourth byte.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2}]


def thinned(arrays: dict[str, np.ndarray], index: str, suffix: str, count: int) -> None:
  """Keeps `count` of the positions that `index` names, there and in the arrays that follow it."""
  size = len(arrays[index])
  kept = np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(int))
  prefix = index.removesuffix(index.rpartition(".")[2])
  for name in [n for n in arrays if n.startswith(prefix) and n.endswith(suffix)]:
    arrays[name] = arrays[name][:, kept]
  arrays[index] = arrays[index][kept]


def vision(folder: Path) -> dict[str, Any]:
  """Every stage, at a few tokens."""
  with np.load(folder / "vision.npz") as stored:
    arrays = {n: stored[n] for n in stored.files}
  whole = ("sample0", "full257", "frame3", "rpp_mask")
  arrays = {n: x for n, x in arrays.items() if not n.endswith(whole) and "lmtok" not in n}
  indices = arrays["tok_idx"]
  arrays["tok_idx"] = indices[np.linspace(0, len(indices) - 1, TOKENS).round().astype(int)]
  for name in [n for n in arrays if n.endswith(".tok")]:
    there = indices[: arrays[name].shape[-2]]
    arrays[name] = arrays[name][..., np.isin(there, arrays["tok_idx"]), :]
  return arrays


def e2e(folder: Path) -> dict[str, Any]:
  """Some cases, at a few positions."""
  with np.load(folder / "e2e.npz") as stored:
    names = [n for n in stored.files if n.split(".")[0] in (*CASES, *ANSWERS)]
    arrays = {n: stored[n] for n in names}
  for case in CASES:
    for kind in ("emb", "logit"):
      if f"{case}.{kind}_pos_idx" in arrays:
        thinned(arrays, f"{case}.{kind}_pos_idx", f".at_{kind}_pos_idx", POSITIONS)
  return arrays


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=Path)
  parser.add_argument("target", type=Path)
  args = parser.parse_args()
  for name in SMALL:
    shutil.copyfile(args.folder / name, args.target / name)
  for name in ("conversations.json", "grads.json"):
    text = json.dumps(json.loads((args.folder / name).read_text()), separators=(",", ":"))
    (args.target / name).write_text(text + "\n")
  for name in (WEIGHTS, MASKED):
    packed = lzma.compress((args.folder / name).read_bytes(), filters=FILTERS)
    (args.target / f"{name}.xz").write_bytes(packed)
  shutil.copyfile(args.folder / "inputs.npz", args.target / "inputs.npz")
  np.savez_compressed(args.target / "vision.npz", **vision(args.folder))
  np.savez_compressed(args.target / "e2e.npz", **e2e(args.folder))
  for file in sorted(args.target.iterdir()):
    print(f"{file.stat().st_size / 1e3:8.1f} kB  {file.name}")


if __name__ == "__main__":
  main()
