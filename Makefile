# Two commands for a newcomer: `make demo` and `make test`. `make check` is the fast part of the latter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK_FLAGS := --universal --generate-hashes --no-header --python-version 3.11 --quiet

.PHONY: demo test check lock schemas clean

demo: $(VENV)/.installed
	$(BIN)/switchyard demo

test: check
	$(BIN)/python -m pytest -m "kafka or postgres or redis or system" --durations=10

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -m "not (kafka or postgres or redis or system)"

schemas: $(VENV)/.installed-dev  ## write contracts/schemas anew from the payload classes
	$(BIN)/python -m ops.schemas

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

lock:  ## needs uv; writes no addresses
	uv pip compile pyproject.toml --extra embedded -o requirements.lock $(LOCK_FLAGS) build-requirements.in
	uv pip compile pyproject.toml --all-extras -o requirements-dev.lock $(LOCK_FLAGS) build-requirements.in

clean:
	rm -rf $(VENV) .cache .switchyard
