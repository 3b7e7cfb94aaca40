"""An imported folder: a checkpoint of another project under our names, ready to train or chat with.

config.json          a RunConfig without stages; data.tokenizer is a file of the folder
weights.safetensors  our parameters, stacked; several files and an index above 5 GB
tokenizer.model ...  as they came
source.json          where it came from: family, their config.json, what was missing or unused
"""

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from facejax import config_io
from facejax.config import RunConfig
from facejax.convert import files
from facejax.convert.configs import tokenizer_in
from facejax.convert.tables import Rule, Table

# What goes along with the weights, both ways. Not config.json: it is written anew.
TOKENIZER = (
  "tokenizer.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.json",
  "chat_template.jinja",
)
COMPANIONS = (
  *TOKENIZER,
  "generation_config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "video_preprocessor_config.json",
  "image_tower_config.json",
  "video_tower_config.json",
  "vision_tower_config.json",
)


def copy_companions(source: Path, folder: Path, names: Sequence[str] = COMPANIONS) -> None:
  """Copies the tokenizer and its like."""
  for name in names:
    if (source / name).is_file():
      shutil.copyfile(source / name, folder / name)


def is_imported(folder: Path) -> bool:
  """Whether import_folder wrote it."""
  return (folder / "config.json").is_file() and (folder / "source.json").is_file()


def is_checkpoint(folder: str | Path) -> bool:
  """Whether load() could read it: an imported folder, or one in a released layout."""
  folder = Path(folder)
  return (folder / "config.json").is_file() and files.weights_in(folder) is not None


def read_config(folder: Path) -> tuple[str, RunConfig]:
  """(family, config) of an imported folder, the tokenizer by its full path."""
  config = config_io.from_dict(RunConfig, files.read_json(folder / "config.json"))
  family = str(files.read_json(folder / "source.json").get("family"))
  data = dataclasses.replace(config.data, tokenizer=tokenizer_in(folder))
  return family, dataclasses.replace(config, data=data)


def own_table(paths: Collection[str]) -> Table:
  """Our names for our names."""
  return Table(tuple(Rule(path, path) for path in paths))
