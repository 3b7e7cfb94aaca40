"""Items asked about crops; and what the command line refuses before a model is loaded."""

import json

import facexbench_folder
import numpy as np
import pytest
import released_folders

from facejax import cli
from facejax.evaluate import crops
from facejax.evaluate.benchmarks import open_benchmark
from facejax.evaluate.protocol import missing


def completed(folder, index, without=()):
  """What the extraction makes of an index: other names, landmarks beside each picture."""
  folder.mkdir()
  records = []
  for record in json.loads(index.read_text()):
    if record["id"] in without:
      continue
    names = [f"crops/{path.replace('/', '_')}" for path in record["image"]]
    points = [f"{name}.npy" for name in names]
    for name, file in zip(names, points, strict=True):
      released_folders.touch(folder / name)
      np.save(folder / file, np.full((68, 2), 5.0, np.float32))
    records.append(record | {"image": names, "landmarks_2d": points})
  path = folder / index.name
  path.write_text(json.dumps(records))
  return path


def test_items_are_asked_about_their_crops(tmp_path):
  """Kills: landmarks of another picture, an item without a face out of the denominator."""
  place = tmp_path / "b"
  place.mkdir()
  facexbench_folder.write(place, "wmca_multiple_mcq", "fas_deepfakes", 3)
  facexbench_folder.draw(place)
  plain = open_benchmark("facexbench", place, {"partial": "true"})
  index = crops.write_index(plain, tmp_path / "x/facexbench.json")
  record = json.loads(index.read_text())[0]
  assert record["image"] == [m.path for m in plain.items[0].media] and len(record["image"]) == 3
  done = completed(tmp_path / "done", index, without=("wmca_multiple_mcq/2",))
  cropped = crops.with_crops(plain, done)
  assert not missing(cropped) and len(cropped.items) == 3
  first, second, _ = cropped.items
  assert "no face: it is not in" in second.error and not first.error
  assert first.prompt == plain.items[0].prompt and first.truth == plain.items[0].truth
  media = cropped.load(first)
  assert [m.file.name for m in media] == [m.path for m in first.media]
  assert [m.landmarks.name for m in media] == [f"{m.path}.npy" for m in first.media]
  assert media[0].segmentation is None and first.media[0].path.startswith("crops/")
  assert cropped.settings["crops"] != plain.settings.get("crops")
  assert cropped.digest() != plain.digest()


def test_other_indexes_are_refused(tmp_path):
  """Kills: crops of another benchmark, or of none."""
  name, options = released_folders.utkface(tmp_path / "u", 3)
  benchmark = open_benchmark(name, tmp_path / "u", options)
  with pytest.raises(FileNotFoundError, match="no index"):
    crops.with_crops(benchmark, tmp_path / "none.json")
  index = tmp_path / "i.json"
  for text, words in (
    ("[{}]", "is no index with ids"),
    ("{", "is no index with ids"),
    ('[{"id": "x"}]', "names none of the 3 items of utkface"),
    (json.dumps([{"id": benchmark.items[0].id}]), "has fewer than 1 media"),
  ):
    index.write_text(text)
    with pytest.raises(ValueError, match=words):
      crops.with_crops(benchmark, index)


def test_frames_of_clips_have_no_index(tmp_path):
  """Kills: an index that names a clip as a picture."""
  name, options = released_folders.disfa_folder(tmp_path, 3)
  with pytest.raises(ValueError, match=r"is a frame of LeftVideoSN001_comp.avi"):
    crops.write_index(open_benchmark(name, tmp_path, options), tmp_path / "i.json")


def test_index_from_the_command_line(tmp_path, capsys):
  """Kills: a command that is printed and does not fit the files."""
  released_folders.utkface(tmp_path / "data/utkface", 3)
  argv = ["evaluate", "--suite", "utkface", "--data", str(tmp_path / "data")]
  argv += ["--set", "utkface.split=all", "--write-index", str(tmp_path / "i")]
  assert cli.main(argv) == 0
  said = capsys.readouterr().out.split()
  assert said[:4] == ["facejax", "data", "landmarks", str(tmp_path / "i/utkface.json")]
  assert len(json.loads((tmp_path / "i/utkface.json").read_text())) == 3


@pytest.mark.parametrize(
  ("argv", "words"),
  [
    ([], "nothing to evaluate - expected --workdir, --suite NAMES or --compare"),
    (["--workdir", "W", "--tiles", "2", "--allow-missing"], "--tiles, --allow-missing without --s"),
    (["--suite", "rafd", "--data", "D"], "--suite is 'rafd', expected one of facexbench"),
    (["--suite", "utkface"], "no folder for utkface - give --data utkface=FOLDER"),
    (["--suite", "utkface", "--data", "D"], "expected UTKFace's pictures"),
    (["--suite", "utkface", "--data", "D", "--data", "E"], "--data E: expected NAME=FOLDER"),
    (["--suite", "utkface", "--data", "D", "--set", "split=all"], "--set split=all: expected NAME"),
    (["--suite", "utkface", "--data", "D", "--crops", "x"], "--crops x: expected NAME=INDEX"),
    (["--suite", "utkface", "--data", "GOOD"], "--suite without --checkpoint"),
    (["--suite", "utkface", "--data", "GOOD", "--checkpoint", "W", "--limit", "0"], "--limit 0"),
    (["--suite", "utkface", "--data", "GOOD", "--checkpoint", "W"], "W does not exist"),
    (["--compare", "A", "B"], "expected the folder of one benchmark of a run"),
  ],
)
def test_bad_arguments_are_one_line(argv, words, tmp_path, monkeypatch, capsys):
  """Kills: a traceback, or minutes of loading before a refusal."""
  monkeypatch.chdir(tmp_path)
  for i in range(80):
    released_folders.touch(tmp_path / f"GOOD/utkface/{20 + i}_0_0_2017{i}.jpg")
  assert cli.main(["evaluate", *argv]) == 2
  said = capsys.readouterr().err
  assert words in said and said.count("\n") == 1


@pytest.mark.parametrize(
  ("mesh", "words"),
  [("rows=2", "--mesh: the axis is 'rows'"), ("data=x", "expected AXIS=DEVICES")],
)
def test_bad_meshes_are_named(mesh, words):
  """Kills: a mesh that is something else than asked for."""
  from facejax.evaluate import command

  with pytest.raises(ValueError, match=words):
    command._mesh(mesh)
  assert command._mesh("fsdp=4,data=2").fsdp == 4 and command._mesh("fsdp=-1").data == 1
