"""How fast and in how much memory is a released 7B checkpoint read? Prints a table; --json FILE.

python experiments/import_speed/run.py --json experiments/import_speed/result.json
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import numpy as np

LAYERS = {"decoder": 3, "image": 3, "video": 3}  # of 32, 24 and 24: 2.3 GB in bfloat16
SHARD = 1_200_000_000  # bytes; released shards have up to 10 GB

# name: (files, type of the parameters, devices); "import" writes a folder of ours instead
CASES = {
  "bin, bfloat16, 1 device": ("bin", "bfloat16", 1),
  "bin, bfloat16, 8 devices": ("bin", "bfloat16", 8),
  "bin, float32, 1 device": ("bin", "float32", 1),
  "safetensors, bfloat16, 1 device": ("safetensors", "bfloat16", 1),
  "facejax convert import, bin": ("bin", "import", 1),
}


def shapes() -> tuple[dict, dict]:
  """({tensor: shape}, config.json) of a Face-LLaVA checkpoint with few layers, 7B-wide."""
  import dataclasses

  import flax.traverse_util

  from facejax.config import DataConfig, RunConfig
  from facejax.convert import export_configs, families, tables
  from facejax.models import face_mllm, presets

  model = presets.face_llava_7b()
  model = dataclasses.replace(
    model,
    image=dataclasses.replace(model.image, layers=LAYERS["image"]),
    video=dataclasses.replace(model.video, layers=LAYERS["video"]),
    decoder=dataclasses.replace(model.decoder, layers=LAYERS["decoder"]),
  )
  ours = flax.traverse_util.flatten_dict(face_mllm.init_shapes(model), sep="/")
  found = {}
  for path, plan in tables.expand(families.FAMILIES["face_llava"]["simple"], model).items():
    for piece in plan.pieces if path in ours else ():
      shape = ours[path].shape
      found[piece.theirs] = piece.shape(shape[1:] if plan.stacked else shape)
  run = RunConfig(model=model, data=DataConfig(row_length=3072), stages={})
  return found, export_configs.face_llava(run, {}, "bfloat16")


def random_bits(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
  """bfloat16 numbers of about 0.01, as uint16."""
  bits = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16) & 0x80FF | 0x3C00
  return bits.astype(np.uint16)


def write(folder: pathlib.Path, kind: str) -> None:
  """The checkpoint in shards, as torch's archives or as safetensors."""
  from facejax.convert import writer

  tensors, configs = shapes()
  shards, size = [[]], 0
  for name, shape in tensors.items():
    if size + 2 * int(np.prod(shape)) > SHARD and shards[-1]:
      shards, size = [*shards, []], 0
    shards[-1].append((name, shape))
    size += 2 * int(np.prod(shape))
  rng, weight_map = np.random.default_rng(0), {}
  stem, suffix = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
  for i, shard in enumerate(shards, 1):
    file = f"{stem}-{i:05d}-of-{len(shards):05d}.{suffix}"
    if kind == "bin":
      write_torch(folder / file, shard, rng)
    else:
      write_safetensors(folder / file, shard, rng)
    weight_map |= dict.fromkeys((name for name, _ in shard), file)
  index = json.dumps({"weight_map": weight_map})
  (folder / f"{stem}.{suffix}.index.json").write_text(index)
  for name, data in configs.items():
    writer.write_json(folder / name, data)


def write_safetensors(path: pathlib.Path, shard: list, rng: np.random.Generator) -> None:
  header, at = {}, 0
  for name, shape in shard:
    size = 2 * int(np.prod(shape))
    header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
    at += size
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with path.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for _, shape in shard:
      file.write(random_bits(shape, rng).data)


def write_torch(path: pathlib.Path, shard: list, rng: np.random.Generator) -> None:
  """A zip archive with a pickle of protocol 2, spelled out: torch is not needed to write one."""
  text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()
  counts = lambda ns: b"(" + b"".join(b"J" + struct.pack("<i", n) for n in ns) + b"t"
  empty = b"ccollections\nOrderedDict\n)R"
  pickled = b"\x80\x02" + empty + b"("
  for i, (name, shape) in enumerate(shard):
    size = int(np.prod(shape))
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    pid = b"(" + text("storage") + b"ctorch\nBFloat16Storage\n" + text(str(i)) + text("cpu")
    pid += b"J" + struct.pack("<i", size) + b"tQ"
    pickled += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00"
    pickled += counts(shape) + counts(strides) + b"\x89" + empty + b"tR"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickled + b"u.")
    for i, (_, shape) in enumerate(shard):
      with archive.open(f"archive/data/{i}", "w", force_zip64=True) as entry:
        entry.write(random_bits(shape, rng).data)


def drop_caches(folder: pathlib.Path) -> None:
  """Takes the files out of the system's cache, so that the disk is read."""
  os.sync()
  for path in folder.iterdir():
    with path.open("rb") as file:
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(field: str) -> int:
  """Bytes, of /proc/self/status."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{field}:"):
      return 1024 * int(line.split()[1])
  return 0


@contextlib.contextmanager
def watched(peaks: dict):
  """Peaks of anonymous and file-backed resident memory, looked at every 5 ms."""
  done = threading.Event()

  def look():
    while not done.wait(0.005):
      for field in ("RssAnon", "RssFile"):
        peaks[field] = max(peaks.get(field, 0), memory(field))

  thread = threading.Thread(target=look)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def child(folder: pathlib.Path, dtype: str, devices: int) -> dict:
  """One case, in this process."""
  import jax

  jax.config.update("jax_num_cpu_devices", devices)
  from facejax import convert
  from facejax.config import MeshConfig
  from facejax.models import face_mllm
  from facejax.sharding import make_mesh, param_shardings

  opened = convert.open_checkpoint(folder)  # traces the shapes and imports all there is
  layout = None
  if devices > 1:
    mesh = make_mesh(MeshConfig(data=1, fsdp=devices // 2, tensor=2))
    layout = param_shardings(face_mllm.init_shapes(opened.config.model), mesh)
  parameters = opened.matched.parameters.values()
  size = np.dtype(jax.numpy.dtype("bfloat16" if dtype == "import" else dtype)).itemsize
  largest = max(int(np.prod(p.shape)) for p in parameters) * size
  start, peaks = memory("RssAnon"), {}
  with watched(peaks), tempfile.TemporaryDirectory(dir=folder.parent) as target:
    began, worked = time.perf_counter(), time.process_time()
    if dtype == "import":
      convert.import_folder(folder, pathlib.Path(target) / "ours")
    else:
      jax.block_until_ready(convert.load(folder, dtype=dtype, shardings=layout).params)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
  held = 0 if dtype == "import" else sum(int(np.prod(p.shape)) for p in parameters) * size
  return {
    "seconds": seconds,
    "processor_seconds": worked,
    "on_devices": held,
    "largest_parameter": largest,
    "anonymous_before": start,
    "anonymous_peak": peaks["RssAnon"],
    "beyond_devices": peaks["RssAnon"] - start - held,
    "file_backed_peak": peaks["RssFile"],
    "ru_maxrss": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
  }


def read_all(folder: pathlib.Path) -> float:
  """Seconds to read a folder's files one after another, 8 MB at a time."""
  buffer = bytearray(8 << 20)
  began = time.perf_counter()
  for path in sorted(folder.iterdir()):
    with path.open("rb", buffering=0) as file:
      while file.readinto(buffer):
        pass
  return time.perf_counter() - began


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", metavar="FILE")
  parser.add_argument("--folder", default=None, help="where to write 5 GB for a while")
  parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    folder, dtype, devices = args.child
    print(json.dumps(child(pathlib.Path(folder), dtype, int(devices))))
    return
  results: dict = {"layers": LAYERS, "cases": {}}
  with tempfile.TemporaryDirectory(dir=args.folder) as root:
    for kind in ("bin", "safetensors"):
      folder = pathlib.Path(root) / kind
      folder.mkdir()
      write(folder, kind)
      size = sum(p.stat().st_size for p in folder.iterdir())
      largest = max(p.stat().st_size for p in folder.iterdir())
      drop_caches(folder)
      seconds = read_all(folder)
      results[kind] = {"bytes": size, "largest_shard": largest, "disk_mb_s": size / seconds / 1e6}
      results[kind]["cached_mb_s"] = size / read_all(folder) / 1e6
      print(f"{kind}: {size / 1e9:.2f} GB, disk {size / seconds / 1e6:.0f} MB/s", flush=True)
      for name, (files, dtype, devices) in CASES.items():
        if files != kind:
          continue
        drop_caches(folder)
        command = [sys.executable, __file__, "--child", str(folder), dtype, str(devices)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        case = json.loads(done.stdout.splitlines()[-1])
        results["cases"][name] = {**case, "mb_s": size / case["seconds"] / 1e6}
        print(
          f"{name:34s} {case['seconds']:6.1f} s {size / case['seconds'] / 1e6:6.0f} MB/s, "
          f"{case['processor_seconds']:.1f} processor seconds, beyond "
          f"what the devices hold {case['beyond_devices'] / 1e6:6.0f} MB (largest parameter "
          f"{case['largest_parameter'] / 1e6:.0f} MB), ru_maxrss {case['ru_maxrss'] / 1e9:.2f} GB",
          flush=True,
        )
  results["machine"] = {
    "cpu": platform.processor() or platform.machine(),
    "cores": os.cpu_count(),
    "load": os.getloadavg()[0],
    "date": time.strftime("%Y-%m-%d"),
  }
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
  main()
