"""The questions of a FaceXBench run asked again, by transformers. Needs torch, not facejax.

  pip install "torch==2.13.0" transformers torchvision
  python experiments/facellm/torch_side.py MODEL PREDICTIONS BENCHMARK

MODEL is a folder that transformers opens, PREDICTIONS a predictions.jsonl of `facejax evaluate
--suite facexbench`, BENCHMARK the folder that it asked about. Prompts are made from the benchmark's
files by the checkpoint's own chat template and processor: with the training's system turn and one
tile where the run says so in its header, else as they are.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


def questions(folder: Path) -> dict[str, tuple[list[Path], str]]:
  """Pictures and text of each question, as FaceXBench's evaluate.py puts them together."""
  found = {}
  for path in sorted(folder.glob("*.json")):
    data = json.loads(path.read_text())
    for number, question in data["questions"].items():
      text = data["context"] + "\n" if data["category"] == "tools_use" else ""
      text += f"{question['question_text']}\n{data['postpend_text']}\n"
      for letter, option in zip("ABCD", question["options"], strict=True):
        text += f"({letter}) {option}\n"
      found[f"{path.stem}/{number}"] = [folder / p for p in question["image_paths"]], text
  return found


def prompt(processor, system: str, pictures: int, text: str) -> str:
  """By the checkpoint's chat template."""
  content = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
  messages = [{"role": "user", "content": content}]
  if system:
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}, *messages]
  return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@torch.no_grad()
def answer(model, processor, text: str, pictures: list[Path], new: int, tiles: bool):
  """The greedy answer; how near the second token was at the closest choice; tokens read."""
  images = [Image.open(path).convert("RGB") for path in pictures]
  inputs = processor(images=images or None, text=text, return_tensors="pt", crop_to_patches=tiles)
  made = model.generate(
    **inputs, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True
  )
  ids = made.sequences[0, inputs["input_ids"].shape[1] :]
  top = torch.stack(made.logits)[:, 0].topk(2).values
  said = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
  return said, (top[:, 0] - top[:, 1]).min().item(), inputs["input_ids"].shape[1]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("model", "predictions", "benchmark"):
    parser.add_argument(name, type=Path)
  args = parser.parse_args()
  torch.set_num_threads(1)
  header, *records = map(json.loads, args.predictions.read_text().splitlines())
  model, info = AutoModelForImageTextToText.from_pretrained(
    args.model, dtype=torch.float32, output_loading_info=True
  )
  processor = AutoProcessor.from_pretrained(args.model)
  asked, known = questions(args.benchmark), {r["id"]: r for r in records}
  system = ""
  if header["template"] == "internvl_system":
    system = records[0]["prompt"].split("<|im_end|>")[0].removeprefix("<|im_start|>system\n")
  tiles, new = header["tiling"]["max_tiles"] > 1, header["decoding"]["new_tokens"]
  same = {"prompts": 0, "answers": 0}
  margins, lengths, apart = [], [], []
  for name, (pictures, text) in asked.items():
    record = known[name]
    whole = prompt(processor, system, len(pictures), text)
    same["prompts"] += whole == record["prompt"].replace("<image>", "<IMG_CONTEXT>")
    said, margin, length = answer(model, processor, whole, pictures, new, tiles)
    same["answers"] += said == record["answer"]
    margins.append(margin)
    lengths.append(length)
    if said != record["answer"]:
      apart.append({"id": name, "transformers": said, "facejax": record["answer"]})
  result = {
    "versions": {m.__name__: m.__version__ for m in (torch, transformers)},
    "tensors_missing_or_unexpected": sum(len(info[k]) for k in info),
    "items": len(asked),
    "same_prompts": same["prompts"],
    "same_answers": same["answers"],
    "different_answers_among_them": len({r["answer"] for r in records}),
    "longest_prompt": max(lengths),
    "smallest_margin": min(margins),
    "apart": apart[:5],
  }
  print(json.dumps(result, indent=1))


if __name__ == "__main__":
  main()
