"""The library's real job on drawn faces: base -> stage 1 -> stage 2, each evaluated, and a report.

A model with a label head (configs/demo_faceinsight.py) is also judged by its labels, in both modes.

Starts where real runs start, from given weights: a small base model in the package's assets, which
has neither the landmark nor the segmentation modules. experiments/demo_base rebuilds it.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from facejax import checkpoint, weights
from facejax.config import RunConfig
from facejax.data.pipeline import open_source, row_format
from facejax.evaluate.report import report
from facejax.evaluate.run import evaluate, finished, table
from facejax.generate import Answerer, Sampling
from facejax.knowledge import modes
from facejax.logs import memory_gib
from facejax.models import face_mllm
from facejax.train import prepare, train
from facejax.types import Sample
from facejax.workdirs import selected

BASE = "base"  # the weights it starts from; their evaluation's folder
SUMMARY = "results.json"
_OWN = (SUMMARY, "report.html", f"{BASE}/results.json", f"{BASE}/predictions.jsonl")
MASKED = "stage 2, landmarks and maps masked off"
QUESTIONS = 3  # answered aloud at the end


def run(
  config: RunConfig,
  workdir: Path,
  *,
  resume: bool = False,
  overwrite: bool = False,
  allow_change: Sequence[str] = (),
) -> int:
  """Writes workdir/results.json and report.html; returns 0, or train's code if it was stopped.

  With resume, finished stages and evaluations are taken from the workdir; the results are those of
  a run in one piece. results.json holds the metrics of the last stage (value, low, high, n), `runs`
  with those of every stage and of the masked evaluation, and for a model with a label head `labels`
  with those of modes.evaluate; `seconds` and `peak_rss_gb` of this call,
  and whether it `resumed` an earlier one. Raises as train() does.
  """
  started = time.monotonic()
  names = selected(config, None)
  resumed = any(checkpoint.steps_in(workdir / name) for name in names)
  _prepare(config, workdir, resume, overwrite)
  runs, labels = {}, {}
  for name in names:
    # Its folder is empty, unless it may be resumed.
    stopped = train(config, workdir, stages=[name], resume=True, allow_change=allow_change)
    if stopped:
      return stopped
    if name == names[0]:
      start = config.stages[name].init_from
      runs[BASE] = _evaluated(config, base_params(config), workdir / BASE, (), start)
    _, params, folder = checkpoint.load_run(workdir, name)
    of = f"{name} at step {checkpoint.steps_in(folder)[-1]}"
    runs[name] = _evaluated(config, params, folder / "evaluate", config.reads(name), of)
    if config.model.labels:
      # Of a model that learned labels its head is asked, of the one that it starts from words.
      source = "head" if name == names[-1] else "answers"
      read, where = config.reads(name), folder / "labels"
      labels[name] = modes.evaluate(config, params, source, where, modalities=read, of=of)
      print(f"labels, {name}, from its {source}\n{modes.table(labels[name])}")
  runs[MASKED] = _evaluated(config, params, folder / "evaluate_masked", (), of)
  print(table(runs))
  for text in _conversations(config, params):
    print(text)
  results = {
    **runs[names[-1]],
    "runs": runs,
    **({"labels": labels} if labels else {}),
    "data": "synthetic faces of held-out identities",
    "seconds": round(time.monotonic() - started, 1),
    "resumed": resumed and resume,
    "peak_rss_gb": round(memory_gib() * 2**30 / 1e9, 2),
  }
  (workdir / SUMMARY).write_text(json.dumps(results, indent=1) + "\n")
  print(f"{workdir / SUMMARY}, {report(workdir)}")
  return 0


def _prepare(config: RunConfig, workdir: Path, resume: bool, overwrite: bool) -> None:
  """Refuses what cannot work before anything trains; an earlier run's summary goes with the run."""
  first, stage = next(iter(config.stages.items()))
  if BASE in config.stages or not stage.init_from.endswith(".safetensors"):
    raise ValueError(
      f"stages.{first}.init_from='{stage.init_from}', stages {', '.join(config.stages)} - expected "
      f"a .safetensors file and no stage {BASE}: the demo evaluates the weights it starts from, in "
      f"{workdir / BASE} - use facejax train, then facejax evaluate"
    )
  summary = [path for name in _OWN if (path := workdir / name).exists()]
  if summary and not (resume or overwrite):
    raise FileExistsError(f"{summary[0]} is of an earlier demo; use --resume or --overwrite")
  prepare(config, workdir, list(config.stages), resume, overwrite)
  for path in summary if overwrite else ():
    path.unlink()


def _evaluated(
  config: RunConfig, params: dict, folder: Path, modalities: Sequence[str], of: str
) -> dict:
  """The results in the folder if they are of this evaluation, else new ones."""
  if found := finished(config, folder, modalities=modalities, of=of):
    print(f"{folder}: evaluated already")
    return found
  return evaluate(config, params, folder, modalities=modalities, of=of)


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
  source = open_source("synthetic", row_format(config.model, data), data)
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
