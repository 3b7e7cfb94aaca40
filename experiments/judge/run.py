"""Is every item judged once, is a known agreement found, does a favoured place cancel?

    python experiments/judge/run.py --json experiments/judge/result.json

The judge is simulated (simulated_judge.py), behind a local endpoint of which 30 % of the requests
fail and 10 % of the answers are no ratings. `facejax judge` is killed with SIGKILL and started
again, and runs into its cap. Exit status 1 if a check fails.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent / "annotate"))

from fake_endpoint import bills, in_process  # noqa: E402

PRICE = (2.5, 10.0)  # a million tokens
NOISE = 0.9  # of a rating
NOISES = (0.3, 0.6, 1.2)  # of judges that favour no place
FAVOUR = (0.8, 0.1, -0.5)  # of a place
MEANS = {"alpha": 4.0, "beta": 5.0, "gamma": 6.2}  # of three systems' qualities
SPREAD = 1.0  # of the qualities of a system
CRITERIA = ("media_consistency", "truth_consistency", "completeness")
FILES = ("results.md", "ratings.jsonl", "failed.jsonl")


def write_answers(folder: pathlib.Path, count: int, seed: int) -> dict[str, np.ndarray]:
  """A JSONL file a system and a picture an item; the qualities, which lie within the scale."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  found = {}
  for i in range(count):
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
  for name, mean in MEANS.items():
    found[name] = rng.normal(mean, SPREAD, count).clip(2.5, 8.5).round(3)
    lines = [
      json.dumps(
        {
          "id": f"item {i}",
          "question": "What does this face show?",
          "truth": "happy",
          "answer": f"A happy face: quality {quality:.3f}",
          "image": f"{i}.png",
        }
      )
      for i, quality in enumerate(found[name])
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
  return found


def serving(noise: float, favour: tuple[float, ...], faults: float, bad: float, seed: int):
  """The simulated judge in a process of its own; gives its address."""
  settings = {"noise": noise, "favour": favour, "faults": faults, "bad": bad, "seed": seed}
  return in_process(str(HERE / "serve.py"), json.dumps(settings))


def cost(paid: dict) -> float:
  return (paid["prompt_tokens"] * PRICE[0] + paid["completion_tokens"] * PRICE[1]) / 1e6


def judge(folder: pathlib.Path, out: str, url: str, *flags: str) -> subprocess.Popen:
  """Starts the command that a user would."""
  command = [sys.executable, "-m", "facejax.cli", "judge"]
  command += [f"{name}={folder}/{name}.jsonl" for name in MEANS]
  command += [f"--media={folder}", f"--out={folder}/{out}", "--model=simulated", "--key-env="]
  command += [f"--base-url={url}", f"--price={PRICE[0]},{PRICE[1]}", "--idempotent", "--repeats=3"]
  command += ["--first-wait=0.05", "--retries=30", "--refusals=8", *flags]
  return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed_runs(folder: pathlib.Path, url: str, requests: int, kills: int) -> list[int]:
  """Kills at even shares of the requests, then one run to the end; bills at each kill."""
  found = []
  for kill in range(kills):
    process = judge(folder, "out", url)
    least = max(requests * (kill + 1) / (kills + 1), bills(url)["billed"] + 1)
    while bills(url)["billed"] < least and process.poll() is None:
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found.append(bills(url)["billed"])
  if judge(folder, "out", url).wait():
    raise RuntimeError(f"the last run of {kills + 1} left requests - see {folder}/out/report.json")
  return found


def read(folder: pathlib.Path, out: str) -> tuple[dict, dict, list[dict]]:
  """Results, report and ratings of an output."""
  place = folder / out
  ratings = [json.loads(line) for line in (place / "ratings.jsonl").read_text().splitlines()]
  return *(json.loads((place / f"{n}.json").read_text()) for n in ("results", "report")), ratings


def capped(folder: pathlib.Path, seed: int, whole: float) -> dict:
  """A run under a cap of a third of the whole's cost and one request; then one without."""
  with serving(NOISE, FAVOUR, 0.3, 0.1, seed) as url:
    cap = whole / 3 + 0.02
    judge(folder, "capped", url, f"--max-cost={cap}").wait()
    billed, (results, report, _) = cost(bills(url)), read(folder, "capped")
    judge(folder, "capped", url).wait()
  files = [(folder / out / name).read_bytes() for out in ("capped", "out") for name in FILES]
  told = [read(folder, out)[0] for out in ("capped", "out")]
  for one in told:
    one["settings"].pop("endpoint")  # its port
  same = files[: len(FILES)] == files[len(FILES) :] and told[0] == told[1]
  return {
    "cap": cap,
    "billed": billed,
    "overshoot": max(0.0, billed - cap),
    "pending": results["requests"].get("pending", 0),
    "stopped": report["stopped"],
    "same_files_once_the_cap_is_gone": same,
  }


def differences(results: dict, qualities: dict[str, np.ndarray]) -> list[dict]:
  """Found and true differences of the mean of the criteria."""
  found = []
  for pair in results["differences"]:
    score = pair["scores"]["mean"]
    true = float(qualities[pair["second"]].mean() - qualities[pair["first"]].mean())
    name = f"{pair['second']} - {pair['first']}"
    found.append({"systems": name, "true": true, **{k: score[k] for k in ("value", "low", "high")}})
  return found


def agreement(results: dict, qualities: dict[str, np.ndarray], noise: float, favour) -> dict:
  """Alpha of each criterion beside what noise and favours of the judge make of it.

  Alpha is 1 - (variance within answers) / (variance of all ratings). An answer stands in each place
  once, so the favours are within it, too: with the variance of a sample, as all three are drawn.
  """
  between = float(np.var(np.concatenate([*qualities.values()])))
  within = noise**2 + float(np.var(favour, ddof=1))
  expected = 1 - within / (between + noise**2 + float(np.var(favour)))
  alpha = {name: results["agreement"]["alpha"][name] for name in CRITERIA}
  return {"noise": noise, "favour": favour, "expected": expected, "found": alpha}


def known(folder: pathlib.Path, qualities: dict[str, np.ndarray], seed: int) -> list[dict]:
  """Alpha for judges of known noise that favour no place."""
  found = []
  for noise in NOISES:
    with serving(noise, (), 0.0, 0.0, seed) as url:
      judge(folder, f"noise{noise}", url).wait()
    results, _, _ = read(folder, f"noise{noise}")
    found.append(agreement(results, qualities, noise, (0.0, 0.0, 0.0)))
  return found


def exact(folder: pathlib.Path, qualities: dict[str, np.ndarray], seed: int) -> dict:
  """Favours without noise: largest error of a difference with three repeats, and with one."""
  found = {}
  with serving(0.0, FAVOUR, 0.0, 0.0, seed) as url:
    for repeats in (3, 1):
      judge(folder, f"exact{repeats}", url, f"--repeats={repeats}").wait()
      gaps = differences(read(folder, f"exact{repeats}")[0], qualities)
      found[f"repeats_{repeats}"] = max(abs(gap["value"] - gap["true"]) for gap in gaps)
  return found


def measure(folder: pathlib.Path, items: int, kills: int, seed: int) -> dict:
  """All of it, in a folder that is empty."""
  folder = folder / "answers"
  qualities = write_answers(folder, items, seed)
  requests = 3 * items
  with serving(NOISE, FAVOUR, 0.3, 0.1, seed) as url:
    killed = killed_runs(folder, url, requests, kills)
    paid = bills(url)
  results, report, ratings = read(folder, "out")
  names = {
    f"{r['asked']['key'][:40]}-{n}" for r in ratings for n in range(len(r["asked"]["attempts"]))
  }
  wanted = {(f"item {i}", repeat) for i in range(items) for repeat in range(3)}
  gaps = differences(results, qualities)
  alphas = [agreement(results, qualities, NOISE, FAVOUR), *known(folder, qualities, seed)]
  cap, places = capped(folder, seed, cost(paid)), exact(folder, qualities, seed)
  firsts = {n: sum(r["order"][0] == n for r in ratings) for n in MEANS}
  checks = {
    "every item and repeat once": sorted((r["id"], r["repeat"]) for r in ratings) == sorted(wanted),
    "all rated": results["requests"] == {"all": requests, "kept": requests},
    "paid for what is recorded, no more and no less": set(paid["times"]) == names,
    "no answer billed twice": paid["billed_twice"] == 0,
    "cost as billed": math.isclose(report["cost"]["paid"], cost(paid), rel_tol=1e-9),
    "every system first equally often": len(set(firsts.values())) == 1,
    "true differences within their intervals": all(
      g["low"] <= g["true"] <= g["high"] for g in gaps
    ),
    # An interval is 95 %, and there are twelve: its whole width is some four standard errors.
    "alpha within the width of its interval": all(
      abs(a["value"] - alpha["expected"]) <= a["high"] - a["low"]
      for alpha in alphas
      for a in alpha["found"].values()
    ),
    "a favoured place cancels": places["repeats_3"] < 1e-9,
    "no overshoot": cap["overshoot"] == 0 and cap["pending"] > 0,
    "same files after cap and kills": cap["same_files_once_the_cap_is_gone"],
  }
  return {
    "judge": {"simulated": True, "noise": NOISE, "favour": FAVOUR},
    "items": items,
    "requests": requests,
    "runs": report["runs"],
    "billed_at_kills": killed,
    "sent": report["requests"],
    "unusable_answers": report["unusable_answers"],
    "cost": report["cost"],
    "first_in_a_request": firsts,
    "differences": gaps,
    "agreement": alphas,
    "places": [place["mean"] for place in results["places"]],
    "largest_error_of_a_difference_without_noise": places,
    "capped": cap,
    "checks": checks,
  }


def main() -> int:
  """Prints the result; 1 if a check fails."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--items", type=int, default=120)
  parser.add_argument("--kills", type=int, default=3)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--json", type=pathlib.Path)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    result = measure(pathlib.Path(folder), args.items, args.kills, args.seed)
  result |= {
    "date": datetime.date.today().isoformat(),
    "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
  }
  print(text := json.dumps(result, indent=1))
  if args.json:
    args.json.write_text(text + "\n")
  return 0 if all(result["checks"].values()) else 1


if __name__ == "__main__":
  sys.exit(main())
