"""A specification -> OUT/SOURCE for each of its sources, complete or not there at all.

    OUT/.building/SOURCE/identity.json   what is being built; another one is refused
    OUT/.building/SOURCE/parts/00012/    a TFDS dataset of `part` samples; rows.npz, written last,
                                         says that it is complete
    OUT/.building/SOURCE/done/           the shards moved together, with manifest
    OUT/SOURCE/                          done/, renamed: one TFDS dataset folder

A killed build repeats the parts it was working on. Whatever is finished stays.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from facejax.data.refused import TooManyRefused, check_share
from facejax.locks import hold
from facejax.records import builder, manifest
from facejax.records.spec import SourceSpec
from facejax.types import Refusal

_ROWS = "rows.npz"
QUARANTINE = "quarantine.jsonl"  # ids that training leaves out; see store.py


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to build, which does not change what is built.

  Attributes:
    workers: processes that build parts; 1: this one.
    beam: options of a Beam pipeline, "" for its defaults; None: without Beam.
    max_refused: share of a source's samples that may be unusable.
    rebuild: names of sources to build from the start, whatever is there.
  """

  workers: int = 1
  beam: str | None = None
  max_refused: float = 0.01
  rebuild: tuple[str, ...] = ()


SETTINGS = Settings()


def build(source: SourceSpec, out: pathlib.Path, settings: Settings = SETTINGS) -> str:
  """Builds out/NAME, or finds it built.

  Returns:
    What a person needs to know of it, in a line.

  Raises:
    ValueError: another specification or index than the one that out/NAME was built from, ids that
      repeat, more unusable samples than allowed, or another process that builds it.
    FileNotFoundError: an index file, or out/NAME is a folder that was not built.
  """
  builder.opened.cache_clear()  # an index that was edited since is read anew
  layout = builder.opened(source)
  identity = source.identity(layout.digest())
  final, work = out / source.name, out / ".building" / source.name
  anew, quarantined = source.name in settings.rebuild, (final / QUARANTINE).exists()
  if final.exists():
    about = manifest.Manifest(final / "manifest").about  # no other folder is ever replaced
    if not anew:
      _check_identity(final, about["identity"], identity, source.name)
      shutil.rmtree(work, ignore_errors=True)  # a kill behind the last step leaves it
      return f"{final}: {_told(about)}, already built"
  _check_ids(source, layout)
  spans = [
    (start, min(start + source.part, len(layout))) for start in range(0, len(layout), source.part)
  ]
  with _alone(work):
    _start(work, identity, source.name, anew)
    _build_parts(source, work / "parts", spans, settings)
    about = _finish(source, work, len(spans), identity)
    if final.exists():
      os.replace(final, work / "old")
    os.replace(work / "done", final)
    shutil.rmtree(work)
  with contextlib.suppress(OSError):  # another source is being built
    work.parent.rmdir()
  gone = "; its quarantine list is gone, run facejax data check" if quarantined else ""
  return f"{final}: {_told(about)}{gone}"


@contextlib.contextmanager
def _alone(work: pathlib.Path) -> Iterator[None]:
  """Keeps others out of a folder; the system ends that with the process, however it ends."""
  work.mkdir(parents=True, exist_ok=True)
  handle = os.open(work, os.O_RDONLY)
  try:
    hold(
      handle,
      f"{work} is being built by another process - expected one at a time - wait for it, or stop "
      "it",
    )
    yield
  finally:
    os.close(handle)


def _told(about: dict) -> str:
  return f"{about['samples']:,} samples in {about['bytes']:,} bytes, {about['refused']:,} refused"


def _check_identity(folder: pathlib.Path, old: dict, new: dict, name: str) -> None:
  if old == new:
    return
  changed = [f"{k} {old.get(k)!r} -> {new.get(k)!r}" for k in new if old.get(k) != new[k]]
  raise ValueError(
    f"{folder} was built from another specification or index: {'; '.join(changed)} - expected the "
    f"same - give the source another name, or build it from the start with --rebuild={name}"
  )


def _check_ids(source: SourceSpec, layout) -> None:
  if not len(layout):
    raise ValueError(f"source {source.name!r} has no sample (0) - check its index and its folders")
  seen: set[str] = set()
  for index in range(len(layout)):
    name = layout.id(index)
    if name in seen:
      raise ValueError(
        f"source {source.name!r}: sample id {name!r} comes twice, at last in place {index} - "
        "expected each id once - remove the entry from the index"
      )
    seen.add(name)


def _start(work: pathlib.Path, identity: dict, name: str, anew: bool) -> None:
  path = work / "identity.json"
  if path.is_file() and json.loads(path.read_bytes()) != identity:
    if not anew:
      _check_identity(work, json.loads(path.read_bytes()), identity, name)
    for folder in work.iterdir():  # the identity last: no part is ever under another one
      if folder.is_dir():
        shutil.rmtree(folder)
  manifest.write_text(path, json.dumps(identity, indent=1) + "\n")


def _build_parts(
  source: SourceSpec, folder: pathlib.Path, spans: Sequence[tuple[int, int]], settings: Settings
) -> None:
  """Builds the parts that are not complete. Raises ValueError at one refusal too many."""
  missing = [i for i in range(len(spans)) if not (_part(folder, i) / _ROWS).is_file()]
  refused = {i: _refusals(folder, i) for i in range(len(spans)) if i not in set(missing)}
  total, left = spans[-1][1], sum(spans[i][1] - spans[i][0] for i in missing)
  with tqdm(total=total, initial=total - left, desc=source.name, unit=" samples") as progress:
    try:
      _check_refused(refused, total, settings)
      for part in _built(source, folder, [(i, spans[i]) for i in missing], settings, progress):
        refused[part] = _refusals(folder, part)
        _check_refused(refused, total, settings)
    except TooManyRefused:
      for part in (part for part, refusals in refused.items() if refusals):
        (_part(folder, part) / _ROWS).unlink()  # read again when the samples are repaired
      raise


def _check_refused(refused: dict[int, list[Refusal]], total: int, settings: Settings) -> None:
  listed = [refusal for part in sorted(refused) for refusal in refused[part]]
  check_share(listed, total, settings.max_refused, "--max-refused")


def _built(
  source: SourceSpec,
  folder: pathlib.Path,
  jobs: Sequence[tuple[int, tuple[int, int]]],
  settings: Settings,
  progress: tqdm,
) -> Iterator[int]:
  """Builds parts; gives the number of each as it is complete."""
  if settings.workers == 1 or len(jobs) < 2:
    beam = settings.beam is not None
    for part, span in jobs:
      seen = lambda index: progress.update()
      _build_part(source, _part(folder, part), span, settings.beam, None if beam else seen)
      progress.update(span[1] - span[0] if beam else 0)
      yield part
    return
  # A forked process would inherit the threads of JAX and of Beam in an undefined state.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(settings.workers, context) as pool:
    running = {
      pool.submit(_build_part, source, _part(folder, part), span, settings.beam): (part, span)
      for part, span in jobs
    }
    try:
      for future in concurrent.futures.as_completed(running):
        part, span = running[future]
        future.result()
        progress.update(span[1] - span[0])
        yield part
    finally:
      pool.shutdown(cancel_futures=True)


def _part(folder: pathlib.Path, part: int) -> pathlib.Path:
  return folder / f"{part:05d}"


def _build_part(
  source: SourceSpec,
  folder: pathlib.Path,
  span: tuple[int, int],
  beam: str | None,
  seen: Callable[[int], None] | None = None,
) -> None:
  """Builds a part from nothing; rows.npz comes last."""
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  part = builder.build(source, span, folder, beam, seen or (lambda index: None))
  refusals = [dataclasses.asdict(refusal) for refusal in part.refusals]
  arrays = manifest.columns(part.rows) | {
    "shards": np.array([str(path.relative_to(folder)) for path in part.shards], np.str_),
    "lengths": np.array(part.lengths, np.int64),
    "bytes": np.array([path.stat().st_size for path in part.shards], np.int64),
    "refusals": np.frombuffer(json.dumps(refusals).encode(), np.uint8),
  }
  np.savez(folder / "rows.part.npz", **arrays)  # type: ignore[arg-type]
  os.replace(folder / "rows.part.npz", folder / _ROWS)


def _refusals(folder: pathlib.Path, part: int) -> list[Refusal]:
  with np.load(_part(folder, part) / _ROWS) as arrays:
    return [Refusal(**entry) for entry in json.loads(arrays["refusals"].tobytes())]


def _finish(source: SourceSpec, work: pathlib.Path, parts: int, identity: dict) -> dict:
  """Puts the parts together in work/done; a second time, from wherever the first was killed."""
  done, folder = work / "done", work / "parts"
  done.mkdir(exist_ok=True)
  opened = []
  for part in range(parts):
    with np.load(_part(folder, part) / _ROWS) as arrays:
      opened.append(dict(arrays))
  shards = [
    _part(folder, part) / shard for part in range(parts) for shard in opened[part]["shards"]
  ]
  if not shards:
    raise ValueError(f"source {source.name!r} has no usable sample (0) - check its folders")
  for number, shard in enumerate(shards):
    target = done / builder.shard_name(number, len(shards))
    if not target.exists():  # else it was moved before the kill
      os.replace(shard, target)
  gather = lambda name: [int(n) for arrays in opened for n in arrays.pop(name)]
  lengths, size = gather("lengths"), sum(gather("bytes"))
  builder.write_info(done, source, lengths, size)
  refusals = [r for part in range(parts) for r in _refusals(folder, part)]
  lines = [json.dumps({"id": r.id, "reason": r.reason}) for r in refusals]
  manifest.write_text(done / "refused.jsonl", "".join(line + "\n" for line in lines))
  for arrays in opened:
    del arrays["shards"], arrays["refusals"]
  found = manifest.join(opened)
  found["licence"] = np.zeros(len(found["places"]), np.int16)
  about = {
    "source": source.name,
    "layout": source.layout,
    "licences": [source.licence],
    "identity": identity,
    "refused": len(refusals),
    "bytes": size,
  }
  manifest.write(done / "manifest", found, about)
  return manifest.Manifest(done / "manifest").about
