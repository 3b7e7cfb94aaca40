"""How fast is a large source built, opened and read? Prints a table; --json OUT keeps it.

python experiments/records/run.py --json experiments/records/result.json
"""

import argparse
import dataclasses
import datetime
import functools
import io
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time

import numpy as np
import order
from PIL import Image

from facejax import config_io
from facejax.data.media import CROP
from facejax.data.pipeline import row_format
from facejax.data.rows import RowFormat
from facejax.faces import questions, synthetic
from facejax.records import build, count
from facejax.records.raw import Encoded, RawMedium, RawSample, decode
from facejax.records.spec import SourceSpec
from facejax.records.store import RecordsSource, Store
from facejax.types import Turn

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"
FACES = 300  # distinct pictures; a million would take hours to draw
SIZE = 112  # pixels a side
READS = 2000  # samples read, in a random order


@functools.lru_cache(maxsize=1)
def _faces() -> list[tuple[bytes, bytes, synthetic.Labels]]:
  """JPEG files, landmark files, labels."""
  found = []
  for i in range(FACES):
    face, jpeg, npy = synthetic.face(i, size=SIZE), io.BytesIO(), io.BytesIO()
    Image.fromarray(face.image).save(jpeg, "JPEG", quality=90)
    np.save(npy, face.landmarks * (CROP / SIZE))
    found.append((jpeg.getvalue(), npy.getvalue(), face.labels))
  return found


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Sample i is face i % FACES, asked about task i; each has its own id and conversation."""

  records: int

  def open(self) -> "Drawn":
    """Itself: there is no index."""
    return self

  def __len__(self) -> int:
    return self.records

  def id(self, index: int) -> str:
    """The number."""
    return f"face_{index:07d}"

  def digest(self) -> str:
    """Of what the samples follow from."""
    return f"{self.records} of {FACES}"

  def __getitem__(self, index: int) -> RawSample:
    jpeg, npy, labels = _faces()[index % FACES]
    task, rng = questions.TASKS[index % 5], np.random.default_rng(index)
    turns = (
      Turn("human", f"<image>\n{questions.question(task, rng)}"),
      Turn("gpt", questions.answer(task, labels, rng)),
    )
    name = f"faces/{index:07d}"
    media = RawMedium("image", Encoded(f"{name}.jpg", jpeg), Encoded(f"{name}.npy", npy))
    return RawSample(self.id(index), turns, (media,), {"task": task, "age": labels.age})


def _processor() -> float:
  """Processor seconds of this process and of its ended children: other work does not enter."""
  return sum(os.times()[:4])


def measure_build(source: SourceSpec, out: pathlib.Path, workers: int) -> dict[str, float]:
  _faces()
  start, busy = time.perf_counter(), _processor()
  build.build(source, out, build.Settings(workers))
  seconds, busy = time.perf_counter() - start, _processor() - busy
  start = time.perf_counter()
  build.build(source, out)  # finds it built; asks for nothing but the index
  again = time.perf_counter() - start
  files = [path for path in (out / source.name).rglob("*") if path.is_file()]
  manifest = [path for path in files if path.parent.name == "manifest"]
  records = source.options.records
  return {
    "records": records,
    "shards": sum("array_record" in path.name for path in files),
    "build_seconds": seconds,
    "build_processor_seconds": busy,
    "records_per_second": records / seconds,
    "records_per_processor_second": records / busy,
    "bytes_of_media": records * statistics.mean(len(j) + len(n) for j, n, _ in _faces()),
    "bytes_on_disk": sum(path.stat().st_size for path in files),
    "bytes_of_manifest": sum(path.stat().st_size for path in manifest),
    "second_run_seconds": again,
  }


def measure_count(folder: pathlib.Path, form: RowFormat, workers: int) -> dict[str, float]:
  start, busy = time.perf_counter(), _processor()
  count.count(folder, form, workers)
  seconds, busy = time.perf_counter() - start, _processor() - busy
  return {
    "count_seconds": seconds,
    "count_processor_seconds": busy,
    "counts_per_processor_second": len(Store(folder)) / busy,
  }


def measure_open(folder: pathlib.Path, form: RowFormat) -> dict[str, float]:
  """As a run does, and the first record, which opens TFDS and a shard."""
  start = time.perf_counter()
  store = Store(folder)
  last = store.id(len(store) - 1)
  opened = time.perf_counter()
  assert store[len(store) - 1].id == last
  first = time.perf_counter()
  source = RecordsSource(folder, form)
  sizes = source.sizes()
  ready = time.perf_counter()
  assert len(sizes) == len(store)
  return {
    "open_seconds": opened - start,
    "first_record_seconds": first - opened,
    "source_with_sizes_seconds": ready - first,
  }


def measure_read(folder: pathlib.Path) -> dict[str, float]:
  """Random reads in one thread; every read goes to another shard, nearly."""
  store = Store(folder)
  store[0]
  chosen = np.random.default_rng(0).permutation(len(store))[:READS].tolist()
  taken = []
  for index in chosen:
    start = time.perf_counter()
    store[index]
    taken.append(time.perf_counter() - start)
  start = time.perf_counter()
  for index in chosen[:200]:
    decode(store[index], 8)
  decoded = (time.perf_counter() - start) / 200
  again, busy = [], _processor()
  for index in chosen:
    start = time.perf_counter()
    store[index]
    again.append(time.perf_counter() - start)
  read = (_processor() - busy) / len(chosen)
  micro = lambda times, q: float(np.quantile(times, q)) * 1e6
  return {
    "read_median_us": micro(taken, 0.5),
    "read_p99_us": micro(taken, 0.99),
    "read_again_median_us": micro(again, 0.5),
    "read_processor_us": read * 1e6,
    "read_and_decode_us": decoded * 1e6,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", metavar="OUT")
  parser.add_argument("--records", type=int, default=1_000_000)
  parser.add_argument("--workers", type=int, default=1, help="processes that build and count")
  parser.add_argument("--keep", metavar="FOLDER", help="build here, and leave it for other trials")
  args = parser.parse_args()
  out = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="facejax_records_"))
  source = SourceSpec("drawn", "drawn", "made up", Drawn(args.records))
  config = config_io.load(CONFIG)
  form, folder = row_format(config.model, config.data), out / "drawn"
  try:
    result = measure_build(source, out, args.workers)
    result |= measure_count(folder, form, args.workers)
    result |= measure_open(folder, form) | measure_read(folder)
    result |= order.measure_rows(folder) | order.measure_start(folder)
  finally:
    if not args.keep:
      shutil.rmtree(out, ignore_errors=True)
  for name, value in result.items():
    print(f"{name:28} {value:,.4g}" if isinstance(value, float) else f"{name:28} {value:,}")
  if args.json:
    about = {
      "command": "python " + " ".join(sys.argv),
      "date": datetime.date.today().isoformat(),
      "machine": f"{platform.machine()}, {os.cpu_count()} cores",
      "load": os.getloadavg()[0],
      "workers": args.workers,
      "distinct_faces": FACES,
    }
    pathlib.Path(args.json).write_text(json.dumps(about | {"result": result}, indent=1) + "\n")


if __name__ == "__main__":
  main()
