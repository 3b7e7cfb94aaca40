"""What each face parser's class ids mean -> the ids of segmentation.py; how its pictures are fed.

Parsers that were all trained on CelebAMask-HQ number its classes differently: id 2 is the nose for
one, the left brow for the next. A map without its parser's name is worthless, so every map goes
through a table here.

    TABLES["bisenet"].to_canonical(ids)     ids [..., y, x] -> ids of segmentation.CLASSES
    TABLES["celebamask"].from_colours(rgb)  a painted map -> the same
    load("mine.json")                       a table for a parser of your own

Left and right are the subject's; a parser that means the viewer's needs a table that says so.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from facejax.faces.segmentation import CLASS_ID, CLASSES

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SAMPLING = ("bilinear", "nearest")


@dataclasses.dataclass(frozen=True)
class ParserTable:
  """A parser's classes and what it wants to see.

  Attributes:
    name: of the parser.
    classes: names of segmentation.CLASSES in the parser's own order; its id is the index. A name
      may come twice, where the parser tells apart what CelebAMask-HQ does not.
    size: pixels a side of the square picture it takes, where the model file leaves that open.
    mean: of each colour in [0, 1], subtracted.
    std: of each colour, divided by.
    sampling: how the picture is made that size: "bilinear" or "nearest".
    palette: RGB of each of its ids in painted maps; none where it has no fixed colours.
  """

  name: str
  classes: tuple[str, ...]
  size: int = 512
  mean: tuple[float, float, float] = _IMAGENET[0]
  std: tuple[float, float, float] = _IMAGENET[1]
  sampling: str = "bilinear"
  palette: tuple[tuple[int, int, int], ...] = ()

  def __post_init__(self):
    for index, name in enumerate(self.classes):
      if name not in CLASS_ID:
        near = difflib.get_close_matches(str(name), CLASSES, 1)
        raise ValueError(
          f"parser table {self.name!r}: class {index} is {name!r} - expected a name of "
          f"CelebAMask-HQ ({', '.join(CLASSES)})"
          + (f" - did you mean {near[0]!r}?" if near else "")
        )
    if not 2 <= len(self.classes) <= 256:
      raise ValueError(
        f"parser table {self.name!r} has {len(self.classes)} classes - expected 2 to 256 names in "
        "the order of the parser's ids"
      )
    if self.size < 1 or self.sampling not in _SAMPLING or min(self.std) <= 0:
      raise ValueError(
        f"parser table {self.name!r}: size={self.size}, sampling={self.sampling!r}, std={self.std} "
        f"- expected a size and deviations above 0, and {' or '.join(_SAMPLING)}"
      )
    if self.palette and len(set(self.palette)) != len(self.classes):
      raise ValueError(
        f"parser table {self.name!r}: {len(set(self.palette))} different colours for "
        f"{len(self.classes)} classes - expected one each"
      )

  def to_canonical(self, ids: Int[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """The parser's ids -> ids of segmentation.CLASSES. Raises ValueError for ids it has not."""
    ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
      raise ValueError(
        f"a map of type {ids.dtype} - expected the integer ids of {self.name} - take the argmax of "
        "scores first"
      )
    count = len(self.classes)
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < count:
      raise ValueError(
        f"a map with ids {int(ids.min())}..{int(ids.max())} - expected 0..{count - 1}, the classes "
        f"of {self.name} - name the parser that made it"
      )
    return np.array([CLASS_ID[name] for name in self.classes], np.uint8)[ids]

  def from_colours(self, colours: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x"]:
    """A map painted in the parser's palette -> ids of segmentation.CLASSES.

    Raises ValueError for a colour that is none of the palette's, as lossy files have, or where
    the parser has no palette.
    """
    if not self.palette:
      raise ValueError(
        f"a map in colours (shape {colours.shape}) - {self.name} has no fixed palette - give class "
        "ids, or a table (.json) with a palette"
      )
    weights = np.array([65536, 256, 1], np.int64)
    codes = np.array(self.palette, np.int64) @ weights
    order = np.argsort(codes)
    found = colours.astype(np.int64) @ weights
    place = np.searchsorted(codes[order], found).clip(max=len(codes) - 1)
    ids = order[place]
    unknown = codes[ids] != found
    if unknown.any():
      y, x = np.argwhere(unknown)[0].tolist()
      raise ValueError(
        f"{int(unknown.sum())} pixels of other colours than {self.name}'s, the first "
        f"{tuple(colours[y, x].tolist())} at x={x}, y={y} - expected a map in its palette, saved "
        "without loss - name the parser that made it, or give class ids"
      )
    return self.to_canonical(ids)


def _names(text: str) -> tuple[str, ...]:
  return tuple(text.split())


# The CelebAMask-HQ repository: g_mask.py, g_color.py and tester.py in face_parsing/.
_CELEBAMASK = ParserTable(
  "celebamask",
  CLASSES,
  mean=(0.5, 0.5, 0.5),
  std=(0.5, 0.5, 0.5),
  sampling="nearest",
  palette=(
    *((0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255)),
    *((204, 0, 204), (0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0)),
    *((102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204), (255, 51, 153)),
    *((0, 204, 204), (0, 51, 0), (255, 153, 51), (0, 204, 0)),
  ),
)
# The repository face-parsing.PyTorch. Its test.py writes colours through OpenCV, which swaps red
# and blue: the palette is that of the files.
_BISENET = ParserTable(
  "bisenet",
  _names(
    "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip neck "
    "neck_l cloth hair hat"
  ),
  palette=(
    *((255, 255, 255), (0, 85, 255), (0, 170, 255), (85, 0, 255), (170, 0, 255)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (85, 255, 0), (170, 255, 0)),
    *((255, 0, 0), (255, 0, 85), (255, 0, 170), (255, 85, 0), (255, 170, 0)),
    *((0, 255, 255), (85, 255, 255), (170, 255, 255), (255, 0, 255)),
  ),
)
# jonathandinu/face-parsing: config.json and preprocessor_config.json.
_SEGFORMER = ParserTable("segformer", CLASSES)
# Xenova/face-parsing, the same network exported earlier: its config.json has another order.
_SEGFORMER_XENOVA = ParserTable(
  "segformer_xenova",
  _names(
    "background skin nose r_eye l_eye r_brow l_brow r_ear l_ear mouth u_lip l_lip neck hair neck_l "
    "cloth eye_g hat ear_r"
  ),
)

TABLES: Mapping[str, ParserTable] = {
  table.name: table for table in (_CELEBAMASK, _BISENET, _SEGFORMER, _SEGFORMER_XENOVA)
}


def load(name: str | os.PathLike) -> ParserTable:
  """The table of a known parser, or of a JSON file with the fields of `ParserTable`.

  {"classes": ["background", "skin", ...], "size": 448, "mean": [...], "std": [...],
   "sampling": "bilinear", "palette": [[0, 0, 0], ...]}; only `classes` is needed.

  Raises:
    FileNotFoundError: no such file.
    ValueError: neither a known name nor such a file.
  """
  if str(name) in TABLES:
    return TABLES[str(name)]
  path = pathlib.Path(name)
  if path.suffix != ".json":
    near = difflib.get_close_matches(str(name), TABLES, 1)
    raise ValueError(
      f"no parser {str(name)!r} - expected {', '.join(TABLES)}, or the path of a .json table"
      + (f" - did you mean {near[0]!r}?" if near else "")
    )
  if not path.is_file():
    raise FileNotFoundError(f"no parser table {path} - check the path")
  try:
    raw = json.loads(path.read_text("utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is no JSON ({error}) - expected a parser table") from error
  return _from_json(path, raw)


def _from_json(path: pathlib.Path, raw: Any) -> ParserTable:
  fields = {field.name for field in dataclasses.fields(ParserTable)}
  if not isinstance(raw, dict) or "classes" not in raw or not fields.issuperset(raw):
    found = sorted(raw) if isinstance(raw, dict) else type(raw).__name__
    raise ValueError(
      f"{path}: {found} - expected a JSON object with 'classes' and, at will, "
      f"{', '.join(sorted(fields - {'classes'}))}"
    )
  try:
    values = {
      "name": path.stem,
      **raw,
      "classes": tuple(raw["classes"]),
      **{key: _triple(raw[key], float) for key in ("mean", "std") if key in raw},
      "palette": tuple(_triple(colour, int) for colour in raw.get("palette", ())),
    }
    return ParserTable(**values)
  except TypeError as error:
    raise ValueError(
      f"{path}: {error} - expected lists of names, of three numbers, and a whole size"
    ) from error
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error


def _triple(values: Any, kind: type) -> tuple:
  numbers = tuple(kind(value) for value in values)
  if len(numbers) != 3:
    raise ValueError(f"{list(values)} has {len(numbers)} numbers - expected three")
  return numbers
