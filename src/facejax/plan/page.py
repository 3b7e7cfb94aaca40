"""A plan as a page. Plan -> one HTML file with its drawings in it.

Two drawings: the roofline (FLOP/s over FLOPs a byte, of products, kernels and the rest) and the
step as bars: compute, collectives that stand alone, collectives beside compute.
"""

import html
import math
from pathlib import Path

from facejax.plan import report
from facejax.plan.planner import Plan

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
pre { overflow-x: auto; background: #f5f5f5; padding: 1rem; font-size: 13px; }
svg { max-width: 100%; height: auto; } small { color: #555; }
"""
_COLOURS = {"products": "#1f5fa8", "kernels": "#8a3ffc", "elementwise": "#b5651d"}
_W, _H, _LEFT, _BOTTOM = 720, 360, 70, 40


def write(plan: Plan, path: Path) -> None:
  """Raises OSError if the file cannot be written."""
  title = f"{plan.config} {plan.stage} on {plan.topology}"
  drawings = _roofline(plan) + _bars(plan) if plan.compute else ""
  path.write_text(
    f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
    f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>{drawings}"
    f"<h2>Figures</h2><pre>{html.escape(report.table(plan))}</pre></html>\n"
  )


def points(plan: Plan) -> dict[str, tuple[float, float]]:
  """FLOPs a byte and FLOP/s of each kind of work, a device; those without FLOPs are left out."""
  assert plan.compute
  c = plan.compute
  kernels = sum(k.flops for k in plan.kernels)
  found = {}
  if c.matmul and c.matmul_bytes:
    flops = c.program_flops - kernels
    found["products"] = (flops / c.matmul_bytes, flops / c.matmul)
  if c.kernels:
    found["kernels"] = (kernels / sum(k.bytes for k in plan.kernels), kernels / c.kernels)
  return found


def _roofline(plan: Plan) -> str:
  ridge = plan.peak / plan.bandwidth
  x = lambda value: _LEFT + (_W - _LEFT - 20) * (math.log10(value) + 1) / 5.5
  top = math.log10(plan.peak) + 0.3
  y = lambda value: 20 + (_H - _BOTTOM - 20) * (top - math.log10(value)) / 4
  low = plan.peak / 10**3.5
  start = low / plan.bandwidth
  line = f"{x(max(start, 0.1)):.0f},{y(max(start, 0.1) * plan.bandwidth):.0f}"
  line += f" {x(ridge):.0f},{y(plan.peak):.0f} {x(10**4.5):.0f},{y(plan.peak):.0f}"
  marks = "".join(
    f'<circle cx="{x(min(max(i, 0.1), 10**4.5)):.0f}" cy="{y(max(rate, low)):.0f}" r="6" '
    f'fill="{_COLOURS[name]}"><title>{name}: {i:.0f} FLOPs a byte, {rate / 1e12:.1f} TFLOP/s'
    f'</title></circle><text x="{x(min(max(i, 0.1), 10**4.5)) + 10:.0f}" '
    f'y="{y(max(rate, low)) + 18:.0f}" font-size="13">{name} {rate / plan.peak:.0%}</text>'
    for name, (i, rate) in points(plan).items()
  )
  ticks = "".join(
    f'<text x="{x(10**k):.0f}" y="{_H - 20}" font-size="12" text-anchor="middle">10^{k}</text>'
    for k in range(5)
  )
  return (
    f'<h2>Roofline</h2><svg viewBox="0 0 {_W} {_H}" role="img" aria-label="roofline">'
    f'<polyline points="{line}" fill="none" stroke="#444" stroke-width="2"/>{marks}{ticks}'
    f'<text x="{_W / 2}" y="{_H - 4}" font-size="12" text-anchor="middle">FLOPs a byte</text>'
    f'<text x="4" y="{y(plan.peak) + 4:.0f}" font-size="12">{plan.peak / 1e12:.0f}</text>'
    f'<text x="4" y="14" font-size="12">TFLOP/s a device</text></svg>'
    f"<p><small>A device: {plan.peak / 1e12:.0f} TFLOP/s, {plan.bandwidth / 1e9:.0f} GB/s; the two "
    f"meet at {ridge:.0f} FLOPs a byte.</small></p>"
  )


def _bars(plan: Plan) -> str:
  assert plan.compute and plan.step_seconds
  c = plan.compute
  rows = [
    ("products", c.matmul, 0.0, "#1f5fa8"),
    ("elementwise", c.elementwise, c.matmul, "#b5651d"),
    ("kernels", c.kernels, c.matmul + c.elementwise, "#8a3ffc"),
    ("collectives alone", _seconds(plan, False), c.total, "#a01818"),
    ("collectives beside", _seconds(plan, True), 0.0, "#11602a"),
  ]
  longest = max(start + width for _, width, start, _ in rows)
  scale = (_W - 240) / longest if longest else 0
  bars = "".join(
    f'<text x="0" y="{24 * k + 17}" font-size="13">{name}</text>'
    f'<rect x="{140 + start * scale:.1f}" y="{24 * k + 4}" height="16" '
    f'width="{max(width * scale, 0.5):.1f}" fill="{colour}"/>'
    f'<text x="{146 + (start + width) * scale:.1f}" y="{24 * k + 17}" font-size="12">'
    f"{width:.4f} s</text>"
    for k, (name, width, start, colour) in enumerate(rows)
  )
  return (
    f'<h2>A step: {plan.step_seconds.schedule:.4f} s</h2><svg viewBox="0 0 {_W} {24 * len(rows)}" '
    f'role="img" aria-label="seconds of a step">{bars}</svg>'
  )


def _seconds(plan: Plan, overlaps: bool) -> float:
  return sum(t.seconds for t in plan.collectives if t.overlaps == overlaps)
