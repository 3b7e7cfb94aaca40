"""An index through `facejax data segment`: maps by a network that runs, and maps from files."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from small_media import photo, turns, write_clip, write_index, write_onnx, write_tflite

from facejax import cli
from facejax.data import media
from facejax.data.media import MediaError
from facejax.extract import maps
from facejax.extract.dataset import Place
from facejax.extract.segments import convert_maps, segment
from facejax.faces import parsers
from facejax.faces.parsers import TABLES
from facejax.faces.segmentation import CLASS_ID, CLASSES

BISENET = dataclasses.replace(TABLES["bisenet"], size=32)


def _blocks(seed: int, rows: int = 4, columns: int = 4) -> np.ndarray:
  """Parser ids [32 32] in blocks, skin (1) among them."""
  ids = np.random.default_rng(seed).integers(0, 19, size=(rows, columns))
  ids[1, 1] = 1
  return np.repeat(np.repeat(ids, 32 // rows, 0), 32 // columns, 1)


def _dataset(folder, table):
  """A picture with landmarks, one of nobody and a clip, painted in a palette; words alone."""
  (folder / "images").mkdir(parents=True)
  colours = np.array(table.palette, np.uint8)
  Image.fromarray(colours[_blocks(0)]).save(folder / "images/7.png")
  Image.fromarray(colours[np.zeros((32, 32), int)]).save(folder / "images/8.png")
  write_clip(folder / "c.mkv", [colours[_blocks(n)] for n in range(1, 6)])
  np.save(folder / "7.npy", np.full((68, 2), 100, np.float32))
  samples = [
    {
      "id": 0,
      "image": "images/7.png",
      "landmarks_2d": "7.npy",
      "conversations": turns("image"),
    },
    {"id": 1, "image": "images/8.png", "conversations": turns("image")},
    {"id": 2, "video": "c.mkv", "conversations": turns("video")},
    {"id": 3, "conversations": [{"from": "human", "value": "Hi"}, turns("image")[1]]},
  ]
  return write_index(folder, samples)


def _middles(ids):
  return ids[..., 4::8, 4::8]


def _samples(summary):
  return {s["id"]: s for s in json.loads(summary.written.read_text())}


def _check(summary, table):
  """The picture's and the clip's maps are those that were painted; nobody is left out by name."""
  samples, out = _samples(summary), summary.written.parent
  assert list(samples) == [0, 2, 3] and "segmentation" not in samples[3]
  assert summary.counts == {"clips": 1, "pictures": 1} and summary.refused == 1
  ids = media.read_segmentation(out / samples[0]["segmentation"])
  np.testing.assert_array_equal(_middles(ids), _middles(table.to_canonical(_blocks(0))))
  np.testing.assert_array_equal(np.load(out / samples[0]["landmarks_2d"]), np.full((68, 2), 100))
  assert (out / samples[0]["image"]).is_file()
  clip = media.read_video(out / samples[2]["video"], 5)
  ids = media.read_segmentation(out / samples[2]["segmentation"], clip)
  expected = np.stack([table.to_canonical(_blocks(n)) for n in range(1, 6)])
  np.testing.assert_array_equal(_middles(ids), _middles(expected))
  (entry,) = json.loads(summary.report.read_text())["left_out"]
  assert entry["sample"] == "train.json:1 (id 1)"
  return entry["reason"]


@pytest.mark.parametrize(
  ("kind", "workers"), [("onnx", 0), pytest.param("onnx", 2, marks=pytest.mark.slow), ("tflite", 0)]
)
def test_parser_runs_over_an_index(tmp_path, kind, workers):
  """Kills: maps of other media, frames lost or swapped, landmarks lost, nobody's picture kept."""
  pytest.importorskip("onnxruntime")
  index, path = _dataset(tmp_path / "in", BISENET), tmp_path / f"p.{kind}"
  (write_onnx(path, BISENET) if kind == "onnx" else write_tflite(path, BISENET, 32))
  summary = segment(Place(index, tmp_path / "out"), path, BISENET, workers)
  assert "no skin in its map, only classes [0]" in _check(summary, BISENET)
  assert segment(Place(index, tmp_path / "out"), path, BISENET).fresh == 0
  other = dataclasses.replace(BISENET, mean=(0.5, 0.5, 0.5))
  assert segment(Place(index, tmp_path / "out"), path, other).fresh == 3


def test_a_clip_without_skin_is_refused_and_leaves_nothing(tmp_path):
  """Kills: clips that are not looked at; a half-made array left behind."""
  pytest.importorskip("onnxruntime")
  colours = np.array(BISENET.palette, np.uint8)
  bare = colours[np.zeros((32, 32), int)]
  write_clip(tmp_path / "c.mkv", [colours[_blocks(1)]] * 6 + [bare] * 3)
  write_clip(tmp_path / "d.mkv", [colours[_blocks(1)]] * 7 + [bare] * 3)
  index = write_index(
    tmp_path, [{"id": n, "video": n, "conversations": turns("video")} for n in ("c.mkv", "d.mkv")]
  )
  write_onnx(tmp_path / "p.onnx", BISENET)
  summary = segment(Place(index, tmp_path / "out"), tmp_path / "p.onnx", BISENET)
  report = json.loads(summary.report.read_text())
  assert "no skin in 3 of 9 maps, expected so in at most 30%" in report["refused"][0]["reason"]
  assert report["notes"][0]["note"] == "no skin in 3 of 10 frames"
  assert len(list((tmp_path / "out/maps").rglob("*.npy"))) == 1


@pytest.mark.parametrize("form", ["ids", "palette", "colours", "array"])
def test_maps_from_files(tmp_path, form):
  """Kills: a form of map that is read by another one's rule, or by another parser's order."""
  index, folder = _dataset(tmp_path / "in", BISENET), tmp_path / "maps"
  (folder / "images").mkdir(parents=True)
  for name, ids in (("7", _blocks(0)), ("8", np.zeros((32, 32), int))):
    _save(folder / "images" / name, ids.astype(np.uint8), form)
  clip = np.stack([_blocks(n) for n in range(1, 6)]).astype(np.uint8)
  if form == "array":
    np.save(folder / "c.npy", clip)
  else:
    (folder / "c").mkdir()
    for n, ids in enumerate(clip):
      _save(folder / "c" / f"{n:03}", ids, form)
  summary = convert_maps(Place(index, tmp_path / "out"), folder, BISENET)
  assert "no skin in its map" in _check(summary, BISENET)
  assert convert_maps(Place(index, tmp_path / "out"), folder, BISENET).fresh == 0
  _save(folder / "images" / "7", (18 - _blocks(0)).astype(np.uint8), form)
  assert convert_maps(Place(index, tmp_path / "out"), folder, BISENET).fresh == 1


def _save(stem, ids, form):
  if form == "array":
    np.save(stem.with_suffix(".npy"), ids.astype(np.int64))
    return
  if form == "colours":
    image = Image.fromarray(np.array(BISENET.palette, np.uint8)[ids])
  else:
    image = Image.fromarray(ids)
    if form == "palette":
      image.putpalette([n % 256 for n in range(768)])
  image.save(stem.with_suffix(".png"))


def test_masks_of_parts_are_laid_over_each_other(tmp_path):
  """Kills: the script's order of parts, the folder of 2000, names with an underscore, 255 as id."""
  folder = tmp_path / "anno" / "1"
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  masks = {part: rng.random((20, 30)) < 0.3 for part in ("skin", "nose", "l_eye", "u_lip", "hair")}
  for part, mask in masks.items():
    Image.fromarray(mask).convert("L").convert("RGB").save(folder / f"02047_{part}.png")
  Image.fromarray(np.ones((20, 30), bool)).save(tmp_path / "anno" / "02047_hat.png")  # not there
  paths = maps.find(tmp_path / "anno", maps.Path("img/2047.jpg"), "image")
  ids = maps.read(maps.Path("img/2047.jpg"), "image", paths, TABLES["celebamask"])
  for y in range(20):
    for x in range(30):
      on = [CLASSES.index(part) for part, mask in masks.items() if mask[y, x]]
      assert ids[y, x] == max(on, default=0)


def test_celebamask_in_its_own_layout(tmp_path, capsys):
  """Kills: parts that the command cannot reach; a map refused for being half as large."""
  (tmp_path / "img").mkdir()
  (tmp_path / "anno/0").mkdir(parents=True)
  Image.fromarray(photo(height=60, width=60)).save(tmp_path / "img/12.jpg")
  mask = np.zeros((30, 30), np.uint8)
  mask[5:20, 8:16] = 255
  Image.fromarray(mask).save(tmp_path / "anno/0/00012_skin.png")
  index = write_index(tmp_path, [{"image": "img/12.jpg", "conversations": turns("image")}])
  argv = ["data", "segment", str(index), str(tmp_path / "out"), "--maps", str(tmp_path / "anno")]
  assert cli.main([*argv, "--classes", "celebamask", "--workers", "0"]) == 0
  assert "1 pictures" in capsys.readouterr().out
  (sample,) = json.loads((tmp_path / "out/train.json").read_text())
  ids = media.read_segmentation(tmp_path / "out" / sample["segmentation"])
  np.testing.assert_array_equal(ids, (mask > 0) * CLASS_ID["skin"])


def _refusals(tmp_path, samples, table=BISENET):
  index = write_index(tmp_path, samples)
  summary = convert_maps(Place(index, tmp_path / "out"), tmp_path / "maps", table)
  assert summary.left_out == len(samples)
  return [entry["reason"] for entry in json.loads(summary.report.read_text())["left_out"]]


def test_maps_that_do_not_fit_are_refused(tmp_path):
  """Kills: a map of other proportions, of fewer frames, of foreign ids or colours, or none."""
  (tmp_path / "maps").mkdir()
  skin = np.ones((40, 50), np.uint8)
  Image.fromarray(photo()).save(tmp_path / "a.png")  # 150 x 120
  for name in "bcdef":
    Image.fromarray(photo()).save(tmp_path / f"{name}.png")
  write_clip(tmp_path / "v.mkv", [photo()] * 4)
  write_clip(tmp_path / "w.mkv", [photo()] * 2)
  Image.fromarray(skin[:, :48]).save(tmp_path / "maps/a.png")
  Image.fromarray(skin * 19).save(tmp_path / "maps/b.png")
  Image.fromarray(np.full((40, 50, 3), 9, np.uint8)).save(tmp_path / "maps/c.png")
  (tmp_path / "maps/d.png").write_bytes(b"\x89PNG nonsense")
  np.save(tmp_path / "maps/e.npy", np.ones((2, 40, 50), np.uint8))
  np.save(tmp_path / "maps/v.npy", np.ones((3, 40, 50), np.uint8))
  (tmp_path / "maps/w").mkdir()
  for n, width in enumerate((50, 49)):
    Image.fromarray(skin[:, :width]).save(tmp_path / f"maps/w/{n}.png")
  samples = [{"image": f"{n}.png", "conversations": turns("image")} for n in "abcdef"]
  samples += [{"video": f"{n}.mkv", "conversations": turns("video")} for n in "vw"]
  reasons = dict(enumerate(_refusals(tmp_path, samples)))
  text = "\n".join(reasons.values())
  for match in (
    "maps/a.png is 48x40 px, ",
    "maps/b.png: a map with ids 19..19 - expected 0..18, the classes of bisenet",
    "maps/c.png: 2000 pixels of other colours than bisenet's, the first (9, 9, 9) at x=0, y=0",
    "maps/d.png cannot be decoded",
    "maps/e.npy: a map of shape (2, 40, 50), type uint8",
    "no class map for f.png in ",
    "maps/v.npy: 3 maps for the 4 frames of",
    "maps/w/1.png is 49x40 px, the first of its kind 50x40",
  ):
    assert match in text, match
  assert len(reasons) == 8


def test_other_pngs_are_refused(tmp_path):
  """Kills: transparency or 16 bits read as ids; maps of a clip of another rank or type."""
  Image.fromarray(np.zeros((3, 4, 4), np.uint8)).save(tmp_path / "rgba.png")
  with pytest.raises(MediaError, match="a PNG of mode RGBA - expected L, P, RGB"):
    maps.read_map(tmp_path / "rgba.png", BISENET)
  np.save(tmp_path / "flat.npy", np.ones((4, 5), np.uint8))
  with pytest.raises(MediaError, match=r"flat\.npy: maps of shape \(4, 5\)"):
    maps.read_frames([tmp_path / "flat.npy"], BISENET)
  np.save(tmp_path / "real.npy", np.ones((2, 4, 5)))
  with pytest.raises(MediaError, match=r"real\.npy: a map of type float64"):
    maps.read_frames([tmp_path / "real.npy"], BISENET)


def test_command_runs_a_parser(tmp_path, capsys):
  """Kills: --classes that is not passed on, status 0 with a sample left out."""
  pytest.importorskip("onnxruntime")
  table = tmp_path / "mine.json"
  colours = [list(colour) for colour in BISENET.palette]
  table.write_text(json.dumps({"classes": BISENET.classes, "size": 32, "palette": colours}))
  index, path = _dataset(tmp_path / "in", BISENET), tmp_path / "p.onnx"
  write_onnx(path, parsers.load(table))
  argv = ["data", "segment", str(index), str(tmp_path / "out"), "--parser", str(path)]
  assert cli.main([*argv, "--classes", str(table), "--workers", "0"]) == 1
  out = capsys.readouterr().out
  assert "1 pictures" in out and "1 clips" in out and "3 of 4 samples" in out


@pytest.mark.parametrize(
  ("extra", "match"),
  [
    (["--parser", "p.onnx", "--classes", "bisent"], "did you mean 'bisenet'"),
    (["--parser", "none.onnx", "--classes", "bisenet"], "no parser none.onnx"),
    (["--maps", "nowhere", "--classes", "bisenet"], "no folder of maps nowhere"),
  ],
)
def test_command_refuses(tmp_path, capsys, extra, match):
  """Kills: a bad argument found out in each worker."""
  argv = ["data", "segment", str(write_index(tmp_path, [])), str(tmp_path / "out"), *extra]
  assert cli.main(argv) == 2
  assert match in capsys.readouterr().err


def test_command_wants_paths(capsys):
  """Kills: '' that writes into the working folder, an address taken for a folder's name."""
  rest = ["--maps", "maps", "--classes", "bisenet"]
  assert cli.main(["data", "segment", "train.json", "", *rest]) == 2
  assert "OUT is '' - expected a path" in capsys.readouterr().err
  assert cli.main(["data", "segment", "gs://b/train.json", "out", *rest]) == 2
  assert "INDEX is 'gs://b/train.json' - expected" in capsys.readouterr().err
