"""Plants damage of every kind beside good samples, runs `facejax data check`, compares.

python experiments/doctor/run.py --json OUT
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import copies
import media_files
import numpy as np
import records
from folder import Folder, conversation, encoded
from PIL import Image

from facejax import config_io
from facejax.config import LlavaConfig
from facejax.data.llava import LlavaSource
from facejax.data.pipeline import row_format
from facejax.data.rows import encode
from facejax.doctor.findings import KINDS
from facejax.faces.detector_files import default_folder

PLANTS = (*records.PLANTS, *media_files.PLANTS, *copies.PLANTS)
TIMEOUT = 4  # core seconds a file; the planted clip takes ten times as long
CONFIG = (
  "configs/demo.py",
  "data.row_length=704",
  "data.images_per_row=2",
  "data.videos_per_row=1",
)
ROOT = Path(__file__).parents[2]


def make(path: Path, good: int) -> Folder:
  """A folder of every damage, with `good` samples around it: pictures, clips and texts."""
  path.mkdir(parents=True)
  folder = Folder(path, {"train.json": [], "test.json": [], "val.json": []})
  for i in range(max(good, len(PLANTS))):
    if i < good:
      make_good = (folder.sample, lambda: folder.sample(".jpg"), folder.clip_sample)
      folder.add((*make_good, folder.text_sample)[i % 4]())
    if i < len(PLANTS):
      PLANTS[i](folder)
  folder.save()
  return folder


def check(folder: Folder, out: Path, workers: int, *flags: str) -> tuple[int, float, dict]:
  """Runs the command: (exit status, seconds, report)."""
  indexes = [str(folder.path / name) for name, records_ in folder.indexes.items() if records_]
  command = [sys.executable, "-m", "facejax.cli", "data", "check", *indexes, "--out", str(out)]
  config, *overrides = CONFIG
  command += ["--config", str(ROOT / config), *(f"--config.{o}" for o in overrides)]
  command += [f"--workers={workers}", f"--timeout={TIMEOUT}", *flags]
  started = time.perf_counter()
  done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
  seconds = time.perf_counter() - started
  return done.returncode, seconds, json.loads((out / "report.json").read_text())


def compare(folder: Folder, report: dict) -> list[str]:
  """What was found and not planted, or planted and not found; [] if all is as it should be."""
  found: dict[tuple[str, int], set[str]] = {key: set() for key in folder.expected}
  wrong = []
  for finding in report["findings"]:
    index, _, place = finding["sample"].partition(" ")[0].partition(":")
    if (index, int(place or -1)) in found:
      found[index, int(place)].add(finding["kind"])
    elif finding["kind"] != "invalid_json":
      wrong.append(f"{finding['kind']} at {finding['sample']!r}, which nothing was planted in")
  for (index, place), kinds in folder.expected.items():
    if kinds != found[index, place]:
      wrong.append(f"{index}:{place}: planted {sorted(kinds)}, found {sorted(found[index, place])}")
  return wrong


def trains(folder: Folder, report: dict) -> int:
  """Samples without an error, all of which training then has to read and lay out."""
  config = config_io.load(ROOT / CONFIG[0], CONFIG[1:])
  form = row_format(config.model, config.data)
  bad = {f["sample"].partition(" ")[0] for f in report["findings"] if f["severity"] == "error"}
  good = [
    record if isinstance(record, dict) else json.loads(record)
    for name, found in folder.indexes.items()
    for place, record in enumerate(found)
    if f"{name}:{place}" not in bad
  ]
  path = folder.path / "good.json"
  path.write_text(json.dumps(good))
  source = LlavaSource(LlavaConfig((str(path),)), form, max_refused=0.0)
  for i in range(len(source)):
    encode([source[i]], [i], form)
  return len(source)


def faces(path: Path) -> list[str] | str:
  """One face, two faces, no face: what is wrong with what the detector says of them."""
  if not default_folder().is_dir():
    return "not asked: facejax faces install"
  photo = np.asarray(Image.open(ROOT / "tests/data/grace_hopper.jpg").convert("RGB"))
  wave = 128 + 100 * np.sin(np.arange(photo.shape[1]) / 9)
  waves = np.broadcast_to(wave[None, :, None], photo.shape).astype(np.uint8)
  folder = Folder(path, {"train.json": []})
  path.mkdir()
  pictures = ((photo, ()), (np.hstack([photo, photo]), ("several_faces",)), (waves, ("no_face",)))
  for i, (pixels, kinds) in enumerate(pictures):
    image = folder.write(f"{i}.png", encoded(np.ascontiguousarray(pixels), ".png"))
    turns = conversation("<image>\nWho is it?", f"Person number {i}.")
    folder.add({"id": i, "image": image, "conversations": turns}, *kinds)
  folder.save()
  _, _, report = check(folder, path / "check", 1, "--detector")
  return compare(folder, report)


def speed(path: Path, samples: int) -> dict[str, float]:
  """Samples a second and core: pictures of 256x256 with landmarks and class maps, one process.

  By the core's time, which other work on the machine does not change much.
  """
  folder = Folder(path, {"train.json": []})
  path.mkdir(parents=True)
  for _ in range(samples):
    record = folder.sample(".jpg")
    picture = Image.open(path / record["image"]).resize((256, 256), Image.Resampling.BICUBIC)
    folder.write(record["image"], encoded(np.asarray(picture), ".jpg"))
    folder.add(record)
  folder.save()
  status, _, report = check(folder, path / "check", 1)
  assert status == 0
  return {
    "samples": samples,
    "seconds": report["seconds"],
    "core_seconds": report["cpu_seconds"],
    "samples_a_second_and_core": round(samples / report["cpu_seconds"], 1),
  }


def main(argv: Sequence[str] | None = None) -> int:
  """Exit status 1 if a damage is not named, or a good sample is accused."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path)
  parser.add_argument("--good", type=int, default=100, help="good samples; default: %(default)s")
  parser.add_argument("--speed", type=int, default=2000, help="samples of the measured folder")
  parser.add_argument("--workers", type=int, default=2)
  args = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as scratch:
    folder = make(Path(scratch) / "planted", args.good)
    status, seconds, report = check(folder, Path(scratch) / "check", args.workers)
    wrong = compare(folder, report)
    trained = trains(folder, report)
    detector = faces(Path(scratch) / "faces")
    measured = speed(Path(scratch) / "speed", args.speed) if args.speed else {}
  planted = set().union(*folder.expected.values())
  planted |= {"no_face", "several_faces"} if isinstance(detector, list) else set()
  clean = sum(not kinds for kinds in folder.expected.values())
  result = {
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    "cores": os.cpu_count(),
    "python": platform.python_version(),
    "versions": report["versions"],
    "damages": len(PLANTS),
    "kinds_planted": len(planted),
    "kinds_there_are": len(KINDS),
    "not_planted": sorted(set(KINDS) - planted),
    "samples": len(folder.expected),
    "good_samples": clean,
    "wrong": wrong,
    "wrong_with_detector": detector,
    "samples_without_error_that_training_reads": trained,
    "exit_status": status,
    "seconds": round(seconds, 1),
    "speed": measured,
  }
  print(json.dumps(result, indent=1))
  if args.json:
    args.json.write_text(json.dumps(result, indent=1) + "\n")
  return 1 if wrong or status != 1 or (detector and isinstance(detector, list)) else 0


if __name__ == "__main__":
  sys.exit(main())
