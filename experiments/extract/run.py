"""How fast and how exact are the offline steps? Prints a table; --json OUT writes it.

python experiments/extract/run.py INDEX.json --photos FOLDER --json experiments/extract/result.json

INDEX.json names face crops with landmarks (the official format) to compare with; FOLDER holds whole
photographs. Both are yours: the repository has one photograph, which is taken without --photos.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import tempfile
import time

import numpy as np
from PIL import Image

from facejax.config import LlavaConfig
from facejax.data import llava, media
from facejax.extract import clips, landmarks
from facejax.extract.dataset import Place
from facejax.extract.landmarks import Settings, extract_landmarks
from facejax.extract.segments import segment
from facejax.faces import detect
from facejax.faces.parsers import TABLES

ROOT = pathlib.Path(__file__).parents[2]
TURNS = [{"from": "human", "value": "<image>\nHow old?"}, {"from": "gpt", "value": "About 30."}]


def write_index(folder: pathlib.Path, names: list[str]) -> pathlib.Path:
  path = folder / "index.json"
  path.write_text(json.dumps([{"image": name, "conversations": TURNS} for name in names]))
  return path


def accuracy(index: pathlib.Path, scratch: pathlib.Path, detector) -> dict:
  """Mean distance, in pixels of the 256 crop, to the landmarks that the index names."""
  summary = extract_landmarks(
    Place(index, scratch / "accuracy"), detector, Settings(crop=False), workers=0
  )
  distances: dict[str, list] = {}
  reads = ("landmarks",)
  (given,), (found,) = (
    llava.read_indexes(LlavaConfig((str(p),))) for p in (index, summary.written)
  )
  by_id = {raw["id"]: raw for raw in found.records}
  for raw in given.records:
    if raw.get("landmarks_2d") and raw["id"] in by_id:
      ours = llava.parse(by_id[raw["id"]], "ours", found.folders, reads).files
      for old, new in zip(
        llava.parse(raw, "theirs", given.folders, reads).files, ours, strict=True
      ):
        gaps = np.linalg.norm(np.load(new.landmarks) - np.load(old.landmarks), axis=-1)
        distances[old.path.name] = [float(gaps.mean()), float(gaps.mean(axis=-1).max())]
  return {"left_out": summary.left_out, "pixels_mean_and_worst_frame": distances}


def tight(pictures: list[np.ndarray], detector) -> dict:
  """How far points found on a tight crop alone are from those found on the picture it is cut of."""
  finder, distances = detector.load(), []
  for picture in pictures:
    found = finder.detect(picture)
    if len(found) == 1:
      pixels, points = detect.crop(picture, found[0])
      again = finder.detect(pixels)
      if again:
        distances.append(float(np.linalg.norm(again[0].landmarks - points, axis=-1).mean()))
  return {"pictures": len(distances), "pixels_mean": float(np.mean(distances))}


def every_picture(index: pathlib.Path | None, photos: list[pathlib.Path]) -> list[np.ndarray]:
  """The photographs, the index's pictures and every sixth frame of its clips."""
  pictures = [media.read_image(path) for path in photos]
  for raw in json.loads(index.read_text()) if index else []:
    if "video" in raw:
      pictures += list(clips.frames(index.parent / raw["video"]))[::6]
  names = {raw["image"] for raw in json.loads(index.read_text()) if "image" in raw} if index else ()
  return pictures + [media.read_image(index.parent / name) for name in sorted(names)]


def variants(photos: list[pathlib.Path], folder: pathlib.Path, count: int) -> pathlib.Path:
  """`count` JPEG files of different content: the photographs, shifted by a few pixels."""
  folder.mkdir()
  names = []
  for n in range(count):
    with Image.open(photos[n % len(photos)]) as image:
      shifted = image.convert("RGB").crop((n // len(photos) % 16, n // 16 % 16, *image.size))
    shifted.save(folder / f"{n}.jpg", quality=92)
    names.append(f"{n}.jpg")
  return write_index(folder, names)


def timed(step) -> tuple[float, float, object]:
  """(seconds on the clock, seconds of this process's processors, result)."""
  clock, cpu = time.perf_counter(), time.process_time()
  result = step()
  return time.perf_counter() - clock, time.process_time() - cpu, result


def photographs(photos, scratch, detector, count: int) -> dict:
  index = variants(photos, scratch / "photos", count)
  _, cpu, summary = timed(lambda: extract_landmarks(Place(index, scratch / "p0"), detector))
  assert summary.left_out == 0
  cores = os.cpu_count() or 1
  wall, _, _ = timed(
    lambda: extract_landmarks(Place(index, scratch / "p1"), detector, workers=cores)
  )
  again, _, summary = timed(lambda: extract_landmarks(Place(index, scratch / "p0"), detector))
  assert summary.fresh == 0
  return {
    "photographs": count,
    "a_second_and_core": count / cpu,
    "processes": cores,
    "a_second_with_processes": count / wall,
    "second_run_seconds": again,
  }


def clip_frames(index: pathlib.Path, scratch: pathlib.Path, detector) -> dict:
  """Frames a second and core for the clips of the index, cropped as if they were no crops."""
  records = [raw for raw in json.loads(index.read_text()) if "video" in raw]
  if not records:
    return {}
  path = scratch / "clips.json"
  path.write_text(json.dumps(records))
  where = Place(path, scratch / "clips", str(index.parent), str(index.parent))
  _, cpu, _ = timed(lambda: extract_landmarks(where, detector, Settings(crop=True)))
  frames = sum(clips.count(p) for p in {index.parent / raw["video"] for raw in records})
  return {"frames": frames, "a_second_and_core": frames / cpu}


@dataclasses.dataclass
class Instant:
  """A detector that takes no time: what is left is the step's own cost."""

  def detect(self, image):
    """The same face in any picture."""
    points = np.stack([np.linspace(2, 13, 68), np.linspace(2, 13, 68)], 1).astype(np.float32)
    return [detect.Detection((2.0, 2.0, 14.0, 14.0), 1.0, points)]


def bookkeeping(scratch: pathlib.Path, count: int) -> dict:
  """A step of tiny pictures with nothing to detect, and the run after it."""
  folder = scratch / "tiny"
  folder.mkdir()
  rng = np.random.default_rng(0)
  for n in range(count):
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{n}.png")
  index = write_index(folder, [f"{n}.png" for n in range(count)])
  choice = landmarks.DetectorChoice(Instant, "instant")
  first, _, _ = timed(lambda: extract_landmarks(Place(index, scratch / "t"), choice))
  second, _, summary = timed(lambda: extract_landmarks(Place(index, scratch / "t"), choice))
  assert summary.fresh == 0
  return {"files": count, "milliseconds_a_file": first / count * 1e3, "second_run_seconds": second}


def parser_speed(scratch: pathlib.Path, count: int) -> dict:
  """Crops a second and core through a network of one 1x1 convolution at 512 pixels.

  What a real parser takes comes on top.
  """
  import onnx
  from onnx import TensorProto, helper, numpy_helper

  table = dataclasses.replace(TABLES["celebamask"], mean=(0.0,) * 3, std=(1.0,) * 3)
  colours = (np.array(table.palette) / 255).astype(np.float32)
  graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w", "b"], ["scores"])],
    "one",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 512, 512])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 19, 512, 512])],
    [
      numpy_helper.from_array(2 * colours[:, :, None, None], "w"),
      numpy_helper.from_array(-(colours**2).sum(1), "b"),
    ],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
  onnx.save(model, str(scratch / "one.onnx"))
  folder = scratch / "parsed"
  folder.mkdir()
  rng = np.random.default_rng(0)
  for n in range(count):
    pixels = np.array(table.palette, np.uint8)[rng.integers(0, 19, (16, 16))]
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.NEAREST).save(folder / f"{n}.png")
  index = write_index(folder, [f"{n}.png" for n in range(count)])
  _, cpu, _ = timed(lambda: segment(Place(index, scratch / "s"), scratch / "one.onnx", table))
  return {"crops": count, "a_second_and_core": count / cpu}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("index", nargs="?", type=pathlib.Path)
  parser.add_argument("--photos", type=pathlib.Path)
  parser.add_argument("--count", type=int, default=200)
  parser.add_argument("--json", type=pathlib.Path)
  args = parser.parse_args()
  photos = sorted(args.photos.iterdir()) if args.photos else [ROOT / "tests/data/grace_hopper.jpg"]
  detector = landmarks.litert()
  result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"}
  with tempfile.TemporaryDirectory() as name:
    scratch = pathlib.Path(name)
    if args.index:
      result["accuracy"] = accuracy(args.index, scratch, detector)
      result["clips"] = clip_frames(args.index, scratch, detector)
    result["tight_crops"] = tight(every_picture(args.index, photos), detector)
    result["photographs"] = photographs(photos, scratch, detector, args.count)
    result["bookkeeping"] = bookkeeping(scratch, 20 * args.count)
    result["parser"] = parser_speed(scratch, args.count)
  print(json.dumps(result, indent=1))
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
