"""Their names <-> ours: one table a model family, read in both directions.

A rule pairs a tensor of theirs with a parameter of ours:

  model.layers.{i}.mlp.up_proj.weight    decoder/*/up/kernel    linear

"{i}" is a layer's number. "*" is a stack of layers: the leading axis of our array, whose name and
length the encoder's config says ("blocks", and "rest" behind the selected layer). `form` says how
the numbers lie (FORMS), `part` which third of a fused tensor ours is.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from facejax.config import ModelConfig, VitConfig
from facejax.faces.landmarks import REGIONS


class Form(NamedTuple):
  """How a tensor lies in their file and in our tree. Views, apart from conv's."""

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray], np.ndarray]
  shape: Callable[[tuple[int, ...]], tuple[int, ...]]  # theirs, from ours


def _side(cells: int) -> int:
  return round((cells / 3) ** 0.5)


FORMS = {
  "same": Form(lambda a: a, lambda a: a, lambda s: s),
  # torch keeps [out in], we multiply from the left: [in out].
  "linear": Form(lambda a: a.T, lambda a: a.T, lambda s: s[::-1]),
  # A convolution over patches [E 3 p p] is a product with [p * p * 3, E], pixels row by row.
  "conv": Form(
    lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(_side(len(a)), _side(len(a)), 3, -1).transpose(3, 2, 0, 1),
    lambda s: (s[1], 3, _side(s[0]), _side(s[0])),
  ),
  "row": Form(lambda a: a[0], lambda a: a[None], lambda s: (1, *s)),
  "cell": Form(lambda a: a[0, 0], lambda a: a[None, None], lambda s: (1, 1, *s)),
}


class Rule(NamedTuple):
  """A line of a table."""

  theirs: str
  ours: str
  form: str = "same"
  part: int | None = None  # of three that lie one after another on their first axis: q, k, v


class Piece(NamedTuple):
  """Where one parameter, or one layer of it, lies in a file of theirs."""

  theirs: str
  form: str
  part: int | None

  def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Their tensor's shape for a parameter (or a layer of it) of shape `ours`."""
    first, *rest = FORMS[self.form].shape(ours)
    return (first if self.part is None else 3 * first, *rest)

  def view(self, theirs: np.ndarray) -> np.ndarray:
    """Our part of their tensor, in our order of axes."""
    if self.part is not None:
      third = len(theirs) // 3
      theirs = theirs[self.part * third : (self.part + 1) * third]
    return FORMS[self.form].ours(theirs)


class Table(NamedTuple):
  """A layout of names: rules, and patterns of what is read by nobody."""

  rules: tuple[Rule, ...]
  drop: tuple[str, ...] = ()  # buffers and towers of text; patterns match in full

  def dropped(self, name: str) -> bool:
    """Whether a tensor of theirs is nobody's parameter."""
    return any(re.fullmatch(pattern, name) for pattern in self.drop)


def stacks(config: ModelConfig) -> dict[str, tuple[tuple[str, int, int], ...]]:
  """(name, first layer, layers) of each stack of a module."""
  found = {"decoder": (("blocks", 0, config.decoder.layers),)}
  for module, vit in (("image_encoder", config.image), ("video_encoder", config.video)):
    if vit:
      used = vit.layers + 1 + vit.select_layer
      found[module] = (("blocks", 0, used), ("rest", used, vit.layers - used))
  return found


def expand(table: Table, config: ModelConfig) -> dict[str, tuple[Piece, ...]]:
  """The pieces of each parameter of ours: one, or one a layer where its path had a "*"."""
  plan: dict[str, tuple[Piece, ...]] = {}
  layers = stacks(config)
  for rule in table.rules:
    if "*" not in rule.ours:
      plan[rule.ours] = (Piece(rule.theirs, rule.form, rule.part),)
      continue
    for name, first, count in layers.get(rule.ours.partition("/")[0], ()):
      numbers = range(first, first + count)
      plan[rule.ours.replace("*", name)] = tuple(
        Piece(rule.theirs.replace("{i}", str(i)), rule.form, rule.part) for i in numbers
      )
  return {path: pieces for path, pieces in plan.items() if pieces}


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


_BUFFERS = (r".*rotary_emb\.inv_freq", r".*embeddings\.position_ids")


_LANDMARKS = "landmark_projector"


def _face_llava(fusion: tuple[Rule, ...]) -> Table:
  """The released code's state dict; Video-LLaVA-7B's is the same without landmarks."""
  regions = {r.name: r.name for r in REGIONS}
  return Table(
    (
      *clip("model.image_tower.image_tower.", "image_encoder"),
      *clip("model.video_tower.video_tower.", "video_encoder"),
      *_each({"0": "fc1", "2": "fc2"}, "model.mm_projector.", "projector"),
      *_each(regions, "model.landmarks_projector.region_layers.", _LANDMARKS),
      *_linear("model.global_landmarks_projector", f"{_LANDMARKS}/global"),
      *fusion,
      *_norm("model.landmarks_cross_attn.cross_attn.ln", "fusion/norm"),
      *_linear("model.landmarks_cross_attn.linear_proj", "fusion/linear"),
      *_norm("model.landmarks_cross_attn.ln", "fusion/outer_norm"),
      *llama("model.", "lm_head.weight"),
    ),
    _BUFFERS,
  )


_MIXER = "model.landmarks_cross_attn.cross_attn."

# Family -> layouts of its names. A file has the layout that knows most of its tensors.
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
}


def layout(family: str, names: Collection[str], config: ModelConfig) -> tuple[str, Table]:
  """The layout of a family that knows most of `names`, by its name; the first of equals."""
  known = lambda table: {p.theirs for pieces in expand(table, config).values() for p in pieces}
  tables = FAMILIES[family]
  return max(tables.items(), key=lambda item: len(known(item[1]) & set(names)))
