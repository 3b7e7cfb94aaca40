"""`facejax evaluate --suite` with a real, tiny model on eight devices; slow, as it compiles."""

import dataclasses
import json
import sys
from pathlib import Path

import facexbench_folder
import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))
import saved_run

from facejax import checkpoint, cli
from facejax.evaluate import predictions, suite
from facejax.evaluate.benchmarks import open_benchmark
from facejax.generate import Answerer, Sampling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A saved run, and two benchmarks in folders of their names."""
  root = tmp_path_factory.mktemp("suite")
  run = saved_run.config(fusion=None)
  decoder = dataclasses.replace(run.model.decoder, max_length=640)
  run = dataclasses.replace(run, model=dataclasses.replace(run.model, decoder=decoder))
  run = dataclasses.replace(run, evaluate=dataclasses.replace(run.evaluate, bootstrap=50))
  saved_run.save(root / "run", run)
  folder = root / "data/facexbench"
  folder.mkdir(parents=True)
  facexbench_folder.write(folder, "wmca_multiple_mcq", "fas_deepfakes", 9)
  facexbench_folder.write(folder, "utkface_single_mcq_gender_test", "bias_fairness", 8)
  facexbench_folder.draw(folder)
  (root / "data/utkface").mkdir()
  rng = np.random.default_rng(0)
  for i in range(6):
    picture = rng.integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(picture).save(root / f"data/utkface/{20 + i}_{i % 2}_{i % 5}_2017{i:04d}.jpg")
  return root


def arguments(place, out, *more):
  return [
    *("evaluate", "--suite", "facexbench,utkface", "--checkpoint", str(place / "run")),
    *("--data", str(place / "data"), "--out", str(place / out), "--rows", "8"),
    *("--set", "facexbench.partial=true", "--set", "utkface.split=all", "--new-tokens", "4"),
    *("--temperature", "1"),
    *more,
  ]


def test_suite_from_the_command_line(place, capsys):
  """Kills: flags that reach nothing, a mesh that changes answers, a second run that asks again."""
  assert cli.main(["--traceback", *arguments(place, "out")]) == 0
  said = capsys.readouterr().out
  assert "facexbench, 17 items, zero-shot" in said and "MAE, years" in said
  results = json.loads((place / "out/results.json").read_text())
  assert results["facexbench"]["n"] == 17 and results["utkface"]["n"] == 6
  assert results["facexbench"]["speed"]["asked"] == 17
  assert set(results["utkface"]["fairness"]) == {"age", "gender", "race"}
  header, records = predictions.read(place / "out/facexbench")
  assert header["decoding"]["new_tokens"] == 4 and header["rows"] == 8
  assert all(not r.get("error") for r in records)
  assert cli.main(arguments(place, "out")) == 0
  again = json.loads((place / "out/results.json").read_text())
  assert again["facexbench"]["speed"]["asked"] == 0
  assert again["facexbench"]["scores"] == results["facexbench"]["scores"]
  capsys.readouterr()
  runs = [str(place / "out/facexbench")] * 2
  assert cli.main(["evaluate", "--compare", *runs, "--out", str(place / "c.json")]) == 0
  assert "second - first: 0.00 [0.00, 0.00]" in capsys.readouterr().out
  assert json.loads((place / "c.json").read_text())["mcnemar_p"] == 1


def test_stopped_and_gone_on_gives_the_same(place):
  """Kills: other batches after a stop; one device and eight that answer differently."""
  config, params, _ = checkpoint.load_run(place / "run")
  config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, rows=8))
  benchmark = open_benchmark("facexbench", place / "data/facexbench", {"partial": "true"})
  terms = suite.Terms(sampling=Sampling(temperature=1.0), new_tokens=4)
  answerer = Answerer(config, params)

  class Stops:
    calls = 0

    def answer(self, samples, sampling, seed=0):
      self.calls += 1
      if self.calls == 2:
        raise KeyboardInterrupt
      return answerer.answer(samples, sampling, seed)

  model = suite.Model(config, Stops(), "run", "0")
  with pytest.raises(KeyboardInterrupt):
    suite.evaluate(benchmark, model, place / "stopped", terms)
  assert len(predictions.read(place / "stopped")[1]) == 8
  model = dataclasses.replace(model, answerer=answerer)
  suite.evaluate(benchmark, model, place / "stopped", terms)
  suite.evaluate(benchmark, model, place / "whole", terms)
  assert predictions.read(place / "stopped") == predictions.read(place / "whole")
  on_eight = {r["id"]: r["answer"] for r in predictions.read(place / "out/facexbench")[1]}
  on_one = {r["id"]: r["answer"] for r in predictions.read(place / "whole")[1]}
  assert on_one == on_eight and len(set(on_one.values())) > 1
