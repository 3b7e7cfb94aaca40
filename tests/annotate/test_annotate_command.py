"""`facejax annotate` as a person uses it, down to the kill."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from fake_endpoint import FakeEndpoint, in_thread
from workplace import write_picture

from facejax import cli

ROOT = pathlib.Path(__file__).parents[2]


def fairface(place, url, *flags) -> list[str]:
  argv = ["annotate", "fairface", f"--labels={place.path}/labels.csv", f"--images={place.path}"]
  return [*argv, f"--out={place.out}", "--model=fake", f"--base-url={url}", *flags]


def test_a_run(place, capsys, monkeypatch):
  """Kills: a flag that does not arrive; a key in a file or on the screen; status 0 for half a
  dataset; a report that is not written."""
  monkeypatch.setenv("FACE_KEY", "sk-very-secret")
  place.items(2)
  flags = ["--key-env=FACE_KEY", "--price=3,12", "--currency=EUR", "--assistant=assistant"]
  endpoint = FakeEndpoint()
  with in_thread(endpoint) as url:
    assert cli.main(fairface(place, url, *flags, "--limit=1", "--max-requests=3")) == 1
    said = capsys.readouterr()
    assert "8 units: 3 kept, 5 pending; 3 requests" in said.out and "EUR" in said.out
    assert "5 units are left (budget: 3 requests were sent, of 3 allowed)" in said.err
    flags += ["--text-files", "--detail=high", "--temperature=0.5", "--max-tokens=99"]
    assert cli.main(fairface(place, url, *flags, "--token-field=max_completion_tokens")) == 0
  said = capsys.readouterr()
  assert "16 units: 16 kept" in said.out
  request = endpoint.received[-1]
  assert request["max_completion_tokens"] == 99 and request["temperature"] == 0.5
  assert request["messages"][1]["content"][1]["image_url"]["detail"] == "high"
  assert {h["authorization"] for h in endpoint.headers} == {"Bearer sk-very-secret"}
  report = json.loads((place.out / "report.json").read_text())
  assert report["currency"] == "EUR" and report["units"] == {"all": 16, "kept": 16}
  assert report["runs"] == 2 and report["requests"]["sent"] == 19
  dataset = json.loads((place.out / "dataset.json").read_text())
  assert {sample["conversations"][1]["from"] for sample in dataset} == {"assistant"}
  assert (place.out / "ChatGPT" / "fake" / "val" / "1" / "answer_0.txt").is_file()
  written = [path for path in place.out.rglob("*") if path.is_file()]
  assert len(written) == 6 + 2 * 16
  assert not any("sk-very-secret" in path.read_text() for path in written)
  assert "sk-very-secret" not in said.out + said.err


def test_a_rated_run(place):
  """Kills: rater flags that do not arrive, or change the writer; a threshold that is not read."""
  write_picture(place.path / "a.png", 1)
  items = place.path / "items.json"
  items.write_text(json.dumps([{"image": "a.png", "task": "age", "label": 31}]))
  writer, rater = FakeEndpoint(), FakeEndpoint()
  argv = ["annotate", "faceinstruct", f"--items={items}", f"--media={place.path}"]
  argv += [f"--out={place.out}", "--model=w", "--key-env=", "--rater-model=r", "--price=1,1"]
  with in_thread(writer) as one, in_thread(rater) as two:
    argv += [f"--base-url={one}", f"--rater-base-url={two}", "--rater-price=1000,1000"]
    assert cli.main([*argv, "--threshold=10.5"]) == 0
    assert json.loads((place.out / "report.json").read_text())["reasons"] == {"low_rating": 1}
    assert cli.main([*argv, "--threshold=1"]) == 0
  assert [r["model"] for r in writer.received + rater.received] == ["w", "r"]
  report = json.loads((place.out / "report.json").read_text())
  (usage,) = (bill["usage"] for bill in rater.bills.values())
  assert report["units"] == {"all": 1, "kept": 1}
  assert 0 < report["cost"]["paid"] - usage["total_tokens"] / 1000 < 0.001
  assert report["models"] == [["w", one], ["r", two]]


def test_a_plan_sends_nothing(place, capsys):
  """Kills: a plan that needs a key, makes an output or asks the endpoint."""
  place.items(1)
  assert cli.main(fairface(place, "http://127.0.0.1:9/v1", "--plan", "--price=3,12")) == 0
  assert re.match(r"8 units, 8 answers: at most 0\.1\d USD;", capsys.readouterr().out)
  assert not place.out.exists()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--max-cost=5"], "--max-cost 5 without a price - add --price IN,OUT"),
    (["--key-env=NO_SUCH_KEY"], "the environment variable NO_SUCH_KEY is not set"),
    (["--base-url=localhost:80"], "base_url 'localhost:80' - expected an address such as"),
    (["--labels=gone.csv"], "no label table gone.csv"),
  ],
)
def test_wrong_settings_are_named(place, flags, message, capsys):
  """Kills: a traceback; a cap that no price ever reaches."""
  place.items(1)
  assert cli.main(fairface(place, "http://127.0.0.1:9/v1", *flags)) == 2
  err = capsys.readouterr().err
  assert message in err and err.startswith("facejax annotate: ") and "Traceback" not in err


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--price=3", "'3': expected IN,OUT, such as 2.5,10"),
    ("--price=-1,2", "'-1,2': expected prices of 0 or more"),
    ("--max-cost=0", "'0': expected a number above 0"),
    ("--max-cost=much", "'much': expected a number above 0"),
    ("--timeout=inf", "'inf': expected a number above 0"),
    ("--concurrency=0", "'0': expected 1 or more"),
    ("--retries=-1", "'-1': expected a whole number"),
    ("--modle=x", "annotate fairface has no argument --modle; did you mean --model?"),
  ],
)
def test_wrong_flags_are_named(place, flag, message, capsys):
  """Kills: a value that is taken for another, or fails deep within a run."""
  with pytest.raises(SystemExit) as stopped:
    cli.main(fairface(place, "http://127.0.0.1:9/v1", flag))
  assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_command_line_stays_light():
  """Kills: a client, an image library or JAX's data code loaded by every `facejax` command."""
  code = (
    "import sys; from facejax import cli; cli.make_parser();"
    "print([m for m in sys.modules if m.startswith(('openai', 'facejax.annotate.', 'PIL'))])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "['facejax.annotate.command']"


@pytest.mark.parametrize("honours", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_twice(tmp_path, honours):
  """Kills: an answer lost or repeated by SIGKILL; with an endpoint that honours idempotency keys
  anything paid for twice, with another a bill beyond what the report says it may be."""
  spec = importlib.util.spec_from_file_location("run", ROOT / "experiments/annotate/run.py")
  experiment = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(experiment)
  args = SimpleNamespace(kills=2, faults=0.3, bad_answers=0.1, seed=4)
  result = experiment.measure(args, tmp_path / "a", 4, honours)
  assert result["checks"] and all(result["checks"].values()), result["checks"]
  assert result["report"]["runs"] == 3
  assert [killed["status"] for killed in result["kills"]] == [-9, -9]


def test_the_commands_of_the_docs_are_accepted():
  """Kills: a flag in docs/annotate.md that the command line refuses."""
  text = (ROOT / "docs/annotate.md").read_text().replace("\\\n", " ")
  commands = re.findall(r"^facejax (.+)$", text, re.MULTILINE)
  assert len(commands) == 4
  for command in commands:
    assert cli.make_parser().parse_args(command.split()).command == "annotate"
