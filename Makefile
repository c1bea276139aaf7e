# Everything a person can do here. CI runs the same targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# The fast tests mostly wait for clocks and processes.
FAST_WORKERS ?= 4
# The cases mostly wait; each worker takes the next one as it comes, those of a minute first.
FAULT_WORKERS ?= 6
FAULTS = $(PYTEST) -q -rs -n $(FAULT_WORKERS) --dist loadgroup tests/faults

.PHONY: help venv lock generate verify lint format test test-fast test-properties test-controlplane test-e2e test-faults reliability demo control-plane bench bench-objects bench-profile bench-smoke bench-balance bench-isolation clean

help: ## list what can be done here
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## make .venv with the project and all its tools

$(STAMP): requirements-dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(BENCH_STAMP): requirements-bench.txt
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "installing Celery, to measure it, into $(BENCH_VENV)"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

demo: venv ## the whole platform on this machine; DEMO_SECONDS=30 ends by itself, DEMO_CONTEXT=name uses your cluster
	@$(BIN)/python -m demo

control-plane: venv ## ready kube-apiserver, etcd, kubectl and redis-server; prints their directory
	@$(BIN)/python -m devcluster binaries

test: lint verify test-fast test-controlplane test-e2e test-faults ## everything

test-fast: venv ## unit and component tests
	$(PYTEST) -q -rs -n $(FAST_WORKERS) tests/unit tests/component

test-properties: venv ## hunt for interleavings of faults that break the router; PROPERTY_EXAMPLES=20000 hunts longer
	PROPERTY_EXAMPLES=$(or $(PROPERTY_EXAMPLES),2000) $(PYTEST) -q tests/unit/test_router_properties.py

test-controlplane: venv ## tests that need a real kube-apiserver
	@$(BIN)/python -m devcluster binaries
	$(PYTEST) -q -rs -n $(WORKERS) --dist loadfile tests/controlplane

test-e2e: venv ## build the image and run it, where a container engine can run
	$(PYTEST) -q -rs tests/e2e

test-faults: venv ## every fault that one machine can make, under load; FAULT_WORKERS=6 cases at once
	@$(BIN)/python -m devcluster binaries
	$(FAULTS)

reliability: venv ## run the faults, and write docs/reliability.md from the run
	@$(BIN)/python -m devcluster binaries
	$(FAULTS) --reliability docs/reliability.md

bench-isolation: venv ## what a misbehaving object does to another one in the same operator
	@$(BIN)/python -m bench.isolation main

bench-balance: venv ## how the strategies share the work; writes docs/balance.md
	@$(BIN)/python -m bench.balance

bench: venv $(BENCH_STAMP) ## the router beside Celery, the legacy loop and the bare client, and all its costs: docs/performance.md
	@$(BIN)/python -m bench

bench-objects: venv ## 50 to 500 QueueWorkers in one operator, on a real kube-apiserver: docs/performance.md
	@$(BIN)/python -m devcluster binaries
	@$(BIN)/python -m bench objects

bench-profile: venv $(BENCH_STAMP) ## where the router's time goes under full load, by py-spy: docs/performance.md
	@$(BIN)/python -m bench profile

bench-smoke: venv $(BENCH_STAMP) ## a second of each part of the bench: fails when a contender does not work or loses tasks
	@$(BIN)/python -m bench --smoke

lint: venv ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: venv ## write the files that are made from the models: CRD, reference, environment table
	@$(BIN)/python -m queueworker.resource.generate
	@$(BIN)/python -m queueworker.processes.environment_reference

verify: venv ## fail when a generated file is out of date
	@$(BIN)/python -m queueworker.resource.generate --check
	@$(BIN)/python -m queueworker.processes.environment_reference --check

format: venv ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: venv ## pin the dependencies again, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --group dev -o requirements-dev.txt
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --group bench -o requirements-bench.txt

clean: ## remove both environments and every cache in this folder (the binaries under ~/.cache/queueworker stay)
	rm -rf $(VENV) $(BENCH_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
