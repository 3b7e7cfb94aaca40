"""What a label head starts from. A run's config -> .safetensors of labels/prompts, labels/graph.

The graph is made of how often labels come together in the sources that the stage trains on; the
prompts are the labels' words, in the token embeddings of the weights that the stage starts from.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from jaxtyping import Float
from tqdm.auto import tqdm

from facejax import convert, weights
from facejax.config import RunConfig
from facejax.convert.load import open_checkpoint
from facejax.data.pipeline import open_source, row_format
from facejax.data.sources import Source
from facejax.knowledge import cooccurrence, rules, tables
from facejax.knowledge.constraint import embed_prompts
from facejax.knowledge.cooccurrence import Cooccurrence
from facejax.knowledge.labels import LabelSet

_PART = 4096  # samples between two states on disk
PROMPT = "a face with {words}"  # ours; the paper does not print its prompts


def write(
  config: RunConfig, stage: str, path: Path, graph: dict[str, Any], state: Path | None = None
) -> Cooccurrence:
  """Writes the file that StageConfig.over takes, and returns the counts behind it.

  Args:
    config: of the run; its model has labels.
    stage: whose sources and init_from are read.
    path: the .safetensors file to write.
    graph: arguments of cooccurrence.graph: tau, omega, reweight.
    state: where a count that is stopped goes on; see cooccurrence.count.

  Raises:
    FileNotFoundError: sources or weights are not there.
    ValueError: a model without labels, sources that are no built ones or say nothing of the labels,
      or weights without an embedding.
  """
  if config.model.labels is None:
    raise ValueError("the config's model has labels=None - expected a LabelsConfig - set one")
  labels = rules.load(config.model.labels.rules).labels
  embedding = read_embedding(config.stages[stage].init_from)
  form = row_format(config.model, config.data, config.stages[stage].modalities)
  sources = [open_source(name, form, config.data) for name in config.data.sources]
  counts = counted(sources, labels, state)
  words = [PROMPT.format(words=labels.say(label)) for label in labels.labels]
  prompts = embed_prompts(embedding, [form.tokenizer.encode(text) for text in words])
  matrix = cooccurrence.graph(cooccurrence.conditional(counts), **graph)
  weights.save_weights(path, {"labels": {"prompts": prompts, "graph": matrix}})
  return counts


def counted(sources: Sequence[Source], labels: LabelSet, state: Path | None) -> Cooccurrence:
  """Counts the labels of the usable samples of sources, one source after another."""
  prints = json.dumps([source.fingerprint() for source in sources], sort_keys=True, default=str)
  digest = hashlib.sha256(prints.encode()).hexdigest()
  counts = cooccurrence.count(_rows(sources, labels), labels, digest, state)
  if not np.diag(counts.both_known).any():
    raise ValueError(
      f"{counts.rows} samples say nothing of the labels of {labels.name!r} - expected sources that "
      "facejax data build made of label tables, or drawn faces - check data.sources"
    )
  return counts


def _rows(sources: Sequence[Source], labels: LabelSet) -> Iterator[np.ndarray]:
  """The values of all samples, some at a time."""
  for source in sources:
    for start in tqdm(range(0, len(source), _PART), desc="counting labels", leave=False):
      part = range(start, min(start + _PART, len(source)))
      yield np.stack([_said(source, i, labels) for i in part])


def _said(source: Source, index: int, labels: LabelSet) -> np.ndarray:
  try:
    return tables.known(source.labels(index), labels)
  except ValueError as error:
    raise ValueError(f"sample {source.name(index)!r}: {error} - correct its labels") from error


def read_embedding(source: str) -> Float[np.ndarray, "V D"]:
  """The token embeddings of a folder of released weights, or of a .safetensors file of ours."""
  name = "decoder/embedding"
  if source.endswith(".safetensors"):
    if name not in weights.safetensors_names(source):
      raise ValueError(f"{source} has no {name} - expected the weights of a whole model")
    with safetensors.safe_open(weights.located(source), framework="np") as file:
      return file.get_tensor(name)
  if not convert.is_checkpoint(source):
    raise FileNotFoundError(
      f"init_from={source!r} is no folder of released weights - expected config.json and weights, "
      "whose token embeddings the labels' prompts are made of"
    )
  parameters, _, _ = open_checkpoint(source, new=(".*",)).matched
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return np.asarray(parameters[name].place(device, "float32"))
