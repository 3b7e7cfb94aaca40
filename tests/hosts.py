"""Starts the processes of tests/hosts_run.py and looks at what they leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import tiny_run

from facejax import logs


class Launch:
  """Processes of one run on this machine."""

  def __init__(self, workdir: Path, processes: int, *flags: str):
    self.workdir, self.processes = workdir, processes
    with socket.create_server(("127.0.0.1", 0)) as server:
      address = f"127.0.0.1:{server.getsockname()[1]}"
    self._out = [workdir.parent / f"{workdir.name}.{address[-5:]}.{i}" for i in range(processes)]
    common = ["--coordinator", address, "--processes", str(processes), *flags]
    program = str(Path(tiny_run.__file__).with_name("hosts_run.py"))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    self.children = []
    for index, path in enumerate(self._out):
      with path.open("w") as out:
        command = [sys.executable, program, str(workdir), *common, "--process", str(index)]
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        self.children.append(child)

  def text(self, index: int) -> str:
    return self._out[index].read_text()

  def said(self, index: int) -> list[str]:
    """The keeper's lines."""
    return [line for line in self.text(index).splitlines() if line.startswith("facejax: ")]

  def wait_for(self, step: int, stage: str = "base") -> None:
    """Returns once process 0 has reported that step."""
    deadline = time.monotonic() + 600
    while not any(f"{stage} {s}/" in self.text(0) for s in range(step, step + 9)):
      if time.monotonic() > deadline or self.children[0].poll() is not None:
        self.end()
        raise AssertionError(self.text(0))
      time.sleep(0.05)

  def trainer(self, index: int) -> int:
    """The process id of a trainer: the one child of its keeper."""
    pid = self.children[index].pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

  def kill(self, index: int, whole: bool = True) -> None:
    """SIGKILL to a trainer, and with `whole` to its keeper as well, as a lost machine does it."""
    pids = [self.trainer(index), *([self.children[index].pid] if whole else [])]
    for pid in pids:
      os.kill(pid, signal.SIGKILL)

  def statuses(self) -> list[int]:
    try:
      return [child.wait(600) for child in self.children]
    finally:
      self.end()

  def end(self) -> None:
    """Trainers end with their keepers."""
    for child in self.children:
      child.kill()


def rows_read(workdir: Path) -> list[tuple[int, int, int, str]]:
  """(step, row, process, hash) of every row that any process has read, in any launch."""
  found = []
  for path in workdir.glob("read.*.jsonl"):
    for line in path.read_text().splitlines():
      record = json.loads(line)
      process = int(path.name.split(".")[1])
      found += [(record["step"], int(r), process, h) for r, h in record["rows"].items()]
  return sorted(found)


def losses(workdir: Path, stage: str = "base") -> dict[int, float]:
  records = logs.read_until(workdir / stage / "metrics.jsonl", 10**9)
  assert [r["step"] for r in records] == list(range(1, len(records) + 1))
  return {record["step"]: record["loss"] for record in records}
