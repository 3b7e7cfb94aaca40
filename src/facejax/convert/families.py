"""Which name of theirs is which of ours: a table for each family and layout of names.

Sources: the state dicts of the released Face-LLaVA and Video-LLaVA code, of LLaVA-1.5, of
transformers' CLIP, LLaMA, Qwen2, LLaVA and InternVL classes, and of InternVL's own code.
"""

from collections.abc import Collection, Mapping

from facejax.config import ModelConfig
from facejax.convert.tables import Rule, Table, expand
from facejax.faces.landmarks import REGIONS


def _linear(theirs: str, ours: str) -> tuple[Rule, ...]:
  return Rule(f"{theirs}.weight", f"{ours}/kernel", "linear"), Rule(
    f"{theirs}.bias", f"{ours}/bias"
  )


def _norm(theirs: str, ours: str) -> tuple[Rule, ...]:
  return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def _fused(weight: str, bias: str, ours: str) -> tuple[Rule, ...]:
  """q, k and v one after another: nn.MultiheadAttention's in_proj, InternVL's attn.qkv."""
  return tuple(
    rule
    for part, name in enumerate("qkv")
    for rule in (
      Rule(weight, f"{ours}/{name}/kernel", "linear", part),
      Rule(bias, f"{ours}/{name}/bias", "same", part),
    )
  )


def _each(names: Mapping[str, str], theirs: str, ours: str) -> tuple[Rule, ...]:
  return tuple(r for a, b in names.items() for r in _linear(theirs + a, f"{ours}/{b}"))


_CLIP_ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}
_MLP = {"fc1": "fc1", "fc2": "fc2"}


def clip(theirs: str, ours: str) -> tuple[Rule, ...]:
  """CLIP's vision transformer, and LanguageBind's attention over frames."""
  layer, block = f"{theirs}encoder.layers.{{i}}.", f"{ours}/*/"
  return (
    Rule(f"{theirs}embeddings.class_embedding", f"{ours}/class_embedding"),
    Rule(f"{theirs}embeddings.patch_embedding.weight", f"{ours}/patch/kernel", "conv"),
    Rule(f"{theirs}embeddings.position_embedding.weight", f"{ours}/positions"),
    *_norm(f"{theirs}pre_layrnorm", f"{ours}/pre_norm"),  # their spelling
    *_norm(f"{theirs}post_layernorm", f"{ours}/post_norm"),
    *_each(_CLIP_ATTENTION, f"{layer}self_attn.", f"{block}attention"),
    *_norm(f"{layer}layer_norm1", f"{block}attention_norm"),
    *_norm(f"{layer}layer_norm2", f"{block}mlp_norm"),
    *_each(_MLP, f"{layer}mlp.", f"{ours}/*"),
    Rule(f"{layer}temporal_embedding", f"{block}temporal_embedding", "row"),
    *_each(_CLIP_ATTENTION, f"{layer}temporal_attn.", f"{block}temporal_attention"),
    *_norm(f"{layer}temporal_layer_norm1", f"{block}temporal_norm"),
  )


def llama(theirs: str, head: str) -> tuple[Rule, ...]:
  """LLaMA's decoder, and Qwen2's, which has biases on q, k and v."""
  layer = f"{theirs}layers.{{i}}."
  attention = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "out"}
  mlp = {f"{name}_proj": name for name in ("gate", "up", "down")}
  return (
    Rule(f"{theirs}embed_tokens.weight", "decoder/embedding"),
    *_each(attention, f"{layer}self_attn.", "decoder/*/attention"),
    *_each(mlp, f"{layer}mlp.", "decoder/*"),
    Rule(f"{layer}input_layernorm.weight", "decoder/*/attention_norm/scale"),
    Rule(f"{layer}post_attention_layernorm.weight", "decoder/*/mlp_norm/scale"),
    Rule(f"{theirs}norm.weight", "decoder/norm/scale"),
    Rule(head, "decoder/head/kernel", "linear"),
  )


def intern(theirs: str, ours: str) -> tuple[Rule, ...]:
  """InternViT in transformers' names."""
  layer = f"{theirs}encoder.layer.{{i}}."
  attention = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "projection_layer": "out"}
  return (
    Rule(f"{theirs}embeddings.cls_token", f"{ours}/class_embedding", "cell"),
    Rule(f"{theirs}embeddings.position_embeddings", f"{ours}/positions", "row"),
    *_patches(f"{theirs}embeddings.patch_embeddings.projection", ours),
    *_each(attention, f"{layer}attention.", f"{ours}/*/attention"),
    Rule(f"{layer}attention.q_norm.weight", f"{ours}/*/attention/q_norm/scale"),
    Rule(f"{layer}attention.k_norm.weight", f"{ours}/*/attention/k_norm/scale"),
    *_norm(f"{layer}layernorm_before", f"{ours}/*/attention_norm"),
    *_norm(f"{layer}layernorm_after", f"{ours}/*/mlp_norm"),
    *_each(_MLP, f"{layer}mlp.", f"{ours}/*"),
    Rule(f"{layer}lambda_1", f"{ours}/*/attention_scale"),
    Rule(f"{layer}lambda_2", f"{ours}/*/mlp_scale"),
  )


def intern_original(theirs: str, ours: str) -> tuple[Rule, ...]:
  """InternViT in its own names: q, k and v are the thirds of one matrix."""
  layer = f"{theirs}encoder.layers.{{i}}."
  return (
    Rule(f"{theirs}embeddings.class_embedding", f"{ours}/class_embedding", "cell"),
    Rule(f"{theirs}embeddings.position_embedding", f"{ours}/positions", "row"),
    *_patches(f"{theirs}embeddings.patch_embedding", ours),
    *_fused(f"{layer}attn.qkv.weight", f"{layer}attn.qkv.bias", f"{ours}/*/attention"),
    *_linear(f"{layer}attn.proj", f"{ours}/*/attention/out"),
    Rule(f"{layer}attn.q_norm.weight", f"{ours}/*/attention/q_norm/scale"),
    Rule(f"{layer}attn.k_norm.weight", f"{ours}/*/attention/k_norm/scale"),
    *_norm(f"{layer}norm1", f"{ours}/*/attention_norm"),
    *_norm(f"{layer}norm2", f"{ours}/*/mlp_norm"),
    *_each(_MLP, f"{layer}mlp.", f"{ours}/*"),
    Rule(f"{layer}ls1", f"{ours}/*/attention_scale"),
    Rule(f"{layer}ls2", f"{ours}/*/mlp_scale"),
  )


def _patches(theirs: str, ours: str) -> tuple[Rule, ...]:
  return (
    Rule(f"{theirs}.weight", f"{ours}/patch/kernel", "conv"),
    Rule(f"{theirs}.bias", f"{ours}/patch/bias"),
  )


_BUFFERS = (r".*rotary_emb\.inv_freq", r".*embeddings\.position_ids")
_MIXER = "model.landmarks_cross_attn.cross_attn."


def _face_llava(fusion: tuple[Rule, ...]) -> Table:
  """The released code's state dict; Video-LLaVA-7B's is the same without landmarks."""
  regions = {r.name: r.name for r in REGIONS}
  return Table(
    (
      *clip("model.image_tower.image_tower.", "image_encoder"),
      *clip("model.video_tower.video_tower.", "video_encoder"),
      *_each({"0": "fc1", "2": "fc2"}, "model.mm_projector.", "projector"),
      *_each(regions, "model.landmarks_projector.region_layers.", "landmark_projector"),
      *_linear("model.global_landmarks_projector", "landmark_projector/global"),
      *fusion,
      *_norm(f"{_MIXER}ln", "fusion/norm"),
      *_linear("model.landmarks_cross_attn.linear_proj", "fusion/linear"),
      *_norm("model.landmarks_cross_attn.ln", "fusion/outer_norm"),
      *llama("model.", "lm_head.weight"),
    ),
    _BUFFERS,
  )


def _llava_hf(vision: str, outer: str, text: str, head: str) -> Table:
  projector = {"linear_1": "fc1", "linear_2": "fc2"}
  return Table(
    (
      *clip(vision, "image_encoder"),
      *_each(projector, f"{outer}multi_modal_projector.", "projector"),
      *llama(text, head),
    ),
    _BUFFERS,
  )


def _internvl(vision: tuple[Rule, ...], projector: tuple[str, str, str], *text: str) -> Table:
  norm, first, second = projector
  return Table(
    (
      *vision,
      *_norm(norm, "projector/norm"),
      *_linear(first, "projector/fc1"),
      *_linear(second, "projector/fc2"),
      *llama(*text),
    ),
    _BUFFERS,
  )


def _internvl_hf(outer: str, text: str, head: str) -> Table:
  names = ("layer_norm", "linear_1", "linear_2")
  norm, first, second = (f"{outer}multi_modal_projector.{name}" for name in names)
  vision = intern(f"{outer}vision_tower.", "image_encoder")
  return _internvl(vision, (norm, first, second), text, head)


def _encoder(theirs: str, ours: str) -> Table:
  """A CLIP model's vision half; its text half is nobody's."""
  text = (r"text_model\..*", r"(visual|text)_projection\.weight", "logit_scale")
  return Table(clip(theirs, ours), (*_BUFFERS, *text))


_FILES = ("language_model.model.", "language_model.lm_head.weight")
_MEMORY = ("model.language_model.", "lm_head.weight")

# Family -> layout -> table. A file has the layout that knows most of its tensors. transformers
# renamed modules in 4.52: "files" is how checkpoints are written, before and since, "memory" how
# the modules are called since, which some tools write out. Since 5 CLIP's vision model has a level
# less: "bare".
FAMILIES: dict[str, dict[str, Table]] = {
  "face_llava": {
    "simple": _face_llava(
      (
        *_fused(f"{_MIXER}attn.in_proj_weight", f"{_MIXER}attn.in_proj_bias", "fusion/attention"),
        *_linear(f"{_MIXER}attn.out_proj", "fusion/attention/out"),
      )
    ),
    # The masked class has no output projection.
    "masked": _face_llava(_each({f"{n}_proj": n for n in "qkv"}, _MIXER, "fusion/attention")),
  },
  "llava": {
    "original": Table(
      (
        *clip("model.vision_tower.vision_tower.vision_model.", "image_encoder"),
        *_each({"0": "fc1", "2": "fc2"}, "model.mm_projector.", "projector"),
        *llama("model.", "lm_head.weight"),
      ),
      _BUFFERS,
    ),
  },
  "llava_hf": {
    "files": _llava_hf("vision_tower.vision_model.", "", *_FILES),
    "memory": _llava_hf("model.vision_tower.vision_model.", "model.", *_MEMORY),
    "bare_files": _llava_hf("vision_tower.", "", *_FILES),
    "bare_memory": _llava_hf("model.vision_tower.", "model.", *_MEMORY),
  },
  "internvl_hf": {
    "files": _internvl_hf("", *_FILES),
    "memory": _internvl_hf("model.", *_MEMORY),
  },
  "internvl": {
    "original": _internvl(
      intern_original("vision_model.", "image_encoder"), ("mlp1.0", "mlp1.1", "mlp1.3"), *_FILES
    ),
  },
  "image_encoder": {
    "model": _encoder("vision_model.", "image_encoder"),
    "bare": _encoder("", "image_encoder"),
  },
  "video_encoder": {"model": _encoder("vision_model.", "video_encoder")},
  "decoder": {"files": Table(llama("model.", "lm_head.weight"), _BUFFERS)},
}


def layout(family: str, names: Collection[str], config: ModelConfig) -> tuple[str, Table]:
  """The layout of a family that knows most of `names`, with its name; the first of equals."""

  def known(item: tuple[str, Table]) -> int:
    plans = expand(item[1], config).values()
    return len({piece.theirs for plan in plans for piece in plan.pieces} & set(names))

  return max(FAMILIES[family].items(), key=known)
