# Two commands do everything on a machine that has Python, make and a package index:
#   make demo   set up, then run the main job from end to end
#   make test   set up, then run the tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint learning docs lock clean

demo: $(READY)
	$(BIN)/st-llm2vec demo

test: $(READY) lint
	$(BIN)/python -m pytest -n 2 -q

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

learning: $(READY)
	$(BIN)/python -m benchmarks.learning

docs: $(READY)
	$(BIN)/python scripts/write_architectures.py
	$(BIN)/python scripts/write_spans.py

lock:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements.lock)" hatchling editables --editable ".[dev]"
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel > $(VENV)/frozen
	{ grep '^#' requirements.lock; sed 's/+.*//' $(VENV)/frozen; } > $(VENV)/requirements.lock
	mv $(VENV)/requirements.lock requirements.lock
	touch $(READY)

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("requirements.lock is for Python 3.11 and later: name one, e.g. make PYTHON=python3.12.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf $(VENV)
