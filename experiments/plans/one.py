"""One row, planned: python experiments/plans/one.py ROW.json RESULT.json; run.py calls it."""

import dataclasses
import datetime
import json
import sys
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")

from facejax import config_io  # noqa: E402
from facejax.plan import command, generation, planner, report, store, topology  # noqa: E402
from facejax.sharding import make_mesh, row_parts  # noqa: E402


def main() -> None:
  """Plans the row of argv[1] and writes argv[2]."""
  row, path = json.loads(sys.argv[1]), Path(sys.argv[2])
  result, last = (answers if "prompt" in row else step)(row)
  result |= {"row": row, "date": datetime.date.today().isoformat()}
  path.write_text(json.dumps(result, indent=1) + "\n")
  print(last)


def answers(row: dict) -> tuple[dict, str]:
  """One of rows.Answers: its figures, and a line of them."""
  target = topology.describe(row["topology"])
  config = command.placed(config_io.load(f"configs/{row['config']}.py"), row["mesh"], target)
  found = generation.plan(config, target, row["rows"], row["prompt"], row["new_tokens"])
  result = {**dataclasses.asdict(found), "versions": planner.versions()}
  return result, generation.table(found).splitlines()[-2]


def step(row: dict) -> tuple[dict, str]:
  """One of rows.Row: its figures, and what limits it."""
  target = topology.describe(row["topology"], row["slices"])
  name = f"configs/{row['config']}.py"
  config = command.placed(config_io.load(name, row["changes"]), row["mesh"], target)
  stage = row["stage"]
  rows = row["device_rows"] * row_parts(make_mesh(config.mesh, target.devices))
  rows *= config.stages[stage].accumulate
  config = config_io.override(config, [f"stages.{stage}.rows={rows}"])
  program = store.step(config, stage, target, store.default_folder())
  plan = planner.assess(config, stage, target, program, name)
  return report.to_json(plan), report.table(plan).splitlines()[-2]


if __name__ == "__main__":
  main()
