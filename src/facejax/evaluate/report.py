"""A run's folder -> report.html, one file with its pictures in it, and report/*.png."""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from facejax import checkpoint
from facejax.config import RunConfig
from facejax.data.pipeline import row_format
from facejax.data.rows import collate, encode
from facejax.evaluate import figures
from facejax.evaluate.run import HEADLINES, medium
from facejax.faces import synthetic
from facejax.models.face_mllm import FaceMLLM
from facejax.types import Sample, Turn
from facejax.visual_table import VisualTable

FACES = 5  # shown with their questions and answers
ATTENTION_FACES = 2

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border: 1px solid #8888; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; background: white; border-radius: 4px; }
.right { color: light-dark(#14692b, #7ddc96); font-weight: 600; }
.wrong { color: light-dark(#a81e1e, #ff9a8f); font-weight: 600; }
small { opacity: .75; }
"""


@dataclasses.dataclass(frozen=True)
class Run:
  """One evaluation found in a run's folder."""

  name: str
  folder: Path
  results: dict

  @property
  def masked(self) -> bool:
    """Whether it is the evaluation of a stage with inputs left out."""
    return self.folder.name.startswith("evaluate") and self.folder.name != "evaluate"


def report(workdir: Path) -> Path:
  """Writes and returns workdir/report.html; its pictures are in workdir/report/ too.

  Raises FileNotFoundError if there is no checkpoint or no evaluation.
  """
  workdir = Path(workdir)
  config, params, stage_dir = checkpoint.load_run(workdir)
  runs = find_runs(workdir)
  last = [run for run in runs if not run.masked][-1:] or runs[-1:]
  drawn = [_face(config, seed) for seed in range(max(1, min(FACES, last[0].results["faces"])))]
  pictures = {}
  if curves := _curves(workdir, config):
    pictures["losses"] = figures.losses(curves)
  if matrices := last[0].results.get("confusion"):
    pictures["confusions"] = figures.confusions(matrices)
  pictures["faces"] = figures.faces(drawn)
  for i, weights in enumerate(attention(config, params, drawn[:ATTENTION_FACES])):
    pictures[f"attention_{i}"] = figures.attention(drawn[i], weights)
  folder = workdir / "report"
  folder.mkdir(exist_ok=True)
  images = {name: _png(figure, folder / f"{name}.png") for name, figure in pictures.items()}
  path = workdir / "report.html"
  path.write_text(_page(workdir.absolute().name, stage_dir.name, runs, last[0], images))
  return path


def find_runs(workdir: Path) -> list[Run]:
  """The evaluations of a folder, oldest first: STAGE/evaluate*/results.json, NAME/results.json."""
  paths = [*workdir.glob("*/results.json"), *workdir.glob("*/evaluate*/results.json")]
  if not paths:
    raise FileNotFoundError(
      f"{workdir} has no evaluation: expected STAGE/evaluate/results.json - run "
      f"facejax evaluate --workdir {workdir} first"
    )
  runs = []
  for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, str(path))):
    stage, *below = path.parent.relative_to(workdir).parts
    suffix = "".join(below).removeprefix("evaluate").strip("-_").replace("_", " ")
    name = f"{stage}, {suffix}" if suffix else stage
    runs.append(Run(name, path.parent, json.loads(path.read_text())))
  return runs


def _curves(workdir: Path, config: RunConfig) -> dict[str, list[dict]]:
  """The records of each stage's metrics.jsonl, in the order of the stages."""
  curves = {}
  for stage in config.stages:
    path = workdir / stage / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    if lines:
      curves[stage] = [record for record in map(json.loads, lines) if "loss" in record]
  return {stage: records for stage, records in curves.items() if records}


def _face(config: RunConfig, seed: int) -> synthetic.Face:
  return synthetic.face(seed, size=config.model.image.image_size, split=config.evaluate.split)


def attention(
  config: RunConfig, params: Any, drawn: Sequence[synthetic.Face]
) -> Sequence[Float[np.ndarray, "P R"]]:
  """Fusion weights of each face, the mean over heads; none if the model does not read landmarks."""
  if config.model.fusion is None or "landmarks" not in config.data.modalities or not drawn:
    return []
  table = VisualTable(config.model, images=1, videos=0)
  form = dataclasses.replace(
    row_format(config.model, config.data), table=table, length=config.model.decoder.max_length
  )
  question = (Turn("human", "<image>"),)
  rows = [
    encode([Sample(f"face {i}", question, (medium(face),))], [i], form, prompt=True)
    for i, face in enumerate(drawn)
  ]
  model = FaceMLLM(config.model)

  @jax.jit
  def weights(params, batch):
    _, out = model.apply({"params": params}, batch, method="embed")
    return out["image/fusion/weights"][:, 0].mean(1)

  return list(np.asarray(weights(params, collate(rows))))


def _png(figure: Figure, path: Path) -> str:
  """Saves a figure; its <img> with the bytes in it."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=110)
  path.write_bytes(buffer.getvalue())
  data = base64.b64encode(buffer.getvalue()).decode()
  return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'


def _page(name: str, stage: str, runs: Sequence[Run], last: Run, images: Mapping[str, str]) -> str:
  say = html.escape
  n, split = last.results["faces"], last.results["split"]
  parts = [
    f"<h1>{say(name)}</h1>",
    "<p><strong>All faces here are synthetic faces</strong>, drawn by facejax: no photograph of a "
    "person was used, and the scores say nothing about photographs. Scores are of "
    f"{n} faces of the split {say(split)}, whose identities were not trained on, with 95&nbsp;% "
    "bootstrap intervals over faces. An answer that states no label counts as the worst one.</p>",
    "<h2>Results</h2>",
    results_table(runs),
  ]
  if "losses" in images:
    parts += ["<h2>Training loss</h2>", images["losses"]]
  if "confusions" in images:
    parts += [f"<h2>Confusion, {say(last.name)}</h2>", images["confusions"]]
  parts += [
    f"<h2>Held-out faces and answers, {say(last.name)}</h2>",
    "<p>Above the pixels, then the landmarks on them, then the class map. Columns are faces 0, 1, "
    "...</p>",
    images["faces"],
    answers_table(last.folder / "predictions.jsonl"),
  ]
  maps = [images[key] for key in images if key.startswith("attention")]
  if maps:
    parts += [
      f"<h2>Attention to face regions, {say(stage)}</h2>",
      "<p>How much each patch of the picture looks at each region's landmark token, the mean over "
      "heads. Bright is more; each panel has its own scale.</p>",
      *maps,
    ]
  body = "\n".join(parts)
  return (
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{say(name)}: report</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body>\n"
    "</html>\n"
  )


def results_table(runs: Sequence[Run]) -> str:
  """The evaluations side by side, as HTML."""
  say = html.escape
  rows = [["", *(say(run.name) for run in runs)]]
  rows.append(["inputs besides pixels", *(say(_inputs(run)) for run in runs)])
  for key, words in HEADLINES.items():
    if any(key in run.results for run in runs):
      rows.append([say(words), *(_cell(run.results.get(key)) for run in runs)])
  failed = lambda run: (
    f"{sum(run.results['parse_failures'].values())} of "
    + str(run.results["faces"] * len(run.results["parse_failures"]))
  )
  rows.append(["answers without a label", *(failed(run) for run in runs)])
  head = "".join(f"<th>{cell}</th>" for cell in rows[0])
  body = "\n".join(
    f"<tr><th>{first}</th>" + "".join(f'<td class="number">{c}</td>' for c in rest) + "</tr>"
    for first, *rest in rows[1:]
  )
  return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _inputs(run: Run) -> str:
  return ", ".join(run.results["modalities"]) or "none"


def _cell(interval: Mapping | None) -> str:
  if interval is None:
    return "–"
  return "{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>".format(**interval)


def answers_table(predictions: Path) -> str:
  """The first faces' questions, answers, truths and verdicts, as HTML."""
  records = [json.loads(line) for line in predictions.read_text().splitlines()]
  shown = sorted((r for r in records if r["face"] < FACES), key=lambda r: r["face"])
  rows = ["<tr><th>face</th><th>question</th><th>answer</th><th>truth</th><th></th></tr>"]
  for record in shown:
    right, words = verdict(record)
    question = record["prompt"].split("<image>\n")[-1].removesuffix(" ASSISTANT:")
    cells = [str(record["face"]), question, record["answer"], _words(record["truth"])]
    rows.append(
      "<tr>"
      + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
      + f'<td class="{"right" if right else "wrong"}">{html.escape(words)}</td></tr>'
    )
  return "<table>\n" + "\n".join(rows) + "\n</table>"


def _words(label: Any) -> str:
  if isinstance(label, bool):
    return "fake" if label else "real"
  if isinstance(label, list):
    return ", ".join(f"AU{x}" if isinstance(x, int) else x for x in label) or "none"
  return f"{label:g} years" if isinstance(label, float) else str(label)


def verdict(record: Mapping) -> tuple[bool, str]:
  """Whether an answer is right (an age: within 5 years), and the same in words."""
  parsed, truth = record["parsed"], record["truth"]
  if parsed is None:
    return False, "✗ states no label"
  if record["task"] == "age":
    error = abs(parsed - truth)
    return error <= 5, f"{'✓' if error <= 5 else '✗'} off by {error:g} years"
  if isinstance(truth, list) and parsed != truth:
    missed, extra = sorted(set(truth) - set(parsed)), sorted(set(parsed) - set(truth))
    lists = [("missed", missed), ("extra", extra)]
    return False, "✗ " + "; ".join(f"{word} {_words(x)}" for word, x in lists if x)
  return parsed == truth, "✓ right" if parsed == truth else "✗ wrong"
