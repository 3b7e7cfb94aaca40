"""transformers' side: the same step and the same decoding, of the same checkpoint."""

import contextlib
import pathlib

import numpy as np
import sizes
import torch
import transformers


def load(folder: pathlib.Path, dtype: torch.dtype) -> torch.nn.Module:
  return transformers.LlavaForConditionalGeneration.from_pretrained(folder / "weights", dtype=dtype)


def inputs(folder: pathlib.Path, batch: str) -> dict[str, torch.Tensor]:
  """As a processor would give them: pixels are normalised before the step."""
  return {name: torch.from_numpy(x) for name, x in np.load(folder / f"{batch}_theirs.npz").items()}


class Step:
  """Forward, backward and fused AdamW; with bfloat16, autocast around float32 parameters."""

  def __init__(self, folder: pathlib.Path, batch: str, dtype: str, compiled: bool):
    self._model = load(folder, torch.float32).train()
    self._inputs = inputs(folder, batch)
    self._optimizer = torch.optim.AdamW(
      self._model.parameters(), lr=sizes.RATE, weight_decay=0.0, fused=True
    )
    self._call = torch.compile(self._model, dynamic=False) if compiled else self._model
    self._cast = contextlib.nullcontext
    if dtype == "bfloat16":
      self._cast = lambda: torch.autocast("cpu", torch.bfloat16)

  def run(self) -> float:
    """One step; its loss in nats a target token."""
    with self._cast():
      loss = self._call(**self._inputs, use_cache=False).loss
    loss.backward()
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    return loss.item()


class Decode:
  """generate() with a cache: a growing one, or one of fixed length for the compiler."""

  new = sizes.NEW

  def __init__(self, folder: pathlib.Path, batch: str, dtype: str, compiled: bool):
    self._model = load(folder, getattr(torch, dtype)).eval()
    self._inputs = inputs(folder, batch)
    del self._inputs["labels"]
    self._inputs["pixel_values"] = self._inputs["pixel_values"].to(getattr(torch, dtype))
    self._options = dict(
      max_new_tokens=self.new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    if compiled:
      config = transformers.CompileConfig(mode="default")
      config._compile_all_devices = True  # else only accelerators compile
      self._options |= dict(cache_implementation="static", compile_config=config)

  @torch.inference_mode()
  def run(self) -> list[list[int]]:
    """The tokens of each row."""
    return self._model.generate(**self._inputs, **self._options)[:, -self.new :].tolist()


class Prefill(Decode):
  """The first token only."""

  new = 1
