"""Pictures and clips -> normalised pixels, clips -> frame numbers: preprocess.npz.

A picture has two rows in a report: its plain name is the transform in float (data/resize.py's
resample_image); with ".uint8", the pixels that the model gets, which data/resize.py rounds.
"""

import pathlib
import tempfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from face_llava.folder import Folder
from face_llava.report import RELATIVE, Report
from facejax.config import ModelConfig
from facejax.data import media, resize
from facejax.models.vit import STATISTICS, normalise

POLICIES = {"direct": "crop", "pad": "pad"}  # released inference, released training
MEAN, STD = (np.array(x, np.float32) for x in STATISTICS["clip"])
# One of 255 levels, of the channel in which it is the smallest number.
LEVEL = float(1 / 255 / STD.max())


def compare(folder: Folder, config: ModelConfig, report: Report) -> None:
  """preprocess.npz."""
  stored, size = folder.preprocess, config.image.image_size
  for name in [n.removesuffix(".rows") for n in stored if n.endswith("alias.rows")]:
    _compare_picture(stored, name, size, report)
  if "video.u8_thwc" in stored:
    _compare_clip(stored, size, report)
  for name in [n for n in stored if n.endswith(".padded_u8_midcol")]:
    # A square of its own size: padding is all that happens.
    image = stored[name.replace(".padded_u8_midcol", ".u8")]
    side = max(image.shape[:2])
    padded = resize.resize_image(image, side, "pad")
    report.equal(name, padded[:, side // 2], stored[name])
  if "pad_color" in stored:
    report.equal("pad_color", resize.PAD_COLOUR, stored["pad_color"])
  if "video.frame_ids" in stored:
    _compare_frame_numbers(stored, config.frames, report)
  sizes = "the library never makes the resized picture: it computes the cut square alone"
  report.leave([n for n in stored if n.startswith("output_size.")], sizes)
  given = ("rows", "video.rows", "video.frames", "video.frame_ids.durations")
  report.inputs |= {n for n in stored if n in given or n.endswith((".u8", ".u8_thwc"))}
  report.rest(stored)


def _compare_picture(stored: Any, name: str, size: int, report: Report) -> None:
  _, picture, order, kernel = name.split(".")
  how = (stored[f"image.{picture}.u8"], size, POLICIES[order], kernel == "antialias")
  official, rows = stored[f"{name}.rows"].transpose(1, 2, 0), stored["rows"]
  exact = (resize.resample_image(*how) / 255 - MEAN) / STD
  report.close(f"{name}.rows", exact[rows], official)
  _stats(f"{name}.stats", exact, stored[f"{name}.stats"], report)
  rounded = np.asarray(normalise(jnp.asarray(resize.resize_image(*how))))[rows]
  # The official kernel overshoots black and white and keeps that; uint8 cannot.
  held = official.clip(-MEAN / STD, (1 - MEAN) / STD)
  report.close(f"{name}.rows.uint8", rounded, held, LEVEL)
  report.notes[f"{name}.rows.uint8"] = (
    f"at most {np.abs(rounded - official).max():.4f} with what the kernel overshoots black or white"
  )


def _compare_clip(stored: Any, size: int, report: Report) -> None:
  clip, frames, rows = (stored[f"video.{name}"] for name in ("u8_thwc", "frames", "rows"))
  official = stored["video.pixel_values.sub"]
  part = lambda x: np.asarray(x)[frames][:, rows].transpose(3, 0, 1, 2)
  # The official order is the other one: first normalised, then resized.
  exact = (resize.resample_clip(clip, size, "crop") / 255 - MEAN) / STD
  report.close("video.pixel_values.sub", part(exact), official)
  _stats("video.pixel_values.stats", exact, stored["video.pixel_values.stats"], report)
  rounded = normalise(jnp.asarray(resize.resize_clip(clip, size, "crop")))
  report.close("video.pixel_values.sub.uint8", part(rounded), official, LEVEL)


def _stats(name: str, got: np.ndarray, want: np.ndarray, report: Report) -> None:
  """[sum, sum of squares, smallest, largest], relative; a sum may cancel out."""
  got = got.astype(np.float64)
  got = np.array([got.sum(), (got**2).sum(), got.min(), got.max()])
  scale = np.abs(want)
  scale[0] = max(scale[0], np.sqrt(want[1]))
  report.add(name, (np.abs(got - want) / scale).max(), RELATIVE)


def _compare_frame_numbers(stored: Any, frames: int, report: Report) -> None:
  """Which frames of a clip are read, from clips of as many frames as the references have."""
  try:
    import av
  except ModuleNotFoundError:
    report.leave(["video.frame_ids"], "PyAV is not installed: pip install facejax[video]")
    return
  numbers = []
  with tempfile.TemporaryDirectory() as folder:
    for total in stored["video.frame_ids.durations"].tolist():
      path = pathlib.Path(folder) / f"{total}.mp4"
      with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for _ in range(total):
          container.mux(stream.encode(frame))
        container.mux(stream.encode())
      numbers.append(media.read_video(path, frames).indices)
  report.equal("video.frame_ids", np.stack(numbers), stored["video.frame_ids"])
