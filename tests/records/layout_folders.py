"""Label tables and the like in their released layouts, made up in miniature."""

import json

import numpy as np
import pytest
import scipy.io
from record_folders import clip, llava_folder, picture

from facejax.records.layouts import celeba, disfa
from facejax.records.layouts.affectnet import AffectNet
from facejax.records.layouts.celeba import CelebA
from facejax.records.layouts.dfew import Dfew
from facejax.records.layouts.disfa import Disfa
from facejax.records.layouts.faceforensics import FaceForensics
from facejax.records.layouts.fairfacegpt import FairFaceGpt, FairFaceGptFolder
from facejax.records.layouts.lfwa import Lfwa
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


LFWA_FILES = tuple(f"{p}\\{p}_{i:04d}.jpg" for p, i in (("Al_B", 1), ("Al_B", 2), ("Zoe", 1)))


def lfwa_values(absent=0):
  """Labels of make_lfwa's three pictures: as released, a row a picture."""
  return np.where(np.random.default_rng(4).random((3, 40)) < 0.5, 1, absent).astype(float)


def write_mat73(path, variables):
  """MATLAB 7.3: a header of 512 bytes, arrays turned around, text as cells of character codes."""
  h5py = pytest.importorskip("h5py")
  with h5py.File(path, "w", userblock_size=512) as file:
    for name, value in variables.items():
      if isinstance(value, np.ndarray):
        file[name] = value.T
        continue
      cells = file.create_dataset(name, (1, len(value)), h5py.ref_dtype)
      for i, text in enumerate(value):
        codes = np.array([[ord(c)] for c in text], np.uint16)
        cells[0, i] = file.create_dataset(f"#refs#/{name}{i}", data=codes).ref


def write_mat70(path, variables):
  """MATLAB 7.0: cells are arrays of objects."""
  cells = lambda x: x if isinstance(x, np.ndarray) else np.array([list(x)], object).T
  scipy.io.savemat(path, {name: cells(x) for name, x in variables.items()})


def make_lfwa(folder, write=write_mat73, absent=0):
  names = [name.replace("_", " ") for name in celeba.NOUNS]
  values = {"AttrName": names, "label": lfwa_values(absent), "name": LFWA_FILES}
  write(folder / "lfw_att_40.mat", values)
  rows = {"indices_img_train": np.array([[3.0], [1.0]]), "indices_img_test": np.array([[2.0]])}
  write(folder / "indices_train_test.mat", rows)
  for i, name in enumerate(LFWA_FILES):
    picture(folder / "lfw" / name.replace("\\", "/"), i)
  return Lfwa(*(str(folder / n) for n in ("lfw_att_40.mat", "indices_train_test.mat", "lfw")))


def make_affectnet(folder):
  """Form "arrays": an expression as a number or its text; picture 7 has no annotation."""
  root = folder / "train_set"
  (root / "annotations").mkdir(parents=True)
  for stem, expression, valence in ((0, "1", 0.5), (2, 6, "-0.25"), (10, "7", -2.0)):
    picture(root / "images" / f"{stem}.jpg", stem)
    for name, value in (("exp", expression), ("val", valence), ("aro", 0.125), ("lnd", [1.0])):
      np.save(root / "annotations" / f"{stem}_{name}.npy", np.array(value))
  picture(root / "images" / "7.jpg", 7)
  return AffectNet(str(folder))


AFFECTNET_LIST = (
  "a1/x.jpg,1,2,30,40,5.5;6.5,2,-0.5,0.25",
  "b2/y.JPG,NULL,NULL,NULL,NULL,NULL,9,-2,-2",
  "b2/z.png,1,2,30,40,5.5;6.5,0,NULL,-2",
)


def make_affectnet_lists(folder, header=True, more=()):
  """Form "lists": an expression, an uncertain face, and one without valence."""
  root = folder / "Manually_Annotated_file_lists"
  root.mkdir(exist_ok=True)
  names = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression"
  rows = [f"{names},valence,arousal"] * header + [*AFFECTNET_LIST, *more]
  (root / ("training.csv" if header else "validation.csv")).write_text("\n".join(rows) + "\n")
  for i, row in enumerate(AFFECTNET_LIST):
    picture(folder / "Manually_Annotated_Images" / row.split(",")[0], i)
  return AffectNet(str(folder), "lists", "train" if header else "validation")


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
  "lfwa": make_lfwa,
  "utkface": make_utkface,
  "raf_db": make_raf_db,
  "affectnet": make_affectnet,
  "dfew": make_dfew,
  "disfa": make_disfa,
  "faceforensics": make_faceforensics,
  "fairfacegpt": make_fairfacegpt,
  "fairfacegpt_folder": make_fairfacegpt_folder,
}
