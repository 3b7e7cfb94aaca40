"""Is a model read from transformers' files the same model, and can transformers read ours back?

  python experiments/parity/transformers_parity.py [FOLDER ...] [--json OUT] [--torch]

Each FOLDER holds a checkpoint and references.npz (transformers_references.py makes them; default:
all of tests/goldens/transformers). Compares vision features, logits and greedy tokens in float32.
--torch also exports each imported model, opens the export with transformers, demands that no key
is missing or unexpected, and compares its logits with the references (needs torch).
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from facejax import convert, generate
from facejax.config import DecoderConfig, ModelConfig, RunConfig, VitConfig
from facejax.fake import fake_batch
from facejax.models.face_mllm import FaceMLLM
from facejax.models.vit import Vit
from facejax.types import Batch

GOLDENS = Path(__file__).parents[2] / "tests/goldens/transformers"
TOLERANCE = 1e-4  # absolute, float32 on a CPU


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("folders", nargs="*", type=Path)
  parser.add_argument("--json", type=Path)
  parser.add_argument("--torch", action="store_true")
  args = parser.parse_args()
  folders = args.folders or sorted(p.parent for p in GOLDENS.glob("*/references.npz"))
  result = {}
  for folder in folders:
    result[folder.name] = errors(folder)
    if args.torch:
      result[folder.name] |= exported(folder)
    print(folder.name, json.dumps(result[folder.name]), flush=True)
  if args.json:
    args.json.write_text(json.dumps({"tolerance": TOLERANCE, "errors": result}, indent=1) + "\n")
  failed = [f"{n}/{k}" for n, e in result.items() for k, v in e.items() if not v <= TOLERANCE]
  print("failed: " + ", ".join(failed) if failed else f"all within {TOLERANCE}")
  return bool(failed)


def errors(folder: Path) -> dict[str, float]:
  """Largest absolute difference of each array; of greedy tokens, how many differ."""
  want = dict(np.load(folder / "references.npz"))
  found = convert.load(folder)
  if "hidden_states" in want:  # an encoder alone
    return {"hidden_states": encoder_error(found, want)}
  config = found.config
  if isinstance(config, DecoderConfig):  # alone: no picture comes to the encoder
    config = ModelConfig(image=VitConfig(1, 1, 1, 1, 1, 1), decoder=config, dtype="float32")
  else:
    config = config.model
  model = FaceMLLM(config)
  batch = prompt(config, image_token(folder), want)
  got = {"logits": np.asarray(jax.jit(model.apply)({"params": found.params}, batch))}
  if "features" in want:
    encode = lambda params, media: model.apply({"params": params}, media, "image", method="visual")
    got["features"] = np.asarray(jax.jit(encode)(found.params, batch.images)[0])[0]
  sampling = generate.Sampling(new_tokens=want["greedy"].shape[1])
  keys = jax.random.split(jax.random.key(0), len(batch.tokens))
  tokens = generate.generate(model, found.params, batch, keys, sampling)[0]
  return {
    **{name: float(np.abs(x - want[name]).max()) for name, x in got.items()},
    "greedy": float((np.asarray(tokens) != want["greedy"]).sum()),
  }


def encoder_error(found: convert.Imported, want: dict[str, np.ndarray]) -> float:
  """Over the hidden states that an encoder shows: the embeddings and the selected layer."""
  pixels = jnp.asarray(want["pixel_values"].transpose(0, 2, 3, 1)[:, None])
  config = found.config
  params = {"params": found.params["image_encoder"]}
  _, out = jax.jit(Vit(config).apply)(params, pixels)
  states = want["hidden_states"]
  pairs = ((out["embeddings"], states[0]), (out["selected"], states[config.select_layer]))
  return max(float(np.abs(np.asarray(x)[:, 0] - y).max()) for x, y in pairs)


def prompt(config: ModelConfig, image: int, want: dict[str, np.ndarray]) -> Batch:
  """The reference's inputs as a batch: its image tokens become places of visual tokens."""
  ids = want["input_ids"]
  rows, length = ids.shape
  pixels = want.get("pixel_values")
  batch = fake_batch(config, rows, max(length, 2), images=0)
  images = batch.images
  if pixels is not None:
    size = len(pixels)
    images = fake_batch(config, 1, 10**4, images=size).images
    images = dataclasses.replace(
      images, pixels=jnp.asarray(pixels.transpose(0, 2, 3, 1)[None, :, None])
    )
  visual = ids == image if pixels is not None else np.zeros_like(ids, bool)
  index = np.where(visual, np.cumsum(visual, axis=1) - 1, -1)
  return dataclasses.replace(
    batch,
    tokens=jnp.asarray(np.where(visual, 0, ids), jnp.int32),
    positions=jnp.broadcast_to(jnp.arange(length), ids.shape),
    segment_ids=jnp.ones(ids.shape, jnp.int32),
    visual_index=jnp.asarray(index, jnp.int32),
    images=images,
  )


def image_token(folder: Path) -> int:
  """The id that stands for a visual token, in either of transformers' spellings."""
  config = json.loads((folder / "config.json").read_text())
  return config.get("image_token_id", config.get("image_token_index", -1))


def exported(folder: Path) -> dict[str, float]:
  """Import, export, and what transformers makes of the export; of whole models.

  Encoders and decoders by themselves are only read; LLaVA and InternVL write them as their parts.
  """
  import torch
  import transformers

  want = dict(np.load(folder / "references.npz"))
  architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
  found = convert.load(folder)
  if not isinstance(found.config, RunConfig):
    return {}
  with tempfile.TemporaryDirectory() as out:
    convert.export(found.config, found.params, found.family, Path(out), like=folder)
    model, report = getattr(transformers, architecture).from_pretrained(
      out, output_loading_info=True, dtype=torch.float32
    )
  problems = {name: sorted(map(str, keys)) for name, keys in report.items() if keys}
  if problems:
    print(f"{folder.name}: {problems}", file=sys.stderr)
  inputs = {k: torch.from_numpy(want[k]) for k in ("input_ids", "pixel_values") if k in want}
  with torch.no_grad():
    error = np.abs(model(**inputs).logits.numpy() - want["logits"]).max()
  keys = sum(len(keys) for keys in report.values())
  return {"export_logits": float(error), "export_wrong_keys": float(keys)}


if __name__ == "__main__":
  raise SystemExit(main())
