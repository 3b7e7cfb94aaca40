"""Three built sources of small pictures with landmarks, and the pipeline that mixes them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from facejax.cli import main as facejax
from facejax.config import DataConfig, DecoderConfig, FusionConfig, ModelConfig, VitConfig
from facejax.data.pipeline import Pipeline, load_tokenizer

ROWS = 16  # of a global batch
_SOURCES = {"first": (700, 5.0), "second": (190, 3.0), "third": (23, 1.0)}  # samples, weight
_WORDS = "the face of a person with dark hair and a calm look who is about forty years old"


def model() -> ModelConfig:
  """16 tokens a picture; what the decoder is does not matter here."""
  vit = VitConfig(32, patch=8, width=8, layers=1, heads=1, mlp=8, select_layer=-1)
  vocab = load_tokenizer("demo").vocab_size
  decoder = DecoderConfig(vocab, 8, 1, 1, 1, head_width=8, mlp=8, max_length=512)
  return ModelConfig(vit, decoder, fusion=FusionConfig(heads=1))


def build(folder: Path) -> None:
  """Writes index files and pictures, then builds them with the command that users have."""
  sources = []
  for number, (name, (samples, _)) in enumerate(_SOURCES.items()):
    _write(folder / name, samples, seed=number)
    sources.append({
      "name": name, "layout": "llava", "licence": "drawn here", "index": [f"{name}/train.json"]
    })  # fmt: skip
  (folder / "spec.json").write_text(json.dumps({"sources": sources}))
  (folder / "config.py").write_text(_CONFIG)
  built = ["data", "build", str(folder / "spec.json"), str(folder / "built")]
  if status := facejax([*built, "--config", str(folder / "config.py")]):
    raise RuntimeError(f"facejax data build ended with status {status}")


def _write(folder: Path, samples: int, seed: int) -> None:
  folder.mkdir()
  rng = np.random.default_rng(seed)
  records = []
  for i in range(samples):
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((64, 64)).save(folder / f"{i}.jpg")
    np.save(folder / f"{i}.npy", rng.uniform(40, 200, (68, 2)).astype(np.float32))
    answer = " ".join(rng.choice(_WORDS.split(), int(rng.integers(1, 50))))
    turns = [("human", "<image>\nWho is it?"), ("gpt", answer)]
    records.append({
      "id": i,
      "image": f"{i}.jpg",
      "landmarks_2d": f"{i}.npy",
      "conversations": [{"from": role, "value": text} for role, text in turns],
    })  # fmt: skip
  (folder / "train.json").write_text(json.dumps(records))


_CONFIG = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import dataset
from facejax.config import RunConfig

def get_config():
  return RunConfig(dataset.model(), dataset.data("built", 0), {{}})
"""


def data(folder: str | Path, workers: int) -> DataConfig:
  """A mixture of the built sources, four to six samples a row."""
  return DataConfig(
    384,
    tuple(str(Path(folder) / name) for name in _SOURCES),
    tuple(weight for _, weight in _SOURCES.values()),
    seed=11,
    images_per_row=6,
    modalities=("landmarks",),
    workers=workers,
  )


def pipeline(folder: Path, process: int, processes: int, workers: int) -> Pipeline:
  """One process's pipeline."""
  return Pipeline(model(), data(folder / "built", workers), ROWS, process=(process, processes))
