"""rows.py: drawings of the contract, a slow reading of the table, geometry, and every refusal."""

import dataclasses

import jax
import numpy as np
import pytest

from facejax.config import SegmentationConfig
from facejax.data import rows
from facejax.data.media import MediaError
from facejax.data.pipeline import load_tokenizer
from facejax.data.rows import RowFormat
from facejax.types import Medium, Sample, Turn
from facejax.visual_table import VisualTable

WORDS = {"look": 9, "at": 4, "it": 7, "smiles": 8}


class Words:
  """Knows four words; the rest of a template has no tokens."""

  pad_id = 0

  def special_id(self, name):
    return {"<s>": 1, "</s>": 2, "<|im_start|>": 3, "<|im_end|>": 5, "<img>": 6, "</img>": 10}[name]

  def encode(self, text, *, dummy_prefix=True):
    return [WORDS[word] for word in text.split() if word in WORDS]


def medium(kind="image", frames=1, y=12, x=12, mapped=True, points=True, seed=0) -> Medium:
  rng = np.random.default_rng(seed)
  return Medium(
    kind,
    rng.integers(0, 256, (frames, y, x, 3), np.uint8),
    rng.random((frames, 68, 2), np.float32) if points else None,
    rng.integers(0, 19, (frames, y, x), np.uint8) if mapped else None,
  )


def sample(*media, name="s", question=None, answer="it smiles") -> Sample:
  question = question or "look at " + "".join(f"<{m.kind}>" for m in media)
  return Sample(name, (Turn("human", question), Turn("gpt", answer)), media)


@pytest.fixture
def form(model) -> RowFormat:
  return RowFormat(VisualTable(model, 2, 2), 130, Words())


def three_token_form(model, images) -> RowFormat:
  """A picture of two tokens (with its class token) and a map of one."""
  image = dataclasses.replace(model.image, patch=12, tokens="all")
  seg = SegmentationConfig("concat", size=6, grid=1, width=4)
  model = dataclasses.replace(model, image=image, segmentation=seg)
  return RowFormat(VisualTable(model, images, 0), 12, Words())


def test_the_drawing_of_types(model):
  # kills: targets not shifted; a weight one position early or late; </s> without loss
  row = rows.encode([sample(medium())], [41], three_token_form(model, 1))
  drawn = {
    "tokens": [1, 9, 4, 0, 0, 0, 7, 8, 2, 0, 0, 0],
    "visual_index": [-1, -1, -1, 0, 1, 2, -1, -1, -1, -1, -1, -1],
    "segment_ids": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "positions": [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0],
    "targets": [9, 4, 0, 0, 0, 7, 8, 2, 0, 0, 0, 0],
    "loss_weights": [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0],
    "sample_id": [41] * 9 + [-1] * 3,
  }
  for name, values in drawn.items():
    np.testing.assert_array_equal(getattr(row, name), values, name)


def test_the_drawing_of_two_samples(model):
  # kills: positions that run on; a target or a loss across the seam; both in the first slot
  form = three_token_form(model, 2)
  first = sample(medium(mapped=False), question="<image>", answer="it")
  second = sample(medium(mapped=False, seed=1), question="look <image>", answer="smiles")
  row = rows.encode([first, second], [5, 3], form)
  drawn = {
    "tokens": [1, 0, 0, 7, 2, 1, 9, 0, 0, 8, 2, 0],
    "visual_index": [-1, 0, 1, -1, -1, -1, -1, 2, 3, -1, -1, -1],
    "segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 0],
    "positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0],
    "targets": [0, 0, 7, 2, 0, 9, 0, 0, 8, 2, 0, 0],
    "loss_weights": [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0],
    "sample_id": [5] * 5 + [3] * 6 + [-1],
  }
  for name, values in drawn.items():
    np.testing.assert_array_equal(getattr(row, name), values, name)
  np.testing.assert_array_equal(row.images.pixels[0, 0], first.media[0].pixels[0])
  np.testing.assert_array_equal(row.images.pixels[1, 0], second.media[0].pixels[0])
  np.testing.assert_array_equal(row.images.landmarks[1], second.media[0].landmarks)


def test_visual_tokens_point_to_their_own_medium(form):
  # kills: maps numbered before pixels, a clip's frames before pictures, slots that are not advanced
  table = [("image", s, 0, "p", n) for s in range(2) for n in range(4)]
  table += [("video", s, t, "p", n) for s in range(2) for t in range(3) for n in range(4)]
  table += [("image", s, 0, "m", n) for s in range(2) for n in range(9)]
  table += [("video", s, t, "m", n) for s in range(2) for t in range(3) for n in range(9)]
  one = sample(medium("video", 3), medium("image"))
  two = sample(medium("video", 3, mapped=False), medium("image", seed=3))
  row = rows.encode([one, two], [0, 1], form)
  seen = [table[i] for i in row.visual_index if i >= 0]
  expected = []
  for slot, maps in ((0, True), (1, False)):
    expected += [("video", slot, t, "p", n) for t in range(3) for n in range(4)]
    expected += [("video", slot, t, "m", n) for t in range(3) for n in range(9) if maps]
    expected += [("image", slot, 0, "p", n) for n in range(4)]
    expected += [("image", slot, 0, "m", n) for n in range(9)]
  assert seen == expected
  assert row.videos.segmentation_valid[:, 0].tolist() == [True, False]
  assert row.images.segmentation_valid[:, 0].tolist() == [True, True]


def test_a_prompt_is_the_training_row_up_to_the_answer(form):
  # kills: a loss in a prompt; an answer that leaks into it
  real = dataclasses.replace(form, tokenizer=load_tokenizer("demo"), length=200)
  trained = sample(medium())
  asked = dataclasses.replace(trained, conversation=trained.conversation[:1])
  row, full = (rows.encode([s], [0], real, prompt=s is asked) for s in (asked, trained))
  length = int((row.segment_ids > 0).sum())
  assert row.loss_weights.sum() == 0 and full.loss_weights.sum() > 0
  np.testing.assert_array_equal(row.tokens[:length], full.tokens[:length])
  assert full.loss_weights.argmax() == length - 1
  with pytest.raises(ValueError, match=r"'s': the last of 2 turns is no question"):
    rows.encode([trained], [0], real, prompt=True)


def test_what_is_not_read_is_dropped(form, model):
  # kills: unread landmarks that reach the model; positions kept for a map that is not read
  full = rows.encode([sample(medium())], [0], form)
  bare = rows.encode([sample(medium())], [0], dataclasses.replace(form, modalities=()))
  assert full.images.landmarks_valid[0, 0] and full.images.segmentation_valid[0, 0]
  assert not bare.images.landmarks_valid.any() and not bare.images.segmentation_valid.any()
  assert not bare.images.landmarks.any() and not bare.images.segmentation.any()
  assert (full.visual_index >= 0).sum() - (bare.visual_index >= 0).sum() == 9
  off = dataclasses.replace(model, segmentation=SegmentationConfig())
  without = dataclasses.replace(form, table=VisualTable(off, 2, 2))
  assert form.reads == ("landmarks", "segmentation") and without.reads == ("landmarks",)
  assert not rows.encode([sample(medium())], [0], without).images.segmentation_valid.any()


@pytest.mark.parametrize("policy", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("y,x", [(24, 36), (40, 24)])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_landmarks_and_maps_move_with_the_pixels(model, policy, y, x, kind):
  # kills: padding the pixels alone (official code), x for y, a map resized by another policy
  frames = 1 if kind == "image" else 3
  pixels = np.zeros((frames, y, x, 3), np.uint8)
  pixels[:, y // 2 + 2 : y // 2 + 8, x // 2 - 8 : x // 2 - 2] = 255
  points = np.full((frames, 68, 2), [(x / 2 - 5) / x, (y / 2 + 5) / y], np.float32)
  whole = Medium(kind, pixels, points, (pixels[..., 0] == 255).astype(np.uint8) * 7)
  image = dataclasses.replace(model.image, image_size=48)
  seg = SegmentationConfig("concat", size=48, grid=3, width=4)
  sized = dataclasses.replace(model, image=image, segmentation=seg)
  form = RowFormat(VisualTable(sized, 1, 1), 400, Words(), resize=policy)
  form = dataclasses.replace(
    form, table=dataclasses.replace(form.table), length=3 * form.table.count("image", True) + 50
  )
  row = rows.encode([sample(whole)], [0], form)
  slots = row.images if kind == "image" else row.videos
  bright, mapped = slots.pixels[0, -1, :, :, 0] > 200, slots.segmentation[0, -1] == 7
  centre = lambda found: (np.argwhere(found).mean(0) + 0.5)[::-1] / 48  # (x, y)
  assert bright.sum() > 30
  np.testing.assert_allclose(slots.landmarks[0, -1, 0], centre(bright), atol=0.03)
  np.testing.assert_allclose(slots.landmarks[0, -1, 0], centre(mapped), atol=0.03)


@pytest.mark.parametrize(
  "change,error,message",
  [
    (
      {"question": "look"},
      ValueError,
      r"'s': the questions have the placeholders \[\] but .* \[im",
    ),
    ({"question": "<image><image>"}, ValueError, r"placeholders \[image, image\] but .* \[image\]"),
    ({"question": "<video>"}, ValueError, r"placeholders \[video\] but the media are \[image\]"),
    ({"answer": "  "}, ValueError, r"sample 's', turn 1: the answer is empty"),
    (
      {"answer": "it " * 150},
      ValueError,
      r"'s' takes 167 tokens \(13 of them visual\), a row has 130",
    ),
  ],
)
def test_refusals_of_a_conversation(form, change, error, message):
  # kills: cutting, guessing or skipping what does not fit
  with pytest.raises(error, match=message):
    rows.encode([sample(medium(), **change)], [0], form)


def test_a_sample_beyond_the_decoder_is_refused_although_the_row_is_longer(form):
  # kills: a limit on rows for one on samples; the stretched base forgotten
  table = lambda **change: dataclasses.replace(
    form.table,
    model=dataclasses.replace(
      form.table.model, decoder=dataclasses.replace(form.table.model.decoder, **change)
    ),
  )
  long = [sample(medium(), answer="it " * 80)]
  short = dataclasses.replace(form, table=table(max_length=64))
  with pytest.raises(ValueError, match=r"'s' takes 97 tokens .* made for 64 times rope_factor=1 "):
    rows.encode(long, [0], short)
  rows.encode(long, [0], dataclasses.replace(form, table=table(max_length=64, rope_factor=1.6)))


@pytest.mark.parametrize(
  "bad,message",
  [
    (medium("video", 2), r"'s': video of 2 frames - the model takes 3"),
    (dataclasses.replace(medium(), segmentation=np.full((1, 12, 12), 19, np.uint8)), "class 19"),
    (
      dataclasses.replace(medium(y=12, x=24), segmentation=np.zeros((1, 12, 12), np.uint8)),
      "map of 1 x 12 x 12 for image pixels of 1 x 12 x 24",
    ),
    (
      dataclasses.replace(medium(), segmentation=np.zeros((2, 12, 12), np.uint8)),
      "map of 2 x 12 x 12 for image pixels of 1 x",
    ),
  ],
)
def test_refusals_of_media(form, bad, message):
  # kills: a class id that an embedding lookup would clamp; a map of another picture
  with pytest.raises(MediaError, match=message):
    rows.encode([sample(bad)], [0], form)


def test_a_map_may_be_coarser_than_its_picture(form):
  # kills: comparing the sizes of map and picture instead of their proportions
  coarse = dataclasses.replace(medium(y=31, x=24), segmentation=np.ones((1, 16, 12), np.uint8))
  assert rows.encode([sample(coarse)], [0], form).images.segmentation.any()


def test_what_does_not_fit_a_row(form):
  # kills: a second sample that overwrites; slots counted per sample instead of per row
  with pytest.raises(ValueError, match=r"'s' has 3 image\(s\), a row has 2 .* data.images_per_row"):
    rows.encode([sample(medium(), medium(), medium())], [0], form)
  none = dataclasses.replace(form, table=dataclasses.replace(form.table, videos=0))
  with pytest.raises(ValueError, match=r"has 1 video\(s\), a row has 0 .* data.videos_per_row"):
    rows.encode([sample(medium("video", 3))], [0], none)
  long = [sample(medium(), name=f"s{i}", answer="it " * 50) for i in range(2)]
  with pytest.raises(ValueError, match=r"'s1' takes 67 tokens, the row has 63 left of 130"):
    rows.encode(long, [0, 1], form)
  with pytest.raises(ValueError, match="image 2 does not fit: a row has 2 image slots"):
    rows.encode([sample(medium(), medium()), sample(medium())], [0, 1], form)


def test_an_empty_row_teaches_nothing_and_stacks(form):
  # kills: an empty row with a segment, a loss or a sample; another dtype than a full row
  none, full = rows.empty(form), rows.encode([sample(medium())], [0], form)
  assert not none.segment_ids.any() and not none.loss_weights.any()
  assert (none.sample_id == -1).all() and (none.visual_index == -1).all()
  batch = rows.collate([none, full, none])
  for one, stacked in zip(jax.tree.leaves(full), jax.tree.leaves(batch), strict=True):
    assert isinstance(stacked, np.ndarray) and stacked.dtype == one.dtype
    np.testing.assert_array_equal(stacked[1], one)
  assert batch.images.pixels.dtype == np.uint8
