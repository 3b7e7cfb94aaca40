"""Is every question of a killed annotation run answered once and paid for once?

    python experiments/annotate/run.py --json experiments/annotate/result.json

Pictures of noise with FairFace labels are annotated at an endpoint of which 30 % of the requests
fail, and the run is killed with SIGKILL at random moments. Exit status 1 if a check fails.
"""

import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from fake_endpoint import bills, in_process, mark  # noqa: E402

from facejax.annotate import fairface, pictures  # noqa: E402

PRICE = (2.5, 10.0)  # a million tokens


def write_items(folder: pathlib.Path, count: int) -> None:
  """`count` pictures of noise, and a label table."""
  (folder / "val").mkdir(parents=True)
  rng = np.random.default_rng(0)
  lines = ["file,age,gender,race,service_test"]
  for i in range(count):
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "val" / f"{i}.jpg")
    labels = [rng.choice(values) for values in (fairface.AGES, fairface.GENDERS, fairface.RACES)]
    lines.append(",".join([f"val/{i}.jpg", *labels, "True"]))
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def serving(args: argparse.Namespace, honours: bool):
  """The endpoint in a process of its own; gives its address."""
  flags = ["--port", "0", "--faults", str(args.faults), "--seed", str(args.seed)]
  flags += ["--bad-answers", str(args.bad_answers)]
  return in_process(
    str(HERE / "fake_endpoint.py"), *flags, *([] if honours else ["--bills-every-request"])
  )


def annotate(folder: pathlib.Path, url: str, honours: bool) -> subprocess.Popen:
  """Starts the command that a user would."""
  command = [sys.executable, "-m", "facejax.cli", "annotate", "fairface"]
  command += [f"--labels={folder}/labels.csv", f"--images={folder}", f"--out={folder}/out"]
  command += [f"--base-url={url}", "--model=fake", "--key-env=", "--first-wait=0.05"]
  command += [f"--price={PRICE[0]},{PRICE[1]}", "--timeout=1", "--max-cost=1000"]
  command += ["--idempotent"] if honours else []
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def campaign(folder: pathlib.Path, url: str, honours: bool, moments: list[float]) -> list[dict]:
  """Runs to the end, killed at `moments` (shares of the answers); gives what was killed."""
  expected = fairface.QUESTIONS * (len((folder / "labels.csv").read_text().splitlines()) - 1)
  killed = []
  for moment in moments:
    # At least one answer in each run: on a fast machine the run before may be past this moment.
    least = max(moment * expected, bills(url)["billed"] + 1)
    process = annotate(folder, url, honours)
    while bills(url)["billed"] < least and process.poll() is None:
      time.sleep(0.02)
    time.sleep(random.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    killed.append({"status": process.wait(), "billed": bills(url)["billed"]})
  annotate(folder, url, honours).wait()
  return killed


def read_lines(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def check(folder: pathlib.Path, paid: dict) -> dict[str, bool]:
  """Output files against the items and the endpoint's bills."""
  out = folder / "out"
  recipe = fairface.FairFace(folder / "labels.csv", folder)
  dataset = json.loads((out / "dataset.json").read_text())
  kept, others = read_lines(out / "records.jsonl"), read_lines(out / "rejected.jsonl")
  report = json.loads((out / "report.json").read_text())
  found = collections.Counter(record["id"] for record in kept + others)
  words = {unit.id: mark_of(unit) for unit in recipe.units}
  answers = {sample["id"]: sample["conversations"][1]["value"] for sample in dataset}
  names = {
    f"{record['written']['key'][:40]}-{attempt}"
    for record in kept + others
    for attempt in range(len(record["written"]["attempts"]))
  }
  spent = paid["prompt_tokens"] * PRICE[0] + paid["completion_tokens"] * PRICE[1]
  counted = [report["tokens"]["prompt"], report["tokens"]["completion"]]
  return {
    "every question once": found == collections.Counter(unit.id for unit in recipe.units),
    "dataset holds what was kept, in order": list(answers) == [record["id"] for record in kept],
    "every answer is its question's": all(words[name] in text for name, text in answers.items()),
    "no answer paid for twice": paid["billed_twice"] == 0,
    "paid for what is recorded, no more and no less": set(paid["times"]) == names,
    "tokens as billed": counted == [paid["prompt_tokens"], paid["completion_tokens"]],
    "cost as billed": math.isclose(report["cost"]["paid"], spent / 1e6, rel_tol=1e-9),
    "nothing left unknown": report["cost"]["possibly_paid_requests"] == 0,
  }


def mark_of(unit) -> str:
  """The word that the endpoint puts into the answer to this question about this picture."""
  text = {"type": "text", "text": unit.prompt.filled(unit.facts)}
  content = [text, *pictures.parts(unit.path, "image", 1, "")]
  return mark({"messages": [{"content": content}]})


def measure(args: argparse.Namespace, folder: pathlib.Path, items: int, honours: bool) -> dict:
  """One campaign."""
  write_items(folder, items)
  random.seed(args.seed)
  # One in each stretch of the work, so that all of them happen before it is done.
  moments = [(k + random.uniform(0.1, 0.9)) / args.kills * 0.95 for k in range(args.kills)]
  with serving(args, honours) as url:
    began = time.monotonic()
    killed = campaign(folder, url, honours, moments)
    seconds = time.monotonic() - began
    paid = bills(url)
  report = json.loads((folder / "out" / "report.json").read_text())
  result = {
    "items": items,
    "questions": fairface.QUESTIONS * items,
    "kills": killed,
    "seconds": round(seconds, 1),
    "endpoint": {name: value for name, value in paid.items() if name != "times"},
    "report": report,
  }
  if honours:
    return result | {"checks": check(folder, paid)}
  spent = (paid["prompt_tokens"] * PRICE[0] + paid["completion_tokens"] * PRICE[1]) / 1e6
  cost = report["cost"]
  beyond = paid["billed"] - report["requests"]["answered"]
  within = cost["paid"] - 1e-9 <= spent <= cost["paid"] + cost["possibly_paid_at_most"]
  return result | {
    "billed_cost": spent,
    "billed_beyond_answers": beyond,
    "checks": {
      "the bill lies between what is paid and what may be": within,
      "bills beyond the answers are of unknown requests": beyond <= cost["possibly_paid_requests"],
    },
  }


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
  parser.add_argument("--items", type=int, default=1000, help="pictures; default: %(default)s")
  parser.add_argument("--kills", type=int, default=2, help="default: %(default)s")
  parser.add_argument("--faults", type=float, default=0.3, help="share of requests")
  parser.add_argument("--bad-answers", type=float, default=0.1, help="share of answers")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    honoured = measure(args, pathlib.Path(name) / "a", args.items, honours=True)
    ignored = measure(args, pathlib.Path(name) / "b", args.items // 5, honours=False)
  result = {
    "date": datetime.date.today().isoformat(),
    "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    "key_honoured": honoured,
    "key_ignored": ignored,
  }
  print(json.dumps(result, indent=1))
  if args.json is not None:
    args.json.write_text(json.dumps(result, indent=1) + "\n")
  checks = honoured["checks"] | ignored["checks"]
  return 0 if all(checks.values()) else 1


if __name__ == "__main__":
  sys.exit(main())
