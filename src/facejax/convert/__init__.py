"""Other people's checkpoints <-> ours. load() reads a released folder, export() writes one."""

from facejax.convert.export import FORMATS, export
from facejax.convert.folder import is_checkpoint
from facejax.convert.importing import import_folder
from facejax.convert.load import Imported, load, load_into, open_checkpoint

__all__ = [
  "FORMATS",
  "Imported",
  "export",
  "import_folder",
  "is_checkpoint",
  "load",
  "load_into",
  "open_checkpoint",
]
