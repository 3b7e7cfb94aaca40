"""`facejax judge` as a person uses it."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from fake_endpoint import in_thread
from judged_folder import JudgedFolder
from simulated_judge import SimulatedJudge
from test_judge_items import write_run

from facejax import cli

ROOT = Path(__file__).parents[2]


def judge(folder, url, *flags) -> list[str]:
  sources = [f"{source.system}={source.path}" for source in folder.sources]
  sources += [flag for flag in flags if not flag.startswith("--")]
  argv = ["judge", *sources, f"--media={folder.path}", f"--out={folder.out}", "--model=fake"]
  return [*argv, f"--base-url={url}", "--key-env=", *(f for f in flags if f.startswith("--"))]


def test_a_run(tmp_path, capsys):
  """Kills: a flag that does not arrive; status 0 for half the ratings; a table that is not told."""
  folder = JudgedFolder(tmp_path, {"a": [5.0, 6.0, 7.0], "b": [7.0, 7.5, 8.0]})
  endpoint = folder.endpoint
  flags = ["--price=3,12", "--repeats=3", "--bootstrap=30", "--seed=2", "--frames=5"]
  with in_thread(endpoint) as url:
    assert cli.main(judge(folder, url, *flags, "--max-requests=4", "--idempotent")) == 1
    said = capsys.readouterr()
    assert "9 units are left" not in said.err and "5 units are left (budget: 4 requests" in said.err
    assert "3 items, 9 requests; 5 are not done yet" in said.out
    flags += ["--detail=low", "--temperature=0.5", "--hide=cheeks, x", "--each", "--limit=2"]
    assert cli.main(judge(folder, url, *flags, "--currency=EUR")) == 0
  said = capsys.readouterr().out
  assert "b - a, mean: 1.75 [" in said and "a: 2 of 2 items rated" in said and "EUR" in said
  assert "agreement of repeats (alpha), mean: 1.00 [" in said
  request = endpoint.received[-1]
  assert request["temperature"] == 0.5
  text, picture = request["messages"][1]["content"]
  assert "because of the [name]" in text["text"] and picture["image_url"]["detail"] == "low"
  results = json.loads((folder.out / "results.json").read_text())
  settings = results["settings"]
  assert (settings["seed"], settings["resamples"], settings["frames"]) == (2, 30, 5)
  assert settings["hidden"] == ["cheeks", "x"] and settings["each"] and settings["limit"] == 2
  assert settings["prompt"]["id"] == "judge/media/1" and settings["endpoint"] == url
  assert settings["sources"][0] == ["a", str(tmp_path / "a.jsonl")]
  assert results["requests"] == {"all": 12, "kept": 12}
  told = (folder.out / "results.md").read_text()
  assert "prompt judge/media/1 (ours; the paper's is not published)" in told
  assert "| Face-LLaVA (published, not measured by facejax) | 7.89 | 7.94 | 7.60 |" in told
  assert "| b - a | completeness | 1.75 [" in told
  prompts = json.loads((folder.out / "prompts.json").read_text())
  assert list(prompts) == [settings["prompt"]["sha256"]]


def test_stored_runs_of_two_benchmarks(tmp_path, capsys):
  """Kills: a benchmark's folder given to another; tasks that have no table."""
  folder = JudgedFolder(tmp_path, {})
  (tmp_path / "m").mkdir()
  for name in ("m/x.png", "x.png"):
    (tmp_path / name).write_bytes((tmp_path / "face.png").read_bytes())
  argv = ["judge", f"--media={tmp_path}", f"--media=morph={tmp_path}/m", f"--out={folder.out}"]
  for system, quality in (("a", 4.0), ("b", 6.0)):
    for benchmark, more in (("rafdb", 0.0), ("morph", 1.0)):
      header = {"benchmark": benchmark}
      path = tmp_path / f"{system}_{benchmark}"
      write_run(path, {"x": f"quality {quality + more:.2f}"}, header=header)
      argv.append(f"{system}={path}")
  folder.endpoint.reply = SimulatedJudge()
  with in_thread(folder.endpoint) as url:
    assert cli.main([*argv, f"--base-url={url}", "--key-env=", "--model=fake"]) == 0
  told = (folder.out / "results.md").read_text()
  assert "## rafdb" in told and "| b | 1 of 1 | 7.00 [" in told.partition("## morph")[2]
  assert folder.endpoint.requests == 4


def test_names_in_answers_are_told(tmp_path):
  """Kills: an answer that says who wrote it, without a word in the results."""
  folder = JudgedFolder(tmp_path, {"Ours": [5.0, 6.0], "b": [7.0, 7.5]})
  path = tmp_path / "Ours.jsonl"
  path.write_text(path.read_text().replace("Happy,", "As ours, happy", 1))
  results = folder.run()
  assert results["named"] == {"count": 1, "first": [{"id": "i0", "system": "Ours"}]}
  assert (
    "1 answers hold the name of a system, such as Ours's to i0"
    in (folder.out / "results.md").read_text()
  )
  assert folder.run(hidden=("ours",))["named"]["count"] == 0


def test_a_plan_sends_nothing(tmp_path, capsys):
  """Kills: a plan that needs a key, makes an output, or is below what it costs."""
  folder = JudgedFolder(tmp_path, {"a": [5.0] * 5, "b": [7.0] * 5})
  flags = ["--plan", "--price=3,12", "--key-env=NO_SUCH_KEY"]
  assert cli.main(judge(folder, "http://127.0.0.1:9/v1", *flags)) == 0
  said = capsys.readouterr().out
  found = re.match(r"5 items, 10 requests: at most (\d\.\d\d) USD; (\d\.\d\d) if each", said)
  once, times = map(float, found.groups())
  assert not folder.out.exists()
  folder.run()
  assert folder.done.report["cost"]["paid"] < once and times == pytest.approx(3 * once, abs=0.02)
  assert once < 10 * 0.05


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--max-cost=5"], "--max-cost 5 without a price - add --price IN,OUT"),
    (["--key-env=NO_SUCH_KEY"], "the environment variable NO_SUCH_KEY is not set"),
    (["--text-only"], "and --text-only - expected --media FOLDER, or --text-only for a judge"),
    (["--media=/nowhere"], "--media /nowhere: no folder /nowhere - expected that of the files"),
    (["--media=."], "--media .: a second folder for all - expected one"),
    (["c"], "'c': expected NAME=ANSWERS, such as tuned=runs/a/evaluate_suite/rafdb"),
    (["=x"], "'=x': expected NAME=ANSWERS"),
    (["c=/nowhere"], "no /nowhere - expected the folder of one benchmark of a run, or a JSONL"),
  ],
)
def test_wrong_settings_are_named(tmp_path, flags, message, capsys):
  """Kills: a traceback; a source that is left out."""
  folder = JudgedFolder(tmp_path, {"a": [5.0]})
  assert cli.main(judge(folder, "http://127.0.0.1:9/v1", *flags)) == 2
  err = capsys.readouterr().err
  assert message in err and err.startswith("facejax judge: ") and "Traceback" not in err


def test_no_media_is_a_decision(tmp_path, capsys):
  """Kills: a judge without eyes because a flag was forgotten."""
  folder = JudgedFolder(tmp_path, {"a": [5.0]})
  argv = [a for a in judge(folder, "http://127.0.0.1:9/v1") if not a.startswith("--media")]
  assert cli.main(argv) == 2
  assert "no --media - expected --media FOLDER, or --text-only" in capsys.readouterr().err
  assert cli.main([*argv, "--text-only", "--plan"]) == 0


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--repeats=0", "'0': expected 1 or more"),
    ("--limit=-1", "'-1': expected a whole number"),
    ("--repaets=2", "judge has no argument --repaets; did you mean --repeats?"),
    ("--config.seed=1", "facejax judge takes no --config.NAME=VALUE"),
  ],
)
def test_wrong_flags_are_named(tmp_path, flag, message, capsys):
  """Kills: a value that is taken for another, or fails deep within a run."""
  folder = JudgedFolder(tmp_path, {"a": [5.0]})
  with pytest.raises(SystemExit) as stopped:
    cli.main(judge(folder, "http://127.0.0.1:9/v1", flag))
  assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_the_experiment(tmp_path):
  """Kills: a result that SIGKILL changes; a favour that does not cancel; a cap that is exceeded."""
  spec = importlib.util.spec_from_file_location("run", ROOT / "experiments/judge/run.py")
  experiment = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(experiment)
  result = experiment.measure(tmp_path, items=12, kills=1, seed=3)
  assert result["checks"] and all(result["checks"].values()), result["checks"]


def test_the_commands_of_the_docs_are_accepted():
  """Kills: a flag in docs/evaluation.md that the command line refuses."""
  text = (ROOT / "docs/evaluation.md").read_text().replace("\\\n", " ")
  commands = re.findall(r"^facejax (judge .+)$", text, re.MULTILINE)
  assert len(commands) == 2
  for command in commands:
    assert cli.make_parser().parse_args(command.split()).command == "judge"
