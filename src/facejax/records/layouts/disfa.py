"""DISFA: intensities of 12 action units in every frame of 27 clips.

    ActionUnit_Labels/SN001/SN001_au1.txt        1,0      frame, from 1; intensity 0 to 5
                                                 2,0
    Videos_LeftCamera/LeftVideoSN001_comp.avi    1024 x 768 pixels, 20 frames a second
    1 2 4 5 6 9 12 15 17 20 25 26

Released: clips and intensities. Frames are released as clips only; a folder SN001/ of pictures that
end in the frame's number is read as well. Ours: frames of a clip are stored as PNG, without loss;
a unit counts as active from intensity 2 on, as usual in evaluations; one frame of `every` is taken.
"""

import dataclasses
import io
import pathlib
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from facejax.config_checks import within
from facejax.data import media
from facejax.data.media import MediaError
from facejax.records.layouts import path
from facejax.records.layouts.table import Row, Table, bad_line, lines, said
from facejax.records.raw import Encoded

ACTION_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclasses.dataclass(frozen=True)
class Disfa:
  """Settings of DISFA.

  Attributes:
    labels: folder ActionUnit_Labels.
    videos: folder of one camera's clips; or "".
    frames: folder with a folder of pictures for each subject; or "".
    subjects: such as SN001; (): all that have labels. The usual folds are of subjects.
    every: a frame of so many is taken, the first included.
    active_from: intensity.
    seed: of the wording.
  """

  labels: str = path(...)
  videos: str = path()
  frames: str = path()
  subjects: tuple[str, ...] = ()
  every: int = 1
  active_from: int = 2
  seed: int = 0

  def __post_init__(self):
    within(self, "every", 1)
    within(self, "active_from", 1, 5)
    if bool(self.videos) == bool(self.frames):
      raise ValueError(
        f"Disfa: videos={self.videos!r}, frames={self.frames!r} - expected exactly one of them"
      )

  def open(self) -> Table:
    """Reads the labels and lists the clips or pictures."""
    root = pathlib.Path(self.labels)
    found = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if not found:
      raise FileNotFoundError(
        f"no subject's folder in {root} - expected SN001, ... - check 'labels'"
      )
    for name in self.subjects:
      if name not in found:
        raise ValueError(f"Disfa.subjects: no {name!r} in {root} - expected some of {found}")
    rows = [row for name in self.subjects or found for row in self._rows(root, name)]
    if self.frames:
      return Table(self.frames, rows, "action_units", "image", self.seed)
    return _Frames(self.videos, rows, "action_units", "image", self.seed)

  def _rows(self, root: pathlib.Path, subject: str) -> Iterator[Row]:
    units = {
      unit: _intensities(root / subject / f"{subject}_au{unit}.txt") for unit in ACTION_UNITS
    }
    places = self._places(subject)
    for frame in sorted(units[ACTION_UNITS[0]])[:: self.every]:
      name = f"{subject}/{frame:05d}"
      graded = {unit: values.get(frame) for unit, values in units.items()}
      missing = [unit for unit, value in graded.items() if value is None]
      labels = {"subject": subject, "frame": frame}
      labels |= {"intensities": {f"AU{unit}": value for unit, value in graded.items()}}
      if missing or frame not in places:
        what = f"no label of AU{missing[0]}" if missing else "no picture"
        yield Row(name, "", "", "", labels, f"{what} for frame {frame} - leave the frame out")
        continue
      active = [unit for unit, value in graded.items() if (value or 0) >= self.active_from]
      yield Row(name, places[frame], *said("action_units", active), labels)

  def _places(self, subject: str) -> "dict[int, str] | _Every":
    """Where each frame is: its picture, or the subject's clip for any."""
    if self.frames:
      folder = pathlib.Path(self.frames) / subject
      found = sorted(p for p in folder.glob("*") if p.suffix.lower() in _PICTURES)
      ends = [(re.search(r"(\d+)$", p.stem), p) for p in found]
      return {int(end[1]): f"{subject}/{p.name}" for end, p in ends if end}
    clips = sorted(pathlib.Path(self.videos).glob(f"*{subject}*"))
    if len(clips) != 1:
      raise FileNotFoundError(
        f"{len(clips)} clips *{subject}* in {self.videos} - expected one, such as "
        f"LeftVideo{subject}_comp.avi - check 'videos', or leave the subject out of 'subjects'"
      )
    return _Every(clips[0].name)


class _Every(dict):
  """The same clip for any frame."""

  def __init__(self, name: str):
    super().__init__()
    self._name = name

  def __contains__(self, frame: object) -> bool:
    return True

  def __missing__(self, frame: int) -> str:
    return self._name


def _intensities(path: pathlib.Path) -> dict[int, int]:
  found = {}
  for number, line in enumerate(lines(path, "labels"), 1):
    fields = line.split(",")
    if not line.strip():
      continue
    if len(fields) != 2 or not all(f.strip().isdigit() for f in fields) or int(fields[1]) > 5:
      raise bad_line(path, number, line, "frame,intensity with an intensity of 0 to 5")
    found[int(fields[0])] = int(fields[1])
  return found


class _Frames(Table):
  """A table whose media are frames of clips, read in order: each frame is decoded once."""

  _path: pathlib.Path | None = None
  _next = 0
  _stream: Iterator[np.ndarray] = iter(())

  def medium(self, row: Row) -> Encoded:
    """The frame of a row, as PNG."""
    file, frame = media.inside(self._folder, row.path, row.id), row.labels["frame"]
    if file != self._path or frame < self._next:
      self._path, self._next, self._stream = file, 1, _decode(file)
    for _ in range(frame - self._next):
      next(self._stream, None)
    pixels = next(self._stream, None)
    self._next = frame + 1
    if pixels is None:
      raise MediaError(
        f"{file}: no frame {frame} - expected a frame for each label - copy it again"
      )
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=1)
    return Encoded(f"{row.id}.png", data.getvalue())


def _decode(file: pathlib.Path) -> Iterator[np.ndarray]:
  """The frames of a clip. Raises MediaError."""
  media.check_file(file)
  try:
    with open(file, "rb") as stream, media.open_video(stream) as container:
      for frame in container.decode(container.streams.video[0]):
        yield frame.to_ndarray(format="rgb24")
  except ModuleNotFoundError:
    raise
  except Exception as error:  # as in media.read_video
    raise MediaError(
      f"{file} cannot be decoded as a video ({error}) - expected DISFA's clip - copy it again"
    ) from error
