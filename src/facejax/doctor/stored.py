"""Built sources and released layouts -> cases; and which of these a path names."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from facejax.config import LlavaConfig, RunConfig
from facejax.doctor.cases import Case, Piece, Reader, Stored, Subject, held_out, split_of
from facejax.doctor.findings import Note
from facejax.doctor.index import IndexSubject
from facejax.records import spec
from facejax.records.raw import Layout, RawSample


class LayoutReader:
  """Reads samples of a Layout; a process opens it once.

  Attributes:
    open: opens it; picklable.
  """

  def __init__(self, open: Callable[[], Layout], split: str):
    self._open, self._split = open, split
    self._layout: Layout | None = None

  def __getstate__(self) -> dict[str, Any]:
    return {"_open": self._open, "_split": self._split, "_layout": None}

  def read(self, place: int, payload: bytes) -> Case:
    """The sample at `place`; what its layout refuses is one note."""
    del payload
    if self._layout is None:
      self._layout = self._open()
    name = self._layout.id(place)
    try:
      return _case(self._layout[place], self._split)
    except (ValueError, OSError) as error:
      message = str(error).removeprefix(f"sample {name!r}: ")
      kind = "missing_file" if re.search("no such file", message) else "unreadable_sample"
      return Case(
        name, split=self._split, own_id=name, notes=(Note(kind, message),), readable=False
      )


def _case(raw: RawSample, split: str) -> Case:
  media = []
  for medium in raw.media:
    file = Stored.of(medium.file)
    assert file is not None
    media.append(
      Piece(medium.kind, file, Stored.of(medium.landmarks), Stored.of(medium.segmentation))
    )
  own = raw.labels.get("split")
  return Case(
    id=raw.id,
    turns=raw.conversation,
    media=tuple(media),
    labels={name: value for name, value in raw.labels.items() if name != "split"},
    split=own if isinstance(own, str) and own else split,
    own_id=raw.id,
  )


class LayoutSubject:
  """A Layout, opened."""

  notes: tuple[Note, ...] = ()

  def __init__(self, name: str, path: Path, open: Callable[[], Layout], split: str):
    """Opens it here for its length. Raises FileNotFoundError or ValueError as opening does."""
    self.name, self.path = name, path
    self.reader: Reader = LayoutReader(open, split)
    self._length = len(open())

  def __len__(self) -> int:
    return self._length

  def payload(self, place: int) -> bytes:
    """Nothing: the place is enough."""
    del place
    return b""


class _OpenStore:
  """Opens a built source; TFDS, which that needs, is imported by then."""

  def __init__(self, folder: Path):
    self._folder = folder

  def __call__(self) -> Layout:
    from facejax.records.store import Store

    return Store(self._folder)


def is_store(folder: Path) -> bool:
  """Whether `facejax data build` wrote this folder for one source."""
  return (folder / "manifest" / "manifest.json").is_file()


def open_subjects(paths: Sequence[str | Path], config: RunConfig) -> list[Subject]:
  """Opens what is to be checked.

  Args:
    paths: index files in the LLaVA format, specifications of a build, stores, or folders of
      stores. Media of an index lie where `config.data.llava` says, else beside it.
    config: of the run.

  Raises:
    FileNotFoundError: there is nothing at a path.
    ValueError: it is none of these.
  """
  subjects: list[Subject] = []
  for path in map(Path, paths):
    subjects += _opened(path, config.data.llava)
  return subjects


def _opened(path: Path, llava: LlavaConfig) -> list[Subject]:
  if path.is_dir():
    stores = [path] if is_store(path) else sorted(filter(is_store, path.iterdir()))
    if not stores:
      raise ValueError(
        f"{path} holds no built source (no manifest/manifest.json) - expected a folder that "
        "`facejax data build SPEC OUT` wrote, an index file, or a specification - check the path"
      )
    return [LayoutSubject(s.name, s, _OpenStore(s), split_of(s.name)) for s in stores]
  if not path.is_file():
    raise FileNotFoundError(
      f"no {path}, looked for in {Path.cwd()} - expected a JSON index, a specification or a built "
      "source"
    )
  if path.suffix != ".py" and not _starts(path).startswith(b"{"):
    return [IndexSubject(path, llava)]
  return [subject for source in spec.load(path) for subject in _of_spec(path, source)]


def _starts(path: Path) -> bytes:
  with path.open("rb") as file:
    return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")


def _of_spec(path: Path, source: spec.SourceSpec) -> list[Subject]:
  """An index that a specification names is read as leniently as one that is named itself."""
  options = source.options
  if source.layout == "llava":
    config = LlavaConfig(options.index, options.image_folder, options.video_folder)
    split = split_of(source.name)
    own = split if held_out(split) else ""
    return [IndexSubject(Path(index), config, own) for index in options.index]
  split = split_of(str(getattr(options, "split", "") or source.name))
  return [LayoutSubject(source.name, path, options.open, split)]
