"""Benchmarks in their released layouts, made up: labels as released, and empty-handed media.

Media are one byte each: nothing here is decoded. A maker returns what to open and with which
settings; truths are drawn from a seed, so that shuffled answers score chance.
"""

import json
import pathlib

import numpy as np

from facejax.annotate import fairface
from facejax.evaluate.benchmarks import action_units
from facejax.records.layouts import celeba, disfa


def touch(path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b".")


def write(path: pathlib.Path, lines) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("\n".join(map(str, lines)) + "\n")


def rafdb(folder, n=140):
  rng = np.random.default_rng(1)
  lines = [f"train_00001.jpg {1}"]
  for i in range(1, n + 1):
    lines.append(f"test_{i:04d}.jpg {1 + rng.integers(7)}")
    touch(folder / f"Image/aligned/test_{i:04d}_aligned.jpg")
    people = [rng.integers(3), rng.integers(3), rng.integers(5)]
    points = [f"{x} {x + 1}" for x in range(5)]
    write(folder / f"Annotation/manual/test_{i:04d}_manu_attri.txt", [*points, *people])
  write(folder / "EmoLabel/list_patition_label.txt", lines)
  return "rafdb", {}


def affectnet(folder, n=160):
  rng = np.random.default_rng(2)
  (folder / "val_set/annotations").mkdir(parents=True)
  for i in range(n):
    touch(folder / f"val_set/images/{i}.jpg")
    np.save(folder / f"val_set/annotations/{i}_exp.npy", np.array(str(rng.integers(8))))
  return "affectnet", {}


def dfew(folder, n=150):
  rng = np.random.default_rng(3)
  labels = rng.integers(1, 8, n)
  for fold in range(1, 6):
    own = [f"{i + 1},{labels[i]}" for i in range(n) if i % 5 == fold - 1]
    path = folder / f"EmoLabel_DataSplit/test(single-labeled)/set_{fold}.csv"
    write(path, ["video_name,label", *own])
  for i in range(n):
    touch(folder / f"Clip/original/part_{i % 3}/{i + 1}.mp4")
  return "dfew", {}


def cremad(folder, n=144):
  rng = np.random.default_rng(4)
  names = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
  for i in range(n):
    touch(folder / f"VideoFlash/{1001 + i % 24}_S{i:02d}_{names[rng.integers(6)]}_XX.flv")
  rows = []
  for i in range(24):
    sex, race = ("Male", "Female")[i % 2], ("Asian", "Caucasian")[i % 3 // 2]
    rows.append(f"{1001 + i},{20 + 2 * i},{sex},{race},Not Hispanic")
  write(folder / "VideoDemographics.csv", ["ActorID,Age,Sex,Race,Ethnicity", *rows])
  return "cremad", {}


def disfa_folder(folder, frames=40):
  rng = np.random.default_rng(5)
  for subject in ("SN001", "SN002", "SN004"):
    for unit in disfa.ACTION_UNITS:
      lines = [f"{f},{rng.integers(6)}" for f in range(1, frames + 1)]
      write(folder / f"ActionUnit_Labels/{subject}/{subject}_au{unit}.txt", lines)
    touch(folder / f"Videos_LeftCamera/LeftVideo{subject}_comp.avi")
  return "disfa", {}


def bp4d(folder, frames=30):
  rng = np.random.default_rng(6)
  units = sorted({*action_units.BP4D_12, 5, 9})
  for subject in ("F001", "M003"):
    for task in ("T1", "T8"):
      lines = [",".join(map(str, ["0", *units]))]
      for frame in range(11, 11 + frames):
        codes = rng.integers(2, size=len(units))
        lines.append(",".join(map(str, [frame, *codes])))
        touch(folder / f"Sequences/{subject}/{task}/{frame:04d}.jpg")
      write(folder / f"AUCoding/AU_OCC/{subject}_{task}.csv", lines)
  return "bp4d", {}


def celeba_folder(folder, n=90):
  rng = np.random.default_rng(7)
  names = list(celeba.NOUNS)
  rows, parts = [], []
  for i in range(1, n + 1):
    values = rng.choice([-1, 1], 40)
    rows.append(f"{i:06d}.jpg " + " ".join(f"{v:2d}" for v in values))
    parts.append(f"{i:06d}.jpg {2 if i > 3 else 0}")
    touch(folder / f"Img/img_align_celeba/{i:06d}.jpg")
  write(folder / "Anno/list_attr_celeba.txt", [n, " ".join(names), *rows])
  write(folder / "Eval/list_eval_partition.txt", parts)
  return "celeba", {}


def utkface(folder, n=120):
  rng = np.random.default_rng(8)
  for i in range(n):
    name = (
      f"{rng.integers(1, 90)}_{rng.integers(2)}_{rng.integers(5)}_2017010917{i:05d}.jpg.chip.jpg"
    )
    touch(folder / "part1" / name)
  return "utkface", {"split": "all"}


def morph(folder, n=120):
  rng = np.random.default_rng(9)
  lines = ["id_num,picture_num,dob,race,gender,age"]
  for i in range(n):
    person, number, age = i // 3, i % 3, rng.integers(16, 77)
    touch(folder / f"Album2/{person:06d}_{number}{'MF'[person % 2]}{age}.JPG")
    lines.append(f"{person},{number},1970,{'WBAHO'[person % 5]},{'MF'[person % 2]},{age}")
  write(folder / "MORPH_Album2.csv", lines)
  return "morph", {"split": "all"}


def ffpp(folder, n=20):
  pairs = [[f"{2 * i:03d}", f"{2 * i + 1:03d}"] for i in range(n)]
  for a, b in pairs:
    for name in (a, b):
      touch(folder / f"original_sequences/youtube/c23/videos/{name}.mp4")
    for method in ("Deepfakes", "FaceSwap"):
      for name in (f"{a}_{b}", f"{b}_{a}"):
        touch(folder / f"manipulated_sequences/{method}/c23/videos/{name}.mp4")
  (folder / "splits").mkdir()
  (folder / "splits/test.json").write_text(json.dumps(pairs))
  return "ffpp", {"methods": "Deepfakes+FaceSwap"}


def fairface_folder(kind):
  def make(folder, n=150):
    rng = np.random.default_rng(10)
    lines = ["file,age,gender,race,service_test"]
    for i in range(1, n + 1):
      facts = (fairface.AGES, fairface.GENDERS, fairface.RACES)
      age, gender, race = (names[rng.integers(len(names))] for names in facts)
      lines.append(f"val/{i}.jpg,{age},{gender},{race},True")
      touch(folder / f"val/{i}.jpg")
    write(folder / "fairface_label_val.csv", lines)
    return f"fairface_{kind}", {}

  return make


MAKERS = {
  "rafdb": rafdb,
  "affectnet": affectnet,
  "dfew": dfew,
  "cremad": cremad,
  "disfa": disfa_folder,
  "bp4d": bp4d,
  "celeba": celeba_folder,
  "utkface": utkface,
  "morph": morph,
  "ffpp": ffpp,
  "fairface_age": fairface_folder("age"),
  "fairface_gender": fairface_folder("gender"),
  "fairface_race": fairface_folder("race"),
}
