"""libtpu on a machine without a TPU, where it only compiles: keeps it quiet.

JAX asks libtpu for devices whenever it is installed. Where there are none, it writes ten lines to
stderr about names that only a TPU's machine has; with these names set it writes nothing. A machine
with a TPU is left alone.
"""

import os
from pathlib import Path

_GOOGLE, _NETWORK_CARD = "0x1ae0", "0x0042"  # a PCI vendor, and what it makes besides TPUs
_NAMES = {
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_LOG_DIR": "disabled",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several planners at a time
}


def quiet(bus: Path = Path("/sys/bus/pci/devices")) -> bool:
  """Sets the names that are unset; returns False, and sets none, where a TPU is on the bus."""
  read = lambda path: path.read_text().strip() if path.exists() else ""
  for vendor in bus.glob("*/vendor"):
    if read(vendor) == _GOOGLE and read(vendor.parent / "device") != _NETWORK_CARD:
      return False
  for name, value in _NAMES.items():
    os.environ.setdefault(name, value)
  return True
