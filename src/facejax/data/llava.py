"""The official Face-LLaVA (LLaVA) JSON format: index files -> samples, all checked before step 0.

    [{"id": 3,                                   kept in messages; the official code overwrites it
      "image": "a.png",                          or a list; "video" likewise
      "landmarks_2d": "a.npy",                   optional, or a list: one entry a medium
      "segmentation": "a_map.png",               optional, or a list; null where there is none
      "conversations": [{"from": "human", "value": "<image>\\nHow old is the person?"},
                        {"from": "gpt", "value": "About 30."}]}, ...]

The n-th <image> stands for the n-th image, the n-th <video> for the n-th video, and the n-th
entry of landmarks_2d and segmentation for the n-th placeholder of either kind. The official code
replaces a sample that it cannot load by a random other one; here it is refused, by name.
"""

import hashlib
import importlib.util
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from tqdm import tqdm

from facejax.config import LlavaConfig
from facejax.data import headers, media
from facejax.data.media import MediaError
from facejax.data.refused import check_share
from facejax.data.rows import Outline, RowFormat, placeholders, slots
from facejax.types import LANDMARKS, Kind, Medium, Refusal, Sample, Turn

_PROGRESS = 10_000  # samples from which reading takes long enough to show it
_CHUNK = 1000  # samples checked by a thread at a time
# Headers opened at a time. One would be faster on a local disk (2400 samples/s, not 1000), but
# where a file takes 10 ms to open, 16 turn eight hours for a million samples into half an hour.
_THREADS = 16


class File(NamedTuple):
  """A medium of a record, and what lies beside it."""

  kind: Kind
  path: pathlib.Path
  landmarks: pathlib.Path | None
  segmentation: pathlib.Path | None


class Record(NamedTuple):
  """A sample of an index file; its files are not read."""

  name: str
  conversation: tuple[Turn, ...]
  files: tuple[File, ...]
  size: tuple[int, int, int] = (0, 0, 0)  # tokens, picture slots, clip slots


class Index(NamedTuple):
  """One JSON file, read: its short name, its records, and the folder of each kind of media."""

  name: str
  digest: str
  records: list
  folders: dict[str, pathlib.Path]


class LlavaSource:
  """The samples of the index files that can be used, in file order.

  Attributes:
    refusals: the others, and why.
  """

  def __init__(self, config: LlavaConfig, form: RowFormat, max_refused: float = 0.01):
    """Reads the index files and checks every sample, without decoding pictures or clips.

    Checked are the schema, roles and answers, that each medium has its placeholder, that files
    exist inside their folder, headers of pictures, shapes of arrays, values of a picture's
    landmarks, and that the tokens and media fit a row.

    Args:
      config: index files and folders.
      form: the row layout; what it does not read is not looked at.
      max_refused: share of samples that may be unusable.

    Raises:
      FileNotFoundError: an index file.
      ValueError: an index that is no JSON list, or more refusals than allowed; the first ten of
        them are listed.
      ModuleNotFoundError: there are videos and nothing that decodes them.
    """
    self._form = form
    indexes = read_indexes(config)
    self._digests = [index.digest for index in indexes]
    self._records: list[Record] = []
    refused: list[Refusal] = []
    for result in self._checked(indexes):
      if isinstance(result, Refusal):
        refused.append(result)
      else:
        self._records.append(result)
    self.refusals = tuple(refused)
    check_share(self.refusals, len(self) + len(self.refusals), max_refused)
    if any(file.kind == "video" for record in self._records for file in record.files):
      _require_video_decoder()

  def __len__(self) -> int:
    return len(self._records)

  def name(self, index: int) -> str:
    """Index file and place in it, and the id that the record gives itself."""
    return self._records[index].name

  def fingerprint(self) -> dict:
    """Hashes of the index files and of which samples are usable; media files are not hashed."""
    names = "\n".join(record.name for record in self._records)
    return {
      "source": "llava",
      "index": self._digests,
      "usable": len(self),
      "usable_names": hashlib.sha256(names.encode()).hexdigest(),
    }

  def sizes(self) -> Int[np.ndarray, "n 3"]:
    """Tokens, picture slots and clip slots of each sample."""
    return np.array([record.size for record in self._records], np.int32).reshape(-1, 3)

  def labels(self, index: int) -> Mapping[str, Any]:
    """Nothing: the format has conversations alone."""
    return {}

  def __getitem__(self, index: int) -> Sample:
    """Decodes a sample. Raises MediaError, naming sample and file."""
    record = self._records[index]
    try:
      return Sample(record.name, record.conversation, tuple(map(self._decode, record.files)))
    except MediaError as error:
      raise MediaError(f"sample {record.name!r}: {error}") from error

  def _decode(self, file: File) -> Medium:
    if file.kind == "image":
      clip, pixels = None, media.read_image(file.path)[None]
    else:
      clip = media.read_video(file.path, self._form.table.model.frames)
      pixels = clip.pixels
    points = None if file.landmarks is None else media.read_landmarks(file.landmarks, clip)
    maps = None if file.segmentation is None else media.read_segmentation(file.segmentation, clip)
    frames = len(pixels)
    return Medium(
      file.kind,
      pixels,
      None if points is None else points.reshape(frames, LANDMARKS, 2),
      None if maps is None else maps.reshape(frames, *maps.shape[-2:]),
    )

  def _checked(self, indexes: list[Index]) -> Iterator[Record | Refusal]:
    """Every record or its refusal, in order."""
    total = sum(len(index.records) for index in indexes)
    jobs = ((index, place) for index in indexes for place in range(len(index.records)))
    with (
      ThreadPoolExecutor(_THREADS) as pool,
      tqdm(total=total, desc="checking samples", disable=total <= _PROGRESS) as progress,
    ):
      while chunk := list(itertools.islice(jobs, _CHUNK)):
        yield from pool.map(self._check, *zip(*chunk, strict=True))
        progress.update(len(chunk))

  def _check(self, index: Index, place: int) -> Record | Refusal:
    name = record_name(index, place)
    try:
      record = parse(index.records[place], name, index.folders, self._form.reads)
      outline = [self._outline(file, name) for file in record.files]
      text = self._form.text(name, record.conversation, outline)
      for file in record.files:
        _check_files(file, name)
    except ValueError as error:
      return Refusal(name, str(error))
    return record._replace(size=(len(text), *slots(outline)))

  def _outline(self, file: File, name: str) -> Outline:
    """What is known of a medium without decoding it. Raises MediaError."""
    pictures = 1
    if file.kind == "image" and self._form.tiles[1] > 1:
      try:
        pictures = self._form.pictures("image", *headers.upright_size(file.path))
      except MediaError as error:
        raise MediaError(f"sample {name!r}: {error}") from error
    return Outline(file.kind, file.segmentation is not None, pictures)


def _require_video_decoder() -> None:
  if importlib.util.find_spec("av") is None:
    raise ModuleNotFoundError(
      "the index has videos and PyAV is not installed - pip install -e '.[video]'"
    )


def read_indexes(config: LlavaConfig, field: str = "data.llava.index") -> list[Index]:
  """Reads index files. Errors name the file and `field`, the setting that names it."""
  if not config.index:
    raise ValueError(f"{field} is empty - name at least one JSON file")
  paths = [pathlib.Path(path) for path in config.index]
  # Two folders may each have a train.json: then the whole path tells them apart.
  short = len({path.name for path in paths}) == len(paths)
  return [_read_index(path, path.name if short else str(path), config, field) for path in paths]


def record_name(index: Index, place: int) -> str:
  """Index file, place in it, and the id that the record gives itself."""
  raw = index.records[place]
  given = f" (id {raw['id']})" if isinstance(raw, dict) and "id" in raw else ""
  return f"{index.name}:{place}{given}"


def _read_index(path: pathlib.Path, name: str, config: LlavaConfig, field: str) -> Index:
  if not path.is_file():
    raise FileNotFoundError(f"no index file {path} - check {field}")
  content = path.read_bytes()
  try:
    records = json.loads(content)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path}, line {error.lineno}, column {error.colno}: {error.msg} - expected a JSON list of "
      "samples - repair the file"
    ) from error
  except UnicodeDecodeError as error:
    raise ValueError(
      f"{path}: byte {error.start} is not UTF-8 - expected JSON - save it as UTF-8"
    ) from error
  if not isinstance(records, list):
    raise ValueError(
      f"{path} holds a {type(records).__name__} - expected a JSON list of samples - put them in []"
    )
  folders = {"image": config.image_folder, "video": config.video_folder}
  return Index(
    name,
    hashlib.sha256(content).hexdigest(),
    records,
    {kind: pathlib.Path(folder or path.parent) for kind, folder in folders.items()},
  )


def parse(raw: Any, name: str, folders: dict[str, pathlib.Path], reads: tuple[str, ...]) -> Record:
  """A record as JSON gives it -> its turns and the paths of its files, which are not opened.

  Args:
    raw: an entry of an index file.
    name: of the sample, for messages.
    folders: of each kind of media; no path may leave them.
    reads: the optional files that are looked at, as in config.MODALITIES.

  Raises:
    ValueError: naming the sample and the field.
  """
  if not isinstance(raw, dict):
    raise ValueError(f"sample {name!r} is a {type(raw).__name__} - expected a JSON object")
  conversation = _conversation(raw, name)
  kinds: tuple[Kind, ...] = ("image", "video")
  paths = {kind: iter(_listed(raw, kind, name)) for kind in kinds}
  given = ((kind, next(paths[kind], None)) for kind in placeholders(conversation))
  named: list[tuple[Kind, str]] = [(kind, path) for kind, path in given if path is not None]
  # Media without a placeholder stay in the list, so that RowFormat.text refuses the sample.
  named += [(kind, path) for kind in paths for path in paths[kind]]
  columns = []
  for field, modality in (("landmarks_2d", "landmarks"), ("segmentation", "segmentation")):
    values = _listed(raw, field, name, optional=True) if modality in reads else []
    if values and len(values) != len(named):
      raise ValueError(
        f"sample {name!r}: {field} has {len(values)} entries for {len(named)} media - expected one "
        "each, null where there is none - complete the list"
      )
    columns.append(values or [None] * len(named))
  inside = lambda kind, path: media.inside(folders[kind], path, name)
  files = tuple(
    File(kind, inside(kind, path), *(None if p is None else inside(kind, p) for p in extras))
    for (kind, path), *extras in zip(named, *columns, strict=True)
  )
  return Record(name, conversation, files)


def _conversation(raw: dict, name: str) -> tuple[Turn, ...]:
  turns = raw.get("conversations")
  if not isinstance(turns, list):
    raise ValueError(
      f"sample {name!r}: 'conversations' is {shown(turns)} - expected a list of "
      '{"from": ..., "value": ...} - add it'
    )
  for turn in turns:
    if not isinstance(turn, dict) or not all(
      isinstance(turn.get(key), str) for key in ("from", "value")
    ):
      raise ValueError(
        f"sample {name!r}: turn {shown(turn)} - expected an object with the texts 'from' and "
        "'value' - repair it"
      )
  return tuple(Turn(turn["from"], turn["value"]) for turn in turns)


def _listed(raw: dict, field: str, name: str, optional: bool = False) -> list:
  """The paths of a field: absent -> none, one -> a list of it."""
  value = raw.get(field)
  values = value if isinstance(value, list) else [] if value is None else [value]
  for path in values:
    if not isinstance(path, str) and not (optional and path is None):
      raise ValueError(
        f"sample {name!r}: '{field}' holds {shown(path)} - expected a path or a list of paths - "
        "repair it"
      )
  return values


def shown(value: Any) -> str:
  """A JSON value for a message, in 80 characters."""
  text = json.dumps(value)
  return text if len(text) <= 80 else text[:77] + "..."


def _check_files(file: File, name: str) -> None:
  """What can be known about the files without decoding pixels. Raises MediaError."""
  try:
    headers.check_medium(file.kind, file.path, file.landmarks, file.segmentation)
  except MediaError as error:
    raise MediaError(f"sample {name!r}: {error}") from error
