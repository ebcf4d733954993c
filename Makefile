# Everything runs in a virtual environment, .venv, that the targets make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Some tools call others of the environment by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
SOURCES := setup.py pyproject.toml $(wildcard instnorm/*.pyx)

.PHONY: demo test lint build bench models clean

demo: $(VENV)/demo        ## Train on real digits, with and without instance norm; results in demo/
	$(BIN)/instnorm train --out demo

test: $(VENV)/test        ## Run the test suite
	$(BIN)/python -m pytest

lint: $(VENV)/lint        ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint instnorm/*.pyx
	$(BIN)/mypy

build: $(VENV)/lint       ## Make the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build

bench: $(VENV)/bench      ## Run the benchmarks once on the installed package
	cd asv_bench && ../$(BIN)/asv machine --yes > /dev/null && ../$(BIN)/asv run --python=same --quick

models: $(VENV)/models    ## Time three real PyTorch models, as they are and converted; results in models/
	cd asv_bench && ../$(BIN)/python -m models --out ../models

clean:
	rm -rf $(VENV) build dist demo models *.egg-info instnorm/*.c instnorm/*.so

$(VENV)/python:
	@echo "Setting up .venv: this takes a minute, once"
	$(PYTHON) -m venv $(VENV)
	touch $@

# Editable, so that the tests see the sources; built anew when the kernels change.
$(VENV)/%: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# PyTorch is the peer that the tests compare with. Only its CPU build will do, and
# the registry's newest build would bring gigabytes of CUDA: hence the exact version.
$(VENV)/test $(VENV)/models: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[$(@F)]" torch==2.13.0
	touch $@
