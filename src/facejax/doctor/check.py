"""Datasets -> report.json, report.html, quarantine.jsonl.

    every sample, once    workers: examine.py        -> findings, hashes, counts
    all samples           duplicates.py              -> copies within and across splits
    a few samples again   workers: thumbnails.py     -> examples for the page

Files appear complete or not at all, and an earlier report stays until then. Equal data, config
and version give equal findings in equal order, however many workers there were.
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from facejax import config_io
from facejax.config import RunConfig
from facejax.data.pipeline import row_format
from facejax.doctor.cases import Subject
from facejax.doctor.duplicates import Ledger
from facejax.doctor.examine import Examined, Examiner, Job
from facejax.doctor.findings import KINDS, Finding, Note, Severity, judged, severities
from facejax.doctor.page import page
from facejax.doctor.pool import Failed, Pool
from facejax.doctor.stored import is_store, open_subjects

FORMAT = 1
EXAMPLES = 6  # shown of each kind
QUARANTINE = "quarantine.jsonl"
_BINS = 24
_LIBRARIES = ("facejax", "numpy", "pillow", "av", "sentencepiece")


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a check is done.

  Attributes:
    workers: processes; 0: one a core.
    timeout: seconds of a core that a single file may take to decode.
    detector: folder or bundle of a face detector's models; "": faces are not looked for.
    severity: KIND=error|warning|off, over findings.KINDS.
    progress: shows a bar.
  """

  workers: int = 0
  timeout: float = 60.0
  detector: str = ""
  severity: tuple[str, ...] = ()
  progress: bool = True

  def __post_init__(self):
    if self.workers < 0 or not self.timeout > 0:
      raise ValueError(
        f"--workers={self.workers}, --timeout={self.timeout:g}: expected 0 or more processes and "
        "more than 0 seconds"
      )


def check(
  sources: Sequence[str | Path],
  config: RunConfig,
  out: Path,
  settings: Settings = Settings(),
) -> dict[str, Any]:
  """Checks datasets and writes the report.

  Args:
    sources: index files, specifications, built sources or folders of these; copies are looked for
      over all of them.
    config: of the run that the data is for: its tokenizer, row, model and modalities.
    out: folder of report.json, report.html and, unless a source is a store, quarantine.jsonl.
    settings: how.

  Returns:
    The content of report.json.

  Raises:
    FileNotFoundError: a source or the tokenizer is not there.
    ValueError: a source is none, or a setting is unknown.
    ModuleNotFoundError: a decoder is not installed.
  """
  levels = severities(settings.severity)
  row_format(config.model, config.data)  # a config that cannot be used is told before any work
  subjects = open_subjects(sources, config)
  started = time.monotonic()
  examiner = Examiner(tuple(s.reader for s in subjects), config, levels, settings.detector)
  with Pool(examiner, settings.workers or os.cpu_count() or 1, settings.timeout) as pool:
    seen = _Seen(subjects, levels)
    total = sum(map(len, subjects))
    bar = tqdm(total=total, desc="checking", unit="sample", disable=not settings.progress)
    with bar:
      for job, answer in pool.run(_jobs(subjects)):
        seen.add(job, answer)
        bar.update()
    findings = seen.findings()
    thumbnails = _thumbnails(pool, subjects, seen, findings)
  report = {
    **_about(config, settings),
    "seconds": round(time.monotonic() - started, 1),
    "cpu_seconds": round(seen.cpu, 2),
    **seen.summary(),
    **_counted(findings),
    "findings": [dataclasses.asdict(finding) for _, finding in findings],
  }
  _write(out, subjects, seen, findings, report, thumbnails)
  return report


def _jobs(subjects: Sequence[Subject]) -> Iterator[Job]:
  for number, subject in enumerate(subjects):
    for place in range(len(subject)):
      yield Job(number, place, subject.payload(place))


def _thumbnails(
  pool: Pool, subjects: Sequence[Subject], seen: "_Seen", findings: list[tuple[int, Finding]]
) -> dict[str, str]:
  """Id -> picture of the first examples of each kind; of those that a decoder survives."""
  chosen: dict[int, None] = {}
  shown: dict[str, int] = dict.fromkeys(KINDS, 0)
  deadly = {at for at, finding in findings if finding.kind.startswith("decoder_")}
  for at, finding in findings:
    if shown[finding.kind] < EXAMPLES and at >= 0 and at not in deadly:
      shown[finding.kind] += 1
      chosen[at] = None
  jobs = []
  for at in chosen:
    number = int(np.searchsorted(seen.starts, at, side="right")) - 1
    place = at - seen.starts[number]
    jobs.append(Job(number, place, subjects[number].payload(place), draw=True))
  drawn = {}
  for job, answer in pool.run(jobs):
    if isinstance(answer, str) and answer:
      drawn[seen.ids[seen.starts[job.subject] + job.place]] = answer
  return drawn


class _Seen:
  """What is remembered of all samples: a constant number of bytes each, and the findings."""

  def __init__(self, subjects: Sequence[Subject], levels: dict[str, Severity]):
    self._subjects, self._levels = subjects, levels
    lengths = list(map(len, subjects))
    self.starts = [0, *itertools.accumulate(lengths)][:-1]
    self.ids = [""] * sum(lengths)
    self._splits = [""] * sum(lengths)
    self._found: dict[int, list[Finding]] = {}
    self._ledger = Ledger()
    self.cpu = 0.0  # seconds, of all workers
    self._text, self._visual = array("i"), array("i")
    self._totals: dict[str, float] = {
      "media": 0,
      "images": 0,
      "videos": 0,
      "bytes": 0,
      "video_seconds": 0.0,
    }

  def add(self, job: Job, answer: Examined | str | Failed) -> None:
    """Takes a worker's answer."""
    at = self.starts[job.subject] + job.place
    if not isinstance(answer, Examined):
      self.ids[at] = f"{self._subjects[job.subject].name}:{job.place}"
      self._splits[at] = "train"
      reason = answer.reason if isinstance(answer, Failed) else answer
      self._found[at] = judged(self.ids[at], [Note("unreadable_sample", reason)], self._levels)
      return
    self.ids[at], self._splits[at] = answer.id, answer.split
    if answer.findings:
      self._found[at] = answer.findings
    self._ledger.add(at, job.subject, answer)
    self.cpu += answer.cpu
    self._totals["bytes"] += answer.size
    for fact in answer.facts:
      self._totals["media"] += 1
      self._totals[f"{fact.kind}s"] += 1
      self._totals["video_seconds"] += fact.seconds
    if answer.text_tokens >= 0:
      self._text.append(answer.text_tokens)
      self._visual.append(answer.visual_tokens)

  def findings(self) -> list[tuple[int, Finding]]:
    """(number of the sample, finding), in order; those of a dataset as a whole have -1."""
    for at, note in self._ledger.notes(self.ids, self._splits):
      self._found.setdefault(at, []).extend(judged(self.ids[at], [note], self._levels))
    whole = [(-1, finding) for s in self._subjects for finding in judged("", s.notes, self._levels)]
    return whole + [(at, f) for at in sorted(self._found) for f in self._found[at]]

  def summary(self) -> dict[str, Any]:
    """Totals, sources and the histogram of lengths."""
    splits: dict[str, int] = {}
    for split in self._splits:
      splits[split] = splits.get(split, 0) + 1
    text, visual = (np.array(x, np.int64) for x in (self._text, self._visual))
    lengths = text + visual
    counts, edges = np.histogram(lengths, _BINS)
    return {
      "sources": [{"name": s.name, "path": str(s.path), "samples": len(s)} for s in self._subjects],
      "splits": splits,
      "totals": {
        "samples": len(self.ids),
        **self._totals,
        "video_seconds": round(self._totals["video_seconds"], 2),
        "text_tokens": int(text.sum()),
        "visual_tokens": int(visual.sum()),
        "longest": int(lengths.max(initial=0)),
      },
      "lengths": {
        "edges": [round(edge, 1) for edge in edges.tolist()],
        "samples": counts.tolist(),
      },
    }


def _about(config: RunConfig, settings: Settings) -> dict[str, Any]:
  """What the result depends on beside the data."""
  versions = {"python": platform.python_version()}
  for name in _LIBRARIES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = "not installed"
  text = config_io.to_json(config)
  return {
    "format": FORMAT,
    "versions": versions,
    "config": hashlib.sha256(text.encode()).hexdigest(),
    "row_length": config.data.row_length,
    "detector": bool(settings.detector),
    "severity": list(settings.severity),
  }


def _counted(findings: list[tuple[int, Finding]]) -> dict[str, Any]:
  """Counts by kind, in the table's order, and of samples."""
  kinds: dict[str, dict[str, Any]] = {}
  for _, finding in findings:
    entry = kinds.setdefault(
      finding.kind, {"severity": "warning", "findings": 0, "about": KINDS[finding.kind].about}
    )
    entry["findings"] += 1
    if finding.severity == "error":
      entry["severity"] = "error"
  bad = {at for at, finding in findings if finding.severity == "error"}
  return {
    "kinds": {slug: kinds[slug] for slug in KINDS if slug in kinds},
    "errors": sum(finding.severity == "error" for _, finding in findings),
    "warnings": sum(finding.severity == "warning" for _, finding in findings),
    "quarantined": len(bad - {-1}),
  }


def _write(
  out: Path,
  subjects: Sequence[Subject],
  seen: _Seen,
  findings: list[tuple[int, Finding]],
  report: dict[str, Any],
  thumbnails: dict[str, str],
) -> None:
  """The quarantine first: whoever sees a new report finds the list that belongs to it."""
  out.mkdir(parents=True, exist_ok=True)
  ends = [*seen.starts[1:], len(seen.ids)]
  elsewhere: list[str] = []
  for subject, start, end in zip(subjects, seen.starts, ends, strict=True):
    lines = _quarantined([(at, f) for at, f in findings if start <= at < end])
    if is_store(subject.path):
      path = subject.path / QUARANTINE
      _replace(path, "".join(_kept(path) + lines))
    else:
      elsewhere += lines
  if any(not is_store(subject.path) for subject in subjects):
    _replace(out / QUARANTINE, "".join(elsewhere))
  _replace(out / "report.html", page(report, thumbnails))
  _replace(out / "report.json", json.dumps(report, indent=1) + "\n")


def _quarantined(findings: list[tuple[int, Finding]]) -> list[str]:
  """A line for each sample with an error, in order: its first one."""
  lines: dict[int, str] = {}
  for at, finding in findings:
    if finding.severity == "error" and at not in lines:
      entry = {"id": finding.sample, "kind": finding.kind, "reason": finding.message}
      lines[at] = json.dumps(entry) + "\n"
  return list(lines.values())


def _kept(path: Path) -> list[str]:
  """Lines of an earlier list that are not the doctor's: someone's own kinds stay."""
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
    try:
      foreign = json.loads(line)["kind"] not in KINDS
    except (ValueError, KeyError, TypeError):
      foreign = False
    if foreign:
      kept.append(line + "\n")
  return kept


def _replace(path: Path, text: str) -> None:
  """Writes a file that appears complete or not at all."""
  part = path.with_name(f".{path.name}.{os.getpid()}")
  part.write_text(text, encoding="utf-8", errors="backslashreplace")
  os.replace(part, path)
