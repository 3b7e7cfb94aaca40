"""The library's real job on drawn faces: base -> stage 1 -> stage 2, each evaluated, and a report.

Starts where real runs start, from given weights: a small base model in the package's assets, which
has neither the landmark nor the segmentation modules. experiments/demo_base rebuilds it.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax

from facejax import checkpoint, weights
from facejax.config import RunConfig
from facejax.data.pipeline import Pipeline
from facejax.data.sources import Source
from facejax.evaluate.report import report
from facejax.evaluate.run import evaluate, table
from facejax.generate import Answerer, Sampling
from facejax.logs import memory_gib
from facejax.models import face_mllm
from facejax.train import train
from facejax.types import Sample

MASKED = "stage 2, landmarks and maps masked off"
QUESTIONS = 3  # answered aloud at the end


def run(config: RunConfig, workdir: Path, *, overwrite: bool = False) -> int:
  """Writes workdir/results.json and report.html; returns 0, or train's code if it was stopped.

  results.json holds the metrics of the last stage (value, low, high, n), `runs` with those of
  every stage and of the masked evaluation, seconds, and peak_rss_gb. Raises as train() does.
  """
  started = time.monotonic()
  names = list(config.stages)
  runs = {}
  for name in names:
    if stopped := train(config, workdir, stages=[name], overwrite=overwrite):
      return stopped
    if name == names[0]:
      runs["base"] = evaluate(config, base_params(config), workdir / "base", modalities=())
    _, params, folder = checkpoint.load_run(workdir, name)
    modalities = config.stages[name].modalities
    runs[name] = evaluate(config, params, folder / "evaluate", modalities=modalities)
  runs[MASKED] = evaluate(config, params, folder / "evaluate_masked", modalities=())
  print(table(runs))
  for text in _conversations(config, params):
    print(text)
  results = {
    **runs[names[-1]],
    "runs": runs,
    "data": "synthetic faces of held-out identities",
    "seconds": round(time.monotonic() - started, 1),
    "peak_rss_gb": round(memory_gib() * 2**30 / 1e9, 2),
  }
  (workdir / "results.json").write_text(json.dumps(results, indent=1) + "\n")
  print(f"{workdir}/results.json, {report(workdir)}")
  return 0


def base_params(config: RunConfig) -> dict:
  """The weights that the first stage starts from; modules that they lack are fresh."""
  first = next(iter(config.stages.values()))
  fresh = jax.jit(lambda: face_mllm.init(config.model, jax.random.key(config.seed)))()
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fresh)
  return weights.overlay(fresh, weights.load_weights(first.init_from, shapes, first.new).params)


def _conversations(config: RunConfig, params: dict) -> list[str]:
  """Questions about the first held-out faces, with the model's answers and the true ones."""
  data = dataclasses.replace(
    config.data, synthetic=dataclasses.replace(config.data.synthetic, split=config.evaluate.split)
  )
  source: Source = Pipeline(config.model, data, rows=1).source
  samples = [source[i] for i in range(QUESTIONS)]
  asked = [_question(sample) for sample in samples]
  answers = Answerer(config, params).answer(asked, Sampling())
  return [
    f"\n{sample.id} (synthetic)\n  asked:    {sample.conversation[0].text}\n"
    f"  answered: {answer.text}\n  truth:    {sample.conversation[1].text}"
    for sample, answer in zip(samples, answers, strict=True)
  ]


def _question(sample: Sample) -> Sample:
  return dataclasses.replace(sample, conversation=sample.conversation[:1])
