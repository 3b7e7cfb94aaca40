"""The same files through torch: as the official code reads them, and as fast as we could write it.

Nothing of facejax is used here, and jax is never imported.
"""

import functools
import json
import pathlib

import av
import numpy as np
import sentencepiece
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import io, transforms

SIZE, FRAMES = 224, 8
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SYSTEM = (
  "A chat between a curious user and an artificial intelligence assistant. "
  "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
IGNORED, VISUAL = -100, -200


class Forever(Sampler):
  """A permutation of all samples, again and again."""

  def __init__(self, count: int):
    self.count = count

  def __iter__(self):
    while True:
      yield from torch.randperm(self.count).tolist()


class _Folder(Dataset):
  def __init__(self, index: str, vocabulary: str, length: int, visual: int):
    self.folder = pathlib.Path(index).parent
    self.records = json.loads(pathlib.Path(index).read_text())
    self.vocabulary, self.length, self.visual = vocabulary, length, visual

  def __len__(self):
    return len(self.records)

  @functools.cached_property
  def words(self):
    return sentencepiece.SentencePieceProcessor(model_file=self.vocabulary)

  def turns(self, record: dict) -> tuple[str, str]:
    question, answer = (turn["value"] for turn in record["conversations"])
    return question.replace("<video>", "<image>" * FRAMES), answer


class Official(_Folder):
  """Face-LLaVA's training loader: float32, texts of each length, tokenised for ids and for masks.

  It has transformers' Python tokenizer around sentencepiece and decord for clips; here are bare
  sentencepiece, which is faster, and PyAV.
  """

  picture = transforms.Compose(
    [
      transforms.ToTensor(),
      transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
      transforms.CenterCrop(SIZE),
      transforms.Normalize(MEAN, STD),
    ]
  )

  def __getitem__(self, index: int) -> dict:
    record = self.records[index]
    ids, labels = self.text(*self.turns(record))
    points = np.load(self.folder / record["landmarks_2d"])
    if "image" in record:
      image = Image.open(self.folder / record["image"]).convert("RGB")
      pixels = self.picture(_square(image))
    else:
      frames, chosen = _frames(self.folder / record["video"], threads=0)
      pixels, points = self.clip(frames), points[chosen]
    return {
      "input_ids": ids,
      "labels": labels,
      "pixels": pixels,
      "landmarks": torch.from_numpy(points).float() / 256,
    }

  def clip(self, frames: np.ndarray) -> torch.Tensor:
    """[T Y X 3] uint8 -> [3 T y x], normalised, the short side scaled, the centre cut out."""
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2) / 255.0
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (MEAN, STD))
    pixels = (pixels - mean) / std
    y, x = pixels.shape[2:]
    shape = (SIZE, SIZE * x // y) if y < x else (SIZE * y // x, SIZE)
    pixels = functional.interpolate(pixels, shape, mode="bilinear", align_corners=False)
    return transforms.functional.center_crop(pixels, SIZE)

  def text(self, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels; the prompt is tokenised again to find what it masks."""
    asked = f"{SYSTEM} USER: {question} ASSISTANT: "
    ids = [*self.chunks(asked + answer), self.words.eos_id()]
    known = len(self.chunks(asked)) - 1  # the last space opens the answer
    assert len(ids) == len(self.chunks(f"{asked}{answer}")) + 1  # as the official mask checks
    labels = [IGNORED] * known + ids[known:]
    return torch.tensor(ids), torch.tensor(labels)

  def chunks(self, prompt: str) -> list[int]:
    """Ids of a prompt in which pictures stand."""
    ids = [self.words.bos_id()]
    for number, chunk in enumerate(prompt.split("<image>")):
      ids += ([VISUAL] if number else []) + self.words.encode(chunk)
    return ids

  @staticmethod
  def collate(samples: list[dict]) -> dict:
    """Pads to the longest sample."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([sample["input_ids"] for sample in samples], batch_first=True, padding_value=0)
    labels = [sample["labels"] for sample in samples]
    return {
      "input_ids": ids,
      "labels": pad(labels, batch_first=True, padding_value=IGNORED),
      "attention_mask": ids.ne(0),
      "pixels": torch.stack([sample["pixels"] for sample in samples]),
      "landmarks": torch.stack([sample["landmarks"] for sample in samples]),
    }


class Exact(_Folder):
  """Our rows, written for torch: float kernels, rounded to uint8, so that pixels equal ours."""

  def __getitem__(self, index: int) -> dict:
    record = self.records[index]
    points = np.load(self.folder / record["landmarks_2d"])
    if "image" in record:
      data = io.read_file(str(self.folder / record["image"]))
      pixels = self.resized(io.decode_jpeg(data, io.ImageReadMode.RGB)[None], "bicubic", True)
    else:
      frames, chosen = _frames(self.folder / record["video"], threads=1)
      pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
      pixels, points = self.resized(pixels, "bilinear", False), points[chosen]
    landmarks = torch.from_numpy(points).float() / 256
    return {"pixels": pixels, "landmarks": landmarks, **self.row(index, *self.turns(record))}

  def resized(self, pixels: torch.Tensor, mode: str, antialias: bool) -> torch.Tensor:
    """[n 3 Y X] uint8 -> [n 3 224 224] uint8; what is drawn here is square."""
    shape = (SIZE, SIZE)
    pixels = functional.interpolate(pixels.float(), shape, mode=mode, antialias=antialias)
    return pixels.round().clamp(0, 255).to(torch.uint8)

  @functools.cached_property
  def start(self) -> list[int]:
    """What every text begins with."""
    return [self.words.bos_id(), *self.words.encode(f"{SYSTEM} USER: ")]

  def row(self, index: int, question: str, answer: str) -> dict:
    """One sample in `length` positions, with a place for each visual token."""
    asked = self.words.encode(question.split("<image>")[-1] + " ASSISTANT:")
    answered = [*self.words.encode(answer), self.words.eos_id()]
    first, text = len(self.start), len(self.start) + self.visual
    end = text + len(asked) + len(answered)
    row = {
      name: np.full(self.length, value, kind)
      for name, value, kind in (
        ("tokens", 0, np.int32),
        ("targets", 0, np.int32),
        ("loss_weights", 0, np.float32),
        ("positions", 0, np.int32),
        ("segment_ids", 0, np.int32),
        ("visual_index", -1, np.int32),
        ("sample_id", -1, np.int32),
      )
    }
    row["tokens"][:first] = self.start
    row["tokens"][text:end] = asked + answered
    row["targets"][: end - 1] = row["tokens"][1:end]
    row["loss_weights"][text + len(asked) - 1 : end - 1] = 1
    row["positions"][:end] = np.arange(end)
    row["segment_ids"][:end] = 1
    row["visual_index"][first:text] = np.arange(self.visual)
    row["sample_id"][:end] = index
    return {name: torch.from_numpy(values) for name, values in row.items()}

  collate = staticmethod(torch.utils.data.default_collate)


class Fastest(Exact):
  """The same with torch's uint8 kernels, whose pixels are some grey levels off."""

  def resized(self, pixels: torch.Tensor, mode: str, antialias: bool) -> torch.Tensor:
    """As in Exact, in 8 bits."""
    return functional.interpolate(pixels, (SIZE, SIZE), mode=mode, antialias=antialias)


def _square(image: Image.Image) -> Image.Image:
  side = max(image.size)
  if image.size == (side, side):
    return image
  canvas = Image.new("RGB", (side, side), tuple(int(value * 255) for value in MEAN))
  canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
  return canvas


def _frames(path: pathlib.Path, threads: int) -> tuple[np.ndarray, np.ndarray]:
  """(eight frames spread over the clip, their numbers), the count being the header's."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = threads  # 0: FFmpeg chooses
    chosen = np.linspace(0, stream.frames - 1, FRAMES, dtype=int)
    wanted, found = set(chosen.tolist()), {}
    for number, frame in enumerate(container.decode(stream)):
      if number in wanted:
        found[number] = frame.to_ndarray(format="rgb24")
  return np.stack([found[number] for number in chosen]), chosen


KINDS = {"official": Official, "exact": Exact, "fastest": Fastest}


def batches(kind: str, batch: int, workers: int, **folder):
  """Batches without end, as dictionaries of tensors."""
  torch.set_num_threads(1)
  dataset = KINDS[kind](**folder)
  loader = DataLoader(
    dataset,
    batch,
    sampler=Forever(len(dataset)),
    num_workers=workers,
    collate_fn=dataset.collate,
  )
  return iter(loader)
