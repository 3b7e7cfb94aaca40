"""Released weights -> our tree, one parameter at a time, without the tables under test."""

import flax.traverse_util
import numpy as np


def flat(params) -> dict[str, np.ndarray]:
  return {n: np.asarray(x) for n, x in flax.traverse_util.flatten_dict(params, sep="/").items()}


def clip_by_hand(w: dict, prefix: str, ours: str, layers: int, temporal: bool) -> dict:
  """CLIP's encoder one parameter at a time; blocks behind the last but one are "rest"."""
  out = {
    f"{ours}/class_embedding": w[f"{prefix}embeddings.class_embedding"],
    f"{ours}/positions": w[f"{prefix}embeddings.position_embedding.weight"],
    f"{ours}/pre_norm/scale": w[f"{prefix}pre_layrnorm.weight"],
    f"{ours}/pre_norm/bias": w[f"{prefix}pre_layrnorm.bias"],
    f"{ours}/post_norm/scale": w[f"{prefix}post_layernorm.weight"],
    f"{ours}/post_norm/bias": w[f"{prefix}post_layernorm.bias"],
  }
  conv = w[f"{prefix}embeddings.patch_embedding.weight"]
  E, _, p, _ = conv.shape
  kernel = np.zeros((p * p * 3, E), conv.dtype)
  for y in range(p):
    for x in range(p):
      for c in range(3):
        kernel[(y * p + x) * 3 + c] = conv[:, c, y, x]
  out[f"{ours}/patch/kernel"] = kernel
  names = {"self_attn.q_proj": "attention/q", "self_attn.k_proj": "attention/k",
           "self_attn.v_proj": "attention/v", "self_attn.out_proj": "attention/out",
           "mlp.fc1": "fc1", "mlp.fc2": "fc2"}  # fmt: skip
  norms = {"layer_norm1": "attention_norm", "layer_norm2": "mlp_norm"}
  if temporal:
    names |= {f"temporal_attn.{x}_proj": f"temporal_attention/{x}" for x in ("q", "k", "v", "out")}
    norms["temporal_layer_norm1"] = "temporal_norm"
  for stack, numbers in (("blocks", range(layers - 1)), ("rest", range(layers - 1, layers))):
    get = lambda name: np.stack([w[f"{prefix}encoder.layers.{i}.{name}"] for i in numbers])  # noqa: B023
    for theirs, mine in names.items():
      out[f"{ours}/{stack}/{mine}/kernel"] = get(f"{theirs}.weight").swapaxes(1, 2)
      out[f"{ours}/{stack}/{mine}/bias"] = get(f"{theirs}.bias")
    for theirs, mine in norms.items():
      out[f"{ours}/{stack}/{mine}/scale"] = get(f"{theirs}.weight")
      out[f"{ours}/{stack}/{mine}/bias"] = get(f"{theirs}.bias")
    if temporal:
      out[f"{ours}/{stack}/temporal_embedding"] = get("temporal_embedding")[:, 0]
  return out


def decoder_by_hand(w: dict, prefix: str, head: str, biases: bool) -> dict:
  get = lambda name: np.stack([w[f"{prefix}layers.{i}.{name}"] for i in range(3)])
  out = {
    "decoder/embedding": w[f"{prefix}embed_tokens.weight"],
    "decoder/norm/scale": w[f"{prefix}norm.weight"],
    "decoder/head/kernel": w[head].T,
    "decoder/blocks/attention_norm/scale": get("input_layernorm.weight"),
    "decoder/blocks/mlp_norm/scale": get("post_attention_layernorm.weight"),
  }
  for name in ("q", "k", "v", "o"):
    mine = f"decoder/blocks/attention/{'out' if name == 'o' else name}"
    out[f"{mine}/kernel"] = get(f"self_attn.{name}_proj.weight").swapaxes(1, 2)
    if biases and name != "o":
      out[f"{mine}/bias"] = get(f"self_attn.{name}_proj.bias")
  for name in ("gate", "up", "down"):
    out[f"decoder/blocks/{name}/kernel"] = get(f"mlp.{name}_proj.weight").swapaxes(1, 2)
  return out


def linear_by_hand(w: dict, theirs: str, ours: str) -> dict:
  return {f"{ours}/kernel": w[f"{theirs}.weight"].T, f"{ours}/bias": w[f"{theirs}.bias"]}


def face_llava_by_hand(w: dict, form: str) -> dict:
  out = clip_by_hand(w, "model.image_tower.image_tower.", "image_encoder", 4, False)
  out |= clip_by_hand(w, "model.video_tower.video_tower.", "video_encoder", 3, True)
  out |= decoder_by_hand(w, "model.", "lm_head.weight", False)
  out |= linear_by_hand(w, "model.mm_projector.0", "projector/fc1")
  out |= linear_by_hand(w, "model.mm_projector.2", "projector/fc2")
  for name in ("face", "eyebrow1", "eyebrow2", "nose", "nostril", "eye1", "eye2", "lips", "teeth"):
    region = f"model.landmarks_projector.region_layers.{name}"
    out |= linear_by_hand(w, region, f"landmark_projector/{name}")
  out |= linear_by_hand(w, "model.global_landmarks_projector", "landmark_projector/global")
  outer = "model.landmarks_cross_attn"
  out |= linear_by_hand(w, f"{outer}.linear_proj", "fusion/linear")
  for theirs, mine in ((f"{outer}.cross_attn.ln", "norm"), (f"{outer}.ln", "outer_norm")):
    out[f"fusion/{mine}/scale"] = w[f"{theirs}.weight"]
    out[f"fusion/{mine}/bias"] = w[f"{theirs}.bias"]
  if form == "masked":
    for x in "qkv":
      out |= linear_by_hand(w, f"{outer}.cross_attn.{x}_proj", f"fusion/attention/{x}")
    return out
  inner = f"{outer}.cross_attn.attn"
  out |= linear_by_hand(w, f"{inner}.out_proj", "fusion/attention/out")
  for i, x in enumerate("qkv"):
    rows = slice(24 * i, 24 * (i + 1))
    out[f"fusion/attention/{x}/kernel"] = w[f"{inner}.in_proj_weight"][rows].T
    out[f"fusion/attention/{x}/bias"] = w[f"{inner}.in_proj_bias"][rows]
  return out


def internvl_by_hand(w: dict, outer: str, text: str, head: str, rms: bool) -> dict:
  v = f"{outer}vision_tower."
  conv = w[f"{v}embeddings.patch_embeddings.projection.weight"]
  out = {
    "image_encoder/class_embedding": w[f"{v}embeddings.cls_token"][0, 0],
    "image_encoder/positions": w[f"{v}embeddings.position_embeddings"][0],
    "image_encoder/patch/kernel": np.moveaxis(conv, (2, 3, 1, 0), (0, 1, 2, 3)).reshape(147, 20),
    "image_encoder/patch/bias": w[f"{v}embeddings.patch_embeddings.projection.bias"],
  }
  get = lambda name: np.stack([w[f"{v}encoder.layer.{i}.{name}"] for i in range(2)])
  for x, mine in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("projection_layer", "out")):
    path = f"image_encoder/blocks/attention/{mine}"
    out[f"{path}/kernel"] = get(f"attention.{x}.weight").swapaxes(1, 2)
    if mine == "out" or not rms:
      out[f"{path}/bias"] = get(f"attention.{x}.bias")
  for x, mine in (("layernorm_before", "attention_norm"), ("layernorm_after", "mlp_norm")):
    out[f"image_encoder/blocks/{mine}/scale"] = get(f"{x}.weight")
    if not rms:
      out[f"image_encoder/blocks/{mine}/bias"] = get(f"{x}.bias")
  if rms:
    for x in ("q_norm", "k_norm"):
      out[f"image_encoder/blocks/attention/{x}/scale"] = get(f"attention.{x}.weight")
  for x in ("fc1", "fc2"):
    out[f"image_encoder/blocks/{x}/kernel"] = get(f"mlp.{x}.weight").swapaxes(1, 2)
    out[f"image_encoder/blocks/{x}/bias"] = get(f"mlp.{x}.bias")
  out["image_encoder/blocks/attention_scale"] = get("lambda_1")
  out["image_encoder/blocks/mlp_scale"] = get("lambda_2")
  p = f"{outer}multi_modal_projector"
  out |= {"projector/norm/scale": w[f"{p}.layer_norm.weight"]}
  out |= {"projector/norm/bias": w[f"{p}.layer_norm.bias"]}
  out |= linear_by_hand(w, f"{p}.linear_1", "projector/fc1")
  out |= linear_by_hand(w, f"{p}.linear_2", "projector/fc2")
  return out | decoder_by_hand(w, text, head, True)


def assert_same(got: dict, want: dict) -> None:
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)
