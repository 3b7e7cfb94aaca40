"""A workdir -> report.html, one file with its pictures in it; the pictures are in report/ too.

    results.json, */evaluate*/results.json  -> scores of all runs side by side
    STAGE/metrics.jsonl                     -> loss curves
    last stage: evaluate/results.json       -> confusion matrices
    last stage: evaluate/predictions.jsonl  -> the first faces, with questions and answers
    last stage: checkpoint                  -> where the landmark tokens are looked at

A section whose input is missing is one sentence that says what to run.
"""

import base64
import dataclasses
import functools
import html
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from facejax import checkpoint, logs
from facejax.config import RunConfig
from facejax.data.pipeline import row_format
from facejax.data.rows import collate, encode
from facejax.evaluate import figures
from facejax.evaluate.fairness import LEAST
from facejax.evaluate.run import HEADLINES, medium
from facejax.faces import synthetic
from facejax.models.face_mllm import FaceMLLM
from facejax.types import Batch, Sample, Turn
from facejax.visual_table import VisualTable

FACES = 6  # shown with their answers
ATTENTION_FACES = 2
NEAR = 5  # years: an age not further off is marked as right (our choice)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; }
.right { color: #11602a; font-weight: 600; }
.wrong { color: #a01818; font-weight: 600; }
.missing { color: #555; font-style: italic; }
small { color: #555; }
"""


def report(workdir: Path) -> Path:
  """Writes workdir/report.html and workdir/report/*.png; returns the path of the page.

  Raises FileNotFoundError if the workdir has no checkpoint, ValueError if a file is damaged.
  """
  workdir = Path(workdir)
  config, params, stage_dir = checkpoint.load_run(workdir)
  folder = workdir / "report"
  folder.mkdir(exist_ok=True)
  predictions = _predictions(stage_dir)
  path = stage_dir / "evaluate" / "results.json"
  results = _json(path) if path.is_file() else {}
  seeds = list(dict.fromkeys(r["face"] for r in predictions))[:FACES] or list(range(FACES))
  split = results.get("split", config.evaluate.split)
  size = max(config.model.image.image_size, synthetic.MIN_SIZE)
  drawn = {seed: synthetic.face(seed, size=size, split=split) for seed in seeds}
  step = checkpoint.steps_in(stage_dir)[-1]
  name = html.escape(workdir.absolute().name)
  parts = [
    f"<h1>{name}</h1>",
    _what_faces(split, held_out=split != config.data.synthetic.split),
    f"<p>Last stage: {html.escape(stage_dir.name)}, step {step}.</p>",
    _results(workdir),
    _losses(workdir, config, folder),
    _confusion(results, stage_dir, folder),
    _groups(results, stage_dir),
    _samples(predictions, drawn, stage_dir, folder),
    _attention(config, params, stage_dir, dict(list(drawn.items())[:ATTENTION_FACES]), folder),
  ]
  path = workdir / "report.html"
  body = "\n".join(parts)
  path.write_text(
    f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name}: report</title>'
    f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n",
    encoding="utf-8",
  )
  return path


def _what_faces(split: str, *, held_out: bool) -> str:
  """What nobody who looks at the page may miss."""
  if held_out:
    kind, identities = "synthetic and held out", "no identity among them was trained on"
  else:
    kind, identities = "synthetic and not held out", "the model may have been trained on them"
  return (
    f"<p><strong>All faces here are {kind}</strong>: facejax drew them (split "
    f"{html.escape(split)}), and {identities}. No photograph of a person was used, so the scores "
    "say nothing about photographs.</p>"
  )


def find_runs(workdir: Path) -> dict[str, dict]:
  """Name -> results of all evaluations: those of results.json, then others that folders hold."""
  summary = workdir / "results.json"
  runs: dict[str, dict] = dict(_json(summary).get("runs", {})) if summary.is_file() else {}
  paths = [*workdir.glob("*/results.json"), *workdir.glob("*/evaluate*/results.json")]
  for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, str(path))):
    results = _json(path)
    if results not in runs.values():
      folder = path.parent.relative_to(workdir)
      runs[str(folder.parent if folder.name == "evaluate" else folder)] = results
  return runs


def _json(path: Path) -> dict:
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f"{path} is no JSON ({error}) - expected what an evaluation wrote - run it again"
    ) from error


def _predictions(stage_dir: Path) -> list[dict]:
  """The records of a stage's predictions.jsonl; [] if there is none."""
  path = stage_dir / "evaluate" / "predictions.jsonl"
  try:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
  except ValueError as error:
    raise ValueError(
      f"{path} has a line that is no JSON ({error}) - expected what an evaluation wrote - run it "
      "again"
    ) from error


def _missing(what: str, remedy: str) -> str:
  return f'<p class="missing">{html.escape(what)} - {html.escape(remedy)}.</p>'


def _results(workdir: Path) -> str:
  """The table of all runs."""
  title = "<h2>Results</h2>\n"
  if not (runs := find_runs(workdir)):
    return title + _missing(
      "Nothing was evaluated yet", f"run facejax evaluate --workdir {workdir}"
    )
  rows = [
    [words, *(_cell(run.get(key)) for run in runs.values())]
    for key, words in HEADLINES.items()
    if any(key in run for run in runs.values())
  ]
  rows.append(["answers without a label", *map(_failed, runs.values())])
  rows.append(["picture and", *(", ".join(r["modalities"]) or "nothing" for r in runs.values())])
  rows.append(["faces", *(f"{run['faces']} ({run['split']})" for run in runs.values())])
  head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *runs))
  body = "\n".join(
    f"<tr><th>{html.escape(first)}</th>"
    + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in rest)
    + "</tr>"
    for first, *rest in rows
  )
  note = (
    "[95 % bootstrap interval over faces]. An answer that states no label counts as the worst "
    "possible one. The error of ages is better lower, all else higher."
  )
  return f"{title}<table>\n<tr>{head}</tr>\n{body}\n</table>\n<p><small>{note}</small></p>"


def _cell(metric: Mapping | None) -> str:
  if metric is None or metric["value"] is None:
    return "–"
  return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metric)


def _failed(run: Mapping) -> str:
  failed = run["parse_failures"]
  return f"{sum(failed.values())} of {run['faces'] * len(failed)}"


def _losses(workdir: Path, config: RunConfig, folder: Path) -> str:
  title = "<h2>Training loss</h2>\n"
  records = {s: logs.read_until(workdir / s / "metrics.jsonl", sys.maxsize) for s in config.stages}
  curves = {stage: lines for stage, lines in records.items() if lines}
  if not curves:
    return title + _missing("No stage has a metrics.jsonl", "train writes it as it goes")
  return title + _png(figures.losses(curves), folder / "losses.png", "loss against the step")


def _confusion(results: Mapping, stage_dir: Path, folder: Path) -> str:
  title = f"<h2>Confusion, {html.escape(stage_dir.name)}</h2>\n"
  if not (matrices := results.get("confusion")):
    return title + _missing(f"{stage_dir.name} has no confusion matrices", "evaluate it first")
  image = _png(figures.confusions(matrices), folder / "confusion.png", "confusion matrices")
  return f"{title}<p>Faces of each true class (row) by the class that the answer states.</p>{image}"


def _groups(results: Mapping, stage_dir: Path) -> str:
  """Every metric by group, and how far the worst group is behind the best."""
  title = f"<h2>Groups, {html.escape(stage_dir.name)}</h2>\n"
  if not (found := results.get("fairness")):
    return title + _missing(f"{stage_dir.name} has no results by group", "evaluate it first")
  kinds = dict.fromkeys(kind for tasks in found.values() for kind in tasks)
  parts = [
    f"{title}<p>Metrics by groups of synthetic faces. Worst and best of the groups of at least "
    f"{LEAST} faces are picked by their values: over several groups some gap always shows.</p>"
  ]
  for kind in kinds:
    tasks = [tasks[kind] for tasks in found.values() if kind in tasks]
    names = list(dict.fromkeys(name for task in tasks for name in task["groups"]))
    metrics = [
      key for key in HEADLINES if any(key in g for t in tasks for g in t["groups"].values())
    ]
    merged = {
      name: {k: v for t in tasks for k, v in t["groups"].get(name, {}).items()} for name in names
    }
    gaps = {k: v for task in tasks for k, v in task["gaps"].items()}
    rows = [["", "faces", *(HEADLINES[key] for key in metrics)]]
    rows += [
      [f"{kind} {n}", str(g["n"]), *(_cell(g.get(k)) for k in metrics)] for n, g in merged.items()
    ]
    rows.append(["gap", "", *(_gap(gaps.get(key)) for key in metrics)])
    lines = "\n".join(
      "<tr>" + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in row) + "</tr>"
      for row in rows
    )
    parts.append(f"<table>\n{lines}\n</table>")
  return "\n".join(parts)


def _gap(gap: Mapping | None) -> str:
  return f"{_cell(gap['gap'])}, {gap['worst']} behind {gap['best']}" if gap else "–"


def _samples(
  predictions: Sequence[Mapping],
  drawn: Mapping[int, synthetic.Face],
  stage_dir: Path,
  folder: Path,
) -> str:
  """The first faces with all that was asked about them; not chosen by how they went."""
  title = f"<h2>Faces and answers, {html.escape(stage_dir.name)}</h2>\n"
  if not predictions:
    return title + _missing(f"{stage_dir.name} has no predictions.jsonl", "evaluate it first")
  parts = [
    f"{title}<p>The first {len(drawn)} synthetic faces, not a choice of good ones. Pixels, 68 "
    f"landmarks, class map. An age counts as right here if it is within {NEAR} years.</p>"
  ]
  for seed, face in drawn.items():
    image = _png(figures.face(face), folder / f"face_{seed}.png", f"synthetic face {seed}")
    rows = ["<tr><th>question</th><th>answer</th><th>truth</th><th></th></tr>"]
    for record in (r for r in predictions if r["face"] == seed):
      right, words = verdict(record)
      question = record["prompt"].split("<image>\n")[-1].rsplit(" ", 1)[0]  # without "ASSISTANT:"
      cells = (question, record["answer"], _words(record["truth"]))
      rows.append(
        "<tr>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + f'<td class="{"right" if right else "wrong"}">{html.escape(words)}</td></tr>'
      )
    lines = "\n".join(rows)
    parts.append(f"<h3>Synthetic face {seed}</h3>\n{image}\n<table>\n{lines}\n</table>")
  return "\n".join(parts)


def _words(label: Any) -> str:
  """A label of predictions.jsonl in words."""
  if isinstance(label, bool):
    return "fake" if label else "real"
  if isinstance(label, list):
    return ", ".join(f"AU{x}" if isinstance(x, int) else x for x in label) or "none"
  return label if isinstance(label, str) else f"{label:g} years"


def verdict(record: Mapping) -> tuple[bool, str]:
  """Whether a prediction is right, and the same in words."""
  label, truth = record["parsed"], record["truth"]
  if label is None:
    return False, "✗ states no label"
  if record["task"] == "age":
    error = abs(label - truth)
    return error <= NEAR, f"{'✓' if error <= NEAR else '✗'} off by {error:g} years"
  if isinstance(truth, list) and set(label) != set(truth):
    lists = (("missed", set(truth) - set(label)), ("wrongly", set(label) - set(truth)))
    return False, "✗ " + "; ".join(f"{word} {_words(sorted(x))}" for word, x in lists if x)
  same = set(label) == set(truth) if isinstance(truth, list) else label == truth
  return same, "✓ right" if same else "✗ wrong"


def _attention(
  config: RunConfig,
  params: Any,
  stage_dir: Path,
  drawn: Mapping[int, synthetic.Face],
  folder: Path,
) -> str:
  title = f"<h2>Attention to face regions, {html.escape(stage_dir.name)}</h2>\n"
  if config.model.fusion is None or "landmarks" not in config.reads(stage_dir.name):
    return title + _missing(
      f"{stage_dir.name} does not read landmarks", "a later stage has this section"
    )
  weights = attention(config, params, list(drawn.values()))
  images = [
    _png(figures.attention(face, w), folder / f"attention_{seed}.png", f"attention, face {seed}")
    for (seed, face), w in zip(drawn.items(), weights, strict=True)
  ]
  return (
    f"{title}<p>How much each patch of the picture looks at the landmark token of each of the nine "
    "regions: the mean over heads; over the regions it sums to 1, so 0.11 is looking everywhere "
    "alike. Each panel has its own scale, whose ends its title gives. Dots are the region's "
    "landmarks.</p>\n" + "\n".join(images)
  )


def attention(
  config: RunConfig, params: Any, drawn: Sequence[synthetic.Face]
) -> Float[np.ndarray, "faces P R"]:
  """Fusion weights of each face, the mean over heads. The model must have a fusion."""
  form = dataclasses.replace(
    row_format(config.model, config.data),
    table=VisualTable(config.model, images=1, videos=0),
    length=config.model.decoder.max_length,
    modalities=("landmarks",),
  )
  question = (Turn("human", "<image>"),)
  noise = config.data.synthetic.landmark_noise
  samples = [
    Sample(f"face {i}", question, (medium(face, i, noise),)) for i, face in enumerate(drawn)
  ]
  rows = [encode([sample], [i], form, prompt=True) for i, sample in enumerate(samples)]
  return np.asarray(_weights(FaceMLLM(config.model), params, collate(rows)), np.float32)


@functools.partial(jax.jit, static_argnames="model")
def _weights(model: FaceMLLM, params: Any, batch: Batch) -> jax.Array:
  _, out = model.apply({"params": params}, batch, method="embed")
  return out["image/fusion/weights"][:, 0].mean(axis=1)


def _png(figure: Figure, path: Path, words: str) -> str:
  """Saves a figure; its <img> with the bytes in it."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=110)
  path.write_bytes(buffer.getvalue())
  data = base64.b64encode(buffer.getvalue()).decode()
  return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
