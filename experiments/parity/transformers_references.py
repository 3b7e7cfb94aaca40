"""Tiny random models as transformers writes them, with their outputs: the files that tests compare.

  pip install "torch==2.13.0" transformers
  python experiments/parity/transformers_references.py [--out tests/goldens/transformers]

A folder a model: the checkpoint as save_pretrained leaves it, and references.npz with the inputs,
the vision features, the logits and 16 greedy tokens. Needs torch; nothing of facejax is used.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
  CLIPVisionConfig,
  CLIPVisionModel,
  InternVLConfig,
  InternVLForConditionalGeneration,
  InternVLVisionConfig,
  LlamaConfig,
  LlamaForCausalLM,
  LlavaConfig,
  LlavaForConditionalGeneration,
  Qwen2Config,
  Qwen2ForCausalLM,
)

OUT = Path(__file__).parents[2] / "tests/goldens/transformers"
NEW = 16  # greedy tokens
VOCAB, IMAGE = 73, 70  # ids in all; the one that stands for a visual token
TEXT = dict(
  vocab_size=VOCAB,
  hidden_size=24,
  intermediate_size=40,
  num_hidden_layers=3,
  num_attention_heads=6,
  num_key_value_heads=2,
  rms_norm_eps=1e-6,
  tie_word_embeddings=False,
  bos_token_id=1,
  eos_token_id=2,
  pad_token_id=0,
)
CLIP = dict(
  hidden_size=20,
  intermediate_size=36,
  num_hidden_layers=4,
  num_attention_heads=5,
  image_size=12,
  patch_size=4,
  hidden_act="quick_gelu",
)
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", type=Path, default=OUT)
  out = parser.parse_args().out
  torch.manual_seed(0)
  torch.set_num_threads(1)
  for name, (model, inputs) in cases().items():
    randomise(model)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    arrays = outputs(model, inputs)
    np.savez_compressed(folder / "references.npz", **arrays)
    print(name, sorted(arrays), sum(f.stat().st_size for f in folder.iterdir()) // 1000, "kB")
  versions = {"torch": torch.__version__, "transformers": transformers.__version__}
  (out / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def cases() -> dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor]]]:
  """Models and what they are asked; image tokens are IMAGE."""
  text = torch.randint(3, IMAGE, (2, 11))
  qwen = Qwen2Config(**TEXT, max_position_embeddings=64, rope_parameters=DYNAMIC)
  llama = LlamaConfig(**TEXT, max_position_embeddings=64)
  llava = LlavaConfig(
    vision_config=CLIPVisionConfig(**CLIP),
    text_config=llama,
    image_token_index=IMAGE,
    image_seq_length=9,
    vision_feature_layer=-2,
    tie_word_embeddings=False,
  )
  return {
    "clip_quick_gelu": (CLIPVisionModel(CLIPVisionConfig(**CLIP)), pixels(2, 12)),
    "clip_gelu": (
      CLIPVisionModel(CLIPVisionConfig(**{**CLIP, "hidden_act": "gelu"})),
      pixels(2, 12),
    ),
    "llama": (LlamaForCausalLM(llama), {"input_ids": text}),
    "qwen2": (Qwen2ForCausalLM(qwen), {"input_ids": text}),
    "qwen2_tied": (
      Qwen2ForCausalLM(Qwen2Config(**{**TEXT, "tie_word_embeddings": True})),
      {"input_ids": text},
    ),
    # Longer than the 32 positions it was made for: dynamic scaling of the rotary base sets in.
    "qwen2_long": (
      Qwen2ForCausalLM(Qwen2Config(**TEXT, max_position_embeddings=32, rope_parameters=DYNAMIC)),
      {"input_ids": torch.randint(3, IMAGE, (1, 41))},
    ),
    "llava": (
      LlavaForConditionalGeneration(llava),
      {"input_ids": prompt([9]), **pixels(1, 12)},
    ),
    # One picture of three tiles and one of a single tile, in one prompt.
    "internvl_layer_norm": (
      InternVLForConditionalGeneration(
        intern(qwen, norm_type="layer_norm", use_qk_norm=False, attention_bias=True)
      ),
      {"input_ids": prompt([3 * 4, 4]), **pixels(4, 16)},
    ),
    "internvl_rms_norm": (
      InternVLForConditionalGeneration(
        intern(qwen, norm_type="rms_norm", use_qk_norm=True, attention_bias=False)
      ),
      {"input_ids": prompt([3 * 4, 4]), **pixels(4, 16)},
    ),
  }


def intern(text: Qwen2Config, **vision) -> InternVLConfig:
  return InternVLConfig(
    vision_config=InternVLVisionConfig(
      hidden_size=20,
      intermediate_size=36,
      num_hidden_layers=3,
      num_attention_heads=5,
      image_size=[16, 16],
      patch_size=[4, 4],
      **vision,
    ),
    text_config=text,
    image_token_id=IMAGE,
    image_seq_length=4,
    downsample_ratio=0.5,
    tie_word_embeddings=False,  # as every released size; the class default is True
  )


def pixels(count: int, size: int) -> dict[str, torch.Tensor]:
  return {"pixel_values": torch.randn(count, 3, size, size)}


def prompt(visual: list[int]) -> torch.Tensor:
  """Text, then each picture's tokens with two tokens of text behind them."""
  ids = torch.randint(3, IMAGE, (5,)).tolist()
  for count in visual:
    ids += [IMAGE] * count + torch.randint(3, IMAGE, (2,)).tolist()
  return torch.tensor([ids])


def randomise(model: torch.nn.Module) -> None:
  """Every parameter far from its start, so that nothing is hidden by a zero or a one."""
  for name, parameter in model.named_parameters():
    scale = 0.1 if parameter.ndim == 1 else 1.2 / parameter[0].numel() ** 0.5
    if "embed" in name or "lambda" in name:
      scale = 0.4
    start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
    parameter.data = start + scale * torch.randn_like(parameter)


@torch.no_grad()
def outputs(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
  model.eval()
  arrays = {name: x.numpy() for name, x in inputs.items()}
  if isinstance(model, CLIPVisionModel):
    hidden = model(**inputs, output_hidden_states=True).hidden_states
    return {**arrays, "hidden_states": torch.stack(hidden).numpy()}
  if "pixel_values" in inputs:
    features = model.get_image_features(inputs["pixel_values"])
    features = getattr(features, "pooler_output", features)
    arrays["features"] = torch.cat(list(features)).numpy()
  arrays["logits"] = model(**inputs).logits.numpy()
  ids = model.generate(
    **inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
  )
  arrays["greedy"] = ids[:, -NEW:].numpy()
  top = np.sort(arrays["logits"][:, -1], axis=-1)
  arrays["margin"] = top[:, -1] - top[:, -2]
  return arrays


if __name__ == "__main__":
  main()
