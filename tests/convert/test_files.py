"""Weight files: what torch and safetensors write is read; what is damaged or hostile is refused."""

import json
import pickle
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import released_files as released
from safetensors.numpy import save_file

from facejax.convert import files

GOLDENS = Path(__file__).parents[1] / "goldens" / "convert"
WEIGHTS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "b": (np.arange(4) / 3).astype(jnp.bfloat16),
  "c": np.arange(5, dtype=np.float16)[None],
}


def assert_weights(found: dict) -> None:
  assert found.keys() == WEIGHTS.keys()
  for name, x in WEIGHTS.items():
    assert found[name].array.dtype == x.dtype
    np.testing.assert_array_equal(found[name].array, x)


def test_safetensors_and_torch_archives_hold_the_same(tmp_path):
  """Kills: a wrong start of the data, a type read as another of the same width."""
  save_file(WEIGHTS, tmp_path / "model.safetensors")
  released.write_torch(tmp_path / "x.bin", WEIGHTS)
  assert_weights(files.open_weights(tmp_path))
  assert_weights(files.open_weights(tmp_path / "x.bin"))


def test_an_archive_that_torch_wrote():
  """Kills: strides ignored, an offset in bytes, a Parameter refused. Written by torch 2.13."""
  found = {n: t.array for n, t in files.open_weights(GOLDENS / "torch.bin").items()}
  whole = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
  np.testing.assert_array_equal(found["plain"], whole)
  np.testing.assert_array_equal(found["whole"], whole)
  np.testing.assert_array_equal(found["turned"], whole.T)
  np.testing.assert_array_equal(found["part"], whole[1:3, 2:5])
  third = (np.arange(6, dtype=np.float32) / 3).astype(jnp.bfloat16).reshape(2, 3)
  np.testing.assert_array_equal(found["bf16"], third)
  np.testing.assert_array_equal(found["half"], (np.arange(4, dtype=np.float32) / 3).astype("f2"))
  np.testing.assert_array_equal(found["parameter"], [0.25, 0.25])
  np.testing.assert_array_equal(found["ids"], np.arange(5)[None])
  assert (found["scalar"].shape, float(found["scalar"]), found["empty"].shape) == ((), 2.5, (0, 3))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path, kind):
  """Kills: one shard alone; the index of another kind of file preferred."""
  stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
  save = {"safetensors": lambda p, w: save_file(w, p), "bin": released.write_torch}[kind]
  weight_map = {}
  for i, (name, x) in enumerate(WEIGHTS.items()):
    save(tmp_path / f"{stem}-{i}.{kind}", {name: x})
    weight_map[name] = f"{stem}-{i}.{kind}"
  (tmp_path / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": weight_map}))
  assert_weights(files.open_weights(tmp_path))


@pytest.mark.parametrize(
  "name", ["../out.safetensors", "/tmp/x.safetensors", "a/../../x", 7, "C:\\x"]
)
def test_an_index_may_not_leave_its_folder(tmp_path, name):
  """Kills: reading what an index of a downloaded folder points to elsewhere."""
  save_file(WEIGHTS, tmp_path / "out.safetensors")
  folder = tmp_path / "folder"
  folder.mkdir()
  index = {"weight_map": {"a": name}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  message = (
    r"weight_map\['a'\] is " + re.escape(repr(name)) + " - expected a file inside the folder"
  )
  with pytest.raises(ValueError, match=message):
    files.open_weights(folder)


def test_an_index_that_does_not_fit_its_files(tmp_path):
  """Kills: a missing shard or tensor noticed only when it is used."""
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
  with pytest.raises(FileNotFoundError, match=r"names x\.safetensors, which is not in"):
    files.open_weights(tmp_path)
  save_file({"b": WEIGHTS["b"]}, tmp_path / "x.safetensors")
  with pytest.raises(ValueError, match=r"x\.safetensors has no tensor a, which model"):
    files.open_weights(tmp_path)
  index.write_text("{}")
  with pytest.raises(ValueError, match='has no "weight_map"'):
    files.open_weights(tmp_path)
  index.write_text("[")
  with pytest.raises(ValueError, match=r"index\.json is no JSON"):
    files.open_weights(tmp_path)
  index.write_text("[1]")
  with pytest.raises(ValueError, match="holds a list - expected an object"):
    files.open_weights(tmp_path)


def test_no_weights(tmp_path):
  """Kills: the first .bin of a folder taken for weights, such as training_args.bin."""
  (tmp_path / "training_args.bin").write_bytes(b"x")
  with pytest.raises(FileNotFoundError, match=r"has no weights: .*; found training_args\.bin"):
    files.open_weights(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"weights .*nowhere do not exist"):
    files.open_weights(tmp_path / "nowhere")


def altered(change) -> bytes:
  """A safetensors file whose header was changed in place of its own."""
  header = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
  }
  text = json.dumps(change(header)).encode()
  return struct.pack("<Q", len(text)) + text + bytes(32)


def entry(name, **fields):
  """A change of one tensor's entry."""
  return lambda header: {**header, name: {**header[name], **fields}}


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", r"is empty \(0 bytes\)"),
    (b"\xff" * 40, r"\(40 bytes\) is no safetensors file, or cut: its header would have 18446744"),
    (altered(lambda h: h)[:-4], r"tensor b ends at byte \d+, but the file has \d+ - it is cut"),
    (altered(lambda h: h) + b"12", "2 bytes behind the last tensor"),
    (altered(entry("a", shape=[2, 1 << 40])), r"tensor a of shape \[2, 1099511627776\] .* has 24"),
    (altered(entry("a", shape=[3, 3])), r"tensor a of shape \[3, 3\] and type F32 has 24 bytes"),
    (altered(entry("a", dtype="F8")), "tensor a has the type 'F8', expected one of"),
    (altered(entry("a", shape=[-2, -3])), r"tensor a: shape \(-2, -3\) at 0:24 are no sizes"),
    (altered(entry("a", shape=[2.0, 3])), r"tensor a: shape \(2\.0, 3\)"),
    (altered(entry("b", data_offsets=[20, 28])), "tensor b starts at byte 20, expected 24"),
    (altered(entry("b", data_offsets=[24])), "tensor b: .* expected dtype, shape and two data_off"),
    (altered(lambda h: [h]), "the header is no JSON object"),
    (altered(lambda h: {"a": 3}), "tensor a: 3 - expected dtype"),
    (struct.pack("<Q", 4) + b"{{{{" + bytes(8), "the header is no JSON object"),
  ],
)  # fmt: skip
def test_a_damaged_safetensors_file(tmp_path, content, message):
  """Kills: reading beyond the file, overlapping tensors, an allocation by a made-up shape."""
  path = tmp_path / "model.safetensors"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as raised:
    files.open_weights(tmp_path)
  assert str(path) in str(raised.value)


class Command:
  """Pickles to a call of a function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, nested):
  """Kills: pickle.load; looking a name up (importing it) before it is refused."""
  marker = tmp_path / "ran"
  command = Command(subprocess.getoutput, f"touch {marker}")
  data = pickle.dumps({"a": command} if nested else command, protocol=4)
  path = tmp_path / "pytorch_model.bin"
  released.write_torch(path, WEIGHTS, data)
  with pytest.raises(
    ValueError, match=r"bin: its pickle asks for subprocess\.getoutput - .*refused"
  ):
    files.open_weights(tmp_path)
  assert not marker.exists()


def test_other_names_of_torch_are_foreign_too(tmp_path):
  """Kills: a whole module allowed, such as torch or collections."""
  for name in (b"torch\nload", b"torch._utils\n_rebuild_sparse_tensor", b"collections\nCounter"):
    released.write_torch(tmp_path / "x.bin", WEIGHTS, b"\x80\x02c" + name + b"\n)R.")
    dotted = name.decode().replace("\n", ".")
    with pytest.raises(ValueError, match=rf"asks for {re.escape(dotted)} - expected tensors alone"):
      files.open_weights(tmp_path / "x.bin")


def with_pickle(change):
  """A .bin file whose pickle had bytes replaced."""

  def make(path: Path) -> None:
    released.write_torch(path, WEIGHTS, change(released.pickled(WEIGHTS)))

  return make


def with_zip(**options):
  """A .bin file whose entries are made otherwise: name -> content, None leaves it out."""

  def make(path: Path) -> None:
    released.write_torch(path, WEIGHTS)
    with zipfile.ZipFile(path) as archive:
      entries = {n: archive.read(n) for n in archive.namelist()}
    kind = options.get("kind", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "w", kind) as archive:
      for name, content in {**entries, **options.get("entries", {})}.items():
        if content is not None:
          archive.writestr(name, content)

  return make


def encrypted(path: Path) -> None:
  """A .bin file whose entries say that they are encrypted."""
  released.write_torch(path, WEIGHTS)
  data = bytearray(path.read_bytes())
  for found in re.finditer(rb"PK\x01\x02", bytes(data)):
    data[found.start() + 8] |= 1
  path.write_bytes(data)


def scrambled(path: Path) -> None:
  """A .bin file whose compressed pickle is damaged behind its first bytes."""
  with_zip(kind=zipfile.ZIP_DEFLATED)(path)
  data = bytearray(path.read_bytes())
  start = data.index(b"data.pkl") + 12
  data[start : start + 20] = bytes(20)
  path.write_bytes(data)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (encrypted, "is no archive of torch.save, or cut: .* is encrypted"),
    (scrambled, "is no archive of torch.save, or cut: "),
    (lambda p: p.write_bytes(b"\x80\x02legacy"), "is no archive of torch.save, or cut"),
    (lambda p: (with_zip()(p), p.write_bytes(p.read_bytes()[:-30])), "no archive of torch.save"),
    (with_zip(entries={"archive/data.pkl": None}), "is no archive of torch.save"),
    (with_zip(entries={"archive/data/0": b"1234"}), r"tensor a \[2, 3\] needs 6 of 6 .* 4 bytes"),
    (with_zip(entries={"archive/data/1": None}), "tensor b lies in the storage '1', which is not"),
    (with_zip(kind=zipfile.ZIP_DEFLATED), "is compressed or damaged"),
    (with_zip(entries={"archive/byteorder": b"big"}), "byte order b'big', expected b'little'"),
    (with_pickle(lambda d: d[:40]), r"data\.pkl cannot be read"),
    (with_pickle(lambda d: b"\x80\x02K\x07."), "holds a int - expected a state dict"),
    (with_pickle(lambda d: b"\x80\x02}X\x01\x00\x00\x00aK\x07s."), "'a' is a int - expected"),
    (with_pickle(lambda d: d.replace(b"J\x02\x00\x00\x00J\x03\x00\x00\x00t",
                                     b"J\x09\x00\x00\x00J\x03\x00\x00\x00t")),
     r"tensor a \[9, 3\] needs 27 of 6 elements"),
    (with_pickle(lambda d: d.replace(b"J\x02\x00\x00\x00J\x03\x00\x00\x00t",
                                     b"J\xff\xff\xff\xffJ\x03\x00\x00\x00t")),
     "tensor a has the sizes .* expected counts"),
    (with_pickle(lambda d: d.replace(b"J\x02\x00\x00\x00J\x03\x00\x00\x00t",
                                     b"J\x02\x00\x00\x00t")),
     "tensor a has the sizes .* expected counts"),
    (with_pickle(lambda d: d.replace(b"storage", b"straits")), "refers to .* expected a storage"),
  ],
)  # fmt: skip
def test_a_damaged_archive(tmp_path, make, message):
  """Kills: strides that reach beyond a storage, a storage of another size, an untold exception."""
  path = tmp_path / "pytorch_model.bin"
  make(path)
  with pytest.raises(ValueError, match=message) as raised:
    files.open_weights(tmp_path)
  assert str(path) in str(raised.value)


def test_a_pickle_cannot_change_the_reader(tmp_path):
  """Kills: handing out numpy's types or our functions, whose attributes the opcode BUILD sets."""
  names = (b"torch\nBFloat16Storage", b"torch._utils\n_rebuild_parameter")
  for name in names:
    # the name, a state (3, "<", ...) in place of its own, BUILD
    state = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    data = b"\x80\x02c" + name + b"\n" + state + b"b."
    released.write_torch(tmp_path / "x.bin", WEIGHTS, data)
    with pytest.raises(ValueError, match=r"x\.bin: data\.pkl cannot be read: it changes torch"):
      files.open_weights(tmp_path / "x.bin")
  assert np.dtype(jnp.bfloat16).itemsize == 2


def test_a_memo_that_would_fill_the_memory(tmp_path):
  """Kills: an index of 2^31 in a pickle of ten bytes, for which an array of 16 GB is made."""
  data = b"\x80\x02}r" + struct.pack("<I", (1 << 31) - 1) + b"."
  released.write_torch(tmp_path / "x.bin", WEIGHTS, data)
  with pytest.raises(ValueError, match="memo index 2147483647 in 9 bytes"):
    files.open_weights(tmp_path / "x.bin")


def test_a_tensor_comes_from_the_shard_that_the_index_names(tmp_path):
  """Kills: the last shard that has it wins."""
  save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
  save_file({"a": np.ones(2, np.float32), "b": np.ones(2)}, tmp_path / "two.safetensors")
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
  with pytest.raises(ValueError, match=r"one\.safetensors has no tensor b"):
    files.open_weights(tmp_path)
  index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
  assert not files.open_weights(tmp_path)["a"].array.any()
