"""A process of the campaign: FOLDER OUT PROCESS PROCESSES WORKERS START STOP -> hashes by step."""

import hashlib
import json
import sys
from pathlib import Path

import dataset
import jax


def row_hashes(batch) -> list[str]:
  """Of each row: all its arrays, their types and shapes."""
  leaves = jax.tree.leaves(batch)
  rows = []
  for row in range(len(leaves[0])):
    digest = hashlib.sha256()
    for leaf in leaves:
      digest.update(f"{leaf.dtype}{leaf.shape[1:]}".encode())
      digest.update(leaf[row].tobytes())
    rows.append(digest.hexdigest()[:16])
  return rows


def main() -> None:
  """Appends [step, [hash, ...]] for each step."""
  folder, out = map(Path, sys.argv[1:3])
  process, processes, workers, start, stop = map(int, sys.argv[3:])
  pipeline = dataset.pipeline(folder, process, processes, workers)
  with out.open("w") as file:
    batches = pipeline.batches(start, stop)
    for step, (batch, refused) in enumerate(batches, start):
      assert not refused
      file.write(json.dumps([step, row_hashes(batch)]) + "\n")
      file.flush()


if __name__ == "__main__":
  main()
