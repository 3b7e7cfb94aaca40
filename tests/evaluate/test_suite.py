"""A benchmark asked item by item: what is stored, killed, gone on with, refused and compared."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import facexbench_folder
import jax
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))
import saved_run

from facejax import bases, checkpoint, config_io
from facejax.config import MeshConfig
from facejax.evaluate import compare, predictions, suite, tables
from facejax.evaluate.benchmarks import open_benchmark
from facejax.evaluate.judge.items import Source, load
from facejax.generate import Answer, Sampling
from facejax.sharding import make_mesh
from facejax.types import Sample

ROOT = Path(__file__).parents[2]


def small_config(rows: int = 3):
  return config_io.load(
    ROOT / "configs/demo.py", [f"evaluate.rows={rows}", "evaluate.bootstrap=30"]
  )


class Says:
  """An answerer that says what `words(sample)` says, and keeps what it was asked."""

  def __init__(self, words=lambda sample: "A", stop_after: int | None = None):
    self.words, self.stop_after = words, stop_after
    self.calls: list[tuple[list[str], Sampling, int]] = []

  def answer(self, samples, sampling, seed=0):
    if self.stop_after is not None and len(self.calls) == self.stop_after:
      raise KeyboardInterrupt
    assert all(isinstance(s, Sample) for s in samples)
    self.calls.append(([s.id for s in samples], sampling, seed))
    return [Answer(self.words(s), (1,), True) for s in samples]

  @property
  def asked(self) -> list[str]:
    return [name for ids, _, _ in self.calls for name in ids]


def model(answerer, **changes):
  return suite.Model(
    **{
      "config": small_config(),
      "answerer": answerer,
      "checkpoint": "made up",
      "digest": "0123abcd",
      **changes,
    }
  )


@pytest.fixture
def folder(tmp_path):
  """Seven questions about several pictures and five about one, with pictures of 16 pixels."""
  place = tmp_path / "benchmark"
  place.mkdir()
  facexbench_folder.write(place, "wmca_multiple_mcq", "fas_deepfakes", 7)
  facexbench_folder.write(place, "utkface_single_mcq_gender_test", "bias_fairness", 5)
  facexbench_folder.draw(place)
  return place


def opened(folder, **options):
  return open_benchmark("facexbench", folder, {"partial": "true", **options})


def test_what_is_stored(folder, tmp_path):
  """Kills: a prompt that is not the one asked, settings that are not said, other items scored."""
  says = Says(lambda sample: "(B) so")
  benchmark = opened(folder)
  results = suite.evaluate(benchmark, model(says), tmp_path / "out")
  assert sorted(says.asked) == sorted(i.id for i in benchmark.items) and len(says.calls) == 4
  header, records = predictions.read(tmp_path / "out")
  assert header["parser"] == "facexbench/official/1" and header["checkpoint"] == "0123abcd"
  assert header["tiling"]["max_tiles"] == 1 and header["template"] == "vicuna_v1"
  assert header["decoding"]["new_tokens"] == benchmark.new_tokens == says.calls[0][1].new_tokens
  assert header["benchmark.setting"] == "zero_shot" and header["items"] == 12
  assert [r["id"] for r in records] == sorted(says.asked)
  record = next(r for r in records if r["id"] == "wmca_multiple_mcq/1")
  item = next(i for i in benchmark.items if i.id == record["id"])
  assert record["prompt"].endswith(f"USER: {item.prompt} ASSISTANT:")
  assert record["prompt"].startswith("A chat between a curious user")
  assert (record["answer"], record["parsed"], record["truth"]) == ("(B) so", "B", "B")
  assert record["choices"] == list(item.choices) and record["groups"] == item.groups
  assert record["question"] == item.prompt
  assert record["media"] == [["image", medium.path] for medium in item.media]
  judged = load([Source("this", tmp_path / "out")], {"": folder})
  assert [i.id for i in judged] == [f"facexbench/{r['id']}" for r in records]
  assert all(path.is_file() for i in judged for _, path in i.media) and len(judged[0].media) == 1
  truths = [i.truth for i in benchmark.items]
  assert results["scores"]["accuracy"]["value"] == pytest.approx(100 * truths.count("B") / 12)
  assert json.loads((tmp_path / "out/results.json").read_text()) == results
  assert results["speed"]["asked"] == 12


def test_goes_on_where_it_was_stopped(folder, tmp_path):
  """Kills: items asked twice or never, other batches or draws after a stop, a torn line kept."""
  whole = Says(lambda s: s.id)
  suite.evaluate(opened(folder), model(whole), tmp_path / "whole")
  part = Says(lambda s: s.id, stop_after=2)
  with pytest.raises(KeyboardInterrupt):
    suite.evaluate(opened(folder), model(part), tmp_path / "out")
  path = tmp_path / "out" / "predictions.jsonl"
  lines = path.read_bytes().splitlines(keepends=True)
  assert len(lines) == 1 + 6
  path.write_bytes(b"".join(lines[:6]) + lines[6][:20])  # killed while it wrote the sixth
  rest = Says(lambda s: s.id)
  results = suite.evaluate(opened(folder), model(rest), tmp_path / "out")
  assert rest.calls == whole.calls[1:] and results["speed"]["asked"] == 7
  assert predictions.read(tmp_path / "out") == predictions.read(tmp_path / "whole")
  again = Says()
  suite.evaluate(opened(folder), model(again), tmp_path / "out")
  assert not again.calls


_KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import test_suite
from facejax.evaluate import suite
class Dies(test_suite.Says):
  def answer(self, samples, sampling, seed=0):
    if len(self.calls) == 3:
      os.kill(os.getpid(), signal.SIGKILL)
    return super().answer(samples, sampling, seed)
says = Dies(lambda s: s.id)
out = test_suite.Path({out!r})
suite.evaluate(test_suite.opened({folder!r}), test_suite.model(says), out)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing_it_stored(folder, tmp_path):
  """Kills: records in a buffer of the process, a lock that outlives it."""
  code = _KILLED.format(
    paths=[str(Path(__file__).parent)], folder=str(folder), out=str(tmp_path / "out")
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
  assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
  assert len(predictions.read(tmp_path / "out")[1]) == 9
  rest, whole = Says(lambda s: s.id), Says(lambda s: s.id)
  suite.evaluate(opened(folder), model(rest), tmp_path / "out")
  suite.evaluate(opened(folder), model(whole), tmp_path / "whole")
  assert rest.calls == whole.calls[3:]
  assert predictions.read(tmp_path / "out") == predictions.read(tmp_path / "whole")
  assert (tmp_path / "out/results.json").is_file() and os.getpid()


def test_another_run_is_refused(folder, tmp_path):
  """Kills: answers of two checkpoints or two prompts in one table."""
  suite.evaluate(opened(folder), model(Says()), tmp_path / "out")
  with pytest.raises(ValueError, match=r"checkpoint: '0123abcd' -> 'ffff'"):
    suite.evaluate(opened(folder), model(Says(), digest="ffff"), tmp_path / "out")
  with pytest.raises(ValueError, match=r"benchmark\.setting: 'zero_shot' -> 'in_context'"):
    suite.evaluate(opened(folder, setting="in_context"), model(Says()), tmp_path / "out")
  with pytest.raises(ValueError, match="limit: None -> 4"):
    suite.evaluate(opened(folder), model(Says()), tmp_path / "out", suite.Terms(limit=4))
  terms = suite.Terms(limit=4, overwrite=True)
  says = Says()
  assert suite.evaluate(opened(folder), model(says), tmp_path / "out", terms)["n"] == 4
  assert len(says.asked) == 4 and len(predictions.read(tmp_path / "out")[1]) == 4


def test_another_parser_reads_the_stored_answers(folder, tmp_path):
  """Kills: a second parser that asks the model again, or scores of the first one's labels."""
  says = Says(lambda s: "A person, so (B)")
  first = suite.evaluate(opened(folder), model(says), tmp_path / "out")
  none = Says()
  second = suite.evaluate(opened(folder, extraction="strict"), model(none), tmp_path / "out")
  assert not none.calls and first["scores"] != second["scores"]
  header, records = predictions.read(tmp_path / "out")
  assert header["parser"] == "facexbench/strict/1" and {r["parsed"] for r in records} == {"B"}


def test_missing_pictures_stop_before_anything_is_asked(folder, tmp_path):
  """Kills: hours of answers before the first missing file; another denominator."""
  gone = [folder / "images/wmca_multiple_mcq" / f"question_{n}_1.png" for n in (2, 5)]
  kept = gone[0].read_bytes()
  for path in gone:
    path.unlink()
  says = Says(lambda s: "A")
  with pytest.raises(FileNotFoundError, match=r"2 of 12 items lack a file:\n  wmca_multiple_mcq/2"):
    suite.evaluate(opened(folder), model(says), tmp_path / "out")
  assert not says.calls
  listed = (tmp_path / "out/missing.jsonl").read_text().splitlines()
  assert [json.loads(line)["id"][-1] for line in listed] == ["2", "5"]
  terms = suite.Terms(allow_missing=True)
  results = suite.evaluate(opened(folder), model(says), tmp_path / "out", terms)
  assert results["n"] == 12 and results["not_asked"]["count"] == 2 and len(says.asked) == 10
  assert results["parse_failures"]["count"] == 2
  gone[0].write_bytes(kept)  # one is back: it alone is asked for
  later = Says(lambda s: "A")
  results = suite.evaluate(opened(folder), model(later), tmp_path / "out", terms)
  assert results["speed"]["asked"] == 1 and "wmca_multiple_mcq/2" in later.asked
  assert results["not_asked"] == {
    "count": 1,
    "first": [{"id": "wmca_multiple_mcq/5", "why": f"{gone[1]}: no such file"}],
  }


def test_damaged_and_too_long_items_count_as_wrong(folder, tmp_path):
  """Kills: a run that dies at item 4,000, an item beyond the row dropped or cut in silence."""
  (folder / "images/wmca_multiple_mcq/question_3_2.png").write_bytes(b"no picture")
  config = small_config()
  decoder = dataclasses.replace(config.model.decoder, max_length=480)
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, decoder=decoder))
  says = Says()
  results = suite.evaluate(opened(folder), model(says, config=config), tmp_path / "out")
  why = {r["id"]: r["why"] for r in results["not_asked"]["first"]}
  assert "question_3_2.png" in why["wmca_multiple_mcq/3"]
  long = [name for name, words in why.items() if "tokens, the model has room for" in words]
  # Those with four pictures of 64 tokens: 387 tokens, and 128 for the answer.
  assert sorted(long) == ["wmca_multiple_mcq/2", "wmca_multiple_mcq/5"]
  assert results["n"] == 12 and len(says.asked) == 9
  records = {r["id"]: r for r in predictions.read(tmp_path / "out")[1]}
  assert all(records[name]["parsed"] is None and records[name]["error"] for name in why)


def test_a_limit_takes_items_from_all_over(folder):
  """Kills: the first N, which would be one sub-task."""
  few = opened(folder).limited(4)
  assert [i.id.split("_")[0] for i in few.items] == ["utkface", "utkface", "wmca", "wmca"]
  assert opened(folder).limited(99).items == opened(folder).items
  with pytest.raises(ValueError, match="limit=0"):
    opened(folder).limited(0)


def test_two_runs_are_compared(folder, tmp_path):
  """Kills: a difference with the wrong sign, runs of other items compared."""
  truths = {i.id: i.truth for i in opened(folder).items}
  suite.evaluate(opened(folder), model(Says(lambda s: "E")), tmp_path / "bad")
  suite.evaluate(opened(folder), model(Says(lambda s: truths[s.id])), tmp_path / "good")
  found = compare.folders(tmp_path / "bad", tmp_path / "good", resamples=50)
  assert found["difference"] == {"value": 100, "low": 100, "high": 100, "n": 12}
  assert found["right_only"] == [0, 12] and found["mcnemar_p"] == 2 / 2**12
  assert found["share_better"] == 1 and found["values"] == [0, 100]
  assert "second - first: 100.00 [100.00, 100.00]" in compare.text(found)
  suite.evaluate(opened(folder), model(Says()), tmp_path / "few", suite.Terms(limit=4))
  with pytest.raises(ValueError, match="differ in items_sha256"):
    compare.folders(tmp_path / "bad", tmp_path / "few")
  with pytest.raises(FileNotFoundError, match="expected the folder of one benchmark"):
    compare.folders(tmp_path / "bad", tmp_path)


def test_tables_mark_what_is_published(folder, tmp_path):
  """Kills: a published number that passes for ours, a table without the denominator."""
  suite.evaluate(opened(folder), model(Says()), tmp_path / "out/facexbench")
  paths = tables.write(tmp_path / "out")
  assert [p.name for p in paths] == ["results.json", "results.md", "results.html"]
  text = paths[1].read_text()
  lines = [line for line in text.splitlines() if line.startswith("| ")]
  ours = [line for line in lines if line.startswith("| this run")]
  assert len(ours) == 1 and "| zero-shot | 12 |" in ours[0] and "measured here" in ours[0]
  theirs = [line for line in lines if line.startswith("| FaceLLM-8B")]
  assert len(theirs) == 1 and "published, not measured by facejax" in theirs[0]
  assert "56.14" in theirs[0] and "4998" in theirs[0] and "arXiv 2507.10300" in theirs[0]
  assert "(verified; overall re-computed from the categories)" in theirs[0]
  (fas,) = (line for line in lines if line.startswith("| fas |"))
  assert fas.endswith("| 36.8 | 42.5 | 45.2 |") and "FaceLLM-38B (published)" in text
  page = paths[2].read_text()
  assert page.count("<tr class=published>") == page.count("not measured by facejax") == 35
  assert "state no label" in page and json.loads(paths[0].read_text())["facexbench"]["n"] == 12
  with pytest.raises(FileNotFoundError, match="no results in"):
    tables.write(tmp_path)


def test_damaged_predictions_are_named(folder, tmp_path):
  """Kills: a line that was changed taken for a record, or dropped in silence."""
  suite.evaluate(opened(folder), model(Says()), tmp_path / "out")
  path = tmp_path / "out/predictions.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join([*lines[:3], "{]\n", *lines[3:]]))
  with pytest.raises(ValueError, match=r"predictions.jsonl, line 4: .* is no prediction"):
    suite.evaluate(opened(folder), model(Says()), tmp_path / "out")
  path.write_text("".join(lines[1:]))
  with pytest.raises(ValueError, match="line 1: kind 'item' - expected 'run'"):
    predictions.read(tmp_path / "out")
  path.write_text("")
  with pytest.raises(ValueError, match="is empty"):
    predictions.read(tmp_path / "out")


def test_one_run_at_a_time(folder, tmp_path):
  """Kills: two processes that write to one file."""
  with (
    predictions.Predictions(tmp_path, {"parser": "p"}),
    pytest.raises(ValueError, match="another process is writing"),
  ):
    predictions.Predictions(tmp_path, {"parser": "p"})


def test_parameters_are_read_onto_the_mesh(tmp_path):
  """Kills: a 7B model that passes through one device, another digest on another mesh."""
  saved_run.save(tmp_path / "run", saved_run.config(fusion=None))
  mesh = make_mesh(MeshConfig())
  flat = lambda params: {
    jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)
  }
  on_one = flat(checkpoint.load_run(tmp_path / "run")[1])
  on_all = flat(checkpoint.load_run(tmp_path / "run", mesh=mesh)[1])
  assert on_one.keys() == on_all.keys()
  for name, x in on_all.items():
    assert x.sharding.mesh == mesh and len(x.sharding.device_set) == 8
    assert np.array_equal(x, on_one[name])
  digests = {suite.digest_of(bases.manifest(params)) for params in (on_one, on_all)}
  assert len(digests) == 1
  changed = {**on_one, name: on_one[name] + 1}
  assert suite.digest_of(bases.manifest(changed)) not in digests
