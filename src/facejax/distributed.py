"""A run of several processes, as one of them sees it. Flags, environment -> jax.distributed.

find()   which process of how many this is: from flags, or from the cluster's environment
join()   in a process that a keeper started (keeper.py): starts jax.distributed
meet()   waits for all others, by name; the keeper stops the run if one does not come
at()     says where this process is, for the messages of the others
"""

import contextlib
import dataclasses
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax._src import clusters, xla_bridge
from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm
from jax.experimental import multihost_utils

from facejax.hub import MISSING, Lines
from facejax.keeper import ENVIRONMENT, Cluster

# JAX's own heartbeats only have to be slower than ours: they name processes by number, in C++ text.
_SLOWER = 60  # seconds


def find(
  coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Cluster | None:
  """Which process of which run this is; None if it is the only one.

  What is None is taken from the environment: a TPU pod's, GKE's, SLURM's or Open MPI's. Given all
  three, nothing is looked up. Raises ValueError for values that cannot be, or if some are missing.
  """
  found: _Found | None = None
  if None in (coordinator, processes, process):
    found = _environment(coordinator)
    if found is None and (coordinator, processes, process) == (None, None, None):
      return None
    if found:
      coordinator = coordinator or found.coordinator
      processes = found.processes if processes is None else processes
      process = found.process if process is None else process
  _check(coordinator, processes, process)
  assert coordinator and processes is not None and process is not None
  if processes == 1:
    return None
  return Cluster(coordinator, processes, process, found.local_device_ids if found else None)


@dataclasses.dataclass(frozen=True)
class _Found:
  """What an environment says."""

  coordinator: str | None
  processes: int
  process: int
  local_device_ids: tuple[int, ...] | None


def _environment(coordinator: str | None) -> _Found | None:
  """The cluster that this process is in; None if it is in none, or alone in it."""
  for env in clusters.ClusterEnv._cluster_types:
    if env.opt_in_only_method or not env.is_env_present():
      continue
    processes = env.get_process_count()
    if processes == 1:
      return None
    port = os.environ.get("JAX_COORDINATOR_PORT")
    where = coordinator or env.get_coordinator_address(300, port)
    # One process a device, as JAX has it, where a launcher counts the processes of a machine.
    local = None if running_in_cloud_tpu_vm else env.get_local_process_id()
    return _Found(where, processes, env.get_process_id(), None if local is None else (local,))
  # Open MPI 5, which JAX 0.10 does not know: it says all but where process 0 is.
  size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
  if size == 1:
    return None
  local = int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])
  return _Found(None, size, int(os.environ["OMPI_COMM_WORLD_RANK"]), (local,))


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
  given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
  if missing := [flag for flag, value in given.items() if value is None]:
    known = ", ".join(f"{f}={v}" for f, v in given.items() if v is not None)
    raise ValueError(
      f"{' and '.join(missing)} missing ({known} known) - expected --coordinator HOST:PORT "
      "--processes N --process I, or a cluster that says so itself (a TPU pod, GKE, SLURM, Open "
      "MPI 4) - give what is missing"
    )
  assert coordinator is not None and processes is not None and process is not None
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise ValueError(
      f"--coordinator {coordinator}: expected HOST:PORT of process 0, such as 10.0.0.2:8482"
    )
  if processes < 1:
    raise ValueError(f"--processes {processes}: expected at least 1")
  if not 0 <= process < processes:
    raise ValueError(f"--process {process}: expected 0 to {processes - 1}, of {processes=}")


class _Link:
  """A trainer's end of the socket to its keeper."""

  def __init__(self, connection: socket.socket):
    connection.set_inheritable(False)  # the data's workers do not keep it open
    self._lines = Lines(connection)
    connection.settimeout(None)
    self._answers: queue.Queue[dict] = queue.Queue()
    self._sending, self._counting = threading.Lock(), threading.Lock()
    self._steps, self._asked = 0, False
    self._last: int | None = None  # the step to stop after, in steps of all stages
    self._agreed = threading.Event()
    threading.Thread(target=self._listen, daemon=True, name="keeper").start()
    self.start = self._answers.get()["start"]

  def _listen(self) -> None:
    while (messages := self._lines.receive()) is not None:
      for message in messages:
        if "ask" in message:
          with self._counting:
            self._asked = True
            self.send(count=self._steps)
        elif "last" in message:
          self._last = message["last"]
          self._agreed.set()
        else:
          self._answers.put(message)
    # Nobody would stop this process if it were left in a collective.
    print("facejax: the keeper of this process is gone; stopped", file=sys.stderr, flush=True)
    os._exit(MISSING)

  def send(self, **message: Any) -> None:
    with self._sending:
      self._lines.send(**message)

  def meet(self, name: str, value: Any, patience: int) -> list:
    self.send(meet=[name, value, patience])
    return self._answers.get()["met"]

  def stop_agreed(self) -> bool:
    """Counts a step. Once asked, none is begun before all are known: the last is behind them all.

    A process that has told its count waits here after its next step, which is the last at most.
    """
    with self._counting:
      self._steps += 1
      steps, asked = self._steps, self._asked
    if asked:
      self._agreed.wait()
    return self._last is not None and steps >= self._last


_link: _Link | None = None


def kept() -> bool:
  """Whether a keeper started this process, which then has to join()."""
  return ENVIRONMENT in os.environ or _link is not None


def join() -> None:
  """Makes this process, which a keeper started, one of the run's. Before JAX is used.

  Raises RuntimeError if a JAX backend exists already: it knows this machine's devices alone.
  """
  global _link
  if xla_bridge.backends_are_initialized():
    raise RuntimeError(
      "JAX is in use already, so this process cannot join others - expected no array, device or "
      "computation before facejax.distributed.join() - look at what the config file imports"
    )
  _link = _Link(socket.socket(fileno=int(os.environ.pop(ENVIRONMENT))))
  start = _link.start
  # Keepers agree on the last step. JAX's service, with which Orbax speaks too, of other steps and
  # from other threads, would not.
  jax.config.update("jax_enable_preemption_service", False)
  jax.distributed.initialize(
    start["coordinator"],
    start["processes"],
    start["process"],
    local_device_ids=start["local_device_ids"],
    cluster_detection_method="deactivate",  # find() has done it
    initialization_timeout=round(start["wait"]),
    heartbeat_timeout_seconds=round(start["silence"]) + _SLOWER,
  )
  at("the first setup")


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """join(), and an error inside is told to all other processes."""
  join()
  try:
    yield
  except BaseException as error:
    assert _link
    # What a collective raises may be the end of another process; the hub finds out whose.
    doubtful = isinstance(error, jax.errors.JaxRuntimeError)
    text = " ".join(str(error).split()) or type(error).__name__
    _link.send(error=text[:2000], doubtful=doubtful)
    raise


def at(place: str) -> None:
  """Says where this process is, such as "base step 7"."""
  if _link:
    _link.send(at=place)


def meet(name: str, value: Any = None, patience: int = 1) -> list:
  """Waits until all processes have come to `name`; returns their values (JSON), by process.

  The keeper stops the run, naming who is missing, if that takes longer than `patience` times
  --barrier-timeout.
  Without a keeper JAX's barrier is used, and each process sees its own value alone.
  """
  if _link:
    return _link.meet(name, value, patience)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
  return [value]


def agree(name: str, values: Mapping[str, Any], advice: str) -> None:
  """meet(), and raises ValueError, in all processes, if one has another value than process 0."""
  first, *others = meet(name, dict(values))
  for index, other in enumerate(others, 1):
    for key in sorted(set(first) | set(other)):
      if first.get(key) != other.get(key):
        raise ValueError(
          f"process {index} ({host(index)}) has {key} {other.get(key)!r}, process 0 ({host(0)}) "
          f"has {first.get(key)!r} - expected the same in all - {advice}"
        )


def ask_to_stop() -> None:
  """Asks all processes of a kept run to save and stop at one step."""
  if _link:
    _link.send(halt="")


def stop_agreed() -> bool:
  """Whether the step that this process has just made is the last; each calls it once a step."""
  assert _link
  return _link.stop_agreed()


def host(process: int) -> str:
  """The name of the machine of a process."""
  return _link.start["hosts"][process] if _link else socket.gethostname()
