"""Bytes of one file: what is wrong with them."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from small_files import FACE, FRAMES, POINTS, clip, npy, picture

from facejax.data.files import Encoded
from facejax.doctor import beside, pixels, signature
from facejax.doctor.findings import KINDS, judged, severities


def looked(kind, name, data, frames=4):
  notes: list = []
  seen = pixels.look(kind, Encoded(name, data), frames, notes)
  return seen, [note.kind for note in notes]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats_are_told_by_their_bytes(kind):
  """Kills: a signature that is not its format's; a complete file called cut short."""
  data = picture(FACE.image, kind)
  assert signature.of(data).upper() == kind and not signature.cut_short(data)
  assert signature.said(f"a.{kind.lower()}").upper() == kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_cut_picture_is_truncated(kind):
  """Kills: "undecodable" for a download that stopped; only one of the formats looked at."""
  data = picture(FACE.image, kind)
  seen, found = looked("image", f"a.{kind.lower()}", data[: len(data) * 2 // 3])
  assert found == ["truncated"] and seen is None


@pytest.mark.parametrize("name", ["mp4", "matroska", "avi"])
def test_clips_and_their_ends(name):
  """Kills: boxes, segments or chunks measured wrongly: good clips are cut, or cut ones good."""
  data = clip(FRAMES, name)
  assert signature.of(data) and not signature.cut_short(data)
  assert signature.cut_short(data[:-50])
  seen, found = looked("video", f"a.{'mkv' if name == 'matroska' else name}", data)
  assert not found and seen.clip.total == 10 and seen.seconds == pytest.approx(1, abs=0.11)


def test_a_clip_that_decodes_without_its_end():
  """Kills: silence about frames that are missing; a sample lost for them."""
  notes: list = []
  data = clip(FRAMES, "matroska")[:-40]
  assert pixels.look("video", Encoded("a.mkv", data), 4, notes) is not None
  (finding,) = judged("s", notes, severities(()))
  assert (finding.kind, finding.severity) == ("truncated", "warning")
  assert not judged("s", notes, severities(["truncated=off"]))


def test_content_against_name_and_field():
  """Kills: the suffix believed; a clip in the place of a picture called broken."""
  assert looked("image", "a.png", picture(FACE.image, "JPEG"))[1] == ["wrong_suffix"]
  assert looked("image", "a.jpeg", picture(FACE.image, "JPEG"))[1] == []
  assert looked("image", "a.bin", picture(FACE.image))[1] == []
  assert looked("image", "a.mp4", clip(FRAMES)) == (None, ["wrong_kind"])
  assert looked("video", "a.gif", picture(FACE.image, "GIF")) == (None, ["wrong_kind"])
  for text in (b"version https://git-lfs.github.com/spec/v1\n", b" <HTML>404", b"<svg/>"):
    assert looked("image", "a.png", text) == (None, ["stand_in_file"])


def test_pictures_that_decode_and_are_none():
  """Kills: thresholds that are off by one; a face taken for blank, grey or small."""
  assert looked("image", "a.png", picture(FACE.image))[1] == []
  almost = np.full((40, 41, 3), 7, np.uint8)
  almost[3, 5] += 2
  assert looked("image", "a.png", picture(almost))[1] == ["blank_media"]
  almost[3, 5] += 1
  assert looked("image", "a.png", picture(almost))[1] == []
  grey = FACE.image.copy()
  grey[36:] = 128
  assert looked("image", "a.png", picture(grey))[1] == ["half_grey"]
  grey[36:] = 0  # a black bar is no damage
  assert looked("image", "a.png", picture(grey))[1] == []
  assert looked("image", "a.png", picture(FACE.image[:31]))[1] == ["tiny_media"]
  assert looked("image", "a.png", picture(FACE.image[:32]))[1] == []
  long = np.tile(FACE.image[:33], (1, 7, 1))
  assert looked("image", "a.png", picture(long[:, :330]))[1] == []
  assert looked("image", "a.png", picture(long[:, :331]))[1] == ["extreme_shape"]
  moving = [Image.fromarray(f) for f in FRAMES[:2]]
  buffer = io.BytesIO()
  moving[0].save(buffer, "GIF", save_all=True, append_images=moving[1:])
  assert looked("image", "a.gif", buffer.getvalue())[1] == ["animation"]


def test_clips_that_decode_and_are_none():
  """Kills: frames counted over the chosen ones; one frame held for a frozen clip."""
  black = np.zeros((48, 48, 3), np.uint8)
  assert looked("video", "a.mp4", clip(FRAMES[:3]))[1] == ["short_clip"]
  assert looked("video", "a.mp4", clip(FRAMES[:4]))[1] == []
  assert looked("video", "a.mp4", clip(FRAMES[:1]), frames=1)[1] == []
  assert looked("video", "a.mp4", clip([black] * 10))[1] == ["frozen_clip", "blank_media"]
  notes: list = []
  pixels.look("video", Encoded("a.mp4", clip([black, *FRAMES[:9]])), 4, notes)
  assert [n.kind for n in notes] == ["blank_media"] and "1 of 4 frames" in notes[0].message


def test_equal_pixels_have_equal_hashes():
  """Kills: a hash of the bytes, or one that forgets the shape."""
  digest = lambda data: looked("image", "a", data)[0].digest
  assert digest(picture(FACE.image)) == digest(picture(FACE.image, "WEBP", lossless=True))
  assert digest(picture(FACE.image)) != digest(picture(FACE.image.reshape(36, 64, 3)))
  other = FACE.image.copy()
  other[5, 7, 1] ^= 1
  assert digest(picture(FACE.image)) != digest(picture(other))


def turned(degrees):
  """The points around the crop's middle."""
  cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  return ((POINTS - 128) * 0.8) @ np.array([[cos, sin], [-sin, cos]]) + 128


def checked(points, kind="image", seen=None, name="p.npy", mild=False):
  notes: list = []
  data = points if isinstance(points, bytes) else npy(points)
  beside.check_landmarks(Encoded(name, data), kind, seen, notes, mild)
  return notes


@pytest.mark.parametrize(
  "points, expected",
  [
    (POINTS, []),
    (POINTS[:5], ["landmarks_shape"]),
    (POINTS[:5] * np.nan, ["landmarks_not_finite", "landmarks_shape"]),
    (POINTS.astype(str), ["landmarks_unreadable"]),
    (np.where(np.arange(68)[:, None] == 9, np.inf, POINTS), ["landmarks_not_finite"]),
    (POINTS + 300, ["landmarks_outside"]),
    (POINTS / 256, ["landmarks_normalised"]),
    (POINTS / 256 * 1.3, ["landmarks_normalised"]),
    (POINTS * 0, ["landmarks_collapsed"]),
    (POINTS * 0 + 70, ["landmarks_collapsed"]),
    (POINTS[:, ::-1].copy(), ["landmarks_turned"]),
    (256 - POINTS, ["landmarks_turned"]),
    (turned(75), ["landmarks_turned"]),
    (turned(50), []),
    (np.array([256, 0]) - POINTS * [1, -1], ["landmarks_mirrored"]),
    (b"nothing", ["landmarks_unreadable"]),
  ],
)
def test_landmarks_of_a_picture(points, expected):
  """Kills: each check turned off; a good face accused; one damage that hides another."""
  assert [note.kind for note in checked(points)] == expected


def test_landmarks_as_json_and_mild():
  """Kills: JSON opened as an array; findings on what is not read that spoil a sample."""
  assert not checked(json.dumps(POINTS.tolist()).encode(), name="p.json")
  (note,) = checked(b"{", name="p.json", mild=True)
  assert note.kind == "landmarks_unreadable"
  (finding,) = judged("s", [note], severities(()))
  assert finding.severity == "warning" and KINDS[note.kind].severity == "error"


def test_landmarks_of_a_clip():
  """Kills: frames counted against the model's, not the clip's; silence about a broken clip."""
  seen, _ = looked("video", "a.mp4", clip(FRAMES))
  each = np.stack([POINTS] * 10)
  assert not checked(each, "video", seen) and not checked(each[:4], "video", seen)
  assert [n.kind for n in checked(each[:9], "video", seen)] == ["landmarks_frames"]
  assert [n.kind for n in checked(POINTS, "video", seen)] == ["landmarks_shape"]
  each[7:] = 0
  (note,) = checked(each, "video", seen)
  assert note.kind == "landmarks_collapsed" and "in 1 of 4 frames" in note.message
  assert not checked(np.stack([POINTS] * 7), "video", None)
  assert [n.kind for n in checked(each, "video", None)] == ["landmarks_collapsed"]


def test_landmarks_of_a_picture_that_is_no_crop():
  """Kills: points of an oblong picture, which would be scaled by 256 in both axes."""
  seen, _ = looked("image", "a.png", picture(FACE.image[:40]))
  (note,) = checked(POINTS, seen=seen)
  assert note.kind == "landmarks_not_square" and "48x40" in note.message


def mapped(ids, kind="image", seen=None, name="m.npy"):
  notes: list = []
  data = ids if isinstance(ids, bytes) else npy(ids)
  beside.check_segmentation(Encoded(name, data), kind, seen, 19, notes, False)
  return [note.kind for note in notes]


def test_class_maps():
  """Kills: each check turned off, ids above the model's classes, a transposed proportion."""
  ids = FACE.segmentation
  seen, _ = looked("image", "a.png", picture(FACE.image))
  assert mapped(ids, seen=seen) == [] == mapped(picture(ids), seen=seen, name="m.png")
  assert mapped(ids[::2, ::2], seen=seen) == []
  assert mapped(picture(FACE.image), name="m.png") == ["segmentation_mode"]
  assert mapped(picture(ids)[:50], name="m.png") == ["segmentation_unreadable"]
  assert mapped(ids / 19) == ["segmentation_shape"] == mapped(ids[None])
  assert mapped(np.where(ids == 0, 19, ids), seen=seen) == ["segmentation_classes"]
  assert mapped(np.where(ids == 0, 18, ids), seen=seen) == []
  oblong, _ = looked("image", "a.png", picture(FACE.image[:40]))
  assert mapped(ids[:40], seen=oblong) == []
  assert mapped(ids[:, :40], seen=oblong) == ["segmentation_size"]
  assert mapped(ids.astype(int) - 1) == ["segmentation_classes"]
  assert mapped(ids[:24], seen=seen) == ["segmentation_size"]
  assert mapped(ids * 0 + np.uint8(18)) == ["segmentation_blank"]
  moving, _ = looked("video", "a.mp4", clip(FRAMES))
  assert mapped(np.stack([ids] * 10), "video", moving) == []
  assert mapped(np.stack([ids] * 9), "video", moving) == ["segmentation_frames"]
  assert mapped(ids, "video", moving) == ["segmentation_shape"]
