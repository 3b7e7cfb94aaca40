"""A case -> its findings, and what the whole dataset has to know of it. Runs in a worker process.

record, conversation   conversation.py, labels.py
files                  there, of a size that is read, inside the folder
media                  pixels.py, and a face detector if there is one
beside them            beside.py
the row                tokens and slots by RowFormat, as training counts them
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from facejax.config import RunConfig
from facejax.data import media as readers
from facejax.data.files import Encoded
from facejax.data.pipeline import row_format
from facejax.data.rows import RowFormat
from facejax.doctor import beside, conversation, labels, pixels
from facejax.doctor.cases import Case, Piece, Reader, Stored, unread
from facejax.doctor.findings import Finding, Note, Severity, judged
from facejax.doctor.fit import lay_out
from facejax.doctor.thumbnails import thumbnail
from facejax.faces.detect import Detector, LiteRTDetector

_LONG = 200  # characters of answers from which the same ones under two media are no chance


class Fact(NamedTuple):
  """Of a medium, for what can be seen only over all samples."""

  kind: str
  name: bytes  # 8 bytes
  content: bytes  # 16 bytes; equal where the files are equal
  pixels: bytes  # 16 bytes; equal where the decoded pixels are equal, b"" if they were not
  seconds: float


class Examined(NamedTuple):
  """What a worker answers."""

  id: str
  own_id: str
  split: str
  findings: list[Finding]
  facts: list[Fact]
  size: int  # bytes of all its files
  text_tokens: int  # -1: not counted, because the sample cannot be laid out
  visual_tokens: int
  sample: bytes  # 16 bytes: conversation and pixels; b"" where a medium does not decode
  answers: bytes  # 16 bytes; b"" where they are short
  cpu: float = 0.0  # seconds of a core that this took


@dataclasses.dataclass(frozen=True)
class Job:
  """One sample to be examined, or to be drawn.

  Attributes:
    subject: number of its dataset.
    place: in the dataset.
    payload: for the dataset's reader.
    skip: names of files that a decoder did not survive, with what is to be said of them.
    draw: makes a thumbnail instead.
    kills: processes that it took down without a file to blame.
  """

  subject: int
  place: int
  payload: bytes
  skip: Mapping[str, Note] = dataclasses.field(default_factory=dict)
  draw: bool = False
  kills: int = 0


@dataclasses.dataclass(frozen=True)
class Examiner:
  """What workers know: picklable, so that it can be sent to them.

  Attributes:
    readers: of the datasets, by number.
    config: of the run that the data is for.
    levels: severity of every kind.
    detector: folder or bundle of a face detector's models; "" for none.
  """

  readers: tuple[Reader, ...]
  config: RunConfig
  levels: Mapping[str, Severity]
  detector: str = ""

  def __call__(self) -> Callable:
    """Opens the tokenizer and the detector; gives the function of a job."""
    form = row_format(self.config.model, self.config.data)
    detector = LiteRTDetector.load(self.detector) if self.detector else None

    def work(job: Job, at: Callable[[str], None]) -> Examined | str:
      started = time.process_time()
      case = self.readers[job.subject].read(job.place, job.payload)
      if job.draw:
        return thumbnail(case)
      found = examine(case, form, self.levels, detector, skip=job.skip, at=at)
      return found._replace(cpu=time.process_time() - started)

    return work


def examine(
  case: Case,
  form: RowFormat,
  levels: Mapping[str, Severity],
  detector: Detector | None = None,
  *,
  skip: Mapping[str, Note] | None = None,
  at: Callable[[str], None] = lambda name: None,
) -> Examined:
  """All that is wrong with one sample.

  Args:
    case: the sample.
    form: how training lays it out.
    levels: severity of every kind.
    detector: of faces; None asks for none.
    skip: names of files that are not opened, and the note each gets instead.
    at: called with a file's name before it is opened and with "" when it is done.
  """
  notes = list(case.notes)
  if not case.readable:
    found = judged(case.id, notes, levels)
    return Examined(case.id, case.own_id, case.split, found, [], 0, -1, 0, b"", b"")
  turns = case.turns or ()
  if case.turns is not None:
    notes += conversation.check(turns, form.template)
  notes += labels.check(case.labels)
  look = _Look(form, detector, skip or {}, at, notes)
  seen = [look.piece(piece) for piece in case.media]
  text_tokens, visual_tokens = -1, 0
  if case.turns is not None:
    text_tokens, visual_tokens = lay_out(case, seen, form, notes)
  answers = "\n".join(turn.text for turn in turns if turn.role == "gpt")
  decoded = [fact.pixels for fact in look.facts]
  whole = case.turns is not None and all(decoded) and len(decoded) == len(case.media)
  said = [f"{turn.role}\0{turn.text}" for turn in turns]
  return Examined(
    case.id,
    case.own_id,
    case.split,
    judged(case.id, notes, levels),
    look.facts,
    look.bytes,
    text_tokens,
    visual_tokens,
    _digest(*(t.encode(errors="replace") for t in said), *decoded) if whole else b"",
    _digest(answers.encode(errors="replace")) if len(answers) >= _LONG else b"",
  )


def _digest(*parts: bytes) -> bytes:
  found = hashlib.blake2b(digest_size=16)
  for part in parts:
    found.update(len(part).to_bytes(8, "little") + part)
  return found.digest()


class _Look:
  """Opens the files of one sample."""

  def __init__(self, form, detector, skip, at, notes):
    self._form: RowFormat = form
    self._detector: Detector | None = detector
    self._skip: Mapping[str, Note] = skip
    self._at: Callable[[str], None] = at
    self._notes: list[Note] = notes
    self.facts: list[Fact] = []
    self.bytes = 0

  def piece(self, piece: Piece) -> pixels.Seen | None:
    """Decodes a medium and what lies beside it."""
    form = self._form
    seen = self._opened(piece.file, lambda file: self._medium(piece, file))
    for stored, name, check in (
      (piece.landmarks, "landmarks", beside.check_landmarks),
      (piece.segmentation, "segmentation", self._segmentation),
    ):
      if stored is not None:
        mild = name not in form.reads
        use = functools.partial(check, kind=piece.kind, seen=seen, notes=self._notes, mild=mild)
        self._opened(stored, use, mild)
        if seen is not None and seen.turned:
          self._notes.append(
            Note(
              "rotated_picture",
              f"{piece.file.name}: EXIF turns or mirrors the picture, which has {name} - training "
              f"turns the pixels only - save it upright and make the {name} from that",
              piece.file.name,
            )
          )
    return seen

  def _segmentation(self, file, kind, seen, notes, mild) -> None:
    classes = min(readers.CLASSES, self._form.table.model.segmentation.classes)
    beside.check_segmentation(file, kind, seen, classes, notes, mild)

  def _medium(self, piece: Piece, file: Encoded) -> pixels.Seen | None:
    seen = pixels.look(piece.kind, file, self._form.table.model.frames, self._notes)
    name = hashlib.blake2b(file.name.encode(errors="replace"), digest_size=8).digest()
    content = hashlib.blake2b(file.data, digest_size=16).digest()
    known = (b"", 0.0) if seen is None else (seen.digest, seen.seconds)
    self.facts.append(Fact(piece.kind, name, content, *known))
    if seen is not None and self._detector is not None:
      self._faces(self._detector, file, seen)
    return seen

  def _faces(self, detector: Detector, file: Encoded, seen: pixels.Seen) -> None:
    """A clip is asked for its middle frame."""
    faces = len(detector.detect(seen.pixels[len(seen.pixels) // 2]))
    if faces != 1:
      height, width = seen.pixels.shape[1:3]
      self._notes.append(
        Note(
          "several_faces" if faces else "no_face",
          f"{file}: {faces or 'no'} faces found in {width}x{height} pixels - expected one - crop "
          "the face, or remove the sample",
          file.name,
        )
      )

  def _opened(self, stored: Stored, use: Callable, mild: bool = False):
    """Reads a file and uses it; None if it cannot be read."""
    if stored.name in self._skip:
      self._notes.append(self._skip[stored.name])
      return None
    self._at(stored.name)
    try:
      note = unread(stored)
      if note is None:
        data = stored.data if stored.path is None else stored.path.read_bytes()
        if data is None:  # its path was refused
          return None
        self.bytes += len(data)
        return use(Encoded(stored.name, data))
    except OSError as error:
      note = Note(
        "unreadable_file",
        f"{stored.name} cannot be read ({error}) - check its permissions and the disk",
        stored.name,
      )
    finally:
      self._at("")
    self._notes.append(note._replace(mild=mild))
    return None
