"""The contracts between files, data, models and training. Read this first.

Axis letters, the same in every annotation and einsum of the library:

  B rows of a batch      L position in a row     S slot of a key/value cache
  M media slots a row    T frames                Y X pixel row, column
  P tokens of a picture  E encoder width         R face regions (nine)
  Q segmentation tokens  C segmentation classes  D decoder width
  N query heads          K key/value heads       G = N / K
  A labels of a face
  H head width           F feed-forward width    V vocabulary

A batch is drawn for B = 1, L = 12, one picture of P = 3 tokens, nothing packed:

  text           <s> look at [picture ] it smiles </s>  .   .   .
  tokens          1   9   4   0   0   0  7    8     2   0   0   0
  visual_index   -1  -1  -1   0   1   2 -1   -1    -1  -1  -1  -1
  segment_ids     1   1   1   1   1   1  1    1     1   0   0   0   0: padding
  positions       0   1   2   3   4   5  6    7     8   0   0   0   restart in each segment
  targets         9   4   0   0   0   7  8    2     0   0   0   0   the next token
  loss_weights    0   0   0   0   0   1  1    1     0   0   0   0   1: an answer token is next

`visual_index` points into the table of visual tokens of the row; visual_table.py is the one place
that says which medium owns which index, for the data, the model and the planner.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import beartype
import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, UInt8, jaxtyped

LANDMARKS = 68  # iBUG points of a face
Kind = Literal["image", "video"]


@dataclasses.dataclass(frozen=True)
class Medium:
  """One decoded picture or clip of a sample (NumPy, on the host). A picture has T = 1.

  landmarks are (x, y) in [0, 1] of the face crop; segmentation holds CelebAMask-HQ class ids.
  None means that the sample came without them.
  """

  kind: Kind
  pixels: np.ndarray  # [T Y X 3] uint8
  landmarks: np.ndarray | None = None  # [T 68 2] float32
  segmentation: np.ndarray | None = None  # [T y x] uint8


@dataclasses.dataclass(frozen=True)
class Turn:
  """One message: role is "human" or "gpt", as in the LLaVA format."""

  role: str
  text: str


@dataclasses.dataclass(frozen=True)
class Sample:
  """A conversation about its media; the n-th placeholder in the text stands for the n-th medium.

  labels are what the source says of the face, such as {"attributes": {"Smiling": True}, "age": 31}.
  """

  id: str
  conversation: tuple[Turn, ...]
  media: tuple[Medium, ...] = ()
  labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Refusal:
  """A sample that cannot be used: which, and why, in words that say what to do."""

  id: str
  reason: str


@flax.struct.dataclass
class Media:
  """The pictures (T = 1) or clips of a batch. A slot that no token points to is zeros."""

  pixels: UInt8[Array, "B M T Y X 3"]
  landmarks: Float[Array, "B M T 68 2"]
  landmarks_valid: Bool[Array, "B M T"]
  segmentation: UInt8[Array, "B M T y x"]
  segmentation_valid: Bool[Array, "B M T"]
  labels: Int8[Array, "B M A"] | None = None  # 1, 0 or -1 (unknown); None: no part reads them


@flax.struct.dataclass
class Batch:
  """What a step sees. Shapes are static: they follow from the config alone."""

  tokens: Int[Array, "B L"]
  targets: Int[Array, "B L"]
  loss_weights: Float[Array, "B L"]
  positions: Int[Array, "B L"]
  segment_ids: Int[Array, "B L"]
  visual_index: Int[Array, "B L"]
  sample_id: Int[Array, "B L"]  # index of the sample in its source, -1 at padding
  images: Media
  videos: Media


@flax.struct.dataclass
class Cache:
  """Keys and values of what the decoder has read. Slots that are not `valid` are never seen.

  Keys and values are one array, or one a layer: a loop that draws tokens then writes them in place.
  """

  keys: Float[Array, "layers B K S H"] | tuple[Float[Array, "B K S H"], ...]
  values: Float[Array, "layers B K S H"] | tuple[Float[Array, "B K S H"], ...]
  valid: Bool[Array, "B S"]
  filled: Int[Array, ""]  # the slot that the next token is written to


def typed(function):
  """Checks the array shapes of a function's arguments and result while it is traced."""
  return jaxtyped(typechecker=beartype.beartype)(function)


def tree_of_shapes(tree) -> str:
  """`path: shape@dtype`, a line a leaf: printed before the first step."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  return "\n".join(f"{name(p)}: {list(x.shape)}@{x.dtype}" for p, x in leaves)
