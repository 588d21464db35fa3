# `make demo` and `make test` work on a fresh machine: they make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MPLCONFIGDIR ?= $(CURDIR)/$(VENV)/matplotlib

.PHONY: demo test check bench bench-full clean

demo: $(VENV)/.installed  ## train on handwritten digits, evaluate, write the report
	@rm -rf runs/demo
	@$(BIN)/fovea train digits --out runs/demo

test: check  ## lint, type check and run all tests
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/.installed  ## the note's script, quick and fast, in turn; needs FOVEA_DATA
	$(BIN)/python benchmarks/record.py

bench-full: $(VENV)/.installed  ## the same with five seeds, and best with three
	$(BIN)/python benchmarks/record.py --rounds 5
	$(BIN)/python benchmarks/record.py --more --without-note --recipes best --rounds 3

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs inspect
