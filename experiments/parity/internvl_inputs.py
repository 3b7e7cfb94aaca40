"""What transformers makes of conversations and pictures for InternVL3 -> tests/goldens/internvl.

    python experiments/parity/internvl_inputs.py tests/goldens/internvl

Needs transformers and torch; nothing else of facejax does. A tiny Qwen2 tokenizer is trained here,
pictures are noise, tiles have 24 px a side and four tokens; the code that lays them out is that of
InternVL's processor, with its Pillow backend. Weights are not involved.
"""

import json
import pathlib
import sys

import numpy as np
import tokenizers
import transformers
from PIL import Image
from transformers import InternVLProcessor, Qwen2Tokenizer
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

SIZE, TOKENS, MOST = 24, 4, 6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SYSTEM = (
  "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位"
  "联合开发的多模态大语言模型。"
)
# As in the released checkpoints: role, content (a picture and a line break), end, and no system.
TEMPLATE = (
  "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n'}}{% for c in m['content'] %}"
  "{% if c['type'] == 'image' %}<IMG_CONTEXT>\n{% elif c['type'] == 'video' %}<video>\n"
  "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{'<|im_end|>\\n'}}{% endfor %}"
  "{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif %}"
)
# (system turn, pictures as (height, width), frames of a clip, questions and answers in turn)
CASES = (
  (False, [(24, 24)], 0, ["How old is the person?", "The person is about 30 years old."]),
  (False, [(40, 61)], 0, ["What's shown?", "A face.", "\n\nWhy?", "It isn't sad:\n\nshe smiles."]),
  (False, [(61, 40), (30, 30)], 0, ["Same person?", "No."]),
  (True, [(90, 31)], 0, ["Describe this image.", "Eyes: 2, été 😀."]),
  (True, [], 0, ["Hello  there", "Hi!  \n"]),
  (False, [], 3, ["What emotion?", "Joy."]),
)


def make_tokenizer() -> Qwen2Tokenizer:
  """A tiny Qwen2 tokenizer with InternVL's special tokens."""
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  texts = [text for *_, turns in CASES for text in turns] + ["user\n", "assistant\n", "Frame1: "]
  model.train_from_iterator(texts * 4, trainer)
  trained = json.loads(model.to_str())["model"]
  return Qwen2Tokenizer(
    vocab=trained["vocab"],
    merges=[tuple(merge) for merge in trained["merges"]],
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    extra_special_tokens={
      "turn_token": "<|im_start|>",
      "start_image_token": "<img>",
      "end_image_token": "</img>",
      "context_image_token": "<IMG_CONTEXT>",
      "video_token": "<video>",
    },
  )


def make_processor(tokenizer: Qwen2Tokenizer) -> InternVLProcessor:
  """InternVL's processor without its video part, which needs torchvision."""
  pictures = GotOcr2ImageProcessorPil(
    size={"height": SIZE, "width": SIZE},
    image_mean=MEAN,
    image_std=STD,
    crop_to_patches=True,
    min_patches=1,
    max_patches=MOST,
  )
  InternVLProcessor.check_argument_for_proper_class = lambda self, name, argument: None
  processor = InternVLProcessor(
    image_processor=pictures,
    tokenizer=tokenizer,
    video_processor=None,
    image_seq_length=TOKENS,
    chat_template=TEMPLATE,
  )
  return processor


def messages(system: bool, pictures: int, clip: bool, turns: list[str]) -> list[dict]:
  """A conversation that ends with a question, as transformers wants it."""
  text = lambda words: {"type": "text", "text": words}
  made = [{"role": "system", "content": [text(SYSTEM)]}] if system else []
  for n, words in enumerate(turns):
    content = [text(words)]
    if n == 0:
      content = [{"type": "image"}] * pictures + [{"type": "video"}] * clip + content
    made.append({"role": ("user", "assistant")[n % 2], "content": content})
  return made


def main(folder: pathlib.Path) -> None:
  """Writes the tokenizer's files, cases.json and tiles.npz."""
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer = make_tokenizer()
  tokenizer.save_pretrained(folder)
  processor = make_processor(tokenizer)
  cases, arrays = [], {}
  for number, (system, shapes, frames, turns) in enumerate(CASES):
    draw = np.random.default_rng(number)
    # Far from black and white, where the kernel overshoots and Pillow clamps twice.
    pictures = [draw.integers(64, 192, (*shape, 3), np.uint8) for shape in shapes]
    asked = messages(system, len(pictures), bool(frames), turns[:-1])
    text = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    if frames:
      clip = {"pixel_values_videos": np.zeros((1, frames, 3, SIZE, SIZE))}
      text = text.replace("<video>", processor.replace_video_token(clip, 0))
      ids = tokenizer(text)["input_ids"]
    else:
      images = [Image.fromarray(picture) for picture in pictures] or None
      made = processor(images=images, text=text, return_tensors="np")
      ids = made["input_ids"][0].tolist()
    if pictures:
      levels = (made["pixel_values"].transpose(0, 2, 3, 1) * STD + MEAN) * 255
      arrays[f"{number}.tiles"] = levels.round().astype(np.uint8)
      arrays |= {f"{number}.picture{i}": picture for i, picture in enumerate(pictures)}
    cases.append(
      {
        "template": "internvl_system" if system else "internvl",
        "pictures": [list(shape) for shape in shapes],
        "frames": frames,
        "turns": turns,
        "prompt_ids": ids,
        "answer_ids": tokenizer(turns[-1] + "<|im_end|>\n")["input_ids"],
      }
    )
  record = {
    "transformers": transformers.__version__,
    "size": SIZE,
    "tokens": TOKENS,
    "most": MOST,
    "context_id": tokenizer.context_image_token_id,
    "cases": cases,
  }
  (folder / "cases.json").write_text(json.dumps(record, ensure_ascii=False) + "\n")
  np.savez_compressed(folder / "tiles.npz", **arrays)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
