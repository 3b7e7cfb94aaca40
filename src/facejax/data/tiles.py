"""A large picture -> the pieces that InternVL looks at, each as large as its encoder's input.

    1000 x 620 px, at most 12 tiles: a grid of 3 columns and 2 rows, then the whole picture

      0 1 2      6: the thumbnail
      3 4 5

The encoder sees tiles one by one; their tokens follow each other in one stretch of the text. The
grid is the one of the transformers-native InternVL3 processor; see `grid`. Landmarks and the class
map of a face stay with the thumbnail, which shows all of it (our choice: InternVL reads neither).
"""

from __future__ import annotations

import dataclasses
import functools

from facejax.data import resize
from facejax.types import Medium


@dataclasses.dataclass(frozen=True)
class Tiling:
  """How pictures are cut.

  Attributes:
    size: pixels a side of a tile, which is the encoder's input.
    least: tiles at least; InternVL3's min_patches.
    most: tiles at most, without the thumbnail; InternVL3's max_patches (12 there). 1: no cutting.
    antialias: of the resizing, as in DataConfig.
  """

  size: int
  least: int = 1
  most: int = 1
  antialias: bool = True

  def count(self, height: int, width: int) -> int:
    """Pictures that one of this size becomes, thumbnail included."""
    columns, rows = grid(height, width, self.size, self.least, self.most)
    return columns * rows + (columns * rows > 1)

  def cut(self, medium: Medium) -> list[Medium]:
    """The tiles of a picture, row by row, and the whole picture last; a clip stays as it is."""
    if medium.kind != "image" or self.most == 1:
      return [medium]
    height, width = medium.pixels.shape[1:3]
    columns, rows = grid(height, width, self.size, self.least, self.most)
    if columns * rows == 1:
      return [medium]
    size = self.size
    whole = resize.stretch_image(medium.pixels[0], rows * size, columns * size, self.antialias)
    tiles = [
      Medium("image", whole[None, top : top + size, left : left + size])
      for top in range(0, rows * size, size)
      for left in range(0, columns * size, size)
    ]
    return [*tiles, medium]


@functools.lru_cache(maxsize=1024)
def grid(height: int, width: int, size: int, least: int, most: int) -> tuple[int, int]:
  """(columns, rows) of the grid whose shape is nearest to the picture's.

  Grids of `least` to `most` tiles are tried from few tiles to many (of equally many, the one of
  fewer columns first). A nearer shape wins; an equally near one, which has more tiles, only if the
  picture has more than half as many pixels as that grid. Distance is |width/height - columns/rows|
  in float64, as in the reference, where a tie is one of rounded numbers.
  """
  candidates = [
    (columns, tiles // columns)
    for tiles in range(least, most + 1)
    for columns in range(1, tiles + 1)
    if tiles % columns == 0
  ]
  chosen, nearest = (1, 1), float("inf")
  for columns, rows in candidates:
    distance = abs(width / height - columns / rows)
    filled = width * height > 0.5 * size * size * columns * rows
    if distance < nearest or (distance == nearest and filled):
      chosen, nearest = (columns, rows), distance
  return chosen
