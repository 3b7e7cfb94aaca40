"""Which process of which run this is; what the processes of a run agree on."""

import re
import types

import jax
import pytest
from jax._src.clusters import k8s_cluster

from facejax import distributed, logs
from facejax.data.refused import TooManyRefused
from facejax.keeper import Cluster
from facejax.refusals import Refusals
from facejax.types import Refusal

CLUSTERS = re.compile(r"SLURM_|OMPI_|KUBERNETES_|TPU_|MEGASCALE_|JAX_COORDINATOR|JOB_COMPLETION")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
  """A machine of no cluster."""
  import os

  for name in [name for name in os.environ if CLUSTERS.match(name)]:
    monkeypatch.delenv(name)


def set_all(monkeypatch, **values):
  for name, value in values.items():
    monkeypatch.setenv(name, str(value))


def slurm(**changes):
  return {
    "SLURM_JOB_ID": 4099,
    "SLURM_STEP_NODELIST": "tpu[007-009,012],login",
    "SLURM_NTASKS": 8,
    "SLURM_PROCID": 5,
    "SLURM_LOCALID": 1,
    **changes,
  }


def test_a_lone_process_is_no_run_of_several(monkeypatch):
  """Kills: a laptop that waits for others; a SLURM job of one task that opens a port."""
  assert distributed.find() is None
  assert distributed.find("a:1", 1, 0) is None
  set_all(monkeypatch, **slurm(SLURM_NTASKS=1, SLURM_PROCID=0))
  assert distributed.find() is None


def test_flags_are_taken_as_they_are(monkeypatch):
  """Kills: an environment that overrules what was said."""
  set_all(monkeypatch, **slurm())
  assert distributed.find("10.0.0.2:77", 3, 2) == Cluster("10.0.0.2:77", 3, 2)
  assert Cluster("[fe80::1]:77", 3, 2).address == ("fe80::1", 77)


def test_slurm(monkeypatch):
  """Kills: a coordinator that is not the first host of the step; all GPUs in each process."""
  set_all(monkeypatch, **slurm())
  assert distributed.find() == Cluster(f"tpu007:{4099 % 4096 + 61440}", 8, 5, (1,))
  assert distributed.find("other:9") == Cluster("other:9", 8, 5, (1,))
  set_all(monkeypatch, JAX_COORDINATOR_PORT=5555)
  assert distributed.find().coordinator == "tpu007:5555"


def test_open_mpi_4(monkeypatch):
  """Kills: a launcher's address that is not read."""
  set_all(
    monkeypatch,
    OMPI_MCA_orte_hnp_uri="1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    OMPI_COMM_WORLD_SIZE=4,
    OMPI_COMM_WORLD_RANK=3,
    OMPI_COMM_WORLD_LOCAL_RANK=0,
  )
  found = distributed.find()
  assert found == Cluster(f"10.96.0.1:{1531576320 // 4096 % 4096 + 61440}", 4, 3, (0,))


def test_open_mpi_5_says_all_but_the_address(monkeypatch):
  """Kills: four runs of one process each, on one workdir, under an Open MPI that JAX cannot see."""
  values = {"SIZE": 4, "RANK": 2, "LOCAL_RANK": 1}
  set_all(monkeypatch, **{f"OMPI_COMM_WORLD_{name}": value for name, value in values.items()})
  assert distributed.find("a:7") == Cluster("a:7", 4, 2, (1,))
  with pytest.raises(ValueError) as caught:
    distributed.find()
  start = "--coordinator missing (--processes=4, --process=2 known) - expected --coordinator HOST:"
  assert str(caught.value).startswith(start)


def test_a_tpu_pod_on_gke(monkeypatch):
  """Kills: one process a chip, where a TPU machine has one for all of its chips."""
  monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", True)
  monkeypatch.setattr(distributed, "running_in_cloud_tpu_vm", True)
  set_all(monkeypatch, TPU_WORKER_HOSTNAMES="localhost,b,c,d", TPU_WORKER_ID=2)
  set_all(monkeypatch, TPU_SKIP_MDS_QUERY=1, MEGASCALE_NUM_SLICES=2, MEGASCALE_SLICE_ID=1)
  set_all(monkeypatch, MEGASCALE_COORDINATOR_ADDRESS="localhost:8080")
  assert distributed.find() == Cluster("localhost:8482", 8, 6)


def test_an_indexed_job_on_kubernetes(monkeypatch):
  """Kills: a GPU job's pods that do not find each other."""
  env = k8s_cluster.K8sCluster
  monkeypatch.setattr(env, "is_env_present", classmethod(lambda cls: True))
  job = types.SimpleNamespace(
    spec=types.SimpleNamespace(parallelism=3),
    metadata=types.SimpleNamespace(
      name="run-workers", labels={"jobset.sigs.k8s.io/jobset-name": "run"}
    ),
  )
  controller = types.SimpleNamespace(kind="Job")
  for name, value in (("_job", job), ("_pod", None), ("_controller", controller)):
    monkeypatch.setattr(env, name, classmethod(lambda cls, value=value: value))
  monkeypatch.setattr(k8s_cluster.socket, "gethostbyname", lambda name: "10.0.0.9")
  set_all(monkeypatch, JOB_COMPLETION_INDEX=2)
  assert distributed.find() == Cluster("run-workers-0.run:55527", 3, 2)


@pytest.mark.parametrize(
  "values, text",
  [
    (("a:7", None, None), "--processes and --process missing (--coordinator=a:7 known)"),
    ((None, 4, 1), "--coordinator missing (--processes=4, --process=1 known)"),
    (("a", 4, 1), "--coordinator a: expected HOST:PORT of process 0, such as 10.0.0.2:8482"),
    (("a:0", 4, 1), "--coordinator a:0: expected HOST:PORT"),
    (("a:x", 4, 1), "--coordinator a:x: expected HOST:PORT"),
    (("a:7", 0, 0), "--processes 0: expected at least 1"),
    (("a:7", 4, 4), "--process 4: expected 0 to 3, of processes=4"),
    (("a:7", 4, -1), "--process -1: expected 0 to 3"),
  ],
)
def test_flags_that_cannot_be_are_refused(values, text):
  """Kills: a process that waits for a coordinator that nobody named."""
  with pytest.raises(ValueError) as caught:
    distributed.find(*values)
  assert str(caught.value).startswith(text)


def test_a_process_that_uses_jax_already_cannot_join():
  """Kills: processes that each see their own devices alone, and train four times."""
  jax.devices()
  with pytest.raises(RuntimeError, match="JAX is in use already, so this process cannot join"):
    distributed.join()


def test_alone_nobody_is_waited_for():
  """Kills: a single process that needs a keeper."""
  assert not distributed.kept()
  distributed.at("base step 1")
  distributed.ask_to_stop()
  assert distributed.meet("there", 3) == [3]
  distributed.agree("start", {"checkpoint": 3}, "")


def test_values_that_differ_name_the_process(monkeypatch):
  """Kills: machines with two states of a dataset, which train on neither."""
  values = [{"a": 1, "rows": 16}, {"a": 1, "rows": 16}, {"a": 1, "rows": 8}]
  monkeypatch.setattr(distributed, "meet", lambda name, value: values)
  monkeypatch.setattr(distributed, "host", lambda index: f"host-{index}")
  with pytest.raises(ValueError) as caught:
    distributed.agree("base start", values[0], "copy it again")
  assert str(caught.value) == (
    "process 2 (host-2) has rows 8, process 0 (host-0) has 16 - expected the same in all - copy it "
    "again"
  )


def refused(*ids: str) -> tuple[Refusal, ...]:
  return tuple(Refusal(id, "broken") for id in ids)


def as_process(monkeypatch, index: int, count: int) -> None:
  monkeypatch.setattr(jax, "process_index", lambda: index)
  monkeypatch.setattr(jax, "process_count", lambda: count)


def test_fewer_processes_count_the_refusals_of_more(tmp_path, monkeypatch):
  """Kills: files of processes that are no more, with records of steps that are made again; a limit
  that starts anew with every other number of machines."""
  drawn = lambda step: 2000.0
  for process in range(4):
    as_process(monkeypatch, process, 4)
    own = Refusals(tmp_path, 0, refused("early"), drawn, 0.0021)
    own.add(1, refused(f"{process}-a"))
    own.add(2, refused(f"{process}-b"))
    own.add(3, refused(f"{process}-late"))
  as_process(monkeypatch, 1, 2)
  own = Refusals(tmp_path, 2, (), drawn, 0.0021)
  ids = lambda name: [r["id"] for r in logs.read_until(tmp_path / name, 99)]
  assert ids("refused.3.jsonl") == ["early", "3-a", "3-b"]
  assert ids("refused.2.jsonl") == ["early", "2-a", "2-b", "2-late"]  # process 0's
  with pytest.raises(TooManyRefused, match="5 of 2000 samples refused by step 3"):
    own.add(3, refused("last"))  # 2 of process 1's, 2 of process 3's, and this
  as_process(monkeypatch, 0, 1)
  Refusals(tmp_path, 0, (), drawn, 0.5)
  assert not list(tmp_path.iterdir())
