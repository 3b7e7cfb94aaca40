"""The official Face-LLaVA numbers, and what the script that compares them says when they differ."""

import dataclasses
import json
import lzma
import pathlib
import shutil
import sys

import numpy as np
import pytest
import second_variant

ROOT = pathlib.Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "face_llava"
sys.path.insert(0, str(ROOT / "experiments" / "parity"))

import face_llava_goldens as script  # noqa: E402
from face_llava import batches, end_to_end, folder, gradients, pixels, text, vision  # noqa: E402
from face_llava.report import Report  # noqa: E402


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  target = tmp_path_factory.mktemp("goldens")
  for file in GOLDENS.iterdir():
    if file.suffix == ".xz":
      (target / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    else:
      shutil.copyfile(file, target / file.name)
  return target


@pytest.fixture(scope="module")
def goldens(path):
  return folder.read(path)


@pytest.fixture(scope="module")
def models(goldens):
  return folder.load_models(goldens)


def only(goldens, *cases):
  """The same folder with these cases of e2e.npz and grads.json alone."""
  e2e = {n: x for n, x in goldens.e2e.items() if n.split(".")[0] in cases}
  grads = {n: x for n, x in goldens.grads.items() if n in cases}
  assert len(e2e) > 3 * len(cases)
  return goldens._replace(e2e=e2e, grads=grads)


def check(report, compared):
  """Nothing is beyond its tolerance; at least these names were compared."""
  assert report.failed == []
  assert set(compared) <= report.errors.keys()


def test_prompts_ids_and_labels(goldens):
  """Kills: another template or spacing, a placeholder lost, a label beside the answer, legacy ids
  for modern ones."""
  report = Report()
  text.compare(goldens, report)
  ids = [
    f"conversations.samples.{n}.legacy_{v}.input_ids" for n in range(7) for v in ("false", "true")
  ]
  check(report, ids)
  # The official code drops the loss of an answer that holds its separator.
  assert {n.split(".")[2] for n in report.differs_by_design} == {"5"}


def test_pixels_and_frame_numbers(goldens, models):
  """Kills: another kernel, crop offset, pad colour or order of steps; frames rounded up."""
  report = Report()
  pixels.compare(goldens, models["simple"].config, report)
  check(report, ["image.landscape.pad.antialias.rows.uint8", "video.pixel_values.sub", "pad_color"])
  assert "image.portrait.direct.antialias.rows" in report.errors


def test_vision_stages(goldens, models):
  """Kills: each line of the mutation table of the vision part: another activation, layer, head
  count, order of the landmarks, mask, axis order of the mask."""
  report = Report()
  vision.compare(goldens, models, report)
  check(report, [n for n in goldens.vision if n != "tok_idx"])


def test_two_pictures_end_to_end(goldens, models):
  """Kills: a splice at another place, an attention that sees padding, rotary positions, norms."""
  report = Report()
  end_to_end.compare(only(goldens, "img_simple"), models, report)
  names = ("input_ids", "labels", "spliced.labels", "loss", "logits.at_logit_pos_idx")
  check(report, [f"img_simple.{name}" for name in names])
  assert not report.notes


@pytest.mark.slow
def test_every_case_end_to_end(goldens, models):
  """Kills: clips laid out by frame, mixed batches out of order, a cut or a padding side that moves
  positions, a cache that loses a token."""
  report = Report()
  end_to_end.compare(goldens, models, report)
  check(report, [n for n in goldens.e2e if n.endswith(".logits.at_logit_pos_idx")])
  assert {"gen_img_simple.new_ids", "gen_vid_masked.scores"} <= report.errors.keys()
  assert set(report.differs_by_design) == {"truncated_all.loss"}


@pytest.mark.slow
def test_gradients(goldens, models):
  """Kills: a stop_gradient, a gradient through the frozen encoders' features at another scale."""
  report = Report()
  gradients.compare(goldens, models, report)
  check(
    report, [f"gradients.{case}.total_norm" for case in ("img_simple", "vid_simple", "vid_masked")]
  )


def test_the_report_sees_a_difference():
  """Kills: errors that are averaged, shapes that broadcast, NaN that compares as small."""
  report = Report()
  report.compare(
    {
      "a": np.zeros(2),
      "b.stats": np.array([0.0, 4.0, 2.0]),
      "c": np.arange(3),
      "d": np.zeros(2),
      "e": np.zeros(1),
      "f": np.arange(2),
    },
    {"a": [0, 2e-4], "b.stats": [1e-3, 4.0, 2.0], "c": [0, 5, 2], "d": [[0, 0]], "e": [np.nan]},
  )
  report.rest(["a", "f"])
  inf = float("inf")
  assert report.errors == pytest.approx({"a": 2e-4, "b.stats": 5e-4, "c": 1, "d": inf, "e": inf})
  assert report.failed == ["a", "b.stats", "c", "d", "e"]
  assert report.not_compared == {"f": "no comparison is written for it"}
  assert script.reasons({"x": "why", "a": "why", "b": "else"}) == ["- a, x: why", "- b: else"]
  assert report.json()["d"] is None and report.json()["_failed"] == report.failed


@pytest.mark.slow
def test_the_vision_stages_see_another_setting(goldens, models):
  """Kills: a comparison of a thing with itself; settings of the fusion that nobody reads."""

  def altered(model, **fusion):
    config = model.config
    config = dataclasses.replace(config, fusion=dataclasses.replace(config.fusion, **fusion))
    return model._replace(run=dataclasses.replace(model.run, model=config))

  report = Report()
  changed = {
    "simple": altered(models["simple"], heads=4),
    "masked": altered(models["masked"], grid="xy"),
  }
  vision.compare(goldens, changed, report)
  failed = {n for n in report.failed if not n.endswith(".stats")}
  assert {"image.cross_attn_simple.tok", "image.fused_simple.sample1.tok"} <= failed
  assert {"video.cross_attn_masked.tok", "video.fused_masked.tok"} <= failed
  stages = {"fused_simple", "cross_attn_simple", "cross_attn_masked", "fused_masked"}
  assert {n.split(".")[1] for n in failed} == stages


def test_a_case_that_cannot_be_built_fails_alone(goldens, models):
  """Kills: a row taken for the nearest conversation, one bad case that ends the comparison."""
  changed = only(goldens, "img_simple")
  ids = changed.e2e["img_simple.input_ids"].copy()
  ids[1, 5] += 1
  report = Report()
  changed = changed._replace(e2e=changed.e2e | {"img_simple.input_ids": ids})
  end_to_end.compare(changed, models, report)
  assert report.failed == ["img_simple"]
  assert (
    "row 1 of img_simple.input_ids is no sample of conversations.json" in report.notes["img_simple"]
  )


def test_visual_tokens_collapse_to_one_placeholder_each():
  """Kills: blocks counted from another start, a block that is too short or too many."""
  visual = np.array([0, 1, 1, 1, 0, 1, 1, 0], bool)
  values = np.arange(8)
  got = batches.collapse(values, visual, [2, 1, 2], -200)
  assert got.tolist() == [0, -200, -200, 4, -200, 7]
  with pytest.raises(ValueError, match=r"3 blocks of visual tokens, expected 4"):
    batches.collapse(values, visual, [2, 1, 2, 2], -200)
  with pytest.raises(ValueError, match=r"visual tokens at 5 are no block of \[3\]"):
    batches.collapse(values, visual, [2, 1, 3], -200)


@pytest.mark.slow
def test_a_folder_of_other_sizes(tmp_path):
  """Kills: a size, head count, frame count or length of the official folder that is taken for
  granted. Its numbers come from loops."""
  second_variant.write(tmp_path)
  report = script.compare(tmp_path, ("vision", "end_to_end"))
  compared = [n for n in np.load(tmp_path / "vision.npz").files if n != "tok_idx"]
  compared += [n for n in np.load(tmp_path / "e2e.npz").files if not n.endswith("_pos_idx")]
  check(report, compared)
  assert not report.not_compared


def damaged(path, target, name, content):
  """A copy of the folder by links, with one file of other content, or without it."""
  target.mkdir()
  for file in path.iterdir():
    if file.name != name:
      (target / file.name).symlink_to(file)
  if content is not None:
    (target / name).write_bytes(content)
  return target


@pytest.mark.parametrize(
  ("name", "content", "error", "message"),
  [
    ("e2e.npz", None, FileNotFoundError, r"lacks e2e.npz - expected a folder"),
    ("vision.npz", b"PK\3\4 cut", ValueError, r"vision.npz is no NumPy archive"),
    ("grads.json", b"{", ValueError, r"grads.json is not JSON"),
    ("grads.json", b"[1]", ValueError, r"grads.json holds a list, expected an object"),
    ("conversations.json", b"{}", ValueError, r"no samples, templates in inputs.npz or conv"),
    ("weights_masked_cross_attn.safetensors", b"x" * 20, ValueError, r"is no safetensors file"),
    ("weights.safetensors", b"x" * 20, ValueError, r"weights.safetensors"),
  ],
)
def test_a_damaged_folder_is_refused(path, tmp_path, name, content, error, message):
  """Kills: each check; a file that is read as empty."""
  with pytest.raises(error, match=message):
    folder.load_models(folder.read(damaged(path, tmp_path / "folder", name, content)))


def run(monkeypatch, folder_path, out, *more):
  monkeypatch.setattr(sys, "argv", ["goldens", str(folder_path), "--json", str(out), *more])
  return script.main()


def test_the_script_says_what_it_found(path, tmp_path, monkeypatch, capsys):
  """Kills: another exit status, errors that are not written, a failure that is not named."""
  out = tmp_path / "out.json"
  assert run(monkeypatch, path, out, "--only", "text") == 0
  written = json.loads(out.read_text())
  assert written["conversations.samples.0.legacy_false.input_ids"] == 0
  assert written["_failed"] == [] and "conversations.templates.v0" in written["_not_compared"]
  stored = json.loads((path / "conversations.json").read_text())
  stored["samples"][2]["legacy_false"]["labels"][-1] = 5
  other = damaged(path, tmp_path / "other", "conversations.json", json.dumps(stored).encode())
  assert run(monkeypatch, other, out, "--only", "text") == 1
  assert json.loads(out.read_text())["_failed"] == ["conversations.samples.2.legacy_false.labels"]
  assert "1 beyond their tolerance" in capsys.readouterr().out
  assert run(monkeypatch, tmp_path / "none", out) == 2
  assert "lacks" in capsys.readouterr().err
