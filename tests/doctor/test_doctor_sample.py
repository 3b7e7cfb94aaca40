"""A whole sample: all that is wrong with it, counted as training counts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_files import FACE, FRAMES, POINTS, clip, npy, picture

from facejax.config import DataConfig
from facejax.data import chat
from facejax.data.files import Encoded
from facejax.data.media import read_video
from facejax.data.pipeline import row_format
from facejax.data.rows import Outline
from facejax.doctor import examine
from facejax.doctor.cases import Case, Piece, Stored
from facejax.doctor.findings import KINDS, severities
from facejax.models import presets
from facejax.types import Turn

TURNS = (Turn("human", "<image>\nWho?"), Turn("gpt", "Nobody."))


@pytest.fixture(scope="module")
def form():
  return row_format(presets.demo(vocab=1024), DataConfig(row_length=704, videos_per_row=1))


def examined(form, turns=TURNS, media=None, **arguments):
  if media is None:
    media = (Piece("image", Stored("a.png", data=picture(FACE.image))),)
  levels = severities(arguments.pop("severity", ()))
  case = Case("s1", turns, media, **arguments.pop("case", {}))
  return examine.examine(case, form, levels, **arguments)


def found(*arguments, **named):
  return {finding.kind for finding in examined(*arguments, **named).findings}


def test_tokens_are_those_of_training(form):
  """Kills: a count of its own beside RowFormat's; visual tokens counted as text."""
  seen = examined(form)
  text = form.text("s1", TURNS, [Outline("image")])
  assert not seen.findings
  assert (seen.text_tokens + seen.visual_tokens, seen.visual_tokens) == (len(text), 64)
  assert len(seen.facts) == 1 and seen.size == len(picture(FACE.image)) and seen.sample


@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_is_training_s(form, over):
  """Kills: a limit other than the one that training refuses by."""
  length = len(form.text("s1", TURNS, [Outline("image")]))
  form = dataclasses.replace(form, length=length - over)
  if over:
    with pytest.raises(ValueError, match=f"takes {length} tokens"):
      form.text("s1", TURNS, [Outline("image")])
  seen = examined(form)
  assert {f.kind for f in seen.findings} == ({"too_long"} if over else set())
  assert seen.text_tokens + seen.visual_tokens == length


def test_what_the_row_has_no_room_for(form):
  """Kills: clips counted as pictures; media that differ from their placeholders."""
  media = (Piece("image", Stored("a.png", data=picture(FACE.image))),)
  turns = (Turn("human", "<image><image>"), TURNS[1])
  assert found(form, turns, media * 2) == {"too_many_media"}
  assert found(form, turns, media) == {"placeholder_mismatch"}
  assert found(form, (Turn("human", "<video>"), TURNS[1]), media) == {"placeholder_mismatch"}


def test_files_on_disk(form, tmp_path):
  """Kills: a file that raises instead of being noted; a limit that is not the readers'."""

  def kinds(name):
    return found(form, media=(Piece("image", Stored(name, tmp_path / name)),))

  assert kinds("gone.png") == {"missing_file"}
  (tmp_path / "empty.png").touch()
  assert kinds("empty.png") == {"empty_file"}
  assert kinds("empty.png/below.png") == {"missing_file"}
  (tmp_path / "folder.png").mkdir()
  assert kinds("folder.png") == {"not_a_file"}
  with (tmp_path / "huge.png").open("wb") as file:
    file.truncate(512 * 2**20 + 1)
  assert kinds("huge.png") == {"oversized_file"}
  (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
  assert kinds("loop.png") == {"unreadable_file"}
  assert found(form, media=(Piece("image", Stored("a.png", data=b"")),)) == {"empty_file"}


def test_a_sample_gets_all_its_findings(form):
  """Kills: an examination that ends at the first damage."""
  piece = Piece("image", Stored("a.png", data=b"x"), Stored("p.npy", data=npy(POINTS * np.nan)))
  turns = (Turn("human", "<image>\nWho?"), Turn("gpt", ""))
  kinds = found(form, turns, (piece,), case={"labels": {"age": -1}})
  assert kinds == {
    *("undecodable", "landmarks_not_finite", "empty_answer", "no_supervision", "label_range"),
  }


def test_media_are_looked_at_without_a_conversation(form):
  """Kills: a missing conversation that hides a broken picture, or adds findings about itself."""
  media = (Piece("image", Stored("a.png", data=b"x")),)
  seen = examined(form, None, media)
  assert [f.kind for f in seen.findings] == ["undecodable"]
  assert (seen.text_tokens, seen.sample, seen.answers) == (-1, b"", b"")


def test_what_is_not_read_is_a_warning():
  """Kills: a broken class map that quarantines a sample for a model without maps."""
  data = DataConfig(row_length=704, modalities=("landmarks",))
  form = row_format(presets.demo(vocab=1024), data)
  piece = Piece(
    "image", Stored("a.png", data=picture(FACE.image)), None, Stored("m.png", data=b"x")
  )
  (finding,) = examined(form, media=(piece,)).findings
  assert (finding.kind, finding.severity) == ("segmentation_unreadable", "warning")


def test_severity_is_the_user_s(form):
  """Kills: settings that are not looked at; an unknown kind or level taken silently."""
  turns = (TURNS[0], Turn("gpt", "I cannot say."))
  (finding,) = examined(form, turns).findings
  assert finding.severity == "warning"
  (finding,) = examined(form, turns, severity=["refusal_answer=error"]).findings
  assert finding.severity == "error"
  assert not examined(form, turns, severity=["refusal_answer=off"]).findings
  for setting in ("refusal=off", "no_face=maybe", "no_face"):
    with pytest.raises(ValueError, match=f"--severity {setting}: expected KIND=error"):
      severities([setting])


class Faces:
  """Finds as many faces as it is told to."""

  def __init__(self, count):
    self.count, self.seen = count, []

  def detect(self, image):
    self.seen.append(image)
    return [object()] * self.count


@pytest.mark.parametrize("count, kinds", [(0, {"no_face"}), (1, set()), (2, {"several_faces"})])
def test_faces(form, count, kinds):
  """Kills: a detector that is not asked, or whose answer is turned around."""
  detector = Faces(count)
  assert found(form, detector=detector) == kinds and len(detector.seen) == 1
  turns, media = (
    (Turn("human", "<video>"), TURNS[1]),
    (Piece("video", Stored("a.mp4", data=clip(FRAMES))),),
  )
  assert found(form, turns, media, detector=detector) == kinds
  file = Encoded("a.mp4", clip(FRAMES))
  middle = read_video(file, form.table.model.frames).pixels[4]
  np.testing.assert_array_equal(detector.seen[0], FACE.image)
  np.testing.assert_array_equal(detector.seen[1], middle)


def test_a_turned_picture(form):
  """Kills: landmarks that stay where they were while the picture is turned."""
  exif = Image.Exif()
  exif[0x0112] = 3
  file = Stored("a.jpg", data=picture(FACE.image, "JPEG", exif=exif))
  assert found(form, media=(Piece("image", file),)) == set()
  piece = Piece("image", file, Stored("p.npy", data=npy(POINTS)))
  assert found(form, media=(piece,)) == {"rotated_picture"}


def test_a_file_that_is_to_be_skipped(form):
  """Kills: a decoder that is asked again after it killed its process; the wrong file skipped."""
  note = examine.Note("decoder_crash", "a.png: died", "a.png")
  opened: list[str] = []
  piece = Piece(
    "image",
    Stored("a.png", data=picture(FACE.image)),
    Stored("p.npy", data=npy(POINTS[:3])),
  )
  kinds = found(form, media=(piece,), skip={"a.png": note}, at=opened.append)
  assert kinds == {"decoder_crash", "landmarks_shape"} and opened == ["p.npy", ""]


def test_a_text_that_the_tokenizer_does_not_know(form):
  """Kills: text in another script that is spelled out byte by byte without a word."""
  turns = (
    TURNS[0],
    Turn("gpt", "\u8fd9\u4e2a\u4eba\u770b\u8d77\u6765\u5927\u7ea6\u4e09\u5341\u5c81\u3002" * 3),
  )
  assert found(form, turns) == {"unknown_tokens"}


def test_a_refusal_without_a_kind(form, monkeypatch):
  """Kills: a sample that training refuses, called good because no kind stands for the reason."""

  def refuse(*_, sample, **__):
    raise ValueError(f"sample {sample!r}: no")

  monkeypatch.setattr(chat, "encode", refuse)
  (finding,) = examined(form).findings
  assert (finding.kind, finding.message) == ("refused", "sample 's1': no")


def test_thumbnails_show_points_however_wrong():
  """Kills: a picture without its points; a broken medium that ends the report."""
  media = (
    Piece("image", Stored("b.png", data=b"x")),
    Piece("image", Stored("a.png", data=picture(FACE.image)), Stored("p.npy", data=npy(POINTS))),
  )
  plain = (media[0], media[1]._replace(landmarks=None))
  wrong = (media[1]._replace(landmarks=Stored("p.npy", data=npy(POINTS * np.nan))),)
  drawn = [examine.thumbnail(Case("s", TURNS, m)) for m in (media, plain, wrong, media[:1])]
  assert drawn[0] != drawn[1] == drawn[2] and drawn[1] and drawn[3] == ""


def test_every_kind_is_planted_or_tested():
  """Kills: a kind in the table that nothing can find."""
  root = Path(__file__).parents[2]
  texts = [p.read_text() for p in (root / "experiments" / "doctor").glob("*.py")]
  texts += [p.read_text() for p in Path(__file__).parent.glob("*.py")]
  missing = [slug for slug in KINDS if not any(f'"{slug}"' in text for text in texts)]
  assert not missing
