"""An index in the official JSON format, completed: what is made of its media, and a new index.

    INDEX.json --parse--> media --campaign--> results --> OUT/INDEX.json, OUT/STEP_report.json

OUT stands alone: media that stay as they are are linked into it (hard links, or copies on another
disk), because an index may not name files outside its folder. The new index has the same samples in
the same order, less those of which a medium was refused: they are in the report, by name.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from facejax.config import MODALITIES, LlavaConfig
from facejax.data import llava
from facejax.data.llava import File, Record
from facejax.extract.campaign import Done, Job, Result, Work, place, run, save
from facejax.extract.ledger import Ledger

Made = Literal["landmarks", "segmentation"]
_FIELDS: dict[Made, str] = {"landmarks": "landmarks_2d", "segmentation": "segmentation"}


class Place(NamedTuple):
  """The index file a step reads and the folder it writes; the rest as in config.LlavaConfig."""

  source: Path
  out: Path
  image_folder: str = ""
  video_folder: str = ""


class Summary(NamedTuple):
  """What a step came to; the report holds the same and each reason.

  Attributes:
    samples: in the index.
    left_out: of them, for a medium that was refused.
    files: media, each counted once.
    refused: of them.
    counts: of what happened to the others, by name.
    fresh: media worked on in this run; the others were known.
    written: the new index.
    report: file with all reasons.
  """

  samples: int
  left_out: int
  files: int
  refused: int
  counts: dict[str, int]
  fresh: int
  written: Path
  report: Path


def complete(
  work: Work, makes: Made, where: Place, job_of: Callable[[File], Job], workers: int
) -> Summary:
  """Runs a step over an index; see the module.

  Args:
    work: what is done to a medium. Its result may name, relative to OUT, a new "medium", its
      "landmarks" and "segmentation"; "counts" are words for the summary, "note" goes into the
      report.
    makes: the field that the step fills; an old value is replaced.
    where: index and folders.
    job_of: the job for a medium; raises ValueError to refuse it.
    workers: processes; 0 works in this one.

  Raises:
    FileNotFoundError: no index.
    ValueError: an index that is no list, or that lies in OUT, where it would be overwritten.
  """
  if where.source.parent.resolve() == where.out.resolve():
    raise ValueError(
      f"{where.out} holds {where.source.name} itself, which would be overwritten - expected "
      "another folder to write to"
    )
  config = LlavaConfig((str(where.source),), where.image_folder, where.video_folder)
  (index,) = llava.read_indexes(config, "the command's INDEX")
  records, jobs, refused = _jobs(index, makes, job_of)
  where.out.mkdir(parents=True, exist_ok=True)
  carried = [path for file in jobs for path in file[2:] if path is not None]
  with Ledger(where.out / f"{makes}_ledger.jsonl") as ledger:
    done = run(work, jobs.values(), carried, ledger, workers)
  written = []
  for number, record in records.items():
    try:
      new = [_outcome(file, done.results[jobs[file]], done, where.out) for file in record.files]
    except ValueError as error:
      refused[record.name] = f"sample {record.name!r}: {error}"
      continue
    written.append(_rewritten(index.records[number], record, new, makes))
  path = where.out / where.source.name
  save(path, json.dumps(written, indent=1).encode())  # escaped, as half a surrogate has no UTF-8
  media = {job.files[0]: done.results[job] for job in jobs.values()}
  report = _report(work, index, media, refused)
  save(where.out / f"{makes}_report.json", json.dumps(report, indent=1).encode())
  return Summary(
    samples=len(index.records),
    left_out=len(refused),
    files=len(media),
    refused=len(report["refused"]),
    counts=report["counts"],
    fresh=done.fresh,
    written=path,
    report=where.out / f"{makes}_report.json",
  )


def _jobs(
  index: llava.Index, makes: Made, job_of: Callable[[File], Job]
) -> tuple[dict[int, Record], dict[File, Job], dict[str, str]]:
  """Samples by their place, the job of each medium, and why other samples have none."""
  reads = tuple(name for name in MODALITIES if name != makes)
  records: dict[int, Record] = {}
  jobs: dict[File, Job] = {}
  refused: dict[str, str] = {}
  for number, raw in enumerate(index.records):
    name = llava.record_name(index, number)
    try:
      record = llava.parse(raw, name, index.folders, reads)
      jobs.update((file, job_of(file)) for file in record.files if file not in jobs)
      records[number] = record
    except ValueError as error:
      refused[name] = str(error)
  return records, jobs, refused


class _New(NamedTuple):
  """What the new index names, relative to OUT."""

  medium: str
  landmarks: str | None
  segmentation: str | None


def _outcome(file: File, result: Result, done: Done, out: Path) -> _New:
  """Raises ValueError where the sample cannot be used."""
  if "refused" in result:
    raise ValueError(result["refused"])
  if "medium" in result and file.segmentation is not None:
    raise ValueError(
      f"{file.path} has a class map and was cropped to its face, which the map was not - expected "
      "a photograph without a map - run `facejax data segment` on the crops instead"
    )
  beside = {
    key: result.get(key) or (None if path is None else _linked(path, done, out))
    for key, path in (("landmarks", file.landmarks), ("segmentation", file.segmentation))
  }
  return _New(result.get("medium") or _linked(file.path, done, out), **beside)


def _linked(path: Path, done: Done, out: Path) -> str:
  """The file, under the name of its content in OUT."""
  if path not in done.contents:
    raise ValueError(f"{path}: no such file, or not readable - check the index")
  relative = place(out, "media", done.contents[path], path.suffix.lower())
  target = out / relative
  if not target.exists():
    try:
      os.link(path, target)
    except OSError:  # another disk, or one without links
      partial = target.with_name(f".{target.name}.partial")
      shutil.copyfile(path, partial)
      partial.replace(target)
  return relative.as_posix()


def _rewritten(raw: dict, record: Record, new: list[_New], makes: Made) -> dict:
  """The sample with other paths; a field with one path stays a path, a list a list."""
  sample = dict(raw)
  columns: dict[str, list] = {"image": [], "video": [], "landmarks_2d": [], "segmentation": []}
  for file, names in zip(record.files, new, strict=True):
    columns[file.kind].append(names.medium)
    columns["landmarks_2d"].append(names.landmarks)
    columns["segmentation"].append(names.segmentation)
  for field, values in columns.items():
    if any(values) or field == _FIELDS[makes]:
      single = len(values) == 1 and not isinstance(raw.get(field), list)
      sample[field] = values[0] if single else values
  if not record.files:
    sample.pop(_FIELDS[makes], None)
  return sample


def _report(
  work: Work, index: llava.Index, media: dict[Path, Result], left_out: dict[str, str]
) -> dict[str, Any]:
  counts = Counter(word for result in media.values() for word in result.get("counts", ()))
  return {
    "index": index.name,
    "index_sha256": index.digest,
    "fingerprint": work.fingerprint,
    "samples": len(index.records),
    "files": len(media),
    "counts": dict(sorted(counts.items())),
    "left_out": [{"sample": name, "reason": reason} for name, reason in left_out.items()],
    "refused": [
      {"file": str(path), "reason": result["refused"]}
      for path, result in media.items()
      if "refused" in result
    ],
    "notes": [
      {"file": str(path), "note": result["note"]}
      for path, result in media.items()
      if "note" in result
    ],
  }
