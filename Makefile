# `make demo` and `make test` need nothing but Python >= 3.10; everything lands in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# stamps: a change of requirements installs again, a change of code does not
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

.PHONY: help demo test slow lint format bench clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(RUN)  ## Audit models trained on the embedded digits data
	$(BIN)/unaudit demo --out unaudit-demo

test: $(DEV)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

slow: $(DEV)  ## Run the long simulations and the checks on real data
	$(BIN)/python -m pytest -m slow

lint: $(DEV)  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(DEV)  ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV)  ## Measure what an audit costs, as ratios to a forward pass
	$(BIN)/python bench/check_cost.py

clean:  ## Remove the environment and everything that was built
	rm -rf $(VENV) build unaudit-demo bench/out *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "unaudit needs Python 3.10 or later")'
	$(PYTHON) -m venv $(VENV)

$(RUN): $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[pdf,vision]'
	touch $@

$(DEV): $(RUN)
	$(PIP) --editable '.[pdf,vision,ray,text,dev]'
	touch $@
