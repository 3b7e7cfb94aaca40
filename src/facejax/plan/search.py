"""What to choose. config, stage, topology -> plans of many meshes, remat policies and rows.

The likeliest come first, so that a search that runs out of time has them. What does not fit rules
out the same with more rows. Compiled programs are kept, so that a search continues where it ended.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

from facejax.config import MeshConfig, RunConfig
from facejax.plan import planner, report, store
from facejax.plan.planner import Plan
from facejax.plan.topology import Topology
from facejax.sharding import make_mesh, row_parts

_ROWS = (1, 2, 4, 8)  # a device along the rows
_TENSOR = (1, 4, 8)
_CONTEXT = (1, 2)


@dataclasses.dataclass(frozen=True)
class Tried:
  """A candidate: its plan, or why there is none."""

  name: str
  plan: Plan | None
  reason: str = ""


def candidates(config: RunConfig, stage: str, topology: Topology) -> Iterator[RunConfig]:
  """Configs to try, the likeliest first: few rows last, narrow parameters first."""
  devices = len(topology.devices) // topology.slices
  meshes = [
    MeshConfig(topology.slices, devices // (tensor * context), context, tensor)
    for tensor, context in sorted(itertools.product(_TENSOR, _CONTEXT), key=lambda x: x[0] * x[1])
    if devices % (tensor * context) == 0
  ]
  for mesh, remat in itertools.product(meshes, policies()):
    parts = row_parts(make_mesh(mesh, topology.devices))
    for rows in _ROWS:
      stages = dict(config.stages)
      stages[stage] = dataclasses.replace(stages[stage], rows=rows * parts, accumulate=1)
      model = dataclasses.replace(config.model, remat=remat)
      yield dataclasses.replace(config, mesh=mesh, model=model, stages=stages)


def policies() -> tuple[str, ...]:
  """The remat policies of the model, those that keep most first."""
  from facejax.models.decoder import REMAT

  return tuple(name for name in REMAT if name != "none")


def run(
  config: RunConfig,
  stage: str,
  topology: Topology,
  config_name: str,
  seconds: float,
  folder: Path | None,
) -> list[Tried]:
  """Plans candidates until the time is over; those that are kept on disk take a second each."""
  start, found = time.monotonic(), []
  full: dict[tuple, int] = {}  # mesh and policy -> rows that did not fit
  for candidate in candidates(config, stage, topology):
    mesh = {k: v for k, v in dataclasses.asdict(candidate.mesh).items() if v > 1}
    place = ",".join(f"{axis}={size}" for axis, size in mesh.items())
    rows, remat = candidate.stages[stage].rows, candidate.model.remat
    name = f"{place} {remat} rows={rows}"
    if rows >= full.get((place, remat), rows + 1):
      continue
    if time.monotonic() - start > seconds:
      found.append(Tried(name, None, "no time left"))
      continue
    try:
      program = store.step(candidate, stage, topology, folder)
    except (ValueError, RuntimeError) as error:  # JAX's own too: one candidate ends no search
      found.append(Tried(name, None, str(error).splitlines()[0][:120]))
      continue
    plan = planner.assess(candidate, stage, topology, program, config_name)
    found.append(Tried(name, plan))
    if not plan.fits:
      full[place, remat] = rows
    print(f"{name}: {_short(plan)}", flush=True)
  return found


def pareto(found: list[Tried]) -> list[Tried]:
  """Those that fit and that no other beats in both memory and useful tokens a second."""
  fitting = [t for t in found if t.plan and t.plan.fits]
  better = lambda a, b: (
    a.memory.total <= b.memory.total
    and a.tokens_per_second_per_chip >= b.tokens_per_second_per_chip
    and (a.memory.total, a.tokens_per_second_per_chip)
    != (b.memory.total, b.tokens_per_second_per_chip)
  )
  front = [t for t in fitting if not any(better(o.plan, t.plan) for o in fitting)]
  return sorted(front, key=lambda t: t.plan.memory.total if t.plan else 0)


def best(found: list[Tried]) -> Plan:
  """The fastest that fits; if none does, the smallest. Raises ValueError if nothing was planned."""
  plans = [t.plan for t in found if t.plan]
  fitting = [plan for plan in plans if plan.fits]
  if fitting:
    return max(fitting, key=lambda plan: plan.tokens_per_second_per_chip)
  if not plans:
    raise ValueError("--search: nothing was planned, for the reasons above - no time: --budget")
  return min(plans, key=lambda plan: plan.memory.total)


def table(found: list[Tried]) -> str:
  """All that was tried; a star marks what no other beats in both memory and speed."""
  front = {t.name for t in pareto(found)}
  lines = [f"  {'mesh, remat, rows':<44}{'GB a chip':>10}{'tokens/s/chip':>15}{'MFU':>7}"]
  for t in sorted(found, key=lambda t: -(t.plan.tokens_per_second_per_chip if t.plan else -1)):
    if t.plan is None:
      lines.append(f"  {t.name:<44}  {t.reason}")
      continue
    mark = "*" if t.name in front else " "
    gb = report.memory(t.plan)["total"]
    if not t.plan.fits or t.plan.mfu is None:
      lines.append(f"{mark} {t.name:<44}{gb:>10.1f}  does not fit")
      continue
    rate = t.plan.tokens_per_second_per_chip
    lines.append(f"{mark} {t.name:<44}{gb:>10.1f}{rate:>15,.0f}{t.plan.mfu.schedule:>7.3f}")
  return "\n".join([*lines, "* no other is better in both memory and speed"])


def _short(plan: Plan) -> str:
  if not plan.fits or plan.mfu is None:
    return f"{report.memory(plan)['total']:.1f} GB a chip, does not fit"
  gb, rate = report.memory(plan)["total"], plan.tokens_per_second_per_chip
  return f"{gb:.1f} GB, {rate:,.0f} tokens/s/chip, MFU {plan.mfu.schedule:.3f}"
