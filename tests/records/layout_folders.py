"""Label tables and the like in their released layouts, made up in miniature."""

import json

import numpy as np
from record_folders import clip, llava_folder, picture

from facejax.records.layouts import celeba, disfa
from facejax.records.layouts.celeba import CelebA
from facejax.records.layouts.dfew import Dfew
from facejax.records.layouts.disfa import Disfa
from facejax.records.layouts.faceforensics import FaceForensics
from facejax.records.layouts.fairfacegpt import FairFaceGpt, FairFaceGptFolder
from facejax.records.layouts.llava import Llava
from facejax.records.layouts.raf_db import RafDb
from facejax.records.layouts.utkface import UtkFace


def make_celeba(folder):
  """Four pictures; the second is of the validation split."""
  names = list(celeba.NOUNS)
  rng = np.random.default_rng(3)
  values = rng.choice([-1, 1], (4, 40))
  values[0, names.index("No_Beard")], values[2] = -1, -1
  values[2, names.index("No_Beard")] = 1
  rows = [f"{i:06d}.jpg " + " ".join(f"{v:2d}" for v in row) for i, row in enumerate(values, 1)]
  (folder / "list_attr_celeba.txt").write_text("\n".join(["4", " ".join(names), *rows, ""]))
  parts = "000001.jpg 0\n000002.jpg 1\n000003.jpg 0\n000004.jpg 0\n"
  (folder / "list_eval_partition.txt").write_text(parts)
  for i in range(1, 5):
    picture(folder / "img_align_celeba" / f"{i:06d}.jpg", i, (22, 18))
  return CelebA(
    *(str(folder / n) for n in ("list_attr_celeba.txt", "list_eval_partition.txt")),
    str(folder / "img_align_celeba"),
  )


def make_utkface(folder):
  names = ["26_0_2_20170104183621.jpg.chip.jpg", "1_1_4_20161219.jpg", "61_1_2017010914.jpg"]
  for i, name in enumerate(names):
    picture(folder / "part1" / name, i)
  return UtkFace(str(folder))


def make_raf_db(folder):
  lines = [f"train_{i:05d}.jpg {i}" for i in range(1, 8)] + ["test_0001.jpg 4"]
  (folder / "EmoLabel").mkdir()
  (folder / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
  for i in range(1, 8):
    picture(folder / "Image" / "aligned" / f"train_{i:05d}_aligned.jpg", i)
  picture(folder / "Image" / "aligned" / "test_0001_aligned.jpg", 9)
  picture(folder / "Image" / "original" / "test_0001.jpg", 10)
  return RafDb(str(folder))


def make_dfew(folder):
  for split, rows in (("train", "1,7\n12,1\n3,4\n"), ("test", "2,3\n")):
    split = folder / "EmoLabel_DataSplit" / f"{split}(single-labeled)"
    split.mkdir(parents=True)
    (split / "set_2.csv").write_text(f"video_name,label\n{rows}")
  for name in ("part_1/1.mp4", "part_2/00012.mp4", "part_1/2.mp4"):
    clip(folder / "Clip" / "original" / name, 4)
  return Dfew(str(folder), str(folder / "Clip" / "original"), fold=2)


def intensity(subject, unit, frame):
  return (subject * 7 + unit * 3 + frame) % 6


def make_disfa(folder, frames=6):
  for subject in (1, 2):
    labels = folder / "ActionUnit_Labels" / f"SN{subject:03d}"
    labels.mkdir(parents=True)
    for unit in disfa.ACTION_UNITS:
      rows = [f"{f},{intensity(subject, unit, f)}" for f in range(1, frames + 1)]
      (labels / f"SN{subject:03d}_au{unit}.txt").write_text("\n".join(rows) + "\n")
    clip(folder / "Videos_LeftCamera" / f"LeftVideoSN{subject:03d}_comp.avi", frames, subject)
  return Disfa(str(folder / "ActionUnit_Labels"), str(folder / "Videos_LeftCamera"))


def make_faceforensics(folder):
  for name in ("071", "054", "012", "345"):
    clip(folder / "original_sequences/youtube/c23/videos" / f"{name}.mp4", 3)
  for method in ("Deepfakes", "FaceSwap"):
    for name in ("071_054", "054_071", "012_345", "345_012"):
      clip(folder / f"manipulated_sequences/{method}/c23/videos" / f"{name}.mp4", 3)
  (folder / "train.json").write_text('[["071", "054"], ["012", "345"]]')
  return FaceForensics(str(folder), str(folder / "train.json"), methods=("Deepfakes", "FaceSwap"))


def make_fairfacegpt(folder):
  picture(folder / "faces" / "val" / "1.jpg", 1)
  ask = lambda question, role: [
    {"from": "human", "value": question},
    {"from": role, "value": f"About {question}"},
  ]
  records = [
    {"image": "val/1.jpg", "conversations": ask("Describe this image.", "assistant")},
    {"images": "val/1.jpg", "conversations": ask("<image>\nDescribe.", "gpt")},
    {"images": ["val/1.jpg"], "conversations": ask("Skin?", "assistant") * 2, "age": "3-9"},
    {"images": ["val/1.jpg"] * 2, "conversations": ask("Both?", "assistant")},
  ]
  (folder / "dataset.json").write_text(json.dumps(records))
  return FairFaceGpt((str(folder / "dataset.json"),), str(folder / "faces"))


def make_fairfacegpt_folder(folder):
  rows = "val/1.jpg,3-9,Male,East Asian,False\nval/2.jpg,50-59,Female,Black,True\n"
  (folder / "fairface_label_val.csv").write_text(f"file,age,gender,race,service_test\n{rows}")
  for i in (1, 2):
    picture(folder / "faces" / "val" / f"{i}.jpg", i)
    answers = folder / "ChatGPT" / "gpt" / "val" / str(i)
    answers.mkdir(parents=True)
    for number in range(8 if i == 1 else 3):
      (answers / f"question_{number}.txt").write_text(f"Describe {number}.")
      (answers / f"answer_{number}.txt").write_text(f"Picture {i}, thing {number}: é.")
  return FairFaceGptFolder(
    str(folder / "ChatGPT" / "gpt"), str(folder / "fairface_label_val.csv"), str(folder / "faces")
  )


MAKERS = {
  "llava": lambda folder: Llava((str(llava_folder(folder) / "train.json"),)),
  "celeba": make_celeba,
  "utkface": make_utkface,
  "raf_db": make_raf_db,
  "dfew": make_dfew,
  "disfa": make_disfa,
  "faceforensics": make_faceforensics,
  "fairfacegpt": make_fairfacegpt,
  "fairfacegpt_folder": make_fairfacegpt_folder,
}
