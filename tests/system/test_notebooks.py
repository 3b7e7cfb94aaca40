"""Every notebook runs from top to bottom and is stored without outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small_and_clean(path):
  """Kills: outputs committed by accident, a notebook that grows into a script."""
  cells = code(nbformat.read(path, as_version=4))
  assert all(not cell.outputs and cell.execution_count is None for cell in cells)
  assert sum(len(cell.source.splitlines()) for cell in cells) < 80


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
  """Kills: a rename in the library that a notebook did not follow."""
  notebook = nbformat.read(path, as_version=4)
  nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
  assert all(cell.execution_count for cell in code(notebook))
