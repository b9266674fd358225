# Ahoy. `make run` starts the assistant, `make test` runs every test; both set up what they need on a fresh machine.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
UV := UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv
PYTEST := $(BIN)/pytest -c backend/pyproject.toml --rootdir .

.PHONY: run phone test bench bench-load lint models requirements clean help
.DEFAULT_GOAL := help

help: ## Show what make can do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

run: $(VENV)/.runtime ## Start the assistant at http://127.0.0.1:8000
	@$(BIN)/ahoy serve

phone: $(VENV)/.runtime ## Call the running assistant from a telephone on this machine (ARGS="question.wav --out heard.wav")
	@$(BIN)/ahoy phone $(ARGS)

test: $(VENV)/.develop ## Run every test (needs no network after set-up)
	@$(BIN)/ahoy models pull --for-tests
	@.ci/test-tools
	$(PYTEST) tests $(ARGS)

bench: $(VENV)/.develop ## Measure latency, cost and accuracy on real speech
	@$(BIN)/ahoy models pull --for-tests
	@PYTHONPATH=. $(BIN)/python -m bench.latency $(ARGS)
	@PYTHONPATH=. $(BIN)/python -m bench.overhead
	@PYTHONPATH=. $(BIN)/python -m bench.services
	@PYTHONPATH=. $(BIN)/python -m bench.phone

bench-load: $(VENV)/.develop ## Measure how many calls one core holds
	@$(BIN)/ahoy models pull --for-tests
	@PYTHONPATH=. $(BIN)/python -m bench.load $(ARGS)

lint: $(VENV)/.develop ## Check style, types and import direction
	@.ci/lint

models: $(VENV)/.runtime ## Fetch the models that the settings need (and those of the tests)
	@$(BIN)/ahoy models pull --for-tests

requirements: $(VENV)/.develop ## Write backend/requirements.txt from the lock file
	@cd backend && $(UV) export --quiet --frozen --no-emit-project --output-file requirements.txt

clean: ## Remove the virtual environment (models stay in the cache)
	rm -rf $(VENV)

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Ahoy needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 (found: $$($(PYTHON) --version 2>&1))"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.runtime: $(BIN)/uv backend/uv.lock backend/pyproject.toml
	@echo "Installing what Ahoy needs into .venv ..."
	@cd backend && $(UV) sync --quiet --frozen --inexact
	@touch $@

$(VENV)/.develop: $(BIN)/uv backend/uv.lock backend/pyproject.toml
	@echo "Installing what the tests need into .venv ..."
	@cd backend && $(UV) sync --quiet --frozen --inexact --group dev
	@touch $@ $(VENV)/.runtime
