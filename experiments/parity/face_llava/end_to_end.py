"""Conversations with media -> spliced embeddings, hidden states, logits, loss, greedy answers."""

import functools
import operator
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from face_llava import batches, text
from face_llava.folder import Folder, Model
from face_llava.report import Report, statistics
from face_llava.vision import NO_TOKEN
from facejax.generate import Sampling, generate
from facejax.losses import next_token, per_weight
from facejax.models.attention import rope_table
from facejax.models.decoder import Block, Decoder
from facejax.models.face_mllm import FaceMLLM
from facejax.types import Batch, Turn


def compare(folder: Folder, models: Mapping[str, Model], report: Report) -> None:
  """e2e.npz."""
  for case in [n.removesuffix(".input_ids") for n in folder.e2e if n.endswith(".input_ids")]:
    with report.attempt(case):
      _compare_case(folder, models[form(case)], case, report)
  for case in [n.removesuffix(".prompt_ids") for n in folder.e2e if n.endswith(".prompt_ids")]:
    with report.attempt(case):
      _compare_generation(folder, models[form(case)], case, report)
  report.inputs |= {n for n in folder.e2e if re.fullmatch(r"[^.]+\.\w+_pos_idx", n)}
  said = report.errors.keys() | report.inputs
  report.leave([n for n in folder.e2e if "_lmtok." in n and n not in said], NO_TOKEN)
  report.rest(folder.e2e)


def form(case: str) -> str:
  """Whose cross-attention a case has."""
  return "masked" if "masked" in case else "simple"


def _compare_case(folder: Folder, model: Model, case: str, report: Report) -> None:
  whole = batches.whole(folder, model, case)
  batch = batches.arrange(folder, case, whole)
  values = before_splice(folder, model, case, whole)
  if "lmtok" not in case:
    values |= behind_splice(folder, model, case, batch)
  own = {f"{case}.{name}": value for name, value in values.items()}
  loss = f"{case}.loss"
  if loss in folder.e2e and not np.isfinite(folder.e2e[loss]).all():
    # Every label is cut away. losses.per_weight makes 0 / 0 zero: such a step changes nothing.
    ours = float(own.pop(loss)[0])
    if ours == 0 and not batch.loss_weights.any():
      report.differs_by_design[loss] = f"the reference is {folder.e2e[loss][0]}, the library's 0"
    else:
      report.add(loss, np.inf, 0.0)
  report.compare(folder.e2e, own)


def before_splice(folder: Folder, model: Model, case: str, batch: Batch) -> dict[str, Any]:
  """Ids and labels with one placeholder for each picture or frame."""
  samples = folder.conversations["samples"]
  labels, rows = batches.labels(batch), []
  for row, number in enumerate(batches.conversations(folder, case)):
    lengths = batches.blocks(model.config, batches.turns(samples[number]["conversations"]))
    real = np.asarray(batch.segment_ids[row]) > 0
    visual = np.asarray(batch.visual_index[row])[real] >= 0
    ids = batches.collapse(np.asarray(batch.tokens[row])[real], visual, lengths, batches.VISUAL)
    rows.append((ids, batches.collapse(labels[row][real], visual, lengths, batches.IGNORED)))
  length = max(len(ids) for ids, _ in rows)
  pad = lambda x, value: np.pad(x, (0, length - len(x)), constant_values=value)
  return {
    "input_ids": np.stack([pad(ids, folder.tokenizer.pad_id) for ids, _ in rows]),
    "labels": np.stack([pad(own, batches.IGNORED) for _, own in rows]),
    "attention_mask": np.stack([pad(np.ones(len(ids), int), 0) for ids, _ in rows]),
  }


def behind_splice(folder: Folder, model: Model, case: str, batch: Batch) -> dict[str, Any]:
  """The decoder's input, its hidden states and logits, and the loss."""
  real = np.asarray(batch.segment_ids) > 0
  at = lambda x, kind: np.asarray(x)[:, folder.e2e.get(f"{case}.{kind}_pos_idx", [])]
  module = FaceMLLM(model.config)
  x, scores = _run(module, model.params, batches.on_device(batch))
  logits = np.asarray(scores) * real[..., None]
  total, weight = next_token(
    jnp.asarray(logits), jnp.asarray(batch.targets), jnp.asarray(batch.loss_weights)
  )
  values = {
    "spliced.attention_mask": real,
    "spliced.labels": batches.labels(batch),
    "spliced.position_ids": np.where(real, batch.positions, 0),
    "spliced.shape": np.array(x.shape),
    "spliced.stats": statistics(np.asarray(x)[real]),
    "spliced.embeds.at_emb_pos_idx": at(np.asarray(x) * real[..., None], "emb"),
    "logits.stats": statistics(logits),
    "logits.at_logit_pos_idx": at(logits, "logit"),
    "loss": np.asarray(per_weight(total, weight))[None],
  }
  if f"{case}.llm_hidden_pos_idx" in folder.e2e:
    for k, state in enumerate(_hidden_states(model, batch, x)):
      hidden = np.asarray(state) * real[..., None]
      values[f"llm_hidden{k}.at_llm_hidden_pos_idx"] = at(hidden, "llm_hidden")
  return values


@functools.partial(jax.jit, static_argnums=0)
def _run(module: FaceMLLM, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
  apply: Any = functools.partial(module.apply, {"params": params})
  return apply(batch, method="embed")[0], apply(batch)


def _hidden_states(model: Model, batch: Batch, x: jax.Array) -> list[jax.Array]:
  """The decoder's input, the result of each block but the last, and the normed last."""
  config, params = model.config.decoder, model.params["decoder"]
  table = rope_table(jnp.asarray(batch.positions), config.head_width, config.rope_theta)
  ids = jnp.asarray(batch.segment_ids)
  states = [x]
  for layer in range(config.layers - 1):
    own = jax.tree.map(operator.itemgetter(layer), params["blocks"])
    block: Any = jax.jit(Block(config).apply)
    (x_next, _), _ = block({"params": own}, (states[-1], None), None, table, ids, 0)
    states.append(x_next)
  decoder: Any = jax.jit(Decoder(config).apply)
  return [*states, decoder({"params": params}, x, jnp.asarray(batch.positions), ids)[0]]


def _compare_generation(folder: Folder, model: Model, case: str, report: Report) -> None:
  """A greedy answer: its prompt, its ids, and the scores of each step."""
  want = folder.e2e[f"{case}.new_ids"]
  batch, prompt = _prompt(folder, model, case)
  report.equal(f"{case}.prompt_ids", prompt[None], folder.e2e[f"{case}.prompt_ids"])
  module, batch = FaceMLLM(model.config), batches.on_device(batch)
  # Without stop ids the answer goes on behind </s>, as far as the reference does.
  sampling = Sampling(new_tokens=len(want))
  rng = jax.vmap(jax.random.key)(jnp.arange(1))
  tokens, _, _ = generate(module, model.params, batch, rng, sampling)
  report.equal(f"{case}.new_ids", tokens[0], want)
  scores = _scores(module, model.params, batch, np.asarray(tokens)[0])
  top = np.sort(scores, axis=-1)
  values = {"scores": scores, "min_top1_margin": np.min(top[:, -1] - top[:, -2])[None]}
  report.compare(folder.e2e, {f"{case}.{name}": value for name, value in values.items()})


def _prompt(folder: Folder, model: Model, case: str) -> tuple[Batch, np.ndarray]:
  """The batch of a question, and its ids with one placeholder for each picture or frame."""
  want = folder.e2e[f"{case}.prompt_ids"][0].tolist()
  known = folder.conversations["inference_prompts"]
  found = [p for p in known if p["legacy_false"]["input_ids"] == want]
  if not found:
    raise ValueError(
      f"{folder.path / 'e2e.npz'}: {case}.prompt_ids is none of conversations.json's "
      "inference_prompts - the question cannot be told - copy both files again"
    )
  question, template = text.question(folder, found[0], model.config.frames)
  turns = (Turn("human", question),)
  batch = batches.build(folder, model, [turns], "nolm" not in case, template, prompt=True)
  visual = np.asarray(batch.visual_index[0]) >= 0
  lengths = batches.blocks(model.config, turns)
  return batch, batches.collapse(np.asarray(batch.tokens[0]), visual, lengths, batches.VISUAL)


def _scores(module: FaceMLLM, params: Any, batch: Batch, tokens: np.ndarray) -> np.ndarray:
  """The scores [new V] that each of `tokens` was drawn from, through the key/value cache."""
  length = batch.tokens.shape[1]
  prefill = jax.jit(functools.partial(module.apply, slots=length + len(tokens), method="prefill"))
  extend = jax.jit(functools.partial(module.apply, method="extend"))
  scores, cache = prefill({"params": params}, batch)
  steps = [scores]
  for step, token in enumerate(tokens[:-1]):
    args = (jnp.array([token]), jnp.array([length + step]), cache)
    scores, cache = extend({"params": params}, *args)
    steps.append(scores)
  return np.concatenate(steps)
