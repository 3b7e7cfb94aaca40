"""tiles.py and the rows of cut pictures: the grid's oracle, the pieces, their slots and tokens."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from facejax.config import DataConfig, LlavaConfig, SegmentationConfig
from facejax.data import chat, headers, resize, rows
from facejax.data.llava import LlavaSource
from facejax.data.pipeline import Pipeline
from facejax.data.rows import Outline, RowFormat
from facejax.data.tiles import Tiling, grid
from facejax.types import Medium, Sample, Turn
from facejax.visual_table import VisualTable


@pytest.mark.parametrize(
  ("width", "height", "columns", "rows", "pictures"),
  [
    (224, 224, 1, 1, 1),
    (512, 512, 1, 1, 1),
    (800, 800, 2, 2, 5),
    (1024, 1024, 3, 3, 10),
    (800, 400, 2, 1, 3),
    (178, 218, 3, 4, 13),
    (640, 480, 4, 3, 13),
    (3000, 1000, 6, 2, 13),
  ],
)
def test_grids_of_the_published_rule(width, height, columns, rows, pictures):
  """Kills: rows for columns, ">=" for ">", the area of the grid without 0.5, no thumbnail."""
  assert grid(height, width, 448, 1, 12) == (columns, rows)
  assert Tiling(448, 1, 12).count(height, width) == pictures


def _brute_force(height, width, size, least, most):
  """All grids sorted by their tiles, the reference's two comparisons spelt out."""
  grids = [(c, r) for c in range(1, most + 1) for r in range(1, most + 1)]
  grids = sorted((g for g in grids if least <= g[0] * g[1] <= most), key=lambda g: g[0] * g[1])
  distance = {g: abs(width / height - g[0] / g[1]) for g in grids}
  nearest = [g for g in grids if distance[g] == min(distance.values())]
  large = [g for g in nearest[1:] if 2 * width * height > size**2 * g[0] * g[1]]
  return large[-1] if large else nearest[0]


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 6), (4, 9), (2, 2), (1, 1)])
def test_grids_equal_a_brute_force(least, most):
  """Kills: another order of candidates, an earlier tie kept or the last one taken unseen."""
  draw = np.random.default_rng(most)
  sizes = draw.integers(8, 900, (300, 2)).tolist() + [[n, n] for n in range(100, 2000, 37)]
  sizes += [[3 * n, 4 * n] for n in range(20, 400, 17)]  # as near to 1:2 as to 1:1
  sizes += [[5 * n, 4 * n] for n in range(20, 400, 17)]  # as near to 1:2 as to 2:1
  for width, height in sizes:
    got = grid(height, width, 448, least, most)
    assert got == _brute_force(height, width, 448, least, most), (width, height)
    assert least <= got[0] * got[1] <= most


def _picture(y, x, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (y, x, 3), np.uint8)


def _medium(y, x, seed=0, mapped=False):
  points = np.random.default_rng(seed).random((1, 68, 2), np.float32)
  ids = np.full((1, y, x), 1 + seed, np.uint8) if mapped else None
  return Medium("image", _picture(y, x, seed)[None], points, ids)


@pytest.mark.parametrize("antialias", [True, False])
def test_tiles_go_row_by_row_and_the_whole_comes_last(antialias):
  """Kills: column by column, the thumbnail first, tiles cut before resizing, landmarks of the whole
  picture given to a piece of it."""
  medium = _medium(40, 61, mapped=True)
  *tiles, thumbnail = Tiling(12, 1, 6, antialias).cut(medium)
  whole = resize.stretch_image(medium.pixels[0], 24, 36, antialias)
  assert len(tiles) == 6 and thumbnail is medium
  at = [(0, 0), (0, 12), (0, 24), (12, 0), (12, 12), (12, 24)]
  for tile, (top, left) in zip(tiles, at, strict=True):
    np.testing.assert_array_equal(tile.pixels[0], whole[top : top + 12, left : left + 12])
    assert tile.landmarks is None and tile.segmentation is None


def test_what_is_not_cut():
  """Kills: a thumbnail of a picture in one piece, a clip in tiles, min_tiles ignored."""
  square, clip = _medium(40, 40), Medium("video", np.zeros((3, 40, 61, 3), np.uint8))
  assert Tiling(40, 1, 6).cut(square) == [square]
  assert Tiling(12, 1, 1).cut(_medium(40, 61))[0].pixels.shape == (1, 40, 61, 3)
  assert Tiling(12, 1, 6).cut(clip) == [clip]
  assert len(Tiling(40, 4, 6).cut(square)) == 5


class Words:
  """Knows two words and the special tokens."""

  pad_id = 0

  def special_id(self, name):
    return {"<|im_start|>": 1, "<|im_end|>": 2, "<img>": 3, "</img>": 4}[name]

  def encode(self, text, *, dummy_prefix=True):
    return [{"Same?": 8, "No.": 9}[word] for word in text.split() if word in ("Same?", "No.")]


@pytest.fixture
def form(model) -> RowFormat:
  """4 tokens a picture, at most 6 tiles, 9 picture slots."""
  return RowFormat(
    VisualTable(model, 9, 0), 90, Words(), resize="stretch", template=chat.INTERNVL, tiles=(1, 6)
  )


def _sample(*media):
  text = "<image>\n" * len(media) + "Same?"
  return Sample("s", (Turn("human", text), Turn("gpt", "No.")), media)


def test_two_pictures_in_one_prompt(form):
  """Kills: a bracket a tile, tiles out of order, the second picture in the first one's slots, its
  tokens numbered from the first slot that is not its own."""
  first, second = _medium(24, 36), _medium(12, 12, seed=1)
  row = rows.encode([_sample(first, second)], [5], dataclasses.replace(form, modalities=()))
  tokens = [1, 3, *[0] * 28, 4, 3, *[0] * 4, 4, 8, 2, 1, 9, 2]
  np.testing.assert_array_equal(row.tokens[: len(tokens)], tokens)
  index = [-1, -1, *range(28), -1, -1, *range(28, 32), *[-1] * 6]
  np.testing.assert_array_equal(row.visual_index[: len(index)], index)
  np.testing.assert_array_equal(row.loss_weights[: len(tokens)].nonzero()[0], [39, 40])
  whole = resize.stretch_image(first.pixels[0], 24, 36)
  np.testing.assert_array_equal(row.images.pixels[4, 0], whole[12:, 12:24])
  np.testing.assert_array_equal(
    row.images.pixels[6, 0], resize.stretch_image(first.pixels[0], 12, 12)
  )
  np.testing.assert_array_equal(row.images.pixels[7, 0], second.pixels[0])
  assert not row.images.pixels[8].any()


def test_landmarks_and_map_stay_with_the_thumbnail(form):
  """Kills: landmarks at a tile, a map's tokens behind the first tile or counted for each."""
  row = rows.encode([_sample(_medium(24, 36, mapped=True))], [0], form)
  assert row.images.landmarks_valid[:, 0].tolist() == [slot == 6 for slot in range(9)]
  assert row.images.segmentation_valid[:, 0].tolist() == [slot == 6 for slot in range(9)]
  visual = row.visual_index[row.visual_index >= 0]
  maps = form.table.indices("image", 6, with_map=True)[4:]
  np.testing.assert_array_equal(visual, [*range(28), *maps])


def test_a_row_without_room_for_the_tiles_is_refused(form):
  """Kills: slots counted by pictures; tiles that are left out in silence."""
  few = dataclasses.replace(form, table=dataclasses.replace(form.table, images=6))
  message = r"'s' has 1 image\(s\) in 7 tiles and thumbnails, a row has 6 .*images_per_row or lower"
  with pytest.raises(ValueError, match=message):
    rows.encode([_sample(_medium(24, 36))], [0], few)
  message = r"'s' takes 4[0-9] tokens \(37 of them visual\), a row has 30"
  with pytest.raises(ValueError, match=message):
    form = dataclasses.replace(form, length=30)
    form.text("s", _sample(_medium(1, 1)).conversation, [Outline("image", True, 7)])


def _turned(path, y, x):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(_picture(y, x)).save(path, exif=exif)
  return path.name


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_index_counts_tiles_of_the_upright_picture(form, folder, suffix):
  """Kills: the size of the header taken for the picture's; tiles not counted until decoding."""
  name = _turned(folder.path / f"a.{suffix}", 24, 96)
  assert headers.upright_size(folder.path / name) == (96, 24)
  folder.add(image=name)
  config = LlavaConfig(index=(folder.index(),))
  form = dataclasses.replace(form, tiles=(1, 4), table=dataclasses.replace(form.table, images=5))
  source = LlavaSource(config, form)
  sample = source[0]
  assert [form.outline(m).pictures for m in sample.media] == [5]
  tall = rows.encode([sample], [0], form)
  upright = resize.stretch_image(sample.media[0].pixels[0], 48, 12)
  np.testing.assert_array_equal(tall.images.pixels[3, 0], upright[36:])
  few = dataclasses.replace(form, table=dataclasses.replace(form.table, images=4))
  with pytest.raises(ValueError, match=r"has 1 image\(s\) in 5 tiles and thumbnails, a row has 4"):
    LlavaSource(config, few)
  (folder.path / name).write_bytes(b"x")
  with pytest.raises(ValueError, match=r"sample 'train.json:0 .* has no picture's header"):
    LlavaSource(config, form)


def test_settings_reach_the_rows(model, folder):
  """Kills: data.max_tiles, antialias or template that nothing reads or that a resume ignores."""
  folder.add(image=folder.image(y=24, x=36))
  model = dataclasses.replace(model, segmentation=SegmentationConfig())
  data = DataConfig(
    300, ("llava",), resize="stretch", images_per_row=7, llava=LlavaConfig((folder.index(),))
  )
  plain = Pipeline(model, data, 1)
  cut = Pipeline(model, dataclasses.replace(data, max_tiles=6), 1)
  assert (plain.batch(0)[0].visual_index.max(), cut.batch(0)[0].visual_index.max()) == (3, 27)
  least = Pipeline(model, dataclasses.replace(data, min_tiles=2, max_tiles=6), 1)
  rough = Pipeline(model, dataclasses.replace(data, antialias=False), 1)
  human = Pipeline(model, dataclasses.replace(data, template="face_llava_released"), 1)
  assert (plain.batch(0)[0].images.pixels != rough.batch(0)[0].images.pixels).any()
  assert plain.batch(0)[0].tokens.tolist() != human.batch(0)[0].tokens.tolist()
  prints = [p.fingerprint() for p in (plain, cut, least, rough, human)]
  assert all(one != other for i, one in enumerate(prints) for other in prints[:i])
  assert "tiles" not in prints[0] and "antialias" not in prints[0]  # older runs have neither
  with pytest.raises(ValueError, match=r"data.template='internvl' does not fit: demo_tokenizer"):
    Pipeline(model, dataclasses.replace(data, template="internvl"), 1)


def test_tiled_pictures_share_rows_by_their_tiles(model, folder):
  """Kills: slots counted by pictures; tiles of one sample in slots of its neighbour."""
  shapes = [(12, 12), (24, 36), (24, 24), (36, 12), (12, 24), (12, 12)]  # 1, 7, 5, 4, 3, 1 slots
  for i, (y, x) in enumerate(shapes):
    folder.add(image=folder.image(f"{i}.png", y=y, x=x, seed=i))
  model = dataclasses.replace(model, segmentation=SegmentationConfig())
  data = DataConfig(
    300,
    ("llava",),
    resize="stretch",
    images_per_row=8,
    max_tiles=6,
    llava=LlavaConfig((folder.index(),)),
  )
  pipe = Pipeline(model, data, 3)
  source = pipe.schedule.sources["llava"]
  assert source.sizes()[:, 1].tolist() == [1, 7, 5, 4, 3, 1]
  batch = pipe.batch(0)[0]
  # 21 slots: two full rows and one of five
  held = [sorted(pipe.schedule.row(0, row)) for row in range(3)]
  assert sorted(n for row in held for n in row) == [0, 1, 2, 3, 4, 5]
  for row, numbers in enumerate(held):
    for number in numbers:
      own = batch.sample_id[row] == number
      seen = batch.visual_index[row][own & (batch.visual_index[row] >= 0)] // 4
      alone = rows.encode([source[number]], [0], pipe.form)
      slots = sorted(set(seen.tolist()))
      assert len(slots) == source.sizes()[number, 1] and own.sum() == source.sizes()[number, 0]
      np.testing.assert_array_equal(
        batch.images.pixels[row, slots], alone.images.pixels[: len(slots)]
      )
