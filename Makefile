# Every target installs what it needs into .venv first; a second run finds it there.
#
#   make up      a three-node cluster on this machine, running examples/counter (APP=dir NODES=n change that)
#   make test    all tests (TESTS="tests/unit -k pid" runs some, JOBS=1 one at a time)
#   make lint    style and types
#   make bench   the benchmarks (FIGURES="spawn remote_one_way" runs some)
#   make chaos   the tests that kill servers and nodes, at full length (WIPPY_CHAOS_SEED=n repeats a run)
#
# PYTHON=python3.12 chooses the interpreter, VENV=dir the place of the virtual environment.

VENV ?= .venv
APP ?= examples/counter
NODES ?= 3
TESTS ?= tests
JOBS ?= 2
BIN := $(VENV)/bin
# Errors and warnings are shown, but for one of setuptools that fills the screen and means nothing here.
PIP := PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

# An environment whose Python went away, or that was made for another directory, is made again.
ifneq ($(shell $(BIN)/python -c "print(open('$(VENV)/.pip').read().strip())" 2>/dev/null),$(CURDIR))
$(shell rm -f $(VENV)/.pip)
endif

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help up test lint bench chaos clean

help:
	@sed -n 's/^#   make/  make/p' Makefile

up: $(VENV)/.runs
	@$(BIN)/wippy up $(APP) --nodes $(NODES)

test: $(VENV)/.tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

lint: $(VENV)/.lints
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.tests
	@$(BIN)/python -m tests.bench $(FIGURES)

chaos: $(VENV)/.tests
	@WIPPY_CHAOS=full $(BIN)/python -m pytest -m chaos $(TESTS)

clean:
	rm -rf $(VENV)

$(VENV)/.pip: constraints.txt
	@python=$$(PYTHON="$(PYTHON)" .ci/find-python) && echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@$(PIP) pip
	@echo "$(CURDIR)" > $@

$(VENV)/.runs: $(VENV)/.pip pyproject.toml
	@echo "Installing wippy-cluster into $(VENV), which takes a minute or so"
	@$(PIP) -e .
	@touch $@

$(VENV)/.tests: $(VENV)/.runs
	@echo "Installing what the tests need"
	@$(PIP) --group test
	@touch $@

$(VENV)/.lints: $(VENV)/.runs
	@echo "Installing what lint and types need"
	@$(PIP) --group lint --group test
	@touch $@
