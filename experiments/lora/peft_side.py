"""What PEFT makes of an exported adapter, beside the merged export. Needs torch, not facejax.

  pip install "torch==2.13.0" transformers peft
  python experiments/lora/peft_side.py BASE ADAPTER MERGED

BASE is the folder that the adapters were trained on, ADAPTER and MERGED what `facejax convert
export` wrote of the stage, with --format peft and in BASE's format.
"""

import argparse
import json

import peft
import torch
import transformers
from transformers import AutoModelForImageTextToText


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("base", "adapter", "merged"):
    parser.add_argument(name)
  args = parser.parse_args()
  load = lambda folder: AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
  base, merged = load(args.base), load(args.merged)
  before = {name: x.clone() for name, x in base.state_dict().items()}
  adapted = peft.PeftModel.from_pretrained(base, args.adapter)
  modules = [n for n, m in adapted.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)]
  drawn = sum(x.numel() for n, x in adapted.named_parameters() if "lora_" in n)
  text = torch.arange(3, 3 + 11)[None]
  with torch.no_grad():
    scores = [m(input_ids=text).logits for m in (adapted, merged)]
  ours, theirs = merged.state_dict(), adapted.merge_and_unload().state_dict()
  changed = [name for name in before if not torch.equal(before[name], theirs[name])]
  result = {
    "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
    "adapted_modules": len(modules),
    "adapter_parameters": drawn,
    "tensors": len(theirs),
    "tensors_changed": len(changed),
    "same_names": set(ours) == set(theirs),
    "max_weight_difference": max((ours[n] - theirs[n]).abs().max().item() for n in theirs),
    "max_logit_difference": (scores[0] - scores[1]).abs().max().item(),
    "largest_logit": scores[0].abs().max().item(),
  }
  print(json.dumps(result, indent=1))


if __name__ == "__main__":
  main()
