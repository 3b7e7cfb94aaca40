"""Numbers and drawn faces -> matplotlib figures of the report. Nothing here opens a window."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from facejax.faces.landmarks import REGIONS
from facejax.faces.segmentation import colourise
from facejax.faces.synthetic import Face

_COLOURS = ("#1f6fb2", "#d1603d", "#3a8f5c", "#8a5aab", "#b58900")


def losses(curves: Mapping[str, Sequence[Mapping]]) -> Figure:
  """Training loss against the step, a panel a stage: {stage: records of its metrics.jsonl}."""
  figure = Figure(figsize=(4.2 * len(curves), 3), layout="constrained")
  panels = figure.subplots(1, len(curves), squeeze=False)[0]
  for axes, (stage, records), colour in zip(panels, curves.items(), _cycle(curves), strict=True):
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], color=colour)
    axes.set(title=stage, xlabel="step", ylim=(0, None))
    axes.grid(alpha=0.3)
  panels[0].set_ylabel("loss, nats a token")
  return figure


def _cycle(items) -> list[str]:
  return [_COLOURS[i % len(_COLOURS)] for i in range(len(items))]


def confusions(matrices: Mapping[str, Mapping]) -> Figure:
  """True class by stated class: {task: {classes, matrix}}, the last column without a label.

  Colour is the share of the row, numbers are faces.
  """
  figure = Figure(figsize=(5.4 * len(matrices), 4.6), layout="constrained")
  panels = figure.subplots(1, len(matrices), squeeze=False)[0]
  for axes, (task, confusion) in zip(panels, matrices.items(), strict=True):
    counts, names = np.array(confusion["matrix"]), confusion["classes"]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
      shade = "white" if share[row, column] > 0.5 else "black"
      axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=8)
    axes.set_xticks(range(len(names) + 1), [*names, "no label"], rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(title=task, xlabel="stated", ylabel="true")
  return figure


def face(drawn: Face) -> Figure:
  """A face as the model sees it: pixels, landmarks on them, coloured class map."""
  figure = Figure(figsize=(7.2, 2.4), layout="constrained")
  plain, pointed, mapped = figure.subplots(1, 3)
  _picture(plain, drawn.image)
  _picture(pointed, drawn.image)
  for region, colour in zip(REGIONS, _cycle(REGIONS), strict=True):
    points = drawn.landmarks[region.start : region.stop]
    pointed.plot(*points.T, ".-", color=colour, markersize=3, linewidth=0.8)
  _picture(mapped, colourise(drawn.segmentation))
  return figure


def _picture(axes: Axes, image: np.ndarray) -> None:
  """An image whose pixel (0, 0) spans 0..1, as landmarks count them."""
  height, width = image.shape[:2]
  axes.imshow(image, extent=(0, width, height, 0))
  axes.set_axis_off()


def attention(face: Face, weights: Float[np.ndarray, "P R"]) -> Figure:
  """How much each patch looks at each of the nine regions, over the face; points of the region.

  Each panel has its own scale: its title says the smallest and largest weight. A class token in
  front of the patches is left out.
  """
  grid = math.isqrt(len(weights))
  maps = weights[len(weights) - grid**2 :].reshape(grid, grid, -1)
  size = len(face.image)
  figure = Figure(figsize=(11, 1.75), layout="constrained")
  for axes, region, layer in zip(
    figure.subplots(1, len(REGIONS)), REGIONS, np.moveaxis(maps, -1, 0), strict=True
  ):
    _picture(axes, face.image)
    axes.imshow(
      layer, cmap="magma", alpha=0.55, extent=(0, size, size, 0), interpolation="bilinear"
    )
    axes.plot(*face.landmarks[region.start : region.stop].T, ".", color="cyan", markersize=2)
    axes.set_title(f"{region.name}\n{layer.min():.3f} to {layer.max():.3f}", fontsize=8)
  return figure
