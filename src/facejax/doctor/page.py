"""report.json's content -> report.html: one file with all pictures in it, every text escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from facejax.doctor.findings import KINDS

_SHOWN = 6  # findings of a kind
_WIDTH, _HEIGHT = 720, 160  # of the histogram, pixels
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
td.picture { width: 160px; }
.error { color: #a01818; font-weight: 600; }
.warning { color: #8a5a00; font-weight: 600; }
.clean { color: #11602a; font-weight: 600; }
.missing { color: #555; font-style: italic; }
small { color: #555; }
"""


def page(report: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
  """The page.

  Args:
    report: as check.py makes it.
    thumbnails: id of a sample -> JPEG as base64.
  """
  names = ", ".join(source["name"] for source in report["sources"])
  by_kind: dict[str, list[Mapping[str, Any]]] = {slug: [] for slug in KINDS}
  for finding in report["findings"]:
    by_kind[finding["kind"]].append(finding)
  parts = [
    f"<h1>{_text(names)}</h1>",
    _verdict(report),
    _totals(report),
    _histogram(report),
    _kinds(report),
    *(_examples(slug, found, thumbnails) for slug, found in by_kind.items() if found),
  ]
  body = "\n".join(parts)
  return (
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
    f"<title>{_text(names)}: data check</title><style>{_STYLE}</style></head>\n"
    f"<body>\n{body}\n</body>\n</html>\n"
  )


def _text(value: Any) -> str:
  """Escaped; control characters are made visible, so that no browser acts on them."""
  shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
  return html.escape(shown)


def _verdict(report: Mapping[str, Any]) -> str:
  samples, out = report["totals"]["samples"], report["quarantined"]
  if not report["errors"] and not report["warnings"]:
    return f'<p class="clean">Nothing was found wrong with {samples:,} samples.</p>'
  level = "error" if report["errors"] else "warning"
  return (
    f'<p class="{level}">{out:,} of {samples:,} samples are in quarantine; {report["errors"]:,} '
    f"errors, {report['warnings']:,} warnings.</p>"
  )


def _totals(report: Mapping[str, Any]) -> str:
  totals = report["totals"]
  hours = totals["video_seconds"] / 3600
  rows = {
    "samples": f"{totals['samples']:,}",
    "of splits": ", ".join(f"{name} {n:,}" for name, n in sorted(report["splits"].items())),
    "pictures": f"{totals['images']:,}",
    "clips": f"{totals['videos']:,}, {hours:.2f} hours",
    "bytes": f"{totals['bytes']:,}",
    "text tokens": f"{totals['text_tokens']:,}",
    "visual tokens": f"{totals['visual_tokens']:,}",
    "longest sample": f"{totals['longest']:,} tokens; a row has {report['row_length']:,}",
    "faces looked for": "yes" if report["detector"] else "no: --detector was not given",
    "checked in": f"{report['seconds']:g} s, {report['cpu_seconds']:g} s of a core",
    "config": report["config"][:16],
    "versions": ", ".join(f"{name} {v}" for name, v in report["versions"].items()),
  }
  lines = "\n".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in rows.items())
  return f"<h2>Totals</h2>\n<table>\n{lines}\n</table>"


def _histogram(report: Mapping[str, Any]) -> str:
  """Bars as SVG: samples by their length."""
  title = "<h2>Lengths</h2>\n"
  counts: Sequence[int] = report["lengths"]["samples"]
  if not sum(counts):
    return title + '<p class="missing">No sample could be laid out.</p>'
  edges, highest = report["lengths"]["edges"], max(counts)
  width = _WIDTH / len(counts)
  bars = "".join(
    f'<rect x="{i * width:.1f}" y="{_HEIGHT * (1 - n / highest):.1f}" width="{width - 1:.1f}" '
    f'height="{_HEIGHT * n / highest:.1f}" fill="#3b6ea5"><title>{edges[i]:g} to '
    f"{edges[i + 1]:g} tokens: {n:,}</title></rect>"
    for i, n in enumerate(counts)
  )
  return (
    f'{title}<svg role="img" aria-label="samples by length" width="{_WIDTH}" height="{_HEIGHT}" '
    f'viewBox="0 0 {_WIDTH} {_HEIGHT}">{bars}</svg>\n<p><small>Samples by tokens, text and visual, '
    f"from {edges[0]:g} to {edges[-1]:g}; the highest bar is {highest:,}.</small></p>"
  )


def _kinds(report: Mapping[str, Any]) -> str:
  if not report["kinds"]:
    return ""
  rows = "\n".join(
    f'<tr><td><a href="#{slug}">{slug}</a></td><td class="{kind["severity"]}">{kind["severity"]}'
    f'</td><td class="number">{kind["findings"]:,}</td><td>{_text(kind["about"])}</td></tr>'
    for slug, kind in report["kinds"].items()
  )
  return (
    "<h2>Findings</h2>\n<p>Samples with an error are in quarantine; warnings are only listed.</p>\n"
    "<table>\n<tr><th>kind</th><th></th><th>findings</th><th>what it means</th></tr>\n"
    f"{rows}\n</table>"
  )


def _examples(slug: str, found: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, str]) -> str:
  """The first findings of a kind."""
  rows = "\n".join(_row(finding, thumbnails) for finding in found[:_SHOWN])
  more = len(found) - _SHOWN
  note = f"<p><small>and {more:,} more in report.json</small></p>" if more > 0 else ""
  return f'<h3 id="{slug}">{slug}</h3>\n<table>\n{rows}\n</table>\n{note}'


def _row(finding: Mapping[str, Any], thumbnails: Mapping[str, str]) -> str:
  data = thumbnails.get(finding["sample"], "")
  picture = f'<img alt="the medium" src="data:image/jpeg;base64,{data}">' if data else ""
  return (
    f'<tr><td class="picture">{picture}</td><td><strong>{_text(finding["sample"] or "the index")}'
    f"</strong><br>{_text(finding['message'])}</td></tr>"
  )
