# Each target sets up all it needs in .venv; nothing global is touched. Needs Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test fast lint notebooks clean

# setup.cfg changes what is installed; sources do not (the install is editable).
$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"facejax needs Python >= 3.11, {sys.executable} is {v.major}.{v.minor}; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Continues a demo that was stopped, and repeats none of one that is finished; to start anew, add
# --overwrite in place of --resume.
demo: $(READY)
	$(BIN)/facejax demo --workdir runs/demo --resume

# The slow tests too; `make fast` leaves them out.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

fast: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Opens in a browser-less kernel: every cell is run, outputs are not stored.
notebooks: $(READY)
	$(BIN)/python -m pytest tests/system/test_notebooks.py

clean:
	rm -rf $(VENV) build dist src/*.egg-info
