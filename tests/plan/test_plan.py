"""A step compiled for four TPU chips that are not here, and what is said about it."""

import dataclasses
import json
import math
import pathlib
import subprocess
import sys

import jax
import pytest
from conftest import small
from hlo_samples import SPLASH
from jax.sharding import AbstractMesh

from facejax import chips, cli, stages
from facejax.config import LoraConfig, MeshConfig
from facejax.models.face_mllm import FaceMLLM
from facejax.plan import (
  command,
  compiled,
  generation,
  page,
  planner,
  report,
  search,
  store,
  topology,
)
from facejax.sharding import make_mesh
from facejax.state import abstract_state

FIGURES = ("slowest", "schedule", "fastest")


@pytest.mark.slow  # reads the compiled step: 10 s
def test_the_step_is_measured(plan):
  # Kills: a figure left at 0, three figures in the wrong order, or MFU from other seconds.
  found = report.to_json(plan)
  assert found["fits"] and found["chips"] == 4 and found["mesh"]["fsdp"] == 4
  seconds, mfu = ([found[key][f] for f in FIGURES] for key in ("step_seconds", "planned_mfu"))
  assert seconds == sorted(seconds, reverse=True) and seconds[2] > 0
  needed = found["model_flops_per_step"]["total"]
  for s, share in zip(seconds, mfu, strict=True):
    assert share == pytest.approx(needed / (4 * 196.6e12 * s))
  assert {c["op"] for c in found["collectives"]} >= {"all-gather"}
  assert found["versions"]["libtpu"] and found["compute"]["matmul"] > 0
  estimated = found["compute"]["matmul"] + found["compute"]["elementwise"]
  assert found["compute"]["cycles"] == pytest.approx(estimated * 1.5e9, abs=1)


@pytest.mark.slow  # reads the compiled step: 10 s
def test_memory_by_shardings_is_what_the_compiler_says(program):
  # Kills: optimiser slots, the batch or a shard's size forgotten. The compiler pads small arrays.
  memory = program.memory
  held = memory.trainable + memory.frozen + memory.optimizer + memory.batch
  assert memory.total == program.arguments + memory.temporary
  assert held <= program.arguments <= 6 * held
  assert memory.optimizer == pytest.approx(2 * memory.trainable, rel=0.01)


@pytest.mark.slow  # reads the compiled step: 10 s
def test_the_report_says_what_matters(plan, tmp_path):
  # Kills: a table without its figures, a page that is not written, JSON that does not load.
  text = report.table(plan)
  for part in (
    "small, stage2, on v5e:2x2: 4 chips, mesh fsdp 4",
    "GB free",
    "limited by: ",
    f"in use are {plan.fill.pictures:.0%} of pictures' slots\n",
  ):
    assert part in text
  quarter_hour = report.table(dataclasses.replace(plan, days=0.0102, chip_hours=62.7))
  assert "0.0102 days, 62.7 chip hours" in quarter_hour  # not 0.01, 63: an epoch on a pod is short
  report.write_json(plan, tmp_path / "plan.json")
  assert json.loads((tmp_path / "plan.json").read_text())["rows"] == 8
  page.write(plan, tmp_path / "plan.html")
  written = (tmp_path / "plan.html").read_text()
  assert "<svg" in written and "Roofline" in written and "http" not in written.split("</style>")[1]


@pytest.mark.slow  # reads the compiled step: 10 s
def test_what_does_not_fit_says_what_would(v5e, program):
  # Kills: a refused program that raises, or one that is called fitting.
  memory = dataclasses.replace(
    program.memory, temporary=v5e.chip.memory * 2, total=v5e.chip.memory * 3, exact=False
  )
  refused = dataclasses.replace(program, text="", memory=memory)
  found = planner.assess(small(), "stage2", v5e, refused)
  assert not found.fits and found.step_seconds is None
  assert any("accumulate=2" in idea for idea in found.would_fit)
  assert any("remat=full" in idea for idea in found.would_fit)
  assert any("v5e:2x4" in idea for idea in found.would_fit)
  text = report.table(found)
  assert "DOES NOT FIT" in text and "33.8" in text
  held = dataclasses.replace(refused.memory, trainable=v5e.chip.memory * 2)
  ideas = planner.would_fit(small(), "stage2", v5e, dataclasses.replace(refused, memory=held))
  assert "parameters and optimiser" in ideas[0]


def _refused(sizes, topology_name, slices, held, total, config):
  """would_fit() of a program that needs so many bytes, on a mesh that need not exist."""
  target = topology.Topology(topology_name, slices, chips.CHIPS[1], (None,) * math.prod(sizes))
  mesh = AbstractMesh(sizes, ("data", "fsdp", "context", "tensor"))
  memory = compiled.Memory(held, 0, 0, 0, total - held, total, target.chip.memory, False)
  return planner.would_fit(config, "stage2", target, compiled.Compiled("", memory, 0, mesh, None))


def test_one_row_a_device_is_shared_or_cut():
  # Kills: a larger pod at rows that it cannot be given, an own tensor axis that is forgotten.
  gib = 2**30
  decoder = dataclasses.replace(small().model.decoder, heads=8, kv_heads=4)
  model = dataclasses.replace(small().model, decoder=decoder)
  config = small(model=model, stages={"stage2": stages.stage2(steps=3, rows=8)})
  ideas = _refused((1, 8, 1, 2), "v5e:4x4", 1, gib, 20 * gib, config)
  assert ideas[0] == "--mesh data=1,tensor=2,context=2 and half the rows: devices share a row"
  assert "row_length=40" in ideas[1] and "remat=full" in ideas[2]
  assert not any("topology" in idea for idea in ideas)
  three = small(stages={"stage2": stages.stage2(steps=3, rows=8)})  # 3 key heads in 2 parts
  ideas = _refused((1, 8, 1, 1), "v5e:2x4", 1, gib, 20 * gib, three)
  assert "row_length=40" in ideas[0] and not any("context" in idea for idea in ideas)


def test_parameters_that_are_split_everywhere_need_a_larger_slice():
  # Kills: the mesh that is there already offered again, for slices or for a context axis; a
  # topology that is as large as all slices together.
  gib = 2**30
  four = _refused((4, 4, 1, 1), "v5e:2x2", 4, 17 * gib, 20 * gib, small())
  assert four[0].startswith("--topology v5e:2x4: ") and not any("--mesh" in i for i in four)
  rows = _refused((1, 2, 2, 1), "v5e:2x2", 1, 17 * gib, 20 * gib, small())
  assert not any("--mesh" in idea for idea in rows)
  copies = _refused((4, 1, 1, 1), "v5e:2x2", 1, 17 * gib, 20 * gib, small())
  assert copies[0] == "--mesh fsdp=4: parameters are split over 1 devices only"
  assert not any("--topology" in idea for idea in copies)
  stage = dataclasses.replace(stages.stage2(steps=3, rows=8), lora=LoraConfig())
  lora = _refused((1, 4, 1, 1), "v5e:2x2", 1, 17 * gib, 20 * gib, small(stages={"stage2": stage}))
  assert lora[0].startswith("--config.stages.stage2.lora.base=int8")


@pytest.mark.parametrize(
  "message, size",
  [
    ("RESOURCE_EXHAUSTED: HLO temporaries (1.17T) exceeds available HBM (15.75G).", 1.17 * 2**40),
    ("RESOURCE_EXHAUSTED: Used 25.50G of 15.75G hbm. Exceeds", 25.5 * 2**30),
    ("INVALID_ARGUMENT: bad layout", None),
  ],
)
def test_how_much_too_large_is_read_from_the_refusal(message, size):
  # Kills: the limit read for what is needed, another error taken for a lack of memory.
  found = compiled.exceeded(message)
  assert found == (None if size is None else int(size))


def test_rows_that_do_not_divide_are_refused_with_those_that_do(v5e):
  # Kills: a batch that the partitioner pads.
  config = small(stages={"stage2": stages.stage2(steps=3, rows=6)})
  with pytest.raises(ValueError, match=r"rows=6 on 4 devices: .* add .*stage2.rows=4 or 8"):
    compiled.compile_step(config, "stage2", v5e)


@pytest.mark.slow  # reads the compiled step: 10 s
def test_a_kept_program_is_not_compiled_again(v5e, program, tmp_path, monkeypatch):
  # Kills: a key that forgets the rows, a cache that is never read, a damaged file believed.
  calls = []
  monkeypatch.setattr(store, "compile_step", lambda *a: calls.append(a) or program)
  first = store.step(small(), "stage2", v5e, tmp_path)
  again = store.step(small(), "stage2", v5e, tmp_path)
  assert len(calls) == 1
  assert (again.text, again.memory, again.arguments) == (
    first.text,
    first.memory,
    first.arguments,
  )
  more = small(stages={"stage2": stages.stage2(steps=3, rows=16)})
  store.step(more, "stage2", v5e, tmp_path)
  assert len(calls) == 2
  kept = tmp_path / f"{store.key(small(), 'stage2', v5e)}.json.gz"
  kept.write_bytes(b"half a file")
  with pytest.raises(ValueError, match="is damaged"):
    store.step(small(), "stage2", v5e, tmp_path)


def test_a_kept_program_depends_on_every_module_of_the_step():
  # Kills: a module that shapes the program left out of its key, so that an old one is read.
  command = "import sys, facejax.train_step; print(*[n for n in sys.modules if 'facejax.' in n])"
  found = subprocess.run(
    [sys.executable, "-c", command], capture_output=True, text=True, check=True
  )
  root = pathlib.Path(store.facejax.__file__).parent
  told = {path for pattern in store._SOURCES for path in root.glob(pattern)}
  # Drawings give names alone; a config's values are in the key themselves.
  named = [
    n for n in found.stdout.split() if not n.startswith(("facejax.faces", "facejax.config_"))
  ]
  files = {root.joinpath(*n.split(".")[1:]).with_suffix(".py") for n in named}
  assert len(files) > 20
  assert {path for path in files if path.exists()} - told == {root / "libtpu.py"}


def test_the_mesh_flag(v5e):
  # Kills: slices that do not lie along data, a rest that is not filled, an axis that is ignored.
  slices = dataclasses.replace(v5e, slices=2, devices=v5e.devices * 2)
  place = lambda text, target=v5e: command.placed(small(), text, target).mesh
  assert place("") == MeshConfig(1, 4)
  assert place("", slices) == MeshConfig(2, 4)
  assert place("tensor=2") == MeshConfig(1, -1, 1, 2)
  assert place("fsdp=2,context=2", slices) == MeshConfig(2, 2, 2, 1)
  with pytest.raises(ValueError, match="unknown axis 'tensr', did you mean tensor"):
    place("tensr=2")
  with pytest.raises(ValueError, match="'two' for data - expected a whole number"):
    place("data=two")
  with pytest.raises(ValueError, match="tensor=2,tensor=4: tensor is there twice"):
    place("tensor=2,tensor=4")


@pytest.mark.slow  # reads the compiled step: 10 s
def test_a_search_skips_more_rows_than_did_not_fit(v5e, program, tmp_path, monkeypatch):
  # Kills: a search that compiles what cannot fit, a front with a plan that another one beats.
  tried = []

  def fake(config, stage, target, folder):
    rows = config.stages[stage].rows
    tried.append((dataclasses.astuple(config.mesh), config.model.remat, rows))
    total = program.memory.total * rows
    limit = program.memory.total * 8
    memory = dataclasses.replace(program.memory, total=total, limit=limit)
    return dataclasses.replace(program, memory=memory, text=SPLASH * (total <= limit))

  monkeypatch.setattr(store, "step", fake)
  found = search.run(small(), "stage2", v5e, "small", 1e9, tmp_path)
  first = [rows for mesh, remat, rows in tried if mesh == (1, 4, 1, 1) and remat == "dots"]
  assert first == [4, 8, 16]  # 16 do not fit, so 32 are not asked for
  front = search.pareto(found)
  assert {t.plan.rows for t in front} == {1, 2, 4, 8}  # more rows cost memory and gain speed
  assert search.best(found).rows == 8
  assert "does not fit" in search.table(found) and "*" in search.table(found)
  late = search.run(small(), "stage2", v5e, "small", -1, tmp_path)
  assert late[0].reason == "no time left"
  with pytest.raises(ValueError, match=r"--search: nothing was planned.*--budget"):
    search.best(late)
  assert search.best([t for t in found if t.plan and not t.plan.fits]).rows == 16


def test_a_candidate_that_the_compiler_drops_ends_no_search(v5e, tmp_path, monkeypatch):
  # Kills: an hour of search lost to one mesh.
  def refuse(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: no such layout\nmore")

  monkeypatch.setattr(store, "step", refuse)
  found = search.run(small(), "stage2", v5e, "small", 1e9, tmp_path)
  assert len(found) > 1 and {t.reason for t in found} == {"INTERNAL: no such layout"}


def test_what_every_device_holds_whole_is_told():
  # Kills: split arrays counted, optimiser slots forgotten, another array named than the largest.
  state = abstract_state(
    FaceMLLM(small().model), small().stages["stage2"], make_mesh(small().mesh, jax.devices()[:4])
  )
  total, largest = planner.whole(state)
  assert largest == "frozen/image_encoder/positions"
  arrays = jax.tree.leaves((state.trainable, state.frozen, state.opt_state))
  whole = [x for x in arrays if x.sharding.shard_shape(x.shape) == x.shape]
  assert 0 < len(whole) < len(arrays)
  assert total == sum(math.prod(x.shape) * x.dtype.itemsize for x in whole)


@pytest.mark.slow
def test_micro_batches_are_summed_in_place(v5e):
  # Kills: a pass of the TPU compiler that ends with an internal error at two or more of them; one
  # more copy of the gradients for their sums.
  decoder = dataclasses.replace(small().model.decoder, layers=6, width=96, mlp=384)
  temporary, gradients = [], 0
  for parts in (1, 3):
    stage = dataclasses.replace(stages.stage2(steps=3, rows=4 * parts), accumulate=parts)
    run = small(model=dataclasses.replace(small().model, decoder=decoder), stages={"stage2": stage})
    memory = compiled.compile_step(run, "stage2", v5e).memory
    temporary.append(memory.temporary)
    gradients = memory.trainable
  assert temporary[1] - temporary[0] < gradients / 2


@pytest.mark.parametrize(
  "name, message",
  [
    ("v5e-256", "expected CHIP:SHAPE - did you mean v5e:.* chips: v4, v5e"),
    ("v5p:8x8", "v5p is given by 3 numbers above 0 - known: v5p:2x2x1"),
    ("v9:2x2", "expected CHIP:SHAPE"),
    ("h100:8x2", "h100 is given by 1 number above 0"),
  ],
)
def test_an_unknown_topology_names_known_ones(name, message):
  # Kills: a name that reaches the compiler, whose message lists nothing.
  with pytest.raises((ValueError, ModuleNotFoundError), match=message):
    topology.describe(name)


def test_a_shape_that_the_compiler_refuses_names_known_ones(v5e):
  # Kills: the plugin's own exception, which is no ValueError.
  with pytest.raises(ValueError, match=r"v5e:3x5.*the compiler refuses it.*v5e:16x16"):
    topology.describe("v5e:3x5")
  with pytest.raises(ValueError, match="--slices 0"):
    topology.describe("v5e:2x2", 0)


def test_an_axis_may_take_a_part_of_the_torus():
  # Kills: a mesh that JAX refuses on all but v5e, for want of an axis of 8 chips; a split that
  # spreads a tensor's two parts over chips that are no neighbours.
  mesh = compiled.make_mesh(MeshConfig(1, 8, 1, 2), topology.describe("v6e:4x4").devices)
  pairs = mesh.devices.reshape(8, 2)
  apart = [sum(abs(a - b) for a, b in zip(x.coords, y.coords, strict=True)) for x, y in pairs]
  assert apart == [1] * 8


@pytest.mark.parametrize(
  "name, package", [("v5e:2x2", r"facejax\[plan\]"), ("h200:8", "jax-cuda12-plugin==")]
)
def test_a_compiler_that_is_not_installed_is_named(name, package, monkeypatch):
  # Kills: an ImportError from inside JAX.
  monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ModuleNotFoundError, match=f"not installed - run: pip install.*{package}"):
    topology.describe(name)


def test_the_command_refuses_in_one_line(capsys):
  # Kills: a traceback for a stage that does not exist, or for two modes at a time.
  run = lambda *flags: cli.main(["plan", "--topology", "v5e:2x2", *flags])
  pytest.importorskip("libtpu")
  for flags, message in (
    (("--config", "configs/demo.py", "--stage", "stage3"), "--stage stage3: the config has"),
    (("--search", "--calibrate"), "expected one of them at a time"),
    (("--config", "configs/demo.py", "--generation", "4,5"), "expected ROWS,PROMPT,NEW"),
    (("--config", "configs/demo.py", "--generation", "4,5,1"), "expected at least 2 new tokens"),
    (("--calibrate", "--html", "a.html"), "--html: --calibrate does not read it"),
    (("--calibrate", "--config.seed=1"), "--config.NAME: --calibrate does not read it"),
    (("--generation", "4,5,6", "--stage", "stage2"), "--stage: --generation does not read it"),
    (("--search", "--mesh", "fsdp=4"), "--mesh: --search does not read it"),
    (("--budget", "5"), "--budget: read by --search alone"),
    (("--search", "--budget", "0"), "--budget 0: expected minutes above 0"),
    (("--search", "--budget", "nan"), "--budget nan: expected minutes above 0"),
    (("--json", "no/where.json"), "--json no/where.json: expected a file's name in a folder"),
    (("--html", "docs"), "--html docs: expected a file's name"),
    (("--config", "configs/demo.py", "--generation", "4,9,8"), "expected at least 66, a picture's"),
    ((), "--config is missing"),
    (("--config", "configs/demo.py", "--mesh", "model=2"), "unknown axis 'model'"),
  ):
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_every_kind_of_device_is_one_chip():
  # Kills: a device_kind of two records, options for a chip that the table does not know.
  kinds = [kind for chip in chips.CHIPS for kind in chip.kinds]
  assert len(kinds) == len(set(kinds))
  assert chips.of_kind("TPU v5 lite").name == "v5e" and chips.of_kind("cpu") is None
  mesh = jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])
  assert chips.compiler_options(mesh) == {}


def test_options_go_to_the_devices_of_the_mesh(v5e):
  # Kills: a chip's options that nobody reads.
  assert chips.compiler_options(compiled.make_mesh(MeshConfig(1, -1), v5e.devices)) == {
    "xla_tpu_scoped_vmem_limit_kib": "98304",
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_disable_hlo_passes": "while-loop-all-reduce-code-motion",
    "xla_tpu_prefer_async_allgather_to_allreduce": "true",
  }


@pytest.mark.slow  # compiles four programs: 30 s
def test_answering_is_planned_as_a_loop(v5e):
  """Kills: a loop's time given for a step's, a cache that is held twice, a bound without it."""
  config = small()
  decoder = dataclasses.replace(  # scanned: more than 8 layers; heads as wide as a tile
    config.model.decoder, layers=9, width=64, heads=2, kv_heads=2, head_width=128
  )
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, decoder=decoder))
  some, more = (generation.plan(config, v5e, 4, 448, new) for new in (3, 65))
  a_row = 2 * 9 * 2 * 512 * 128 * 2  # keys and values of 9 layers, 2 heads, 512 slots, bfloat16
  assert more.cache == pytest.approx(a_row, rel=0.001)
  assert more.fits and more.decode.total < 2 * more.parameters + 1.3 * more.cache
  assert more.decode.step.schedule == pytest.approx(some.decode.step.schedule, rel=0.1)
  decoder_bytes = (more.bandwidth_bound * v5e.chip.bandwidth) - more.cache
  assert 0.5 * more.parameters < decoder_bytes < more.parameters
