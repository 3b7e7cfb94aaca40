"""What does the planner say of programs that are understood, chip by chip?

  python experiments/calibration/run.py --json experiments/calibration/result.json

`facejax plan --calibrate` on a small slice of each TPU. A file that is there is added to, chip by
chip; delete it to begin anew.
"""

import argparse
import dataclasses
import datetime
import json
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")

from facejax.plan import calibrate, planner, topology  # noqa: E402

SLICES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1", "v4:2x2x1")


def main() -> None:
  """Calibrates what the file does not hold yet."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", type=Path, required=True)
  path = parser.parse_args().json
  found = json.loads(path.read_text()) if path.exists() else {}
  for name in SLICES:
    if name not in found:
      result = calibrate.run(topology.describe(name))
      date = datetime.date.today().isoformat()
      found[name] = {**dataclasses.asdict(result), "date": date, "versions": planner.versions()}
      path.write_text(json.dumps(found, indent=1) + "\n")
    print(calibrate.table(calibrate.Calibration(**_figures(found[name]))), flush=True)


def _figures(result: dict) -> dict:
  names = [field.name for field in dataclasses.fields(calibrate.Calibration)]
  return {name: result[name] for name in names}


if __name__ == "__main__":
  main()
