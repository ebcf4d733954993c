# Everything runs in a virtual environment, .venv, that the targets make themselves.
PYTHON ?= python3
VENV := .venv
# MindSpore brings 800 MB, and is compared with by itself.
MINDSPORE := .venv-mindspore
BIN := $(VENV)/bin
# Some tools call others of the environment by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
CYTHON := $(shell find instnorm -name '*.pyx' -o -name '*.pxi')
SOURCES := setup.py pyproject.toml $(CYTHON) $(shell find instnorm -name '*.h' -o -name '*.hpp')

.PHONY: demo test test-slow test-mindspore test-aarch64 sanitize races fuzz matrix cycles lint build \
	bench bench-compare uses peers models toys clean

demo: $(VENV)/demo        ## Train on real digits, with and without instance norm; results in demo/
	$(BIN)/instnorm train --out demo

test: $(VENV)/test        ## Run the test suite
	$(BIN)/python -m pytest -m "not slow" --ignore=tests/fuzz

test-slow: $(VENV)/test   ## Run what the test suite leaves out for the sake of time
	$(BIN)/python -m pytest -m slow --ignore=tests/fuzz

test-mindspore: $(MINDSPORE)/test  ## Compare with the real MindSpore, in an environment of its own
	$(MINDSPORE)/bin/python -m pytest -m mindspore tests/nn/test_mindspore_side_by_side.py \
		tests/migrate tests/cli/test_models.py \
		tests/bridge/test_bridge_mindspore.py tests/bridge/test_fusion_mindspore.py

test-aarch64:             ## Run the numeric tests of the kernels for aarch64, by emulation. ARGS=tests/nn
	.ci/aarch64 $(ARGS)

sanitize: $(VENV)/test $(VENV)/build  ## Run the kernels' tests under sanitizers. ARGS=--quick
	.ci/sanitize $(ARGS)

races: $(VENV)/test $(VENV)/build  ## Look for data races by ThreadSanitizer. ARGS=60 for a minute
	.ci/races $(ARGS)

fuzz: $(VENV)/test        ## Try random calls, files and arguments: make fuzz SECONDS=600
	.ci/fuzz $(or $(SECONDS),60) $(ARGS)

matrix:                   ## Build and test with every Python, NumPy and compiler. ARGS="clang numpy"
	.ci/matrix $(ARGS)

LLVM ?= -19
cycles: $(VENV)/test      ## Print docs/cycles.md: llvm-mca's cycles an element of the hot loops
	@cd asv_bench && ../$(BIN)/python -m comparisons.cycles --llvm=$(LLVM) $(ARGS)

lint: $(VENV)/lint        ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint $(CYTHON)
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml instnorm._core instnorm._layers instnorm._runtime._cpu \
		instnorm._runtime._memory instnorm._special

build: $(VENV)/lint       ## Make the sdist, and the wheel from it, in dist/
	rm -rf dist
	$(BIN)/python -m build

ASV := cd asv_bench && ../$(BIN)/asv

bench: $(VENV)/bench      ## Benchmark the installed package; asv_bench/html/ is the site. ARGS=--quick
	$(ASV) machine --yes > /dev/null
	$(ASV) run --python=same --set-commit-hash=$$(git rev-parse HEAD) $(ARGS)
	$(ASV) publish

BASE ?= HEAD~1
bench-compare: $(VENV)/bench  ## Build and compare HEAD with another commit: make bench-compare BASE=...
	$(ASV) machine --yes > /dev/null
	$(ASV) continuous --interleave-rounds $(BASE) HEAD $(ARGS)

uses: $(VENV)/bench        ## Time what follows a norm in its pass beside the plain norm. ARGS="--simd avx2"
	cd asv_bench && ../$(BIN)/python -m comparisons.uses $(ARGS)

peers: $(VENV)/peers      ## Time instnorm beside PyTorch, JAX, ...: table, JSON, picture. ARGS=--quick
	cd asv_bench && ../$(BIN)/python -m comparisons.peers --out ../peers $(ARGS)

models: $(VENV)/models    ## Time three real PyTorch models, as they are and converted; results in models/
	cd asv_bench && ../$(BIN)/python -m comparisons.models --out ../models

toys: $(VENV)/toys        ## Train five toy nets here and in PyTorch: times and losses, in toys/
	cd asv_bench && ../$(BIN)/python -m comparisons.toys --out ../toys $(ARGS)

clean:
	rm -rf $(VENV) $(MINDSPORE) build dist demo peers models toys *.egg-info
	find instnorm -name '*.c' -delete -o -name '*.cpp' -delete -o -name '*.so' -delete

$(VENV)/python:
	@echo "Setting up .venv: this takes a minute, once"
	$(PYTHON) -m venv $(VENV)
	touch $@

# Editable, so that the tests see the sources; built anew when the kernels change.
$(VENV)/%: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# PyTorch is the peer that tests and timings compare with. Only its CPU build will do,
# and the registry's newest build would bring gigabytes of CUDA: hence the exact version.
$(VENV)/test $(VENV)/peers $(VENV)/models $(VENV)/toys: $(VENV)/%: $(VENV)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable ".[$*]" torch==2.13.0
	touch $@

$(MINDSPORE)/test: $(SOURCES)
	@echo "Setting up $(MINDSPORE): this takes some minutes, once"
	$(PYTHON) -m venv $(MINDSPORE)
	$(MINDSPORE)/bin/python -m pip install --quiet --editable ".[convert,mindspore]" mindspore==2.10.0 \
		torch==2.13.0 onnxruntime pytest pytest-timeout
	touch $@
