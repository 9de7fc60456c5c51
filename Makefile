# Everything runs in .venv, which each target makes and fills by itself. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
# Options of `make bench`: say BENCH="clustering --out clustering.md", or BENCH=--quick to see whether it runs.
BENCH ?=
BIN := $(VENV)/bin
# What a change of makes the extension or its dependencies stale.
SOURCES := pyproject.toml Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name Cargo.toml)

.PHONY: help demo test neon asan fuzz fuzz-asan lint format wheel bench backends clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/demo.stamp  ## the whole journey on a made-up pool and a tiny model (minutes, CPU)
	$(BIN)/lossift demo --out lossift-demo
	@echo; echo "The command is $(BIN)/lossift; 'source $(BIN)/activate' puts it on your PATH."

test: $(VENV)/test.stamp  ## all tests, Rust and Python
	cargo test --locked --release --package lossift-core
	$(BIN)/pytest

neon:  ## NEON kernels and whole selections on an emulated ARM, bit for bit
	.ci/neon

asan:  ## the core's tests under AddressSanitizer
	.ci/asan

# How long to fuzz, and from which seed; a new one unless it is given.
MINUTES ?= 30
SEED ?=
FUZZ := --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/test.stamp  ## random calls of the extension for MINUTES=30, with SEED=...
	$(BIN)/python tests/fuzz_door.py $(FUZZ)

fuzz-asan: $(VENV)/test.stamp  ## the same under AddressSanitizer
	PYTHON=$(BIN)/python .ci/fuzz-asan $(FUZZ)

lint: $(VENV)/test.stamp  ## formatting, lints, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/stubtest lossift._native
	cargo fmt --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --locked --workspace --all-targets -- -D warnings

format: $(VENV)/test.stamp  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt

wheel: $(VENV)/test.stamp  ## build the abi3 wheel into dist/
	$(BIN)/maturin build --release --locked --out dist

bench: $(VENV)/bench.stamp  ## time it all beside other libraries, into bench.md (half an hour, answers checked first)
	$(BIN)/python benches $(BENCH)

backends: $(VENV)/test.stamp  ## which SIMD backends this CPU runs
	@$(BIN)/python -c "from lossift import _native as n; print('SIMD backends:', ', '.join(n.simd_available()), '- in use:', n.simd())"

clean:  ## remove what was built (not .venv)
	rm -rf target dist lossift-demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/maturin: $(BIN)/python
	$(BIN)/pip install --quiet 'maturin>=1.10,<2'

# The sets of extras share one environment; each only adds what the one before lacks.
$(VENV)/demo.stamp: EXTRAS := score
$(VENV)/test.stamp: EXTRAS := score,dev
$(VENV)/bench.stamp: EXTRAS := score,dev,bench
$(VENV)/demo.stamp $(VENV)/test.stamp $(VENV)/bench.stamp: $(SOURCES) | $(BIN)/maturin
	source $(BIN)/activate && maturin develop --release --locked --extras $(EXTRAS)
	touch $@
