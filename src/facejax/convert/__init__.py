"""Other people's checkpoints <-> ours. load() reads a released folder, export() writes one."""

from facejax.convert.load import Imported, load

__all__ = ["Imported", "load"]
