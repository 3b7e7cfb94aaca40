"""LFWA: CelebA's 40 attributes (or 73) of 13,143 pictures of LFW.

    lfw_att_40.mat                AttrName  cells of text: "5 o Clock Shadow", ..., "Young"
                                  label     a row a picture, a column an attribute
                                  name      cells of text: Aaron_Eckhart\\Aaron_Eckhart_0001.jpg
    indices_train_test.mat        indices_img_train, indices_img_test: rows of label, from 1
    lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg

Verified in several public readers of the release: names of files and variables, the backslashes,
that rows count from 1, and that both files are MATLAB 7.3, which is HDF5 (so h5py reads them; SciPy
reads what MATLAB has saved again as 7.0). General knowledge: how many pictures, that attributes'
names have spaces where CelebA has underscores, and that labels are 1 and 0; 1 and -1 is read too.
There is no validation split. Ours: nouns and answers, as for CelebA.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.config_checks import one_of
from facejax.records.layouts import path
from facejax.records.layouts.celeba import NOUNS, described
from facejax.records.layouts.table import Row, Table

_RELEASED = "is it LFWA's?"
# What SciPy raises for files that are cut off or changed; its MatReadError is an Exception alone.
_DAMAGED = (ValueError, OSError, TypeError, IndexError, KeyError, NotImplementedError, zlib.error)


@dataclasses.dataclass(frozen=True)
class Lfwa:
  """Settings of LFWA.

  Attributes:
    attributes: lfw_att_40.mat, or lfw_att_73.mat, of which the 40 names of CelebA are told in words
      and the others kept as labels.
    indices: indices_train_test.mat.
    images: folder "lfw" of the pictures, a folder a person.
    split: "train" or "test".
    seed: of the wording.
  """

  attributes: str = path(...)
  indices: str = path(...)
  images: str = path(...)
  split: str = "train"
  seed: int = 0

  def __post_init__(self):
    one_of("Lfwa.split", self.split, ("train", "test"))

  def open(self) -> Table:
    """Reads both files."""
    source = pathlib.Path(self.attributes)
    told = _read(source, "attributes", ("AttrName", "label", "name"))
    names = [name.strip().replace(" ", "_") for name in told["AttrName"]]
    files = [name.strip().replace("\\", "/") for name in told["name"]]
    values = _present(source, told["label"], (len(files), len(names)))
    if not set(names) & set(NOUNS):
      raise ValueError(f"{source}: AttrName is {names[:3]}, ... - expected CelebA's - {_RELEASED}")
    rows = [
      _row(files[i], dict(zip(names, values[i].tolist(), strict=True)))
      for i in self._chosen(len(files))
    ]
    return Table(self.images, rows, "attributes", "image", self.seed)

  def _chosen(self, rows: int) -> list[int]:
    """Rows of the split, from 0."""
    source, key = pathlib.Path(self.indices), f"indices_img_{self.split}"
    found = np.asarray(_read(source, "indices", (key,))[key]).ravel()
    wrong = (found < 1) | (found > rows) | (found != np.round(found))
    if wrong.any() or len(np.unique(found)) < len(found):
      first = found[wrong][0] if wrong.any() else "a row twice"
      raise ValueError(f"{source}: {key} has {first} - expected rows 1 to {rows}, each once")
    return (found.astype(int) - 1).tolist()


def _present(source: pathlib.Path, label: Any, shape: tuple[int, int]) -> np.ndarray:
  """Labels as bool, a row a picture."""
  values = np.asarray(label)
  if values.shape != shape:
    raise ValueError(
      f"{source}: label is {list(values.shape)} - expected {list(shape)}, a row for each of name "
      f"and a column for each of AttrName - {_RELEASED}"
    )
  kinds = set(np.unique(values).tolist())
  if not (kinds <= {0, 1} or kinds <= {-1, 1}):
    shown = sorted(kinds)[:4]
    raise ValueError(f"{source}: label has values {shown} - expected 1 and 0, or 1 and -1")
  return values == 1


def _row(file: str, attributes: dict[str, bool]) -> Row:
  return Row(file, file, *described(attributes), {"attributes": attributes})


def _read(source: pathlib.Path, setting: str, names: Sequence[str]) -> dict[str, Any]:
  """Variables of a .mat file: arrays as MATLAB shows them, cells of text as lists of str."""
  if not source.is_file():
    raise FileNotFoundError(f"no label file {source} - check {setting!r} of the source")
  with source.open("rb") as file:
    head = file.read(520)
  if b"\x89HDF\r\n\x1a\n" in head:  # at byte 0, or at 512 behind MATLAB's own header
    return _hdf5(source, names)
  import scipy.io

  try:
    found = scipy.io.loadmat(source, variable_names=names)
  except (scipy.io.matlab.MatReadError, *_DAMAGED) as error:
    raise ValueError(f"{source} is no .mat file ({error}) - {_RELEASED}") from error
  _check(source, names, found)
  return {name: _texts(found[name]) for name in names}


def _check(source: pathlib.Path, names: Sequence[str], found: Any) -> None:
  if lacks := [name for name in names if name not in found]:
    raise ValueError(
      f"{source}: no variable {', '.join(lacks)} - expected {', '.join(names)} - {_RELEASED}"
    )


def _texts(values: np.ndarray) -> Any:
  """SciPy's cells of text as a list; numbers as they are."""
  return [str(cell.item()) for cell in values.ravel()] if values.dtype == object else values


def _hdf5(source: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
  """HDF5 holds MATLAB's arrays with the axes turned around, and text as numbers of characters."""
  try:
    import h5py
  except ImportError as error:
    raise ModuleNotFoundError(
      f"{source} is MATLAB 7.3 (HDF5), which h5py reads and is not installed - pip install "
      "'facejax[lfwa]', or save the file as MATLAB 7.0"
    ) from error
  try:
    with h5py.File(source) as file:
      _check(source, names, file)
      cells = lambda d: ["".join(map(chr, file[cell][()].ravel())) for cell in d[()].ravel()]
      read = lambda d: cells(d) if d.dtype == object else d[()].T
      return {name: read(file[name]) for name in names}
  except OSError as error:
    raise ValueError(f"{source} cannot be read ({error}) - fetch it again") from error
