# make         what there is
# Everything runs in .venv, which is made on first use and brought up to date when pyproject.toml or constraints.txt change.

SHELL := bash
.DEFAULT_GOAL := help
BASE_PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# One worker a core, and one thread a worker: these models are too small for more, and threads that wait for each other cost far more than they bring.
ONE_THREAD := OMP_NUM_THREADS=1
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: help install demo test test-all test-pages lint format types check tiny tiny-vl detector speedrun bench results seeing detection clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

.venv/bin/python:
	@[ -n "$(BASE_PYTHON)" ] || { echo "error: Python 3.11 or newer is needed: install it, or name it with make BASE_PYTHON=..." >&2; exit 1; }
	@$(BASE_PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing audiograft into .venv, which takes some minutes the first time" >&2
	@$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo "installing what the tests and checks need" >&2
	@$(PIP) --editable '.[dev,train-logging]'
	@touch $@

install: .venv/.installed-dev  ## .venv with the package, editable, and the tools to work on it

demo: .venv/.installed  ## transcribe examples/ with the model that ships in the package
	@$(BIN)/audiograft transcribe --timing examples/*.wav

test: .venv/.installed-dev  ## the quick tests; those that need espeak-ng or flite are skipped without them
	@$(ONE_THREAD) $(BIN)/python -m pytest -n auto

test-all: .venv/.installed-dev  ## all tests, the slow ones too
	@$(ONE_THREAD) $(BIN)/python -m pytest -n auto -m 'slow or not slow'

test-pages: .venv/.installed-dev  ## the audit page in a real Chromium, and the notebooks from top to bottom
	@$(ONE_THREAD) $(BIN)/python -m pytest -n auto -m slow tests/audit tests/test_notebooks.py

lint: .venv/.installed-dev  ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: .venv/.installed-dev  ## put the code into ruff's format and order of imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

types: .venv/.installed-dev  ## mypy, strict, on src
	@$(BIN)/mypy

check: lint types test  ## what has to pass before a change is proposed

tiny: .venv/.installed-dev  ## make the shipped model again, from nothing (hours; needs espeak-ng and flite)
	@$(WITH_VENV) bash recipes/tiny/make.sh

tiny-vl: .venv/.installed-dev  ## make the shipped model that sees and hears again (some 100 minutes; needs espeak-ng and flite)
	@$(WITH_VENV) bash recipes/tiny/vl.sh

detector: .venv/.installed-dev  ## train the shipped speech detector again (some 40 minutes; needs espeak-ng and flite)
	@$(WITH_VENV) bash recipes/tiny/detect.sh

speedrun: .venv/.installed  ## graft, align, finetune, evaluate, transcribe in ten minutes on two cores
	@bash recipes/speedrun.sh
	@mkdir -p benchmarks/results
	@cp runs/speedrun/speedrun.json benchmarks/results/speedrun.json

bench: .venv/.installed-dev  ## the speed and memory ratios; writes benchmarks/results/latest.json
	@$(BIN)/python benchmarks/bench.py

results: .venv/.installed  ## word error rates of the shipped model (needs espeak-ng and flite); writes benchmarks/results/tiny.json
	@$(BIN)/python benchmarks/tiny.py

seeing: .venv/.installed  ## what tiny-vl hears and what grafting kept of its eyes (needs espeak-ng and flite); writes benchmarks/results/tiny_vl.json
	@$(ONE_THREAD) $(BIN)/python benchmarks/tiny_vl.py

detection: .venv/.installed-dev  ## the shipped detector beside others on the same clips (needs espeak-ng and flite); writes benchmarks/results/detection.json
	@$(ONE_THREAD) $(BIN)/python benchmarks/detection.py

clean:  ## remove caches and builds; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests recipes benchmarks -name __pycache__ -prune -exec rm -rf {} +
