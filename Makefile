# `make demo` and `make test` work on a fresh machine: they make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MPLCONFIGDIR ?= $(CURDIR)/$(VENV)/matplotlib

.PHONY: demo test check clean

demo: $(VENV)/.installed  ## train on handwritten digits, evaluate, write the report
	@rm -rf runs/demo
	@$(BIN)/fovea train digits --out runs/demo

test: check  ## lint, type check and run all tests
	$(BIN)/python -m pytest -n 2

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
