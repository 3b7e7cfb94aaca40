"""A tiny random InternVL3 in the layout of the released "-hf" folders, written without torch.

    python experiments/facellm/base.py FOLDER --size 1b

Names, shapes and files are those of OpenGVLab/InternVL3-{1B,8B,38B}-hf (weights in the layout of
transformers before 4.52, as they are released); numbers are drawn. The tokenizer is a byte-level
BPE with Qwen2's splitting rule, trained here on the texts of the experiment.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import save_file

from facejax.data.bpe import SPLIT
from facejax.data.chat import INTERNVL_SYSTEM

PIXELS, PATCH, LENGTH = 56, 14, 1024  # four visual tokens a tile
# What the released sizes differ in, small: the 38B has the 6B's encoder.
ENCODERS = {
  "300m": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72),
  "6b": dict(hidden_size=60, num_hidden_layers=3, num_attention_heads=5, intermediate_size=104),
}
SIZES = {
  "1b": ("300m", dict(width=48, layers=2, heads=6, kv_heads=2, head_width=8, mlp=136)),
  "8b": ("300m", dict(width=80, layers=3, heads=10, kv_heads=2, head_width=8, mlp=208)),
  "38b": ("6b", dict(width=128, layers=4, heads=8, kv_heads=4, head_width=16, mlp=336)),
}
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# In the order of the release, behind Qwen2's own.
ADDED = (
  *("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>"),
  *("<ref>", "</ref>", "<box>", "</box>"),
)
CHAT = (
  "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n'}}{% for c in m['content'] %}"
  "{% if c['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ c['text'] }}{% endif %}"
  "{% endfor %}{{'<|im_end|>\n'}}{% endfor %}"
  "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)
TEXTS = (
  INTERNVL_SYSTEM.system,
  "user\n assistant\n system\n",
  "Describe the demographic attributes of the image based on the visual information.",
  "Describe the facial structure, skin texture, expression and emotion, lighting and image quality,"
  " face pose, forensic considerations of the image based on the visual information.",
  "The face is seen from the front in even light, and bears the mark 0123456789abcdef.",
  "Please answer the question and provide only the correct option letter, e.g., A, B, C, D.\n",
  "Which of them is it, number 1?\n(A) male\n(B) female\n(C) Both\n(D) None of the above\n",
)


def make(folder: Path, size: str = "1b", seed: int = 0) -> list[str]:
  """Writes the folder; gives its settings()."""
  folder.mkdir(parents=True)
  vocab = write_tokenizer(folder)
  kind, text = SIZES[size]
  vision = ENCODERS[kind]
  rms = kind == "6b"
  rng = np.random.default_rng(seed)
  shapes = {**_vision(vision, rms), **_projector(vision, text), **_text(text, vocab)}
  weights = {name: _draw(rng, name, shape) for name, shape in shapes.items()}
  save_file(weights, folder / "model.safetensors", {"format": "pt"})
  _write_configs(folder, vision, text, rms, vocab)
  return settings(folder, size)


def settings(folder: Path, size: str) -> list[str]:
  """What changes in configs/facellm_SIZE.py to train such a folder."""
  kind, text = SIZES[size]
  vision = ENCODERS[kind]
  vocab = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
  names = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
  image = {**{new: vision[old] for old, new in names.items()}, "mlp": vision["intermediate_size"]}
  image["image_size"] = PIXELS
  decoder = {**text, "vocab": vocab, "max_length": LENGTH}
  return [f"model.image.{name}={value}" for name, value in image.items()] + [
    f"model.decoder.{name}={value}" for name, value in decoder.items()
  ]


def write_tokenizer(folder: Path) -> int:
  """tokenizer.json and its settings; gives the number of ids."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated")
  level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  model.normalizer = tokenizers.normalizers.NFC()
  model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
  model.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=560,
    min_frequency=1,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  model.train_from_iterator(TEXTS, trainer)
  model.add_special_tokens(list(SPECIALS + ADDED))
  model.save(str(folder / "tokenizer.json"))
  about = {
    "tokenizer_class": "Qwen2Tokenizer",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "model_max_length": 8192,
    "extra_special_tokens": {
      "start_image_token": "<img>",
      "end_image_token": "</img>",
      "context_image_token": "<IMG_CONTEXT>",
      "video_token": "<video>",
    },
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
    "processor_class": "InternVLProcessor",
  }
  _write(folder / "tokenizer_config.json", about)
  return model.get_vocab_size()


def _vision(c: dict, rms: bool) -> dict:
  """InternViT: the 6B has RMS norms, also of queries and keys, and no bias on q, k and v."""
  E, F = c["hidden_size"], c["intermediate_size"]
  cells = (PIXELS // PATCH) ** 2
  names = {
    "embeddings.cls_token": (1, 1, E),
    "embeddings.position_embeddings": (1, cells + 1, E),
    "embeddings.patch_embeddings.projection.weight": (E, 3, PATCH, PATCH),
    "embeddings.patch_embeddings.projection.bias": (E,),
  }
  for i in range(c["num_hidden_layers"]):
    layer = f"encoder.layer.{i}."
    for x in "qkv":
      names |= _linear(f"{layer}attention.{x}_proj", E, E, bias=not rms)
    names |= _linear(f"{layer}attention.projection_layer", E, E)
    names |= {f"{layer}attention.{x}_norm.weight": (E,) for x in "qk" if rms}
    for norm in ("layernorm_before", "layernorm_after"):
      names[f"{layer}{norm}.weight"] = (E,)
      names |= {} if rms else {f"{layer}{norm}.bias": (E,)}
    names |= _linear(f"{layer}mlp.fc1", F, E) | _linear(f"{layer}mlp.fc2", E, F)
    names |= {f"{layer}lambda_1": (E,), f"{layer}lambda_2": (E,)}
  return {f"vision_tower.{name}": shape for name, shape in names.items()}


def _projector(vision: dict, text: dict) -> dict:
  E, D = 4 * vision["hidden_size"], text["width"]
  names = {"layer_norm.weight": (E,), "layer_norm.bias": (E,)}
  names |= _linear("linear_1", D, E) | _linear("linear_2", D, D)
  return {f"multi_modal_projector.{name}": shape for name, shape in names.items()}


def _text(c: dict, vocab: int) -> dict:
  """Qwen2 with an output head of its own."""
  D, F, H = c["width"], c["mlp"], c["head_width"]
  names = {"model.embed_tokens.weight": (vocab, D)}
  for i in range(c["layers"]):
    layer = f"model.layers.{i}."
    names |= _linear(f"{layer}self_attn.q_proj", c["heads"] * H, D)
    names |= _linear(f"{layer}self_attn.k_proj", c["kv_heads"] * H, D)
    names |= _linear(f"{layer}self_attn.v_proj", c["kv_heads"] * H, D)
    names |= _linear(f"{layer}self_attn.o_proj", D, c["heads"] * H, bias=False)
    for x in ("gate", "up"):
      names |= _linear(f"{layer}mlp.{x}_proj", F, D, bias=False)
    names |= _linear(f"{layer}mlp.down_proj", D, F, bias=False)
    names |= {f"{layer}{x}_layernorm.weight": (D,) for x in ("input", "post_attention")}
  names |= {"model.norm.weight": (D,), "lm_head.weight": (vocab, D)}
  return {f"language_model.{name}": shape for name, shape in names.items()}


def _linear(name: str, out: int, inputs: int, bias: bool = True) -> dict:
  return {f"{name}.weight": (out, inputs)} | ({f"{name}.bias": (out,)} if bias else {})


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Far from zeros and ones, so that answers differ from picture to picture."""
  scale = 0.1 if len(shape) == 1 else 1.2 / np.sqrt(np.prod(shape[1:]))
  scale = 0.4 if "embed" in name or "lambda" in name else scale
  start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
  return (start + scale * rng.standard_normal(shape)).astype(np.float32)


def _write_configs(folder: Path, vision: dict, text: dict, rms: bool, vocab: int) -> None:
  ids = {token["content"]: token["id"] for token in _added(folder)}
  config = {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "downsample_ratio": 0.5,
    "image_seq_length": (PIXELS // PATCH // 2) ** 2,
    "image_token_id": ids["<IMG_CONTEXT>"],
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vision_config": {
      **vision,
      "model_type": "internvl_vision",
      "image_size": [PIXELS, PIXELS],
      "patch_size": [PATCH, PATCH],
      "num_channels": 3,
      "hidden_act": "gelu",
      "layer_norm_eps": 1e-6,
      "norm_type": "rms_norm" if rms else "layer_norm",
      "attention_bias": not rms,
      "use_qk_norm": rms,
      "use_mean_pooling": True,
      "use_absolute_position_embeddings": True,
    },
    "text_config": {
      "architectures": ["Qwen2ForCausalLM"],
      "model_type": "qwen2",
      "vocab_size": vocab,
      "hidden_size": text["width"],
      "num_hidden_layers": text["layers"],
      "num_attention_heads": text["heads"],
      "num_key_value_heads": text["kv_heads"],
      "head_dim": text["head_width"],
      "intermediate_size": text["mlp"],
      "hidden_act": "silu",
      "max_position_embeddings": LENGTH,
      "rms_norm_eps": 1e-6,
      "rope_theta": 1e6,
      "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
      "tie_word_embeddings": False,
      "use_sliding_window": False,
      "eos_token_id": ids["<|im_end|>"],
      "bos_token_id": ids["<|endoftext|>"],
    },
  }
  _write(folder / "config.json", config)
  generation = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
  _write(folder / "generation_config.json", generation)
  pictures = {
    "image_processor_type": "GotOcr2ImageProcessor",
    "crop_to_patches": False,  # InternVL's processor asks for patches all the same
    "min_patches": 1,
    "max_patches": 12,
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": PIXELS, "width": PIXELS},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "processor_class": "InternVLProcessor",
  }
  _write(folder / "preprocessor_config.json", pictures)
  processor = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
  _write(folder / "processor_config.json", processor)
  (folder / "chat_template.jinja").write_text(CHAT)


def _added(folder: Path) -> list[dict]:
  return json.loads((folder / "tokenizer.json").read_text())["added_tokens"]


def _write(path: Path, data: dict) -> None:
  path.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder", type=Path)
  parser.add_argument("--size", choices=SIZES, default="1b")
  arguments = parser.parse_args()
  print(" ".join(f"--config.{s}" for s in make(arguments.folder, arguments.size)))
