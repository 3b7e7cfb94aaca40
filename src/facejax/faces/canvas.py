"""A drawing surface that keeps colours and the class map together.

Colours go to a premultiplied RGBA image at twice the size, reduced once at the end; class ids go to
a map at the final size. Coordinates are final pixels: (0.5, 0.5) is the first pixel's centre.
"""

import numpy as np
from PIL import Image, ImageDraw

from facejax.faces.geometry import Pose, camera
from facejax.faces.scene import Colour
from facejax.faces.segmentation import CLASS_ID

OVERSAMPLING = 2


def blend(low: Colour, high: Colour, t: float) -> Colour:
  """The colour a share t (0..1) of the way from low to high."""
  return tuple(a + (b - a) * t for a, b in zip(low, high, strict=True))  # type: ignore


def scaled(colour: Colour, factor: float) -> Colour:
  """A brighter or darker colour."""
  return tuple(c * factor for c in colour)  # type: ignore


def _paint(colour: Colour) -> tuple[int, int, int, int]:
  r, g, b = colour
  # Colours never fall below 0: all are products and blends of colours.
  return min(int(r + 0.5), 255), min(int(g + 0.5), 255), min(int(b + 0.5), 255), 255


class Canvas:
  """Draws shapes given in face units through one pose."""

  def __init__(self, size: int, pose: Pose):
    self.size = size
    self.pose = pose
    self._camera, self._centre = camera(pose)
    self.rgba = Image.new("RGBA", (size * OVERSAMPLING,) * 2)
    self.map = Image.new("L", (size, size))
    self._colours = ImageDraw.Draw(self.rgba)
    self._classes = ImageDraw.Draw(self.map)

  def at(self, points: np.ndarray) -> np.ndarray:
    """[N, 3] face units -> [N, 2] pixels."""
    return points @ self._camera + self._centre

  def fill(self, points: np.ndarray, colour: Colour | None, name: str | None = None) -> None:
    """Fills a polygon [N, 3]: its pixels with a colour, its part of the map with a class."""
    xy = self.at(points)
    if colour is not None:
      self._colours.polygon((xy * OVERSAMPLING - 0.5).ravel().tolist(), fill=_paint(colour))
    if name is not None:
      self._classes.polygon((xy - 0.5).ravel().tolist(), fill=CLASS_ID[name])

  def line(self, points: np.ndarray, colour: Colour, width: float, name: str | None = None) -> None:
    """Draws a curve [N, 3]; the width is in face units, at least one drawn pixel."""
    xy = self.at(points)
    thick = width * self.pose.scale
    self._colours.line(
      (xy * OVERSAMPLING - 0.5).ravel().tolist(),
      fill=_paint(colour),
      width=max(1, round(thick * OVERSAMPLING)),
      joint="curve" if thick > 2 else None,
    )
    if name is not None:
      self._classes.line(
        (xy - 0.5).ravel().tolist(), fill=CLASS_ID[name], width=max(1, round(thick))
      )

  def strands(self, ends: np.ndarray, colours: list[Colour], width: float) -> None:
    """Draws straight lines [N, 2, 3], each in its own colour; the width is in face units."""
    flat = (self.at(ends.reshape(-1, 3)) * OVERSAMPLING - 0.5).reshape(-1, 4).tolist()
    thick = max(1, round(width * self.pose.scale * OVERSAMPLING))
    for pair, colour in zip(flat, colours, strict=True):
      self._colours.line(pair, fill=_paint(colour), width=thick)

  def disc(
    self, centre: np.ndarray, radius: float, colour: Colour, name: str | None = None
  ) -> None:
    """Draws a disc around a point [3]; the radius is in face units."""
    (x, y), r = self.at(centre[None])[0], radius * self.pose.scale
    k = OVERSAMPLING
    self._colours.ellipse(
      [(x - r) * k - 0.5, (y - r) * k - 0.5, (x + r) * k - 0.5, (y + r) * k - 0.5],
      fill=_paint(colour),
    )
    if name is not None:
      self._classes.ellipse([x - r - 0.5, y - r - 0.5, x + r - 0.5, y + r - 0.5], CLASS_ID[name])

  def pixels(self) -> tuple[np.ndarray, np.ndarray]:
    """Colour times coverage [3 Y X] in 0..255 and coverage [Y X] in 0..1, float32."""
    reduced = np.asarray(self.rgba.convert("RGBa").reduce(OVERSAMPLING))
    planes = np.ascontiguousarray(reduced.transpose(2, 0, 1), np.float32)
    return planes[:3], planes[3] * np.float32(1 / 255)
