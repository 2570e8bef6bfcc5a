# Two commands for a newcomer: `make demo` and `make test`. `make check` is the fast part of the latter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV := .cache/uv/bin/uv
UV_COMPILE := $(UV) pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 --quiet
SERVICES := kafka or postgres or redis or system
DRILL ?= --runs 200

.PHONY: demo test check mutants laws drill lint schemas lock clean

demo: $(VENV)/.installed
	$(BIN)/switchyard demo

# One run of pytest over everything, so that its last line tells all: contract tests in one process, all others that need
# services in another, and the rest in whichever is done first. What cannot run fails: nothing is skipped silently.
test: lint
	SWITCHYARD_REQUIRE_SERVICES=1 $(BIN)/python -m tests.services.prepare
	SWITCHYARD_REQUIRE_SERVICES=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20

check: lint
	$(BIN)/python -m pytest -q -n auto -m "not ($(SERVICES))"

# Plants bugs in a copy of the project, one after the other: each must turn a test red.
mutants: $(VENV)/.installed-dev
	$(BIN)/python -m tests.mutations

# The laws of frontier and lanes, for some ten minutes each.
laws: $(VENV)/.installed-dev
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --timeout=0 --hypothesis-show-statistics -k Laws tests/unit/bus

# The nightly size, unless DRILL says otherwise: see docs/drill.md. What a failing seed needs to run again is printed.
drill: $(VENV)/.installed-dev
	SWITCHYARD_REQUIRE_SERVICES=1 $(BIN)/python -m tests.drill $(DRILL)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -m ops.schemas --check

# Writes contracts/schemas anew from the payload classes; refuses what would break a reader.
schemas: $(VENV)/.installed-dev
	$(BIN)/python -m ops.schemas

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Switchyard needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	touch $@

# The lock files name versions and hashes, and no addresses. The larger one goes first: the other one must agree.
lock: $(UV)
	$(UV_COMPILE) pyproject.toml build-requirements.in --all-extras -o requirements-dev.lock
	$(UV_COMPILE) pyproject.toml build-requirements.in --extra embedded -c requirements-dev.lock -o requirements.lock

$(UV):
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

clean:
	rm -rf $(VENV) .cache .switchyard
