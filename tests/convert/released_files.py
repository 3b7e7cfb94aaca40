"""Tiny random checkpoints as they are released: names and shapes written out by hand, per layout.

Nothing here reads the tables under test. Sizes are pairwise distinct where the layouts allow it.
"""

import json
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

LANDMARKS = {
  "face": 34, "eyebrow1": 10, "eyebrow2": 10, "nose": 8, "nostril": 10,
  "eye1": 12, "eye2": 12, "lips": 24, "teeth": 16,
}  # fmt: skip
VIT = dict(
  hidden_size=10, num_hidden_layers=4, num_attention_heads=2, intermediate_size=14, image_size=12,
  patch_size=4, layer_norm_eps=1e-5, hidden_act="gelu",
)  # fmt: skip
VIDEO = {
  **VIT, "intermediate_size": 18, "image_size": 8, "num_attention_heads": 5,
  "num_hidden_layers": 3, "add_time_attn": True, "num_frames": 2,
}  # fmt: skip
TEXT = dict(
  vocab_size=22, hidden_size=24, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
  intermediate_size=34, max_position_embeddings=640, rms_norm_eps=1e-6, hidden_act="silu",
)  # fmt: skip


def clip(prefix: str, c: dict) -> dict:
  """CLIPVisionTransformer's state dict, LanguageBind's with add_time_attn."""
  E, F, p, n = c["hidden_size"], c["intermediate_size"], c["patch_size"], c["image_size"]
  names = {
    "embeddings.class_embedding": (E,),
    "embeddings.patch_embedding.weight": (E, 3, p, p),
    "embeddings.position_embedding.weight": ((n // p) ** 2 + 1, E),
    "pre_layrnorm.weight": (E,), "pre_layrnorm.bias": (E,),
    "post_layernorm.weight": (E,), "post_layernorm.bias": (E,),
  }  # fmt: skip
  for i in range(c["num_hidden_layers"]):
    layer = f"encoder.layers.{i}."
    attentions = ["self_attn"] + ["temporal_attn"] * bool(c.get("add_time_attn"))
    for attention in attentions:
      for x in ("k_proj", "v_proj", "q_proj", "out_proj"):
        names |= {f"{layer}{attention}.{x}.weight": (E, E), f"{layer}{attention}.{x}.bias": (E,)}
    for norm in ["layer_norm1", "layer_norm2"] + ["temporal_layer_norm1"] * (len(attentions) - 1):
      names |= {f"{layer}{norm}.weight": (E,), f"{layer}{norm}.bias": (E,)}
    names |= {f"{layer}mlp.fc1.weight": (F, E), f"{layer}mlp.fc1.bias": (F,)}
    names |= {f"{layer}mlp.fc2.weight": (E, F), f"{layer}mlp.fc2.bias": (E,)}
    if len(attentions) > 1:
      names[f"{layer}temporal_embedding"] = (1, c["num_frames"], E)
  return {prefix + name: shape for name, shape in names.items()}


def llama(prefix: str, head: str, c: dict = TEXT, biases: bool = False) -> dict:
  """LlamaModel's state dict and the output head; with biases, Qwen2Model's."""
  D, F, V = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
  K = D // c["num_attention_heads"] * c["num_key_value_heads"]
  names = {f"{prefix}embed_tokens.weight": (V, D)}
  for i in range(c["num_hidden_layers"]):
    layer = f"{prefix}layers.{i}."
    for x, out in (("q_proj", D), ("k_proj", K), ("v_proj", K)):
      names[f"{layer}self_attn.{x}.weight"] = (out, D)
      if biases:
        names[f"{layer}self_attn.{x}.bias"] = (out,)
    names[f"{layer}self_attn.o_proj.weight"] = (D, D)
    names |= {f"{layer}mlp.gate_proj.weight": (F, D), f"{layer}mlp.up_proj.weight": (F, D)}
    names[f"{layer}mlp.down_proj.weight"] = (D, F)
    names |= {
      f"{layer}input_layernorm.weight": (D,),
      f"{layer}post_attention_layernorm.weight": (D,),
    }
  return names | {f"{prefix}norm.weight": (D,), head: (V, D)}


def linear(name: str, out: int, inputs: int) -> dict:
  """A torch Linear."""
  return {f"{name}.weight": (out, inputs), f"{name}.bias": (out,)}


def landmarks(form: str, D: int = 24) -> dict:
  """Face-LLaVA's landmark modules; form "simple" or "masked"."""
  names = {}
  for region, size in LANDMARKS.items():
    names |= linear(f"model.landmarks_projector.region_layers.{region}", D, size)
  names |= linear("model.global_landmarks_projector", D, 136)
  outer = "model.landmarks_cross_attn"
  if form == "simple":
    inner = f"{outer}.cross_attn.attn"
    names |= {f"{inner}.in_proj_weight": (3 * D, D), f"{inner}.in_proj_bias": (3 * D,)}
    names |= linear(f"{inner}.out_proj", D, D)
  else:
    for x in "qkv":
      names |= linear(f"{outer}.cross_attn.{x}_proj", D, D)
  names |= {f"{outer}.cross_attn.ln.weight": (D,), f"{outer}.cross_attn.ln.bias": (D,)}
  names |= linear(f"{outer}.linear_proj", D, D)
  return names | {f"{outer}.ln.weight": (D,), f"{outer}.ln.bias": (D,)}


def face_llava(form: str = "simple") -> dict:
  """Form "none" is Video-LLaVA's."""
  names = clip("model.image_tower.image_tower.", VIT)
  names |= clip("model.video_tower.video_tower.", VIDEO)
  names |= linear("model.mm_projector.0", 24, 10) | linear("model.mm_projector.2", 24, 24)
  names |= landmarks(form) if form != "none" else {}
  names |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (2,) for i in range(3)}
  return names | llama("model.", "lm_head.weight")


MM = dict(
  **TEXT, model_type="llava", architectures=["LlavaLlamaForCausalLM"],
  mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-2, mm_vision_select_feature="patch",
  image_aspect_ratio="pad",
  mm_hidden_size=10, tokenizer_model_max_length=320, torch_dtype="float32", bos_token_id=1,
)  # fmt: skip
FACE_LLAVA = dict(**MM, mm_image_tower="my/image", mm_video_tower="my/video")
INTERN = dict(
  hidden_size=20, num_hidden_layers=2, num_attention_heads=5, intermediate_size=26,
  layer_norm_eps=1e-6, hidden_act="gelu",
)  # fmt: skip
QWEN = {
  **TEXT, "model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": False,
  "rope_scaling": {"type": "dynamic", "factor": 2.0},
}  # fmt: skip


def internvl_hf(since_452: bool = False, rms: bool = False) -> dict:
  """InternVL3 in transformers, as in files or as in memory since 4.52; rms is the 6B's encoder."""
  outer, text, head = "", "language_model.model.", "language_model.lm_head.weight"
  if since_452:
    outer, text, head = "model.", "model.language_model.", "lm_head.weight"
  E, F = 20, 26
  norm = lambda name: {f"{name}.weight": (E,)} | ({} if rms else {f"{name}.bias": (E,)})
  names = {
    "embeddings.cls_token": (1, 1, E), "embeddings.position_embeddings": (1, 17, E),
    "embeddings.patch_embeddings.projection.weight": (E, 3, 7, 7),
    "embeddings.patch_embeddings.projection.bias": (E,),
  }  # fmt: skip
  for i in range(2):
    layer = f"encoder.layer.{i}."
    for x in ("q_proj", "k_proj", "v_proj", "projection_layer"):
      names[f"{layer}attention.{x}.weight"] = (E, E)
      if x == "projection_layer" or not rms:
        names[f"{layer}attention.{x}.bias"] = (E,)
    if rms:
      names |= {f"{layer}attention.{x}.weight": (E,) for x in ("q_norm", "k_norm")}
    names |= norm(f"{layer}layernorm_before") | norm(f"{layer}layernorm_after")
    names |= linear(f"{layer}mlp.fc1", F, E) | linear(f"{layer}mlp.fc2", E, F)
    names |= {f"{layer}lambda_1": (E,), f"{layer}lambda_2": (E,)}
  names = {f"{outer}vision_tower.{name}": shape for name, shape in names.items()}
  projector = f"{outer}multi_modal_projector"
  names |= {f"{projector}.layer_norm.weight": (80,), f"{projector}.layer_norm.bias": (80,)}
  names |= linear(f"{projector}.linear_1", 24, 80) | linear(f"{projector}.linear_2", 24, 24)
  return names | llama(text, head, biases=True)


def internvl(rms: bool = False) -> dict:
  """InternVLChatModel's own names; q, k and v are one matrix."""
  E, F = 20, 26
  norm = lambda name: {f"{name}.weight": (E,)} | ({} if rms else {f"{name}.bias": (E,)})
  names = {
    "embeddings.class_embedding": (1, 1, E), "embeddings.position_embedding": (1, 17, E),
    "embeddings.patch_embedding.weight": (E, 3, 7, 7), "embeddings.patch_embedding.bias": (E,),
  }  # fmt: skip
  for i in range(2):
    layer = f"encoder.layers.{i}."
    names[f"{layer}attn.qkv.weight"] = (3 * E, E)
    names |= {f"{layer}attn.q_norm.weight": (E,), f"{layer}attn.k_norm.weight": (E,)} if rms else {}
    names |= {} if rms else {f"{layer}attn.qkv.bias": (3 * E,)}
    names |= linear(f"{layer}attn.proj", E, E)
    names |= norm(f"{layer}norm1") | norm(f"{layer}norm2")
    names |= linear(f"{layer}mlp.fc1", F, E) | linear(f"{layer}mlp.fc2", E, F)
    names |= {f"{layer}ls1": (E,), f"{layer}ls2": (E,)}
  names = {f"vision_model.{name}": shape for name, shape in names.items()}
  names |= {"mlp1.0.weight": (80,), "mlp1.0.bias": (80,)}
  names |= linear("mlp1.1", 24, 80) | linear("mlp1.3", 24, 24)
  return names | llama("language_model.model.", "language_model.lm_head.weight", biases=True)


def internvl_config(original: bool, rms: bool = False) -> dict:
  """Its config.json; the original has other names for two switches and for the decoder's part."""
  norm = {"norm_type": "rms_norm" if rms else "layer_norm"}
  if original:
    vision = {**INTERN, **norm, "image_size": 28, "patch_size": 7}
    vision |= {"qkv_bias": not rms, "qk_normalization": rms}
    return dict(
      model_type="internvl_chat", ps_version="v2", select_layer=-1, downsample_ratio=0.5,
      vision_config=vision, llm_config=QWEN, torch_dtype="bfloat16",
    )  # fmt: skip
  vision = {**INTERN, **norm, "image_size": [28, 28], "patch_size": [7, 7]}
  vision |= {"attention_bias": not rms, "use_qk_norm": rms}
  return dict(
    model_type="internvl", vision_config=vision, text_config=QWEN, torch_dtype="bfloat16",
    image_token_id=9, vision_feature_layer=-1, downsample_ratio=0.5,
  )  # fmt: skip


def llava_hf(level: str = "vision_model.", since_452: bool = False) -> dict:
  """LLaVA-1.5 in transformers; since 5 without the level of CLIP's own model."""
  outer, text, head = "", "language_model.model.", "language_model.lm_head.weight"
  if since_452:
    outer, text, head = "model.", "model.language_model.", "lm_head.weight"
  names = clip(f"{outer}vision_tower.{level}", VIT)
  names |= linear(f"{outer}multi_modal_projector.linear_1", 24, 10)
  names |= linear(f"{outer}multi_modal_projector.linear_2", 24, 24)
  return names | llama(text, head)


LLAVA_HF = dict(
  model_type="llava", vision_config=VIT, text_config={**TEXT, "model_type": "llama"},
  image_token_index=9, vision_feature_layer=-2, vision_feature_select_strategy="default",
  projector_hidden_act="gelu", torch_dtype="float32",
)  # fmt: skip


def llava() -> dict:
  """LLaVA-1.5 as its authors write it."""
  names = clip("model.vision_tower.vision_tower.vision_model.", VIT)
  names |= linear("model.mm_projector.0", 24, 10) | linear("model.mm_projector.2", 24, 24)
  return names | llama("model.", "lm_head.weight")


def draw(names: dict, seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
  """A random array for each shape."""
  rng = np.random.default_rng(seed)
  return {n: rng.normal(0, 0.5, s).astype(jnp.dtype(dtype)) for n, s in names.items()}


def write(folder: Path, weights: dict, config: dict, towers: bool = False) -> Path:
  """A folder with model.safetensors and config.json, and the towers' configs."""
  folder.mkdir(parents=True, exist_ok=True)
  save_file(weights, folder / "model.safetensors", {"format": "pt"})
  (folder / "config.json").write_text(json.dumps(config))
  if towers:
    for kind, vit in (("image", VIT), ("video", VIDEO)):
      (folder / f"{kind}_tower_config.json").write_text(json.dumps({"vision_config": vit}))
  return folder


STORAGES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage", "float16": "HalfStorage"}


def write_torch(path: Path, weights: dict, pickle: bytes = b"") -> None:
  """A .bin file as torch.save writes it, by hand; `pickle` in place of the real pickle."""
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickle or pickled(weights))
    archive.writestr("archive/byteorder", b"little")
    for i, x in enumerate(weights.values()):
      archive.writestr(f"archive/data/{i}", np.ascontiguousarray(x).tobytes())
    archive.writestr("archive/version", b"3\n")


def pickled(weights: dict) -> bytes:
  """OrderedDict of name -> torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, ...)."""
  text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
  number = lambda n: b"J" + struct.pack("<i", n)
  counts = lambda ns: b"(" + b"".join(map(number, ns)) + b"t"
  empty = b"ccollections\nOrderedDict\n)R"
  out = b"\x80\x02" + empty + b"("
  for i, (name, x) in enumerate(weights.items()):
    storage = b"ctorch\n" + STORAGES[x.dtype.name].encode() + b"\n"
    pid = b"(" + text("storage") + storage + text(str(i)) + text("cpu") + number(x.size) + b"tQ"
    strides = [s // x.itemsize for s in np.ascontiguousarray(x).strides]
    out += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(0)
    out += counts(x.shape) + counts(strides) + b"\x89" + empty + b"tR"
  return out + b"u."


LAYOUTS = {
  "face_llava/simple": (face_llava(), FACE_LLAVA),
  "face_llava/masked": (
    face_llava("masked"),
    {**FACE_LLAVA, "cross_attn_type": "masked"},
  ),
  "llava/original": (llava(), {**MM, "mm_vision_tower": "my/vision"}),
  "llava_hf/files": (llava_hf(), LLAVA_HF),
  "llava_hf/memory": (llava_hf(since_452=True), LLAVA_HF),
  "llava_hf/bare_files": (llava_hf(""), LLAVA_HF),
  "llava_hf/bare_memory": (llava_hf("", since_452=True), LLAVA_HF),
  "internvl_hf/files": (internvl_hf(), internvl_config(False)),
  "internvl_hf/memory": (
    internvl_hf(True, rms=True),
    internvl_config(False, True),
  ),
  "internvl/original": (internvl(), internvl_config(True)),
}


def write_layout(folder: Path, layout: str, dtype: str = "float32") -> dict:
  """A folder in a layout; LLaVA's one encoder is described beside it too."""
  names, config = LAYOUTS[layout]
  weights = draw(names, dtype=dtype)
  config = {**config, "torch_dtype": dtype}
  write(folder, weights, config, towers=layout.startswith("face_llava"))
  if layout == "llava/original":
    (folder / "vision_tower_config.json").write_text(json.dumps(VIT))
  return weights
