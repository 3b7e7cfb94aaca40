"""A plan in words. Plan -> table, JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from facejax.plan.planner import Figures, Plan, Traffic, needed_flops

GB = 1e9


def to_json(plan: Plan) -> dict[str, Any]:
  """Plain values: seconds, bytes, FLOPs; GB are 1e9 bytes, memory is a chip's (not a device's)."""
  times = lambda figures: dataclasses.asdict(figures) if figures else None
  result: dict[str, Any] = {
    "config": plan.config,
    "stage": plan.stage,
    "topology": plan.topology,
    "slices": plan.slices,
    "chips": plan.chips,
    "mesh": plan.mesh,
    "rows": plan.rows,
    "row_length": plan.row_length,
    "accumulate": plan.accumulate,
    "remat": plan.remat,
    "fits": plan.fits,
    "hbm_gb_per_chip": memory(plan),
    "would_fit": list(plan.would_fit),
    "step_seconds": times(plan.step_seconds),
    "planned_mfu": times(plan.mfu),
    "planned_mfu_useful": times(plan.useful_mfu),
    "planned_mfu_causal_rows": times(plan.causal_mfu),
    "tokens_per_step": plan.rows * plan.row_length,
    "useful_tokens_per_step": round(plan.useful_tokens_per_step),
    "useful_tokens_per_second_per_chip": plan.tokens_per_second_per_chip,
    "samples_per_step": plan.fill.samples * plan.rows,
    "fill": dataclasses.asdict(plan.fill),
    "model_flops_per_step": {
      "total": needed_flops(plan),
      "useful": sum(part.useful for part in plan.model_flops.values()),
      **{name: dataclasses.asdict(part) for name, part in plan.model_flops.items()},
    },
    "whole_on_every_device": {"gb": plan.whole[0] / GB, "largest": plan.whole[1]},
    "collectives": [_traffic(t) for t in plan.collectives],
    "compute": None,
    "custom_calls": [dataclasses.asdict(kernel) for kernel in plan.kernels],
    "limits": limits(plan),
    "days": plan.days,
    "chip_hours": plan.chip_hours,
    "compile_seconds": plan.compile_seconds,
    "versions": plan.versions,
  }
  if plan.compute:
    c = plan.compute
    result["compute"] = {
      "seconds": c.total,
      "cycles": None if plan.clock is None else round((c.matmul + c.elementwise) * plan.clock),
      "matmul": c.matmul,
      "elementwise": c.elementwise,
      "custom_calls": c.kernels,
      "custom_calls_unknown": list(c.kernels_unknown),
      "loops_unknown": list(c.loops_unknown),
      "program_flops_per_device": c.program_flops,
      "basis": "compiler's cycles" if c.from_cycles else "roofline",
    }
  return result


def write_json(plan: Plan, path: Path) -> None:
  """Raises OSError if the file cannot be written."""
  path.write_text(json.dumps(to_json(plan), indent=1) + "\n")


def memory(plan: Plan) -> dict[str, float]:
  """GB a chip."""
  m, per = plan.memory, plan.devices // plan.chips / GB
  return {
    "parameters": (m.trainable + m.frozen) * per,
    "optimizer": m.optimizer * per,
    "batch": m.batch * per,
    "activations": m.temporary * per,
    "total": m.total * per,
    "limit": m.limit * per,
  }


def _traffic(t: Traffic) -> dict[str, Any]:
  return {
    "op": t.op,
    "bytes": t.bytes,
    "async": t.overlaps,
    "group": t.group,
    "seconds": t.seconds,
    "count": t.count,
    "where": t.where,
  }


def limits(plan: Plan) -> str:
  """What the time of the step goes into, the largest first; or by how much it does not fit."""
  m = memory(plan)
  if not plan.fits:
    return f"memory: {m['total']:.1f} GB a chip of {m['limit']:.1f}"
  assert plan.compute and plan.step_seconds
  c, step = plan.compute, plan.step_seconds.schedule
  exposed = step - c.total
  peak = plan.peak
  rate = (c.program_flops - sum(k.flops for k in plan.kernels)) / peak / c.matmul if c.matmul else 0
  shares = {
    f"products (at {rate:.0%} of the peak)": c.matmul,
    "elementwise and copies": c.elementwise,
    "kernels": c.kernels,
  }
  alone = sorted((t for t in plan.collectives if not t.overlaps), key=lambda t: -t.seconds)
  largest = f" (largest: {alone[0].op} over {alone[0].group})" if alone else ""
  shares[f"exposed collectives{largest}"] = exposed
  parts = [f"{name} {s / step:.0%}" for name, s in sorted(shares.items(), key=lambda x: -x[1])]
  twice = c.program_flops * plan.devices / needed_flops(plan) - 1
  if twice > 0.05:
    parts.append(f"computed beyond need: {twice:.0%} of the FLOPs")
  if m["total"] > 0.9 * m["limit"]:
    parts.append(f"memory full to {m['total'] / m['limit']:.0%}")
  return "; ".join(parts)


def table(plan: Plan) -> str:
  """What a person reads."""
  m = memory(plan)
  mesh = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "1 device"
  place = plan.topology + (f" x {plan.slices} slices" if plan.slices > 1 else "")
  lines = [
    f"{plan.config or 'config'}, {plan.stage}, on {place}: {plan.chips} chips, mesh {mesh}",
    f"rows {plan.rows} of {plan.row_length} tokens, accumulate {plan.accumulate}, "
    f"remat {plan.remat}",
    "",
    "memory, GB a chip",
    *(f"  {name:<12}{value:>9.2f}" for name, value in m.items()),
    f"  whole on every device, of parameters and optimizer: {plan.whole[0] / GB:.4f}"
    + (f" (the largest: {plan.whole[1]})" if plan.whole[1] else ""),
  ]
  if not plan.fits:
    lines += [f"DOES NOT FIT: {m['total'] - m['limit']:.2f} GB a chip too much. What would fit:"]
    return "\n".join([*lines, *(f"  {idea}" for idea in plan.would_fit or ("nothing found",))])
  assert plan.compute and plan.step_seconds and plan.mfu and plan.useful_mfu and plan.causal_mfu
  c = plan.compute
  basis = "compiler's cycles" if c.from_cycles else "roofline: the compiler estimates no GPU cycles"
  lines += [
    f"fits, {m['limit'] - m['total']:.2f} GB free",
    "",
    f"compute, seconds a step ({basis})",
    f"  products    {c.matmul:>9.4f}",
    f"  elementwise {c.elementwise:>9.4f}",
    f"  kernels     {c.kernels:>9.4f}  (not estimated by the compiler: tiles counted)",
  ]
  if c.kernels_unknown:
    lines.append(f"  NOT COUNTED: {', '.join(c.kernels_unknown)}")
  if c.loops_unknown:
    lines.append(f"  counted once, turns unknown: {', '.join(c.loops_unknown)}")
  lines += ["", "collectives", _collectives(plan), ""]
  lines += [
    "                             slowest  schedule   fastest",
    _figures("step, seconds", plan.step_seconds, 9, 4),
    _figures("MFU", plan.mfu, 9, 3),
    _figures("  of what is in use alone", plan.useful_mfu, 9, 3),
    _figures("  attention of whole rows", plan.causal_mfu, 9, 3),
    "",
    f"{plan.useful_tokens_per_step:,.0f} useful tokens a step "
    f"({plan.fill.tokens:.0%} of positions), {plan.tokens_per_second_per_chip:,.0f} a second and "
    "chip",
    *_slots(plan),
    f"FaceInstruct-1M once: {plan.days:.4f} days, {plan.chip_hours:,.1f} chip hours",
    f"limited by: {limits(plan)}",
    f"compiled in {plan.compile_seconds:.0f} s with "
    + ", ".join(f"{name} {version}" for name, version in plan.versions.items()),
  ]
  return "\n".join(lines)


def _slots(plan: Plan) -> list[str]:
  """What the encoders compute for nothing: shapes are static, so they run on empty slots too."""
  used = {"pictures": plan.fill.pictures, "clips": plan.fill.clips}
  words = ", ".join(f"{share:.0%} of {kind}' slots" for kind, share in used.items() if share)
  return [f"encoders run on every media slot; in use are {words}"] if words else []


def _figures(name: str, figures: Figures, width: int, digits: int) -> str:
  values = "".join(f"{x:>{width + 1}.{digits}f}" for x in dataclasses.astuple(figures))
  return f"{name:<26}{values}"


def _collectives(plan: Plan, most: int = 12) -> str:
  rows = [f"  {'':<20}{'group':<26}{'':<7}{'times':>7}{'GB':>10}{'seconds':>10}"]
  for t in plan.collectives[:most]:
    way = "async" if t.overlaps else "alone"
    rows.append(
      f"  {t.op:<20}{t.group:<26}{way:<7}{t.count:>7}{t.bytes / GB:>10.3f}{t.seconds:>10.4f}"
    )
  rest = plan.collectives[most:]
  if rest:
    rows.append(f"  {len(rest)} more, {sum(t.seconds for t in rest):.4f} s")
  return "\n".join(rows) if plan.collectives else "  none"
