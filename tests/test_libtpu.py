"""libtpu without a TPU: quiet, and left alone where there is one."""

import os

import pytest

from facejax import libtpu


def bus(folder, *devices):
  """A PCI bus with devices of these vendors and kinds."""
  for number, (vendor, kind) in enumerate(devices):
    place = folder / f"0000:00:0{number}.0"
    place.mkdir()
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "device").write_text(f"{kind}\n")
  return folder


@pytest.fixture
def names(monkeypatch):
  for name in libtpu._NAMES:
    monkeypatch.delenv(name, raising=False)
  return libtpu._NAMES


def test_names_are_set_where_there_is_no_tpu(tmp_path, names, monkeypatch):
  # Kills: a name that the user set overwritten; a network card of the same maker taken for a TPU.
  monkeypatch.setenv("TPU_WORKER_ID", "3")
  assert libtpu.quiet(bus(tmp_path, ("0x8086", "0x1237"), ("0x1ae0", "0x0042")))
  assert os.environ["TPU_WORKER_ID"] == "3"
  assert all(os.environ[name] == value for name, value in names.items() if name != "TPU_WORKER_ID")


def test_a_machine_with_a_tpu_is_left_alone(tmp_path, names):
  # Kills: a pod whose hosts are all told that they are alone.
  assert not libtpu.quiet(bus(tmp_path, ("0x1ae0", "0x0063")))
  assert not any(name in os.environ for name in names)
