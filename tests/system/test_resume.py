"""A run that is killed with SIGKILL, in every stage, ends with the bits of one that is not."""

import importlib.util
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
import tiny_run

ROOT = Path(__file__).parents[2]
STEPS = 12


def load_campaign():
  spec = importlib.util.spec_from_file_location(
    "resume_campaign", ROOT / "experiments" / "resume_campaign" / "run.py"
  )
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses look their module up
  spec.loader.exec_module(module)
  return module


campaign = load_campaign()


def command(devices: int):
  return lambda workdir: [
    sys.executable, str(Path(tiny_run.__file__)), str(workdir), "--devices", str(devices),
    "--steps", str(STEPS), "--resume"
  ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_killed_in_each_stage_the_bits_are_those_of_an_undisturbed_run(tmp_path, devices):
  """Kills: a part of the state, or the data's position, that a resume does not restore exactly."""
  names = ("base", "stage1", "stage2")
  done, different = campaign.campaign(command(devices), names, STEPS, 3, devices, tmp_path)
  assert [kill.stage for kill in done] == list(names)
  assert different == dict.fromkeys(names, 0)
  for name in names:  # the run in peace was not resumed, the other one was
    assert (tmp_path / "peace" / name / "metrics.jsonl").is_file()
    assert len(list((tmp_path / "war" / name).glob("events.*"))) >= 2


def test_a_run_that_ends_by_itself_is_not_counted_as_killed(tmp_path):
  """Kills: a campaign that proves nothing because its runs were over, or never started."""
  program = [sys.executable, "-c", "import sys; print('base 1/4  x', file=sys.stderr); sys.exit(3)"]
  with pytest.raises(RuntimeError, match=r"ended with status 3 before it was killed at base 2"):
    campaign.kill_at(program, tmp_path, "base", 2, 0)


def test_differences_are_counted_in_bits():
  """Kills: a comparison by value, for which -0 is 0, or one that skips a leaf."""
  a = {"x": {"y": jnp.array([0.0, 1.0, 2.0])}, "z": jnp.ones(4, jnp.bfloat16)}
  b = {"x": {"y": jnp.array([-0.0, 1.0, 2.5])}, "z": jnp.ones(4, jnp.bfloat16).at[1].set(1.01)}
  assert campaign.difference(a, b) == 3
  assert campaign.difference(a, a) == 0


def test_kills_fall_in_every_stage_in_order():
  """Kills: a stage without a kill; a position behind one that comes later."""
  found = campaign.positions(("a", "b", "c"), 12, 8, seed=0)
  assert [sum(name == s for s, _ in found) for name in "abc"] == [3, 3, 2]
  assert found == sorted(found)
  assert all(1 <= step <= 11 for _, step in found)
  assert found != campaign.positions(("a", "b", "c"), 12, 8, seed=1)
